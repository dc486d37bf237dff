"""Where the user's cache lies, and what lies where in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tsmzoo.registry import Entry


def cache_dir() -> Path:
    """Return the cache folder: `$TSMZOO_CACHE`, else `$XDG_CACHE_HOME/tsmzoo`, else `~/.cache/tsmzoo`."""
    if chosen := os.environ.get("TSMZOO_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tsmzoo"


def local_path(entry: Entry) -> Path:
    """Return where the checkpoint of `entry` lies, or would lie once downloaded and verified."""
    if entry.file is not None:
        return Path(entry.file)
    return cache_dir() / "checkpoints" / entry.id / entry.filename


def is_cached(entry: Entry) -> bool:
    """Say whether the checkpoint of `entry` is on this machine; `download.fetch` verifies it."""
    return os.path.isfile(local_path(entry))  # Path.is_file raises where a folder must not be entered
