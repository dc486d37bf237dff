"""The command `bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import (
    AllowMismatch,
    Classes,
    Frames,
    Json,
    Labels,
    RegistryFile,
    Seed,
    Shift,
    Size,
    Weights,
    WeightsFormat,
    references,
)
from tsmzoo.formats import is_artifact
from tsmzoo.text import table


@app.command()
def bench(
    subjects: Annotated[
        list[str],
        typer.Argument(metavar="FILE|MODEL…", help="Exported files, and model ids or aliases, which run in torch."),
    ],
    runs: Annotated[int, typer.Option(help="Number of rounds; in each, all run in turn.", min=1, max=100_000)] = 30,
    threads: Annotated[int, typer.Option(help="Threads of each; Core ML chooses its own number.", min=1, max=256)] = 1,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show the time by operator and node (onnx, tflite, torch).")
    ] = False,
    weights: Weights = None,
    seed: Seed = 0,
    weights_format: WeightsFormat = None,
    classes: Classes = None,
    labels: Labels = None,
    shift: Shift = None,
    allow_shift_mismatch: AllowMismatch = False,
    size: Size = None,
    frames: Frames = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Compare latency and memory of files and models, which run in turns, each in its own process.

    On Linux all run on the same cores, out of those that `taskset` allows, because cores differ.
    Times are per clip of an offline model, and per frame of an online one, with its states fed back; ratios are medians
    over the rounds. --weights, --size and --frames apply to models: a file has its own.
    """
    models = [subject for subject in subjects if not is_artifact(subject)]
    options: dict[str, object] = {"--weights": weights, "--weights-format": weights_format}
    options |= {"--classes": classes, "--labels": labels, "--shift": shift, "--size": size, "--frames": frames}
    options["--allow-shift-mismatch"] = allow_shift_mismatch or None
    given = [name for name, value in options.items() if value is not None]
    if given and not models:
        raise typer.BadParameter(f"files hold their own; leave out {' and '.join(given)}, or name a model")
    from tsmzoo import api
    from tsmzoo.benchmarking import run

    own = references(
        models,
        labels,
        weights=weights,
        seed=seed,
        weights_format=weights_format,
        classes=classes,
        shift=shift,
        allow_shift_mismatch=allow_shift_mismatch,
        frames=frames,
        size=size,
    )
    known = dict(zip(models, own, strict=True))
    with terminal.Display(terminal.steps_bar) as progress:
        rows = api.benchmark(
            [known.get(subject, subject) for subject in subjects],
            runs=runs,
            threads=threads,
            profile=profile,
            registry=registry_file,
            progress=progress,
            notify=terminal.note,
        )
    if json:
        terminal.print_json(rows)
        return
    terminal.say(table(run.COLUMNS, rows))
    terminal.say(run.MEMORY)
    for row in rows if profile else ():
        terminal.say("\n" + "\n\n".join(run.profiles(row)))
