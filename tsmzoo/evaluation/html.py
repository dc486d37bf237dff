"""Write an evaluation as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tsmzoo import __version__
from tsmzoo.benchmarking.plots import drawing
from tsmzoo.errors import DataError
from tsmzoo.evaluation.metrics import Tally
from tsmzoo.evaluation.report import EvaluationResult, ObservedAccuracy
from tsmzoo.evaluation.scoring import Scored
from tsmzoo.system import files
from tsmzoo.text import one_line

#: Most classes that the confusion matrix names.
_NAMED = 40
#: Most characters of a name in it.
_LABEL = 40


def check(path: Path) -> None:
    """Raise DataError if a page cannot be written to `path` or not be drawn: before hours of scoring."""
    with drawing():
        pass
    if not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK) or path.is_dir():
        raise DataError(f"{path}: cannot be written; give a file in a folder that is there with --html")


def write(path: Path, result: EvaluationResult, scored: Scored) -> None:
    """Write the page of an evaluation. Raises DataError if `path` cannot be written."""
    page = render(result, scored)
    try:
        files.write(path, page)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); give another file with --html") from None


@drawing()
def render(result: EvaluationResult, scored: Scored) -> str:
    """Return the page; pictures stand inside it, and it asks no server for anything."""
    environment = Environment(
        loader=PackageLoader("tsmzoo.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
    )
    facts = [fact for header in scored.headers for fact in _facts(msgspec.to_builtins(header)).items()]
    facts += [("tsmzoo", __version__), ("Python", platform.python_version()), ("system", platform.platform())]
    return environment.get_template("page.html.j2").render(
        r=result,
        curve=_curve(result.observed) if result.observed else None,
        matrix=_matrix(scored.tally, scored.headers[0].classes),
        facts=facts,
    )


def printable(value: Any) -> str:
    """Return a value as the template prints it: text on one line, without control characters; None as a dash."""
    # Markup is what a macro of the template gave; Base64 stands in it.
    return value if isinstance(value, Markup) else "–" if value is None else one_line(str(value))


def _facts(header: dict[str, Any]) -> dict[str, Any]:
    del header["classes"]
    followed = header.pop("plan")
    return header | {f"plan: {key}": value for key, value in followed.items()}


def _curve(observed: Sequence[ObservedAccuracy]) -> Markup:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([row.percent for row in observed], [row.top1 for row in observed], marker="o")
    axes.set(xlabel="% of the video observed", ylabel="top-1, %", xlim=(0, 102), ylim=(0, 102))
    axes.grid(alpha=0.3)
    return _base64(figure)


def _matrix(tally: Tally, names: tuple[str, ...] | None) -> Markup:
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
    return _base64(figure)


def _base64(figure: Any) -> Markup:
    """Return a figure as PNG in Base64, which needs no escape."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return Markup(base64.b64encode(buffer.getvalue()).decode())
