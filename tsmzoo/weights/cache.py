"""Where the user's cache lies, and what lies where in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tsmzoo.errors import DownloadError

if TYPE_CHECKING:
    from tsmzoo.registry import Entry


def cache_dir() -> Path:
    """Return the cache folder: `$TSMZOO_CACHE`, else `$XDG_CACHE_HOME/tsmzoo`, else `~/.cache/tsmzoo`.

    Raises DownloadError where there is no home folder to put it in.
    """
    chosen = os.environ.get("TSMZOO_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/tsmzoo"
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        raise DownloadError(f"the cache {chosen}: no such home folder; set TSMZOO_CACHE to a folder") from None


def local_path(entry: Entry) -> Path | None:
    """Return where the checkpoint of `entry` lies, or would lie once downloaded and verified; None without weights.

    Raises DownloadError where there is no cache.
    """
    if entry.file is not None:
        return Path(entry.file)
    return None if entry.filename is None else cache_dir() / "checkpoints" / entry.id / entry.filename


def local_paths(entry: Entry) -> list[Path]:
    """Return where all files of the checkpoint of `entry` lie, or would lie; none without weights. Raises so, too."""
    path = local_path(entry)
    return [] if path is None else [path, *(path.with_name(name) for name in entry.beside)]


def is_cached(entry: Entry) -> bool:
    """Say whether the checkpoint of `entry` is on this machine, all of it; `download.fetch` verifies it."""
    try:
        # Path.is_file raises where a folder must not be entered.
        return entry.has_weights and all(os.path.isfile(path) for path in local_paths(entry))
    except DownloadError:
        return False
