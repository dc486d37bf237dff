"""The command `flops`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Frames, Json, OptionalModel, RegistryFile, Size, frames_of, load


@app.command()
def flops(
    model: OptionalModel = None,
    all_: Annotated[bool, typer.Option("--all", help="Count every model of the registry.")] = False,
    per_module: Annotated[bool, typer.Option("--per-module", help="Show the cost of each module.")] = False,
    size: Size = None,
    frames: Frames = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Count multiply-accumulates and parameters, and compare with the published figures."""
    from tsmzoo.catalog.flops import COLUMNS, CONVENTION, cells, cost, text

    if (model is None) == (not all_):
        raise typer.BadParameter("name a model, or give --all")
    zoo = load(registry_file)
    entries = list(zoo.models) if all_ else [zoo.find(model or "")]
    with terminal.stages() as stage:
        costs = []
        for entry in entries:
            stage(f"counting {entry.id}")
            # The table shows no videos, whose many frames take minutes to count.
            per_video = json or model is not None
            costs.append(cost(entry, size, frames_of(entry, frames), per_module=per_module, per_video=per_video))
    if json:
        terminal.print_json(costs if all_ else costs[0])
    elif all_:
        terminal.say(terminal.table(COLUMNS, [cells(each) for each in costs]))
        terminal.say(f"GMACs: {CONVENTION}")
    else:
        terminal.say(text(costs[0]))
