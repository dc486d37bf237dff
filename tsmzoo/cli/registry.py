"""The command `registry check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Json
from tsmzoo.errors import RegistryError

commands = typer.Typer(help="Check your own registry.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(commands, name="registry")


@commands.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Registry file, as for --registry.")],
    json: Json = False,
) -> None:
    """Check a registry file, and count each model's parameters, GMACs and states.

    Missing values are printed as YAML to paste into the entry. Exit code 1 if anything is missing or not as counted.
    Counting takes a second or two for each architecture.
    """
    from tsmzoo import api

    with terminal.stages() as progress:
        checks = api.check_registry(file, progress=progress)
    if json:
        terminal.print_json(checks)
    else:
        for each in checks:
            terminal.say(each.text)
    if faulty := [each.id for each in checks if each.missing or each.wrong]:
        raise RegistryError(
            f"{file}: {len(faulty)} of {len(checks)} entries are incomplete or wrong: {', '.join(faulty)}"
        )
