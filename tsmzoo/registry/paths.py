"""Where the project's data lies."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent
PACKAGE = _HERE.parent

#: The folder of registry.yaml and recipes/: the package itself once installed, its parent in a checkout.
DATA = PACKAGE if (PACKAGE / "registry.yaml").is_file() else PACKAGE.parent

#: One `<name>.txt` per label map, a label a line, in the order of the logits.
LABELS = _HERE / "labels"

#: The JSON schema of registries, for editors.
SCHEMA = _HERE / "schema.json"
