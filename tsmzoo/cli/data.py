"""The command `data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Json


@app.command()
def data(
    task: Annotated[
        Literal["motion"], typer.Argument(help="motion: clips whose classes differ only in the order of frames.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder.")],
    videos: Annotated[int, typer.Option(help="Number of clips, even.", min=2, max=1_000_000)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the clips.", min=0, max=2**63 - 1)] = 0,
    json: Json = False,
) -> None:
    """Generate labeled videos in the layout that `eval` and `train` read."""
    from tsmzoo import api
    from tsmzoo.cli._results import Videos

    with terminal.steps_bar() as progress:
        classes = api.generate_clips(folder, videos, seed=seed, progress=progress)
    if json:
        terminal.print_json(Videos(task, str(folder), videos, seed))
    else:
        terminal.say(f"{folder}: {videos} videos of {len(classes)} classes, seed {seed}; annotations.txt lists them")
