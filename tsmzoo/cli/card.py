"""The command `card`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import RegistryFile


@app.command()
def card(
    artifact: Annotated[
        str, typer.Argument(help="A file from `tsmzoo export`, with its contract beside it; or hf://USER/REPO/FILE.")
    ],
    registry_file: RegistryFile = None,
) -> None:
    """Print the model card of an exported file: input, states, accuracy, verification, licence, how to run it."""
    from tsmzoo import api

    terminal.say(api.card(artifact, registry=registry_file).rstrip())
