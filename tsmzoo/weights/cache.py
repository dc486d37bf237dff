"""Where checkpoints are in the user's cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tsmzoo.errors import DownloadError
from tsmzoo.registry.paths import cache_dir

if TYPE_CHECKING:
    from tsmzoo.registry import Entry


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
