"""The command `run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import (
    AllowMismatch,
    Classes,
    Images,
    Labels,
    RegistryFile,
    Seed,
    Shift,
    Weights,
    WeightsFormat,
    names,
    number,
)


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="Exported file, or model id or alias.")],
    video: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO|FOLDER|CAMERA",
            help="Video file, folder of images, camera number such as 0, or address (rtsp://…, http://…).",
        ),
    ],
    save: Annotated[
        Path | None, typer.Option(metavar="FILE.mp4", help="Write the video with the labels drawn on it.")
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Number of answers to average (default: 0.8 s of the stream).", min=1, max=100_000
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="P", help="Least probability of a shown label (default: 0.5).", min=0, max=1, callback=number
        ),
    ] = None,
    hold: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Consecutive steps that a new label must lead before it is shown (default: 2 for a stream).",
            min=1,
            max=100_000,
        ),
    ] = None,
    cut: Annotated[
        float | None,
        typer.Option(
            metavar="D",
            help="Difference of consecutive frames, 0…1, that resets the states; 0: never (default: 0.4).",
            min=0,
            max=1,
            callback=number,
        ),
    ] = None,
    reset_every: Annotated[
        float | None,
        typer.Option(metavar="S", help="Reset the states every S seconds.", min=0.01, max=1e6, callback=number),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Seconds between answers of an offline model (default: 1 for a camera).",
            min=0.01,
            max=1e6,
            callback=number,
        ),
    ] = None,
    span: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Seconds covered by the clip of each such answer (default: 4).",
            min=0.01,
            max=1e6,
            callback=number,
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            metavar="F",
            help="Frame rate of a folder of images (default: each image is a step).",
            min=0.01,
            max=1000,
            callback=number,
        ),
    ] = None,
    images: Images = None,
    weights: Weights = None,
    seed: Seed = 0,
    weights_format: WeightsFormat = None,
    classes: Classes = None,
    labels: Labels = None,
    shift: Shift = None,
    allow_shift_mismatch: AllowMismatch = False,
    registry_file: RegistryFile = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document per answer, each on a line.")] = False,
) -> None:
    """Run a model on a video, images or a camera, and show the label, the top-5 and the time per frame.

    An online model answers every frame. A label is shown after the mean of the last answers has reached the threshold
    and led for some steps; a scene change, or the key r, resets the states. An offline model gives one answer for a
    video, and one every second for a camera. Ctrl-C ends it; a saved video stays complete.
    """
    from contextlib import closing, nullcontext

    from tsmzoo import api
    from tsmzoo.cli import _screen as cli_screen
    from tsmzoo.live import answer as live_answer
    from tsmzoo.live import session, video_writer

    options = session.LiveOptions(
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
        video_writer.check(save, video)
    with terminal.download_bar(model) as bar:
        opened = api.load(
            model,
            weights=weights,
            seed=seed,
            weights_format=weights_format,
            classes=classes,
            labels=names(labels, classes),
            shift=shift,
            allow_shift_mismatch=allow_shift_mismatch,
            registry=registry_file,
            progress=bar,
            notify=terminal.note,
        )
    contract = opened.contract
    source = session.open_for(opened, video, options, fps=fps, images=images, notify=terminal.note)
    summary = live_answer.Summary()
    on_terminal = sys.stdout.isatty() and not json
    lines = nullcontext(lambda answer, _: terminal.print_json_line(live_answer.record(answer)))
    with (
        terminal.interruptible() as stopped,
        terminal.keys(live=on_terminal) as pressed,
        lines if json else cli_screen.screen(live=on_terminal) as show,
        closing(
            session.play(opened, source, options, stopped=stopped, reset_requested=lambda: "r" in pressed())
        ) as answers,
    ):
        for answer in answers:
            summary.add(answer)
            show(answer, summary)
    if summary.last is None:
        terminal.note(f"{source.name}: ended before the first answer")
        return
    about = (
        f"{contract.model} on {source.name}",
        "frame" if contract.mode == "online" else "clip",
        opened.runner.runtime,
    )
    if json:
        terminal.note(cli_screen.summary_line(*about, summary))
    else:
        terminal.say(cli_screen.text(*about, summary))
    if save is not None:
        terminal.note(f"saved {save}")
