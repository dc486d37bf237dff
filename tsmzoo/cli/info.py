"""The command `info`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Json, Labels, RegistryFile, Shift, WeightsFormat, load, names

if TYPE_CHECKING:
    pass


@app.command()
def info(
    model: Annotated[str | None, typer.Argument(help="A model's id or alias; `tsmzoo list` shows them.")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A checkpoint of your own: what it is, as a registry for --registry."),
    ] = None,
    weights_format: WeightsFormat = None,
    labels: Labels = None,
    shift: Shift = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Show all about one model: source, licence, figures and their protocols, input, states, labels, files.

    Of a checkpoint (--weights) what its file tells, as a registry in which it is a model; MODEL is then one like it.
    """
    zoo = load(registry_file)
    if weights is not None:
        from tsmzoo.catalog import stub

        told = stub.document(zoo, weights, model, weights_format=weights_format, shift=shift, names=names(labels, None))
        if json:
            terminal.print_json(told)
        else:
            print(stub.text(told))
        return
    if model is None:
        raise typer.BadParameter("name a model, or a checkpoint with --weights", param_hint="MODEL")
    if weights_format or labels or shift:
        raise typer.BadParameter("--weights-format, --labels and --shift are of a checkpoint: give --weights FILE")
    from tsmzoo.catalog.info import card, text

    document = card(zoo, zoo.find(model))
    if json:
        terminal.print_json(document)
    else:
        terminal.say(text(document))
