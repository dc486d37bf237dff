"""Where the project's data and the user's cache lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tsmzoo.registry import Entry

_PACKAGE = Path(__file__).resolve().parent

#: The folder of registry.yaml and recipes/: the package itself once installed, its parent in a checkout.
DATA = _PACKAGE if (_PACKAGE / "registry.yaml").is_file() else _PACKAGE.parent

#: One `<name>.txt` per label map, a label a line, in the order of the logits.
LABELS = _PACKAGE / "labels"


def cache_dir() -> Path:
    """Return the cache folder: `$TSMZOO_CACHE`, else `$XDG_CACHE_HOME/tsmzoo`, else `~/.cache/tsmzoo`."""
    if chosen := os.environ.get("TSMZOO_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tsmzoo"


def local_path(entry: Entry) -> Path:
    """Return where the verified checkpoint of `entry` lies, or would lie, in the cache."""
    return cache_dir() / "checkpoints" / entry.id / entry.filename


def is_cached(entry: Entry) -> bool:
    """Say whether the checkpoint of `entry` is in the cache; `download.fetch` verifies it."""
    return os.path.isfile(local_path(entry))  # Path.is_file raises where a folder must not be entered
