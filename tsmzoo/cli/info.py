"""The command `info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Json, Labels, OptionalModel, RegistryFile, Shift, WeightsFormat


@app.command()
def info(
    model: OptionalModel = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your own checkpoint: describe it as a registry file for --registry."),
    ] = None,
    weights_format: WeightsFormat = None,
    labels: Labels = None,
    shift: Shift = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Show everything about a model: source, licence, accuracy and protocols, input, states, labels, files.

    With --weights, describe your own checkpoint as a registry file; MODEL is then a model with the same input.
    """
    from tsmzoo import api

    if weights is not None:
        from tsmzoo.catalog import own_checkpoint

        found = api.describe_checkpoint(
            weights, model, weights_format=weights_format, labels=labels, shift=shift, registry=registry_file
        )
        if json:
            terminal.print_json(found)
        else:
            print(own_checkpoint.text(found))
        return
    if model is None:
        raise typer.BadParameter("name a model, or a checkpoint with --weights", param_hint="MODEL")
    if weights_format or labels or shift:
        raise typer.BadParameter("--weights-format, --labels and --shift are of a checkpoint: give --weights FILE")
    from tsmzoo.catalog import info as catalog_info

    known = api.model_info(model, registry=registry_file)
    if json:
        terminal.print_json(known.document())
    else:
        terminal.say(catalog_info.text(known))
