"""Plots of published accuracy against cost (the paper's Fig. 5) and against measured latency.

Pictures are reproducible: the same registry and the same matplotlib give the same bytes.
"""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from tsmzoo.benchmarking.run import interpreted
from tsmzoo.callbacks import Notify, silent
from tsmzoo.errors import DataError
from tsmzoo.registry import FAMILIES, Entry, Registry, recipes
from tsmzoo.system import files
from tsmzoo.system.quiet import quiet
from tsmzoo.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

#: Least number of labeled models of a dataset that gets a picture.
ENOUGH = 4
#: Okabe and Ito's colors, which remain distinct for every kind of color blindness.
_COLORS = {"tsn": "#0072B2", "tsm": "#D55E00", "i3d": "#009E73", "x3d": "#CC79A7", "movinet": "#E69F00"}
_OTHERS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DATASETS = {
    "kinetics400": "Kinetics-400",
    "somethingv1": "Something-Something V1",
    "somethingv2": "Something-Something V2",
    "jester": "Jester",
}
_BACKBONES = {
    "resnet18": "R18",
    "resnet50": "R50",
    "resnet101": "R101",
    "resnext101_32x4d": "X101",
    "mobilenet_v2": "MBv2",
    "mobileone_s4": "MobileOne",
    "bninception": "BN-Inc.",
    "densenet161": "D161",
    "inception_v1_i3d": "Inc. v1",
    "resnet50_i3d": "R50",
    "resnet50_i3d_8x8": "R50 8x8",
    "resnet50_i3d_heavy": "R50 heavy",
    "resnet50_i3d_3x3x3": "R50 3x3x3",
    "resnet50_i3d_replace": "R50 replaced",
    **{f"movinet_{size}_{kind}": size.upper() for size in ("a0", "a1", "a2") for kind in ("base", "stream")},
    **{name: "" for name in ("x3d", "x3d_xs_windowed", "x3d_s_windowed", "x3d_m_windowed")},
    **{name: "L" for name in ("x3d_l", "x3d_l_windowed")},
}
#: Area of the largest bubble of a picture, in square points.
_LARGEST = 260.0
#: Candidate places of a label: directions from its bubble, tried at growing distances (points).
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_DISTANCES = (3, 9, 16, 24, 34, 46, 60)

#: Most characters of a name in a picture.
_NAME = 60

#: Label of the axis of cost; other axes are of latency.
_COST = "GMACs a clip (one view)"


@dataclass(frozen=True)
class Point:
    """A bubble: its position, its group (color), its size, and its label if it has one."""

    x: float
    top1: float
    group: str
    mparams: float
    label: str | None
    #: The id of the protocol that gave the accuracy.
    protocol: str


@contextmanager
def drawing() -> Iterator[None]:
    """Use matplotlib with its default settings, not the user's, and without its warnings (such as missing glyphs).

    Raises DataError if matplotlib cannot be imported.
    """
    chosen = os.environ.pop("MPLBACKEND", None)  # nothing is shown here, and an unknown backend breaks the import
    with quiet():
        try:
            import matplotlib
        except ModuleNotFoundError:
            raise DataError("pictures need matplotlib, which is not installed: pip install 'tsmzoo[plots]'") from None
        except OSError as error:
            raise DataError(f"matplotlib: {error}") from None
        finally:
            if chosen is not None:
                os.environ["MPLBACKEND"] = chosen
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            yield


def by_cost(zoo: Registry, dataset: str) -> list[Point]:
    """Return the offline RGB models of `dataset` by GMACs per clip; recommended ones have labels.

    Accuracies without a stated protocol are left out.
    """
    chosen = [e for e in zoo.models if (e.dataset, e.mode, e.modality) == (dataset, "offline", "rgb")]
    return [
        Point(e.gmacs, figure[0], e.family, e.mparams, title(e) if e.recommended else None, figure[1])
        for e in chosen
        if (figure := _figure(e)) and 0 < e.gmacs < float("inf")  # on a logarithmic axis
    ]


def by_latency(zoo: Registry, rows: Iterable[LatencyRow]) -> dict[tuple[str, str], list[Point]]:
    """Return rows of `bench --json` as points by milliseconds, grouped by dataset and by `clip` or `frame`.

    Left out are models that the registry lacks or whose accuracy has no protocol, inputs of another size or T than the
    published accuracy's, and times of tsmzoo's own interpreter.
    """
    found: dict[tuple[str, str], list[Point]] = {}
    for row in rows:
        entry = zoo.by_id.get(row.model)
        if entry is None or not (figure := _figure(entry)):
            continue
        if interpreted(row.runtime) or prod(row.input_shape) != _values(entry):
            continue
        group, threads = row.runtime.rsplit(" ", 1)[0], row.threads
        if threads is not None:  # Core ML takes as many as it likes
            group += f", {threads} thread{'s' if threads > 1 else ''}"
        point = Point(
            row.median_ms,
            figure[0],
            group,
            entry.mparams,
            f"{title(entry)} {one_line(row.precision, 8)}",
            figure[1],
        )
        found.setdefault((entry.dataset, row.per), []).append(point)
    return found


def _values(entry: Entry) -> int:
    """Return the number of values in a clip, or in a frame of an online model, whatever the order of axes."""
    return entry.channels * entry.size**2 * (1 if entry.mode == "online" else entry.frames)


def _figure(entry: Entry) -> tuple[float, str] | None:
    result = entry.headline
    if result is None or result.top1 is None or result.protocol is None or not 0 <= result.top1 <= 100:
        return None
    return result.top1, result.protocol


def title(entry: Entry) -> str:
    """Return the label of a model."""
    words = [FAMILIES[entry.family], *_BACKBONES[entry.backbone].split()]
    words += ["NL"] if entry.non_local else []
    words += ["online" if entry.mode == "online" else f"{entry.frames}f"]
    return " ".join(words)


class LatencyRow(msgspec.Struct, frozen=True):
    """The keys of a row of `bench --json` that a picture shows; rows of earlier versions have them too."""

    model: str
    runtime: str
    threads: int | None
    precision: str
    input_shape: list[int]
    per: Literal["clip", "frame"]
    median_ms: Annotated[float, msgspec.Meta(ge=1e-6, le=1e9)]


def read(path: Path) -> list[LatencyRow]:
    """Return the rows of a file that `bench --json` printed. Raises DataError."""
    try:
        return msgspec.json.decode(files.read(path), type=list[LatencyRow])
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give what `tsmzoo bench --json` printed") from None
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}: is not what `tsmzoo bench --json` prints ({error}); run it again") from None


def write(zoo: Registry, folder: Path, benched: Sequence[Path] = (), *, note: Notify = silent) -> list[Path]:
    """Draw a picture of each dataset with enough models, as SVG and PNG, and return the files.

    `note` is called with a line about the rows of `benched` that cannot be drawn. Raises DataError if the folder cannot
    be written, a file of `benched` cannot be used, or matplotlib is not installed.
    """
    rows = [row for path in benched for row in read(path)]
    latencies = by_latency(zoo, rows)
    missing = len(rows) - sum(map(len, latencies.values()))
    why = "without a published accuracy at that size and length, or timed by our interpreter"
    if benched and not latencies:
        raise DataError(f"{benched[0]}: nothing in it can be drawn ({why}); bench others")
    if missing:
        note(f"{missing} of {len(rows)} rows are left out ({why})")
    with drawing():
        pass  # fails without matplotlib, before anything is written
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for dataset in sorted({entry.dataset for entry in zoo.models}):
            points = by_cost(zoo, dataset)
            if len({point.label for point in points} - {None}) >= ENOUGH:
                made += _save(draw(points, _name(dataset), _COST), folder / f"accuracy-{_file_name(dataset)}")
        for (dataset, per), points in sorted(latencies.items()):
            drawn = draw(points, _name(dataset), f"milliseconds a {per}, median")
            made += _save(drawn, folder / f"latency-{_file_name(dataset)}-{per}")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
    return made


def _name(dataset: str) -> str:
    return _DATASETS.get(dataset, one_line(dataset, _NAME))


def _file_name(dataset: str) -> str:
    """Return a dataset's name as part of a file name: a registry may call it anything."""
    return re.sub(r"[^\w.-]", "_", dataset, flags=re.ASCII)[:_NAME]


@drawing()
def _save(figure: Figure, stem: Path) -> list[Path]:
    import matplotlib

    options: dict[str, Any] = {
        ".svg": {"metadata": {"Date": None, "Creator": None}},
        ".png": {"metadata": {"Software": None}, "dpi": 150},
    }
    made = []
    for suffix, how in options.items():
        content = io.BytesIO()
        # Ids from a fixed salt, no date and no version: the same picture is the same file.
        with matplotlib.rc_context({"svg.hashsalt": "tsmzoo"}):
            figure.savefig(content, format=suffix[1:], **how)
        made.append(stem.with_name(stem.name + suffix))
        files.write(made[-1], content.getvalue())
    return made


@drawing()
def draw(points: Sequence[Point], name: str, across: str) -> Figure:
    """Draw `points`: top-1 over a logarithmic axis, the area of a bubble proportional to the parameters."""
    from matplotlib.figure import Figure

    # The most common protocol is `a`.
    letters = {p: chr(97 + n) for n, (p, _) in enumerate(Counter(q.protocol for q in points if q.label).most_common())}
    figure = Figure(figsize=(9, 6.0 + 0.17 * (len(letters) + 1)), layout=None)
    bottom = (0.6 + 0.17 * (len(letters) + 1)) / figure.get_figheight()
    axes = figure.add_axes((0.08, bottom, 0.895, 0.93 - bottom))
    groups = sorted({point.group for point in points}, key=lambda group: ([*_COLORS, group].index(group), group))
    colors = {group: _COLORS.get(group, _OTHERS[n % len(_OTHERS)]) for n, group in enumerate(groups)}
    area = _LARGEST / max(point.mparams for point in points)
    # Large ones first, so that none hides another.
    for point in sorted(points, key=lambda point: (point.label is not None, -point.mparams)):
        axes.scatter(
            point.x,
            point.top1,
            s=area * point.mparams,
            color=colors[point.group],
            alpha=0.65 if point.label else 0.12,
            linewidths=0.8,
            edgecolors="white" if point.label else "none",
            zorder=3 if point.label else 2,
        )
    _scale(axes, points)
    axes.set_xlabel(across)
    axes.set_ylabel("top-1, %, as published")
    axes.set_title(name, loc="left", fontsize=12, parse_math=False)
    _legend(axes, points, colors, area)
    place(axes, [point for point in points if point.label], letters, area)
    notes = ["Accuracies under different protocols do not compare."] if len(letters) > 1 else []
    if across != _COST:
        notes.append("Accuracy is the checkpoint's, in float: what a file loses in fewer bits is not drawn.")
    if any(point.label is None for point in points):
        notes.append("Faint: other checkpoints of the zoo, each under its own protocol.")
    lines = [f"{letter}  {recipes.protocol(protocol).text('T')}" for protocol, letter in letters.items()]
    lines += [" ".join(notes)] if notes else []
    figure.text(0.015, 0.008, "\n".join(lines), fontsize=7, color="#444444", va="bottom", linespacing=1.45)
    return figure


def _scale(axes: Axes, points: Sequence[Point]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    least, most = min(point.x for point in points), max(point.x for point in points)
    axes.set_xscale("log")
    margin = max(1.25, (most / least) ** 0.14)
    axes.set_xlim(least / margin, most * margin)
    low, high = min(point.top1 for point in points), max(point.top1 for point in points)
    room = max(1.0, 0.1 * (high - low))
    axes.set_ylim(low - room, high + room)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    # Whole numbers, and none above 100.
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value <= 100 else ""))
    axes.grid(color="#e4e4e4", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(axes: Axes, points: Sequence[Point], colors: dict[str, str], area: float) -> None:
    handles = [
        axes.scatter(
            [],
            [],
            s=60,
            color=colour,
            alpha=0.65,
            label=FAMILIES[group] if group in FAMILIES else one_line(group, _NAME),
        )
        for group, colour in colors.items()
    ]
    sizes = sorted({min(p.mparams for p in points), max(p.mparams for p in points)})
    handles += [
        axes.scatter([], [], s=area * size, color="#999999", alpha=0.5, label=f"{size:.3g} M parameters")
        for size in sizes
    ]
    legend = axes.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1.01, 1.0), ncols=5, fontsize=8, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def place(axes: Axes, points: Sequence[Point], letters: dict[str, str], area: float) -> list[Bbox]:
    """Write each label beside its bubble, and return their boxes, in pixels, from left to right.

    `area` is that of a bubble of a million parameters, in square points. A label takes the first place around its
    bubble that covers no other label and no labeled bubble, else the one that covers least. A line connects it with the
    bubble if they are apart.
    """
    from math import pi, sqrt

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw_without_rendering()
    pixel = figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    centres = [tuple(axes.transData.transform((point.x, point.top1))) for point in points]
    radii = [sqrt(area * point.mparams / pi) * pixel for point in points]
    # Squares somewhat smaller than the circles, whose corners are empty.
    bubbles = [
        Bbox.from_extents(x - 0.8 * r, y - 0.8 * r, x + 0.8 * r, y + 0.8 * r)
        for (x, y), r in zip(centres, radii, strict=True)
    ]
    boxes: list[Bbox] = []
    for index in sorted(range(len(points)), key=lambda index: (centres[index][0], -centres[index][1])):
        point, (x, y), radius = points[index], centres[index], radii[index]
        text = axes.annotate(
            f"{_no_formula(point.label or '')}$^{{\\mathrm{{\\,{letters[point.protocol]}}}}}$",
            (point.x, point.top1),
            (0, 0),
            textcoords="offset points",
            fontsize=8,
            color="#222222",
            zorder=5,
        )
        extent = text.get_window_extent(renderer)
        width, height = extent.width, extent.height

        def cost(box: Bbox) -> float:
            """Return the area in square pixels that a label would cover or that would lie outside the axes."""
            covered = sum(_common(box, other) for other in (*boxes, *bubbles))
            return covered + box.width * box.height - _common(box, frame)

        places = []
        for distance in _DISTANCES:
            for right, up in _DIRECTIONS:
                away = (radius + distance * pixel) / sqrt(right**2 + up**2)
                left, low = x + right * away - width * (1 - right) / 2, y + up * away - height * (1 - up) / 2
                places.append((Bbox.from_bounds(left, low, width, height), distance))
        box, distance = next((place for place in places if cost(place[0]) < 1), min(places, key=lambda p: cost(p[0])))
        boxes.append(box)
        text.set_position(((box.x0 - x) / pixel, (box.y0 - y) / pixel))
        if distance > _DISTANCES[1]:
            near = (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))
            ends = axes.transData.inverted().transform([(x, y), near])
            axes.plot(*ends.T, color="#999999", linewidth=0.6, zorder=4)
    return boxes


def _no_formula(text: str) -> str:
    """Escape `text`, so that matplotlib takes no part of it for a formula."""
    return text.replace("$", r"\$")


def _common(one: Bbox, other: Bbox) -> float:
    """Return the area, in square pixels, that two boxes share."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(0.0, width) * max(0.0, height))
