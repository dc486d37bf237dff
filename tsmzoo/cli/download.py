"""The command `download`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Json, RegistryFile, complete_model
from tsmzoo.errors import ZooError
from tsmzoo.text import one_line


@app.command("download")
def download_(
    models: Annotated[
        list[str] | None, typer.Argument(help="Model ids or aliases.", autocompletion=complete_model)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Download every model of the registry.")] = False,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="URL|FILE",
            help="Take the published file of one model from here: https://, hf:// or a local file, which is copied.",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add sha256 and size of each file to this registry of pins (--registry)."),
    ] = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Download checkpoints into the cache and verify them; a stopped download resumes.

    TSMZOO_MIRROR is the https:// or hf:// address of a folder that is tried first: <address>/<id>/<file>, then
    <address>/<file>.
    """
    if not models and not all_:
        raise typer.BadParameter("name a model, or give --all")
    if source is not None and (all_ or len(models or []) != 1):
        raise typer.BadParameter("--source is where the file of one model is: name that model alone")
    if models and all_:
        raise typer.BadParameter("--all takes every model; name models, or give --all")
    from tsmzoo import api

    if all_:
        rows = api.model_table(api.list_models(registry=registry_file), registry=registry_file)
        models = [row.id for row in rows if row.megabytes is not None]
        if without := [row.id for row in rows if row.megabytes is None]:
            terminal.note(f"skipped, since no weights were published: {', '.join(without)}")
    names = [info.id for info in api.model_table(models or (), registry=registry_file)]  # all are known
    failed: list[str] = []
    done = []
    for name in names:
        try:
            with terminal.Display(terminal.stages) as progress:
                found = api.download(
                    name,
                    source=source,
                    record=record,
                    registry=registry_file,
                    progress=progress,
                    notify=terminal.note,
                )
        except ZooError as error:
            # One dead link must not prevent the other downloads.
            if len(names) == 1:
                raise
            failed.append(name)
            terminal.note(f"error: {error}")
            continue
        done.append(found)
        if not json:
            terminal.say(one_line(f"{found.id}: {found.path}"))
    if json:
        terminal.print_json(done)
    if failed:
        raise ZooError(f"{len(failed)} of {len(names)} were not fetched: {', '.join(failed)}; run it again to resume")
