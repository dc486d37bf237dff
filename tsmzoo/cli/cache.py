"""The commands `cache list`, `cache verify` and `cache prune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli._main import app
from tsmzoo.cli._options import Json, RegistryFile, complete_model
from tsmzoo.errors import DownloadError
from tsmzoo.text import Column, one_line, table

if TYPE_CHECKING:
    from tsmzoo.catalog.cached import CachedFile

commands = typer.Typer(help="Show, verify and prune downloaded files.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(commands, name="cache")

Pattern = Annotated[
    str | None,
    typer.Argument(help="Wildcard for ids and aliases; or a folder of the cache.", autocompletion=complete_model),
]
_COLUMNS: list[Column[CachedFile]] = [
    ("id", "left", lambda file: file.id),
    ("file", "left", lambda file: Path(file.path).name),
    ("MB", "right", lambda file: f"{file.bytes / 1e6:.1f}"),
    ("state", "left", lambda file: file.state),
    ("written", "left", lambda file: file.modified[:16].replace("T", " ")),
    ("why", "left", lambda file: file.why or ""),
]


@commands.command("list")
def list_(pattern: Pattern = None, registry_file: RegistryFile = None, json: Json = False) -> None:
    """List the files of the cache: whole, partial, quarantined and why, or of no known model."""
    from tsmzoo import api
    from tsmzoo.registry.paths import cache_dir

    found = api.list_cache(pattern, registry=registry_file)
    if json:
        terminal.print_json(found)
    else:
        _show(found)
        terminal.say(f"{_count(found)} in {one_line(str(cache_dir()))}")


@commands.command()
def verify(pattern: Pattern = None, registry_file: RegistryFile = None, json: Json = False) -> None:
    """Hold each downloaded file to its digest again. Exit code 1 if one is wrong; nothing is removed."""
    from tsmzoo import api

    with terminal.stages() as progress:
        checked = api.verify_cache(pattern, registry=registry_file, progress=progress)
    if json:
        terminal.print_json(checked)
    else:
        for each in checked:
            said = f"wrong: {each.why}" if each.why else f"verified ({each.pin})"
            if each.pin == "none" and not each.why:
                said = f"a checkpoint, held to no digest yet; `tsmzoo download {each.id}` records it"
            terminal.say(one_line(f"{each.id}: {Path(each.path).name}: {said}"))
    if wrong := [each for each in checked if each.state == "wrong"]:
        ids = ", ".join(dict.fromkeys(str(each.id) for each in wrong))
        raise DownloadError(
            f"{len(wrong)} of {len(checked)} files are not what was published: {ids}; `tsmzoo download` fetches them "
            "again"
        )
    if not json:
        terminal.say(f"{_count(checked)} verified")


@commands.command()
def prune(
    pattern: Pattern = None,
    all_: Annotated[bool, typer.Option("--all", help="Remove the files of every model of the registry.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")] = False,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Remove interrupted downloads, quarantined files and outdated copies; with PATTERN all files of these models.

    Files of no known model, or that are none of the model's, are removed if PATTERN is the name of their folder.
    """
    if pattern and all_:
        raise typer.BadParameter("--all is every model: leave out the pattern")
    from tsmzoo import api

    removed = api.prune_cache("*" if all_ else pattern, dry_run=dry_run, registry=registry_file, notify=terminal.note)
    if json:
        terminal.print_json(removed)
    else:
        _show(removed)
        terminal.say(f"{_count(removed)} {'would be removed' if dry_run else 'removed'}")


def _show(found: list[CachedFile]) -> None:
    """Print a table of `found`; copies of YAML files, of which there may be many, in one line."""
    if rows := [each for each in found if each.id is not None]:
        terminal.say(table(_COLUMNS, rows))
    if copies := [each for each in found if each.id is None]:
        stale = sum(each.state == "stale" for each in copies)
        terminal.say(f"copies of YAML files: {_count(copies)}, {stale} of them outdated")


def _count(found: list[CachedFile]) -> str:
    size = sum(each.bytes for each in found)
    return f"{len(found)} {'file' if len(found) == 1 else 'files'}, {size / 1e6:.1f} MB"
