"""The command `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Json, RegistryFile, complete_model
from tsmzoo.errors import ZooError
from tsmzoo.text import table


@app.command()
def doctor(
    pattern: Annotated[
        str | None,
        typer.Argument(
            help="With --links: only of these models, such as 'tsm_*_sthv2*'.", autocompletion=complete_model
        ),
    ] = None,
    links: Annotated[
        bool, typer.Option("--links", help="Ask each address of a checkpoint whether the file is still there.")
    ] = False,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Examine the installation, or with --links where the checkpoints can be had.

    Exit code 1 if anything is broken; with --links, if a recommended model has no living source.
    """
    if links:
        _check_links(pattern, registry_file, json=json)
        return
    if pattern is not None or registry_file is not None:
        raise typer.BadParameter("models and their registry are those of --links: give that, too")
    from tsmzoo import api
    from tsmzoo.catalog import doctor

    with terminal.stages() as progress:
        found = api.doctor(progress=progress)
    if json:
        terminal.print_json(found)
    else:
        terminal.say(f"tsmzoo {found.version}, Python {found.python}, {found.platform}")
        terminal.say(table(doctor.COLUMNS, doctor.rows(found)))
        terminal.say("\n".join(doctor.text(found)))
    if broken := found.problems:
        raise ZooError("; ".join(f"{problem.what}; {problem.remedy}" for problem in broken))


def _check_links(pattern: str | None, registry_file: Path | None, *, json: bool) -> None:
    from tsmzoo import api
    from tsmzoo.catalog import links

    with terminal.steps_bar() as progress:
        found = api.check_links(pattern, registry=registry_file, progress=progress)
    if json:
        terminal.print_json(found)
    elif not found:
        terminal.say("no address to ask: these models come with tsmzoo, or their weights were not published")
    else:
        terminal.say(table(links.COLUMNS, found))
        models, alive = ({link.model for link in found if link.alive or every} for every in (True, False))
        there = sum(link.alive for link in found)
        terminal.say(f"{there} of {len(found)} addresses have the file, for {len(alive)} of {len(models)} models")
    if dead := links.dead(found):
        raise ZooError(
            f"recommended models without a living source: {', '.join(dead)}; if you have such a file: "
            "`tsmzoo download MODEL --source URL|FILE`"
        )
