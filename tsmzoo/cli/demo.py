"""The command `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Json
from tsmzoo.errors import DataError


@app.command()
def demo(
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the clips and the exported file in this new folder.")
    ] = None,
    videos: Annotated[int, typer.Option(help="Number of clips to measure on, even.", min=2, max=1_000_000)] = 280,
    json: Json = False,
) -> None:
    """Show in two minutes what the shift does: three models of equal cost, measured, exported, verified, streamed."""
    from contextlib import ExitStack

    from tsmzoo import registry
    from tsmzoo.cli import _story as story
    from tsmzoo.system import files

    with ExitStack() as stack:
        try:
            folder = keep or stack.enter_context(files.temporary())
        except OSError as error:
            place = error.filename or "a folder for temporary files"
            raise DataError(f"{place}: cannot be made ({error.strerror}); set TMPDIR, or give --keep") from None
        progress = stack.enter_context(terminal.steps_bar())
        document = story.demo(
            registry.load(), folder, videos, say=(lambda _: None) if json else terminal.say, progress=progress
        )
    if json:
        terminal.print_json(document)
