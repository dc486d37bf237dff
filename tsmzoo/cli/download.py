"""The command `download`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Json, RegistryFile, complete_model, load
from tsmzoo.errors import ZooError

if TYPE_CHECKING:
    from tsmzoo.registry import Entry


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
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Download checkpoints into the cache and verify them; a stopped download resumes.

    TSMZOO_MIRROR is the https address of a folder that is tried first: <address>/<id>/<file>, then
    <address>/<file>.
    """
    from tsmzoo.catalog.download import Download
    from tsmzoo.weights import cache

    zoo = load(registry_file)
    if not models and not all_:
        raise typer.BadParameter("name a model, or give --all")
    if source is not None and (all_ or len(models or []) != 1):
        raise typer.BadParameter("--source is where the file of one model is: name that model alone")
    entries = list(zoo.models) if all_ else [zoo.find(name) for name in models or []]
    if all_ and (without := [entry.id for entry in entries if not entry.has_weights]):
        terminal.note(f"skipped, since no weights were published: {', '.join(without)}")
        entries = [entry for entry in entries if entry.has_weights]
    failed: list[str] = []
    done = []
    for entry in entries:
        try:
            path = fetch(entry, source)
        except ZooError as error:
            # One dead link must not prevent the other downloads.
            if len(entries) == 1:
                raise
            failed.append(entry.id)
            terminal.note(f"error: {error}")
            continue
        files = cache.local_paths(entry)
        size = sum(file.stat().st_size for file in files)
        done.append(Download(entry.id, str(path), list(map(str, files)), size))
        if not json:
            terminal.say(f"{entry.id}: {path}")
    if json:
        terminal.print_json(done)
    if failed:
        raise ZooError(f"{len(failed)} of {len(entries)} were not fetched: {', '.join(failed)}; run it again to resume")


def fetch(entry: Entry, source: str | None) -> Path:
    from tsmzoo.weights import download

    with terminal.download_bar(entry.id) as progress:
        return download.fetch(entry, source=source, progress=progress, notify=terminal.note)
