"""Models at work: run, demo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tsmzoo import terminal
from tsmzoo.cli.options import (
    AllowMismatch,
    Classes,
    Json,
    Labels,
    RegistryFile,
    Seed,
    Shift,
    Weights,
    WeightsFormat,
    load,
    names,
)
from tsmzoo.cli.root import app


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="An exported file, or a model's id or alias.")],
    video: Annotated[
        str, typer.Argument(metavar="VIDEO|FOLDER|CAMERA", help="A video, a folder of images, or a camera's number: 0.")
    ],
    save: Annotated[
        Path | None, typer.Option(metavar="FILE.mp4", help="Write the video with the answers on it, all its frames.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(metavar="N", help="Answers that are averaged; 0.8 s of a stream without.", min=1)
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="P", help="Below this probability nothing is decided; 0.5 without.", min=0, max=1),
    ] = None,
    hold: Annotated[
        int | None,
        typer.Option(metavar="K", help="Steps running that a new label must lead; 2 of a stream without.", min=1),
    ] = None,
    cut: Annotated[
        float | None,
        typer.Option(
            metavar="D", help="Difference of two frames, 0…1, that begins anew; 0.4 without, 0: never.", min=0
        ),
    ] = None,
    reset_every: Annotated[
        float | None, typer.Option(metavar="S", help="Begin anew every so many seconds.", min=0.01)
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds from answer to answer of an offline model; a camera's: 1.", min=0.01),
    ] = None,
    span: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds that a clip of such answers spans; 4 without.", min=0.01),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(metavar="F", help="Images a second of a folder; each is a step without.", min=0.01, max=1000),
    ] = None,
    weights: Weights = None,
    seed: Seed = 0,
    weights_format: WeightsFormat = None,
    classes: Classes = None,
    labels: Labels = None,
    shift: Shift = None,
    allow_shift_mismatch: AllowMismatch = False,
    registry_file: RegistryFile = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document a decision, each on a line.")] = False,
) -> None:
    """Run a model over a video, images or a camera, live: the label, the top-5, milliseconds per frame.

    An online model answers at its own rate; the mean of its last answers must reach the threshold and hold before
    its label is shown, and it begins anew when the scene is cut, or at the key r. An offline model gives one answer
    to a whole video, and a camera one every second. Ctrl-C ends it, and keeps what was saved.
    """
    zoo = load(registry_file)
    from contextlib import nullcontext

    from tsmzoo import annotate, frames, play, show
    from tsmzoo.subject import Subject

    settings = play.Settings(
        window=window,
        threshold=threshold,
        hold=hold,
        cut=cut,
        reset_every=reset_every,
        every=every,
        span=span,
        save=save,
    )
    if save is not None:
        annotate.check(save, video)
    with terminal.download_bar(model) as progress:
        subject = Subject(
            model, weights, seed, weights_format, shift, allow_shift_mismatch, classes, names(labels, classes)
        )
        runner, contract = subject.open(zoo, progress=progress, notify=terminal.note)
    play.check(settings, contract)
    source = frames.source(video, fps, contract.target_fps if contract.mode == "online" else None)
    on_terminal = sys.stdout.isatty() and not json
    lines = nullcontext(lambda answer, _: terminal.print_json_line(show.document(answer)))
    with (
        terminal.interruptible() as stopped,
        terminal.keys(live=on_terminal) as pressed,
        lines if json else show.screen(live=on_terminal) as screen,
    ):
        tally = play.play(
            runner, contract, source, settings, show=screen, stopped=stopped, asked=lambda: "r" in pressed()
        )
    if tally.last is None:
        terminal.note(f"{source.name}: ended before the first answer")
        return
    about = (f"{contract.model} on {source.name}", "frame" if contract.mode == "online" else "clip", runner.runtime)
    if json:
        terminal.note(show.summary(*about, tally))
    else:
        print(show.text(*about, tally))
    if save is not None:
        terminal.note(f"saved {save}")


@app.command()
def demo(
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the clips and the exported file in a new folder.")
    ] = None,
    videos: Annotated[int, typer.Option(help="Clips to measure on, an even number.", min=2)] = 280,
    json: Json = False,
) -> None:
    """See the point in two minutes: three models of equal cost, measured, exported, verified and streamed."""
    import tempfile
    from contextlib import nullcontext

    zoo = load(None)
    from tsmzoo import demo as demo_

    with (
        tempfile.TemporaryDirectory() if keep is None else nullcontext(keep) as folder,
        terminal.steps_bar() as progress,
    ):
        document = demo_.demo(
            zoo,
            Path(folder),
            videos,
            say=(lambda _: None) if json else print,
            progress=progress,
        )
    if json:
        terminal.print_json(document)
