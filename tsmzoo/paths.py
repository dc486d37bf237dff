"""Where the project's data and the user's cache lie."""

from __future__ import annotations

import os
from pathlib import Path

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
