"""Generated tables of the documentation: `make docs` has cog call these, `make check` compares."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, get_args
from urllib.parse import urlsplit

from tsmzoo import registry
from tsmzoo.registry import FAMILIES, recipes
from tsmzoo.registry.schema import Family
from tsmzoo.weights.cache import Pin, pin

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tsmzoo.registry import Entry

ROOT = Path(__file__).resolve().parents[1]
ZOO = registry.load()


def table(head: str, rows: Iterable[Sequence[object]], align: str = "") -> str:
    """Return a Markdown table; `align` has an `r` for each column of numbers."""
    names = head.split("|")
    marks = ["--:" if mark == "r" else "---" for mark in align.ljust(len(names))]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in [[name.strip() for name in names], marks, *rows])


def motion() -> str:
    """The three bundled models."""
    return table(
        "model | shift | multiply-accumulates per clip | parameters | top-1",
        (
            (
                f"`{e.id}`",
                e.shift or "none",
                f"{round(e.gmacs * 8 / e.frames * 1e9):,}",
                f"{e.params:,}",
                f"{e.headline.top1:.1f} %",
            )
            for e in ZOO.models
            if e.dataset == "motion"
        ),
        "  rrr",
    )


def families() -> str:
    """A row per family and backbone, with its most accurate checkpoint."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for e in ZOO.models:
        if e.source != "tsmzoo":
            groups.setdefault((e.family, e.backbone), []).append(e)
    rows = []
    for (family, backbone), entries in sorted(groups.items(), key=lambda g: (get_args(Family).index(g[0][0]), g[0][1])):
        best = max(entries, key=_rank)
        sizes = sorted({round(e.mparams, 1) for e in entries})
        rows.append(
            (
                FAMILIES[family],
                backbone,
                sum(e.has_weights for e in entries),
                f"{sizes[0]:.1f}" if len(sizes) == 1 else f"{sizes[0]:.1f}…{sizes[-1]:.1f}",
                f"`{best.id}`",
                best.dataset,
                best.frames,
                f"{best.gmacs:.2f}",
                _accuracy(best),
                ", ".join(sorted({e.format for e in entries if e.has_weights})) or "–",
            )
        )
    head = "family | backbone | checkpoints | Mparams | most accurate | dataset | frames | GMACs | top-1 | formats"
    bare = [f"`{e.id}`" for e in ZOO.models if not e.has_weights]
    count = sum(bool(e.urls) for e in ZOO.models)
    return (
        f"{table(head, rows, '  rr  rrr')}\n\n"
        f"{count} published checkpoints, and {len(bare)} architectures of papers without weights: {', '.join(bare)}."
    )


def _rank(e: Entry) -> tuple[object, ...]:
    h = e.headline
    return h is not None and e.dataset == "kinetics400", (h and (h.top1 or h.map)) or 0, e.recommended, e.has_weights


def _accuracy(e: Entry) -> str:
    h = e.headline
    if h is None:
        return "–"
    return f"{h.top1:.1f}" if h.top1 else f"{h.map:.1f} mAP" if h.map else "–"


def recommended() -> str:
    """What `tsmzoo list` shows."""
    rows = (
        (
            f"`{e.id}`",
            ", ".join(f"`{name}`" for name in ZOO.names(e)),
            f"{e.dataset}{' (flow)' if e.modality == 'flow' else ''}",
            e.frames,
            f"{e.gmacs:.2f}",
            f"{e.mparams:.2f}",
            "–" if e.headline is None or e.headline.top1 is None else f"{e.headline.top1:.1f}",
            (e.headline and e.headline.protocol) or "–",
        )
        for e in ZOO.models
        if e.recommended
    )
    doubtful = sum(bool(e.doubt) for e in ZOO.models)
    return (
        f"{table('id | alias | dataset | frames | GMACs | Mparams | top-1 | protocol', rows, '   rrrr')}\n\n"
        f"{len(ZOO.models)} entries in all; {doubtful} of them have caveats, which `tsmzoo info` states."
    )


def places() -> str:
    """In how many places the checkpoints of each publisher can be had and what they are held to; recommended ones."""
    groups: dict[str, list[Entry]] = {}
    for e in ZOO.models:
        if e.urls:
            groups.setdefault(e.source, []).append(e)
    rows = []
    for source, entries in groups.items():
        pins = Counter(_pin(e) for e in entries)
        numbers = [_range(len(_places(e, tested=tested)) for e in entries) for tested in (True, False)]
        rows.append((ZOO.sources[source].name, len(entries), *numbers, *(pins[pin] or "–" for pin in _PINS)))
    head = f"publisher | files | places | with untested ones | {' | '.join(f'`{pin}`' for pin in _PINS)}"
    recommended: dict[str, list[str]] = {"two or more": [], "one, and perhaps a second": [], "one": []}
    for e in ZOO.models:
        if e.recommended and e.urls:
            known, likely = (len(_places(e, tested=tested)) > 1 for tested in (True, False))
            key = "two or more" if known else "one, and perhaps a second" if likely else "one"
            recommended[key].append(f"`{e.id}`")
    by_places = ((key, len(ids), ", ".join(ids)) for key, ids in recommended.items())
    return f"{table(head, rows, ' rrrrrrr')}\n\n{table('places | recommended models | which', by_places, ' r')}"


#: Grades of pins that are the same on every machine.
_PINS: tuple[Pin, ...] = ("sha256", "git_blob", "prefix", "none")


def _pin(e: Entry) -> Pin:
    return found if (found := pin(e)) in _PINS else "none"


def _places(e: Entry, *, tested: bool) -> set[str]:
    """Return who serves the file of `e`: domains, with the user on GitHub; without untested addresses if `tested`."""
    urls = [urlsplit(address.url) for address in ZOO.addresses(e) if address.tested or not tested]
    hosts = [(str(url.hostname), url.path.split("/")[1]) for url in urls]
    return {host + user if "github" in host else host.split(".", host.count(".") - 1)[-1] for host, user in hosts}


def _range(numbers: Iterable[int]) -> str:
    low, *_, high = sorted([*numbers] * 2)
    return str(low) if low == high else f"{low}…{high}"


def protocols() -> str:
    """The protocols that have a short name."""
    paths = sorted((recipes.RECIPES / "eval").glob("*.yaml"))
    known = [(path.stem, recipes.protocol(path.stem)) for path in paths]
    rows = ((f"`{p.short}`", f"`{name}`", p.text("T")) for name, p in known if p.short)
    return (
        f"{table('short name | id | what it does (T: the frames of the model)', rows)}\n\n"
        f"{len(known)} in all: one for every published figure that states how it was measured "
        "(`recipes/eval/`, `tsmzoo info MODEL`)."
    )


def measured(section: str, only: str = "") -> str:
    """The first table of a section of BENCHMARKS.md; of its rows those that hold `only`."""
    text = (ROOT / "BENCHMARKS.md").read_text("utf-8").split(f"<!-- {section} -->")[1].split("<!-- end -->")[0]
    head, marks, *rows = next(block for block in text.split("\n\n") if block.startswith("|")).splitlines()
    return "\n".join([head, marks, *(row for row in rows if only in row)])


def rivals(per: str) -> str:
    """The models that see a `frame` or a `clip` a pass: what is published of each, and what `make bench` measured."""
    head, _, *lines = measured("rivals", f"| {per} |").splitlines()
    names = _cells(head)
    rows = []
    for line in lines:
        row = dict(zip(names, _cells(line), strict=True))
        e = ZOO.find(row["model"].strip("`"))
        h = e.headline
        rows.append(
            (
                f"`{e.id}`",
                e.dataset,
                _accuracy(e),
                (h and h.protocol) or "–",
                f"{e.gmacs:.2f}",
                row["time, fp32 (starts)"].split()[0],
                row["time, int8 (starts)"].split()[0],
                row["ms, fp32"],
                row["ms, int8"],
                *([row["state kB"]] if per == "frame" else []),
                row["MB, fp32"],
                row["MB, int8"],
                row["peak MB, fp32"],
                row["formats"],
                e.licence.split(" (")[0],
            )
        )
    states = "state kB | " if per == "frame" else ""
    return table(
        f"model | dataset | top-1 | protocol | GMACs | time, fp32 | time, int8 | ms | ms, int8 | {states}MB | "
        "MB, int8 | peak MB | formats | license of the weights",
        rows,
        "  r rrrrr" + "r" * bool(states) + "rrr",
    )


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]
