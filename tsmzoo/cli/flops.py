"""The command `flops`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Frames, Json, OptionalModel, RegistryFile, Size
from tsmzoo.text import table


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
    if (model is None) == (not all_):
        raise typer.BadParameter("name a model, or give --all")
    from tsmzoo import api
    from tsmzoo.catalog.flops import COLUMNS, CONVENTION, text

    costs = []
    with terminal.stages() as stage:
        for name in api.list_models(registry=registry_file) if model is None else [model]:
            stage(f"counting {name}")
            costs.append(
                api.count_flops(
                    name,
                    frames=frames,
                    size=size,
                    per_module=per_module,
                    per_video=json or not all_,  # the table shows none
                    registry=registry_file,
                )
            )
    if json:
        terminal.print_json(costs if all_ else costs[0])
    elif all_:
        terminal.say(table(COLUMNS, costs))
        terminal.say(f"GMACs: {CONVENTION}")
    else:
        terminal.say(text(costs[0]))
