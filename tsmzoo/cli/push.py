"""The command `push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Json, RegistryFile


@app.command()
def push(
    artifact: Annotated[Path, typer.Argument(help="A file from `tsmzoo export`, with its contract beside it.")],
    to: Annotated[str, typer.Argument(metavar="hf://USER/REPO", help="The repository; made if there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Only to a private repository.")] = False,
    allow_random: Annotated[
        bool, typer.Option("--allow-random", help="Push a file with random weights, whose answers mean nothing.")
    ] = False,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Send an exported file, its contract and its model card to the Hugging Face hub, in one commit.

    The token is that of `hf auth login`, or HF_TOKEN. A README.md that tsmzoo did not write stays.
    """
    from tsmzoo import api

    done = api.push(
        artifact, to, private=private, allow_random=allow_random, registry=registry_file, notify=terminal.note
    )
    if json:
        terminal.print_json(done)
    else:
        terminal.say(f"{done.address}\n{done.url}")
