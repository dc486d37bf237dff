"""One self-contained page about an evaluation: figures, confusion matrix, early recognition, environment."""

from __future__ import annotations

import base64
import html
import io
import os
import platform
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tsmzoo import __version__
from tsmzoo.benchmark.plots import drawing
from tsmzoo.errors import DataError
from tsmzoo.evaluation.metrics import Tally
from tsmzoo.evaluation.report import Scored
from tsmzoo.system import files
from tsmzoo.text import one_line

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .25em .8em .25em 0; text-align: left;
vertical-align: top; border-bottom: 1px solid #ddd } td.n { text-align: right } img { max-width: 100% }
.big { font-size: 2.2em } code { background: #f3f3f3; padding: 0 .2em }
"""
#: Classes up to which the matrix names them.
_NAMED = 40
#: Characters of a name there.
_LABEL = 40


def check(path: Path) -> None:
    """Raise DataError where a page cannot be written to `path`, before hours of scoring."""
    if not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK) or path.is_dir():
        raise DataError(f"{path}: cannot be written; give a file in a folder that is there with --html")


def write(path: Path, document: dict[str, Any], scored: Scored) -> None:
    """Write the page of what `eval` found. Raises DataError where `path` cannot be written."""
    text = render(document, scored)
    try:
        files.write(path, text)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); give another file with --html") from None


@drawing()
def render(document: dict[str, Any], scored: Scored) -> str:
    """Return the page; pictures stand inside it, and it asks no server for anything."""
    d = document
    title = f"{d['model']} on {d['dataset']}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f"<p class=big>top-1 {d['top1']:.2f} %</p>",
        f"<p>95 % interval {d['ci95'][0]:.2f}…{d['ci95'][1]:.2f}; top-5 {d['top5']:.2f} %; mean of classes "
        f"{d['mean_class']:.2f} %; {d['videos']} videos, {d['skipped']} skipped.</p>",
    ]
    if d["published"]:
        verdicts = {True: "inside the interval", False: "outside the interval", None: "another protocol"}
        rows = [[row["top1"], row["protocol"], verdicts[row["inside"]], row["source"]] for row in d["published"]]
        parts += ["<h2>Published</h2>", _table(["top-1", "protocol", "this figure", "source"], rows)]
    if d["differences"]:
        parts += ["<h2>What differs</h2>", "<ul>", *(f"<li>{_text(line)}</li>" for line in d["differences"]), "</ul>"]
    if d["observed"]:
        parts += ["<h2>Early recognition</h2>", _curve(d["observed"])]
    parts += ["<h2>Confusion</h2>", _matrix(scored.tally, scored.headers[0].classes)]
    names = [[row["class"], row["taken_for"], row["videos"]] for row in d["confusions"]]
    parts += [_table(["class", "taken for", "videos"], names)] if names else []
    worst = [[row["class"], f"{row['top1']:.2f} %", row["videos"]] for row in d["worst_classes"]]
    parts += ["<h2>Worst classes</h2>", _table(["class", "top-1", "videos"], worst)]
    if d["skipped_videos"]:
        skipped = [[row["video"], row["why"]] for row in d["skipped_videos"]]
        parts += ["<h2>Skipped</h2>", _table(["video", "why"], skipped)]
    facts = [[key, value] for header in scored.headers for key, value in _facts(msgspec.to_builtins(header)).items()]
    facts += [["tsmzoo", __version__], ["Python", platform.python_version()], ["system", platform.platform()]]
    parts += ["<h2>How it was measured</h2>", _table(["", ""], facts)]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(title)}</title><style>{_STYLE}</style>"
    return f"{head}\n{chr(10).join(parts)}\n</html>\n"


def _facts(header: dict[str, Any]) -> dict[str, Any]:
    del header["classes"]
    followed = header.pop("plan")
    return header | {f"plan: {key}": value for key, value in followed.items()}


def _table(heads: list[str], rows: list[list[Any]]) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in heads)
    cells = ["".join(f"<td{' class=n' * isinstance(c, int | float)}>{_text(c)}</td>" for c in row) for row in rows]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(value: Any) -> str:
    return html.escape("–" if value is None else one_line(str(value)))


def _curve(observed: list[dict[str, Any]]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["percent"] for row in observed], [row["top1"] for row in observed], marker="o")
    axes.set(xlabel="% of the video observed", ylabel="top-1, %", xlim=(0, 102), ylim=(0, 102))
    axes.grid(alpha=0.3)
    return _image(figure, "top-1 against how much of each video was observed")


def _matrix(tally: Tally, names: tuple[str, ...] | None) -> str:
    from matplotlib.figure import Figure

    classes = sorted(set(tally.labels) | set(tally.answers))
    place = {label: index for index, label in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)))
    for label, answer in zip(tally.labels, tally.answers, strict=True):
        counts[place[label], place[answer]] += 1
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(12.0, 4 + 0.2 * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the class' videos")
    axes.set(xlabel="answered", ylabel="class")
    if len(classes) <= _NAMED:
        # Other alphabets are not in the font that comes with matplotlib.
        drawable = names is not None and all(names[label].isascii() for label in classes)
        said = [one_line(names[label], _LABEL) if names and drawable else str(label) for label in classes]
        axes.set_xticks(range(len(classes)), said, rotation=90, parse_math=False)
        axes.set_yticks(range(len(classes)), said, parse_math=False)
    return _image(figure, "how often each class was answered for each class")


def _image(figure: Any, alt: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<img alt="{_text(alt)}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
