"""The figures of a registry's entries that can be counted, next to those that stand there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec

from tsmzoo import registry
from tsmzoo.callbacks import Progress, silent
from tsmzoo.models import flops
from tsmzoo.registry import Entry

#: Registries may round GMACs to four digits.
_GMACS_TOLERANCE = 5e-4


class Figures(msgspec.Struct, frozen=True):
    """What is counted of a model; see the keys of the same names in `registry.Entry`."""

    params: int
    gmacs: float
    #: Empty for an offline model.
    states: tuple[tuple[int, ...], ...]


class EntryCheck(msgspec.Struct, frozen=True):
    """One entry of a registry file, next to what is counted of its model."""

    id: str
    counted: Figures
    #: Keys that the entry lacks.
    missing: tuple[str, ...]
    #: Keys whose values are not those that are counted, and their values.
    wrong: dict[str, Any]

    @property
    def text(self) -> str:
        """The check in words; what is missing or wrong as YAML, indented as in an entry of `models:`."""
        if not self.missing and not self.wrong:
            return f"{self.id}: as counted"
        said = [f"lacks {', '.join(self.missing)}"] if self.missing else []
        said += [f"{key} is {json.dumps(value)}, which is not what is counted" for key, value in self.wrong.items()]
        lines = [f"# {self.id}: {'; '.join(said)}"]
        for key in (*self.missing, *self.wrong):
            value = getattr(self.counted, key)
            rows = "".join(f"\n      - {json.dumps(row)}" for row in value) if isinstance(value, tuple) else ""
            lines.append(f"    {key}:{rows or f' {json.dumps(value)}'}")
        return "\n".join(lines)


def check(path: Path, progress: Progress = silent) -> list[EntryCheck]:
    """Check the registry file at `path` as loading it does, and count the figures of its entries.

    Entries may lack `params`, `gmacs` and `states`. Counting takes a second or two for each architecture and clip.
    Raises RegistryError for what is no valid registry, ZooError for a model that no memory holds.

    >>> check(Path("own.yaml"))[0].missing
    ('params', 'gmacs')
    """
    zoo = registry.load(path, incomplete=True)
    checks = []
    items = registry.document(path)["models"]
    for index, item in enumerate(items):
        entry = zoo.by_id[item["id"]]
        progress(f"counting {entry.id}", index, len(items))
        figures = count(entry)
        expected = ("params", "gmacs", "states") if entry.mode == "online" else ("params", "gmacs")
        missing = tuple(name for name in expected if not item.get(name))
        wrong = {
            name: getattr(entry, name)
            for name in ("params", "gmacs", "states")
            if name not in missing and not _same(getattr(entry, name), getattr(figures, name))
        }
        checks.append(EntryCheck(entry.id, figures, missing, wrong))
    return checks


def count(entry: Entry) -> Figures:
    """Count parameters, GMACs and states of a model. Raises ZooError if no memory holds it."""
    counted = flops.count(entry)
    return Figures(params=round(counted.mparams * 1e6), gmacs=round(counted.gmacs, 9), states=counted.states)


def _same(written: Any, counted: Any) -> bool:
    if isinstance(counted, float):
        return math.isclose(written, counted, rel_tol=_GMACS_TOLERANCE)
    return bool(written == counted)
