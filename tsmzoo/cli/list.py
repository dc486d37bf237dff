"""The command `list`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Json, RegistryFile
from tsmzoo.text import table


@app.command("list")
def list_(
    pattern: Annotated[str | None, typer.Argument(help="Wildcard for ids and aliases, such as 'tsm_*_sthv2*'.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Show every checkpoint, not only the recommended ones.")] = False,
    family: Annotated[str | None, typer.Option(help="tsn, tsm, i3d, x3d or movinet.")] = None,
    mode: Annotated[str | None, typer.Option(help="offline or online.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset, such as somethingv2.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Backbone, such as resnet50, mobilenet_v2 or resnet50_i3d.")
    ] = None,
    modality: Annotated[str | None, typer.Option(help="rgb or flow.")] = None,
    exportable: Annotated[  # noqa: ARG001 - every model is; scripts may say so
        bool, typer.Option("--exportable", help="Show only models that `tsmzoo export` can convert.")
    ] = False,
    search: Annotated[str | None, typer.Option(help="Text to find in ids, aliases, notes and sources.")] = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """List models: the recommended ones, those that match a pattern, or --all."""
    from tsmzoo import registry
    from tsmzoo.catalog import listing  # not by tsmzoo.api, which takes a sixth longer

    zoo = registry.load(registry_file)
    wanted = {"family": family, "mode": mode, "backbone": backbone, "dataset": dataset, "modality": modality}
    matching = [listing.row(zoo, entry) for entry in listing.matching(zoo, pattern, wanted, search=search)]
    rows = matching if pattern or all_ else [row for row in matching if row.recommended]
    if json:
        terminal.print_json(rows)
        return
    if not matching:
        terminal.say("no model fits; `tsmzoo list --all` shows every one")
        return
    terminal.say(table(listing.COLUMNS, rows))
    more = f", {len(matching) - len(rows)} more with --all" if len(matching) > len(rows) else ""
    count = "1 model" if len(rows) == 1 else f"{len(rows)} models"
    terminal.say(f"{count}{more}; `tsmzoo info ID` says what is doubtful of one")
