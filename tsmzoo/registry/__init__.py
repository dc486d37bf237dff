"""The registry: every published checkpoint, bound to its architecture, labels, input and figures.

`registry.yaml` is data: a new checkpoint is a new entry there, and no Python. `schema` has the keys and what they mean,
`loader` reads and checks a file, `paths` knows where the data lies. Neither torch nor numpy is imported: `tsmzoo list`
answers before they could be loaded.

`schema.json` is the schema for editors. The first line of a registry of your own, with the path that
`python -c "import tsmzoo.registry; print(tsmzoo.registry.SCHEMA)"` prints, makes most of them complete keys, show what
they mean and mark mistakes:

    # yaml-language-server: $schema=/path/to/tsmzoo/registry/schema.json

`tsmzoo registry check FILE` checks a file as loading does, and counts its models' parameters, GMACs and states.
"""

from tsmzoo.registry.loader import document, load, read_labels, with_classes, with_entry
from tsmzoo.registry.paths import SCHEMA
from tsmzoo.registry.schema import (
    DIRECTIONS,
    FAMILIES,
    OWN,
    SHIFT_PLACES,
    Address,
    Classes,
    Entry,
    Frames,
    Id,
    LabelMap,
    Mean,
    Mirror,
    Normalisation,
    Pinned,
    Published,
    Rate,
    Registry,
    Result,
    ShiftName,
    Source,
    StateKind,
    StateSpec,
    Std,
    Stride,
)

__all__ = [
    "DIRECTIONS",
    "FAMILIES",
    "OWN",
    "SCHEMA",
    "SHIFT_PLACES",
    "Address",
    "Classes",
    "Entry",
    "Frames",
    "Id",
    "LabelMap",
    "Mean",
    "Mirror",
    "Normalisation",
    "Pinned",
    "Published",
    "Rate",
    "Registry",
    "Result",
    "ShiftName",
    "Source",
    "StateKind",
    "StateSpec",
    "Std",
    "Stride",
    "document",
    "load",
    "read_labels",
    "with_classes",
    "with_entry",
]
