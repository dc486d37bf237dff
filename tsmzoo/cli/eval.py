"""The command `eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import (
    AllowMismatch,
    Classes,
    Frames,
    Images,
    Json,
    Labels,
    LayoutName,
    ListFile,
    RegistryFile,
    Seed,
    Shift,
    Split,
    Weights,
    WeightsFormat,
    numbers,
    place,
    references,
)
from tsmzoo.formats import is_saved


@app.command("eval")
def eval_(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|FILE…",
            help="Model id, exported file, or saved predictions. Scores of several are added.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Dataset folder, in its published layout or with your own lists.", **place),
    ] = None,
    list_file: ListFile = None,
    layout: LayoutName = None,
    split: Split = 1,
    images: Images = None,
    protocol: Annotated[
        str | None, typer.Option(help="Id or short name of the protocol (default: that of the first published figure).")
    ] = None,
    clips: Annotated[
        int | None, typer.Option(help="Clips per video (default: the protocol's).", min=1, max=1000)
    ] = None,
    crops: Annotated[
        Literal["1", "3", "5", "10"] | None, typer.Option(help="Crops per clip (default: the protocol's).")
    ] = None,
    frames: Frames = None,
    observe: Annotated[
        str | None, typer.Option(metavar="P,P…", help="Also score after these percentages of each video.")
    ] = None,
    weights_of_scores: Annotated[
        str | None, typer.Option(metavar="W,W…", help="Weights of the scores of several models (default: 1 each).")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Save predictions; a stopped run resumes from this file.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page with the confusion matrix.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a video that cannot be decoded.")] = False,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes; 0: none (default: one per core).", min=0, max=256)
    ] = None,
    weights: Weights = None,
    seed: Seed = 0,
    weights_format: WeightsFormat = None,
    classes: Classes = None,
    labels: Labels = None,
    shift: Shift = None,
    allow_shift_mismatch: AllowMismatch = False,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Measure accuracy on labeled videos under a published protocol, and compare with the published figure."""
    levels, factors = numbers("--observe", observe), numbers("--weights-of-scores", weights_of_scores)
    if not all(map(float.is_integer, levels)):
        raise typer.BadParameter(f"{observe!r} must be whole percents", param_hint="--observe")
    from tsmzoo import api
    from tsmzoo.evaluation import report
    from tsmzoo.system import processes

    live = [model for model in models if not is_saved(model)] or models
    own = references(
        live,
        labels,
        weights=weights,
        seed=seed,
        weights_format=weights_format,
        classes=classes,
        shift=shift,
        allow_shift_mismatch=allow_shift_mismatch,
    )
    known = dict(zip(live, own, strict=True))
    with terminal.steps_bar(of="videos", show=processes.is_first()) as progress:
        result = api.evaluate(
            [known.get(model, model) for model in models],
            data,
            list_file=list_file,
            layout=layout,
            split=split,
            images=images,
            protocol=protocol,
            clips=clips,
            crops=int(crops) if crops else None,  # type: ignore[arg-type]  # one of those above
            frames=frames,
            observe=[int(level) for level in levels],
            factors=factors,
            predictions=predictions,
            html=html,
            strict=strict,
            workers=workers,
            registry=registry_file,
            progress=progress,
            notify=terminal.note,
        )
    if not processes.is_first():
        return
    if json:
        terminal.print_json(result)
    else:
        terminal.say(report.text(result))
