"""Where the project's data and the user's cache are."""

from __future__ import annotations

import os
from pathlib import Path

from tsmzoo.errors import DownloadError

_HERE = Path(__file__).resolve().parent
PACKAGE = _HERE.parent

#: The folder of registry.yaml and recipes/: the package itself once installed, its parent in a checkout.
DATA = PACKAGE if (PACKAGE / "registry.yaml").is_file() else PACKAGE.parent

#: One `<name>.txt` per label map, a label a line, in the order of the logits.
LABELS = _HERE / "labels"

#: The JSON schema of registries, for editors.
SCHEMA = _HERE / "schema.json"


def cache_dir() -> Path:
    """Return the cache folder: `$TSMZOO_CACHE`, else `$XDG_CACHE_HOME/tsmzoo`, else `~/.cache/tsmzoo`.

    Raises DownloadError if there is no home folder for it.
    """
    chosen = os.environ.get("TSMZOO_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/tsmzoo"
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        raise DownloadError(f"the cache {chosen}: no such home folder; set TSMZOO_CACHE to a folder") from None
