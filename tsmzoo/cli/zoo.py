"""What there is: list, info, download, flops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsmzoo import terminal
from tsmzoo.cli.options import (
    Frames,
    Json,
    Labels,
    RegistryFile,
    Shift,
    Size,
    WeightsFormat,
    frames_of,
    load,
    names,
)
from tsmzoo.cli.root import app
from tsmzoo.errors import ZooError

if TYPE_CHECKING:
    from tsmzoo.registry import Entry


@app.command("list")
def list_(
    pattern: Annotated[
        str | None, typer.Argument(help="Ids and aliases that fit a wildcard, such as 'tsm_*_sthv2*'.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every checkpoint, not the recommended ones alone.")] = False,
    family: Annotated[str | None, typer.Option(help="tsn, tsm or i3d.")] = None,
    mode: Annotated[str | None, typer.Option(help="offline or online.")] = None,
    dataset: Annotated[str | None, typer.Option(help="For instance somethingv2.")] = None,
    backbone: Annotated[str | None, typer.Option(help="For instance resnet50, mobilenet_v2 or resnet50_i3d.")] = None,
    modality: Annotated[str | None, typer.Option(help="rgb or flow.")] = None,
    exportable: Annotated[bool, typer.Option("--exportable", help="Only what `tsmzoo export` takes.")] = False,
    search: Annotated[str | None, typer.Option(help="Text in an entry's id, alias, notes or source.")] = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Show the models: the recommended ones, or all that a pattern or --all asks for."""
    from tsmzoo import listing

    zoo = load(registry_file)
    wanted = {"family": family, "mode": mode, "dataset": dataset, "backbone": backbone, "modality": modality}
    matching = listing.matching(zoo, pattern, wanted, exportable=exportable, search=search)
    chosen = matching if pattern or all_ else [entry for entry in matching if entry.recommended]
    rows = [listing.row(zoo, entry) for entry in chosen]
    if json:
        terminal.print_json(rows)
        return
    if not matching:
        terminal.say("no model fits; `tsmzoo list --all` shows every one")
        return
    terminal.say(terminal.table(listing.COLUMNS, [listing.cells(row) for row in rows]))
    more = f", {len(matching) - len(chosen)} more with --all" if len(matching) > len(chosen) else ""
    terminal.say(f"{len(chosen)} models{more}; `tsmzoo info ID` says what is doubtful of one")


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
        from tsmzoo import stub

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
    from tsmzoo import card

    document = card.card(zoo, zoo.find(model))
    if json:
        terminal.print_json(document)
    else:
        terminal.say(card.text(document))


@app.command("download")
def download_(
    models: Annotated[list[str] | None, typer.Argument(help="Ids or aliases.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every model of the registry.")] = False,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Fetch checkpoints into the cache, resumed and verified.

    TSMZOO_MIRROR may hold the https address of a folder that is tried first: <address>/<id>/<file>, then
    <address>/<file>.
    """
    from tsmzoo import cache

    zoo = load(registry_file)
    if not models and not all_:
        raise typer.BadParameter("name a model, or give --all")
    entries = list(zoo.models) if all_ else [zoo.find(name) for name in models or []]
    if all_ and (without := [entry.id for entry in entries if not entry.has_weights]):
        terminal.note(f"skipped, since no weights were published: {', '.join(without)}")
        entries = [entry for entry in entries if entry.has_weights]
    failed: list[str] = []
    done = []
    for entry in entries:
        try:
            path = fetch(entry)
        except ZooError as error:
            # With several to fetch, one dead link must not keep the others away.
            if len(entries) == 1:
                raise
            failed.append(entry.id)
            terminal.note(f"error: {error}")
            continue
        files = cache.local_paths(entry)
        size = sum(file.stat().st_size for file in files)
        done.append({"id": entry.id, "path": str(path), "files": list(map(str, files)), "bytes": size})
        if not json:
            terminal.say(f"{entry.id}: {path}")
    if json:
        terminal.print_json(done)
    if failed:
        raise ZooError(f"{len(failed)} of {len(entries)} were not fetched: {', '.join(failed)}; run it again to resume")


def fetch(entry: Entry) -> Path:
    from tsmzoo import download

    with terminal.download_bar(entry.id) as progress:
        return download.fetch(entry, progress=progress, notify=terminal.note)


@app.command()
def flops(
    model: Annotated[str | None, typer.Argument(help="A model's id or alias.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every model of the registry.")] = False,
    per_module: Annotated[bool, typer.Option("--per-module", help="Show where they are spent.")] = False,
    size: Size = None,
    frames: Frames = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Count multiply-accumulates and parameters, next to the published figures."""
    from tsmzoo import cost

    if (model is None) == (not all_):
        raise typer.BadParameter("name a model, or give --all")
    zoo = load(registry_file)
    entries = list(zoo.models) if all_ else [zoo.find(model or "")]
    with terminal.stages() as stage:
        documents = []
        for entry in entries:
            stage(f"counting {entry.id}")
            # The table shows no videos, whose many frames take minutes to count.
            counted = cost.cost(
                entry, size, frames_of(entry, frames), per_module=per_module, per_video=json or model is not None
            )
            documents.append(counted)
    if json:
        terminal.print_json(documents if all_ else documents[0])
    elif all_:
        terminal.say(terminal.table(cost.COLUMNS, [cost.cells(document) for document in documents]))
        terminal.say(f"GMACs: {cost.CONVENTION}")
    else:
        terminal.say(cost.text(documents[0]))
