"""Speed and memory: bench."""

from __future__ import annotations

import os
from pathlib import Path
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
    frames_of,
    load,
    names,
    own_checkpoint,
)
from tsmzoo.cli.download import fetch
from tsmzoo.errors import ZooError
from tsmzoo.formats import is_artifact


@app.command()
def bench(
    subjects: Annotated[
        list[str],
        typer.Argument(metavar="FILE|MODEL…", help="Exported files, and ids or aliases of models, which run in torch."),
    ],
    runs: Annotated[int, typer.Option(help="Rounds in which each takes its turn.", min=1, max=100_000)] = 30,
    threads: Annotated[int, typer.Option(help="Threads of each; Core ML takes its own number.", min=1, max=256)] = 1,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time goes, by operator and node (onnx, tflite, torch).")
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
    """Compare latency and memory of files and models, which run in turns, each in a process of its own.

    On Linux all are held to the same cores, of those that `taskset` allows, since cores are not alike.
    Times are of a clip of an offline model, and of a frame of an online one, its states fed back; ratios are medians
    over the rounds. --weights, --size and --frames are for models: a file holds its own.
    """
    models = [subject for subject in subjects if not is_artifact(subject)]
    options: dict[str, object] = {"--weights": weights, "--weights-format": weights_format}
    options |= {"--classes": classes, "--labels": labels, "--shift": shift, "--size": size, "--frames": frames}
    options["--allow-shift-mismatch"] = allow_shift_mismatch or None
    given = [name for name, value in options.items() if value is not None]
    if given and not models:
        raise typer.BadParameter(f"files hold their own; leave out {' and '.join(given)}, or name a model")
    if len(models) > 1 and (weights not in (None, "random") or classes or labels or shift):
        raise typer.BadParameter("one checkpoint is not that of several models; leave out --weights, or give random")
    own_checkpoint(weights, classes, labels, shift)
    zoo = load(registry_file)
    from tsmzoo.benchmark import run

    if threads > (cores := os.cpu_count() or threads):
        terminal.note(f"{threads} threads on {cores} cores wait for each other; take --threads {cores}")
    jobs = []
    for subject in subjects:
        if is_artifact(subject):
            jobs.append(run.Job(subject=subject, threads=threads))
            continue
        if Path(subject).exists():
            raise ZooError(f"{subject}: is neither a model nor a file that export wrote (.onnx, .tflite, .mlpackage)")
        entry = zoo.find(subject)
        if weights is None:
            fetch(entry)  # here, where its progress is seen
        job = run.Job(
            subject=subject,
            threads=threads,
            weights=weights,
            seed=seed,
            weights_format=weights_format,
            shift=shift,
            allow_shift_mismatch=allow_shift_mismatch,
            classes=classes,
            labels=names(labels, classes),
            frames=frames_of(entry, frames),
            size=size,
            registries=(str(registry_file),) if registry_file else (),
        )
        jobs.append(job)
    with terminal.steps_bar() as progress:
        run.check(jobs, progress=progress)
        rows = run.rows(run.run_benchmark(jobs, runs=runs, profile=profile, progress=progress))
    for row in rows:
        if run.interpreted(row.runtime):
            terminal.note(f"{row.artifact}: an interpreter ran it; its times say nothing of a phone")
    if json:
        terminal.print_json(rows)
        return
    terminal.say(terminal.table(run.COLUMNS, [run.cells(row) for row in rows]))
    terminal.say(run.MEMORY)
    for row in rows if profile else ():
        terminal.say("\n" + "\n\n".join(run.profiles(row, terminal.table)))
