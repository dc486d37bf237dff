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
    load,
    names,
    numbers,
    own_checkpoint,
    place,
    with_model_of,
)
from tsmzoo.errors import ZooError


@app.command("eval")
def eval_(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|FILE…",
            help="A model's id, an exported file, or predictions that were saved; several add up.",
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The dataset as it was published, or lists of your own.", **place)
    ] = None,
    list_file: ListFile = None,
    layout: LayoutName = None,
    split: Split = 1,
    images: Images = None,
    protocol: Annotated[
        str | None, typer.Option(help="An id or short name, else that of the first published figure.")
    ] = None,
    clips: Annotated[
        int | None, typer.Option(help="Clips a video, in place of the protocol's.", min=1, max=1000)
    ] = None,
    crops: Annotated[Literal["1", "3", "5", "10"] | None, typer.Option(help="In place of the protocol's.")] = None,
    frames: Frames = None,
    observe: Annotated[
        str | None, typer.Option(metavar="P,P…", help="Percents of each video after which to score, too.")
    ] = None,
    weights_of_scores: Annotated[
        str | None, typer.Option(metavar="W,W…", help="Factors of the scores of several models; 1 each without.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Keep predictions; a stopped run goes on from there.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with the confusion matrix.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a video that cannot be decoded.")] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes; one a core without, 0 for this one.", min=0, max=256)
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
    """Measure accuracy over labelled videos under a published protocol, beside the published figure."""
    levels, factors = numbers("--observe", observe), numbers("--weights-of-scores", weights_of_scores)
    if not all(level.is_integer() and 1 <= level <= 100 for level in levels):
        raise typer.BadParameter(f"{observe!r} must be whole percents, 1…100", param_hint="--observe")
    from contextlib import ExitStack

    from tsmzoo.data import layouts
    from tsmzoo.evaluation import evaluate, report, scoring
    from tsmzoo.evaluation.evaluate import Settings
    from tsmzoo.evaluation.html import check, write
    from tsmzoo.evaluation.protocol import Changes
    from tsmzoo.formats import is_artifact
    from tsmzoo.inference.reference import ModelReference
    from tsmzoo.system import processes

    live = [model for model in models if not evaluate.is_saved(model)]
    if live and data is None:
        raise typer.BadParameter("give the folder of the data with --data")
    options: dict[str, object] = {"--data": data, "--list": list_file, "--format": layout, "--images": images}
    options |= {"--protocol": protocol, "--clips": clips, "--crops": crops, "--frames": frames, "--observe": observe}
    options |= {"--predictions": predictions, "--weights": weights, "--weights-format": weights_format}
    options |= {"--classes": classes, "--labels": labels, "--shift": shift}
    options["--allow-shift-mismatch"] = allow_shift_mismatch or None
    given = [name for name, value in options.items() if value is not None]
    if not live and given:
        raise typer.BadParameter(f"saved predictions are scored as they are; leave out {' and '.join(given)}")
    if factors and len(factors) != len(models):
        raise typer.BadParameter(f"{len(models)} models need as many --weights-of-scores")
    if len(live) > 1 and (weights not in (None, "random") or classes or labels or shift):
        raise typer.BadParameter("one checkpoint is not that of several models; predict one by one with --predictions")
    if not all(map(is_artifact, live)):
        own_checkpoint(weights, classes, labels, shift)
    elif live and weights is not None:
        raise ZooError(f"{live[0]} holds its own weights; leave out --weights, or give a model's id")
    if html is not None:
        check(html)
    zoo, first = load(registry_file), processes.is_first()
    zoos = [
        with_model_of(zoo, Path(model), registry_file, first=first) if is_artifact(model) else zoo for model in models
    ]
    settings = Settings(
        protocol=protocol,
        changes=Changes(clips=clips, crops=int(crops) if crops else None, frames=frames),  # type: ignore[arg-type]
        observe=tuple(sorted({int(level) for level in levels} - {100})),  # the whole is scored anyway
        strict=strict,
        workers=workers,
        registries=(registry_file,) if registry_file else (),  # exported files need none to be run
    )
    with ExitStack() as stack:
        listed = layouts.read(data, list_file, layout, split, images=images) if data is not None and live else None
        if first and listed is not None:
            for line in layouts.notes(listed):
                terminal.note(line)
        places = evaluate.places(models, predictions, stack)
        speed = None
        progress = stack.enter_context(terminal.videos_bar(show=first))
        for number, (model, path) in enumerate(zip(models, places, strict=True)):
            if listed is not None and model in live:
                subject = ModelReference(
                    model, weights, seed, weights_format, shift, allow_shift_mismatch, classes, names(labels, classes)
                )
                zoos[number] = subject.adapted(zoos[number])
                notify = terminal.note if first else terminal.silent
                try:
                    speed = evaluate.evaluate(
                        zoos[number], subject, listed, settings, path, progress=progress, notify=notify
                    )
                except KeyboardInterrupt:
                    kept = f"; run it again to go on from {path}" if predictions else "; --predictions FILE keeps them"
                    notify(f"stopped before the last video{kept}")
                    raise
        if not first:
            return
        found = scoring.score(places, factors)
        if strict and found.skipped:
            video, why = found.skipped[0]
            raise ZooError(
                f"--strict: {video} was skipped before ({why}); mend it and delete {found.skipping} to try again"
            )
        result = report.summary(zoos, found, speed, listed.left_out if listed else ())
    if html is not None:
        write(html, result, found)  # first: nobody may be there to read the rest
    if json:
        terminal.print_json(result)
    else:
        terminal.say(report.text(result))
