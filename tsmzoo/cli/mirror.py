"""The command `mirror`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Json, RegistryFile, complete_model
from tsmzoo.text import one_line


@app.command("mirror")
def mirror_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the mirror; made, or added to.")],
    patterns: Annotated[
        list[str],
        typer.Argument(metavar="PATTERN...", help="Ids, aliases or shell wildcards.", autocompletion=complete_model),
    ],
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Where DIR will be served: https://… or hf://USER/REPO (default: used in place)."
        ),
    ] = None,
    original: Annotated[
        bool, typer.Option("--original", help="Keep the published bytes, for TSMZOO_MIRROR, and write no registry.")
    ] = False,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Lay out checkpoints as safetensors, with a registry of their digests, for a server or hub repository of yours."""
    from tsmzoo import api

    with terminal.Display(terminal.stages) as progress:
        done = api.mirror(
            folder,
            patterns,
            url=url,
            original=original,
            registry=registry_file,
            progress=progress,
            notify=terminal.note,
        )
    if json:
        terminal.print_json(done)
        return
    for each in done:
        terminal.say(one_line(f"{each.id}: {each.path}"))
