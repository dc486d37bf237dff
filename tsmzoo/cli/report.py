"""The command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Json, RegistryFile
from tsmzoo.text import joined


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Output folder; pictures of the same name are replaced.")
    ],
    bench: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.json", help="Output of `bench --json`; repeatable."),
    ] = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Draw published accuracy against cost, one picture per dataset, and with --bench against measured latency.

    Writes SVG and PNG. The area of a bubble is the number of parameters; each accuracy names its protocol.
    """
    from tsmzoo import api
    from tsmzoo.cli._results import Pictures

    notes: list[str] = []
    with terminal.stages() as stage:
        stage("drawing")
        made = api.draw_accuracy(folder, benchmarks=bench or (), registry=registry_file, notify=notes.append)
    for line in notes:
        terminal.note(line)
    if json:
        terminal.print_json(Pictures([str(path) for path in made]))
    else:
        terminal.say(joined(map(str, made)))
