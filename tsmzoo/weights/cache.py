"""Paths of checkpoints in the user's cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tsmzoo.errors import DownloadError
from tsmzoo.registry.paths import cache_dir

if TYPE_CHECKING:
    from tsmzoo.registry import Entry


def local_path(entry: Entry) -> Path | None:
    """Return the path of the checkpoint of `entry`, downloaded or not; None if it has no weights.

    Raises DownloadError if there is no cache folder.
    """
    if entry.file is not None:
        return Path(entry.file)
    return None if entry.filename is None else cache_dir() / "checkpoints" / entry.id / entry.filename


def local_paths(entry: Entry) -> list[Path]:
    """Return the paths of all files of the checkpoint of `entry`, `local_path` first. Raises as `local_path` does."""
    path = local_path(entry)
    return [] if path is None else [path, *(path.with_name(name) for name in entry.beside)]


def is_cached(entry: Entry) -> bool:
    """Say whether all files of the checkpoint of `entry` are on this machine; `download.fetch` verifies them."""
    try:
        # Path.is_file raises if a folder may not be entered.
        return entry.has_weights and all(os.path.isfile(path) for path in local_paths(entry))
    except DownloadError:
        return False
