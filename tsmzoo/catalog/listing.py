"""What `list` shows: which entries, and a row of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tsmzoo.errors import RegistryError
from tsmzoo.weights.cache import is_cached

if TYPE_CHECKING:
    from tsmzoo.registry import Entry, Registry

COLUMNS = {
    "id": "left",
    "alias": "left",
    "family": "left",
    "mode": "left",
    "backbone": "left",
    "dataset": "left",
    "T": "right",
    "GMACs": "right",
    "Mparams": "right",
    "top-1": "right",
    "protocol": "left",
    "MB": "right",
    "licence": "left",
    "doubtful": "left",
    "cached": "left",
}


def matching(
    zoo: Registry, pattern: str | None, wanted: dict[str, str | None], *, exportable: bool, search: str | None
) -> list[Entry]:
    """Return the entries whose id fits `pattern`, whose fields are as `wanted`, and that hold the text of `search`.

    Raises RegistryError where no entry at all has a wanted value: it is misspelt.
    """
    entries = zoo.match(pattern) if pattern else list(zoo.models)
    if pattern and not entries and not set("*?[") & set(pattern):
        zoo.find(pattern)  # a name, and no model's: the error tells the nearest
    for key, value in wanted.items():
        if value is None:
            continue
        known = sorted({getattr(entry, key) for entry in zoo.models})
        if value not in known:
            raise RegistryError(f"no model's {key} is {value!r}; choose one of {', '.join(known)}")
        entries = [entry for entry in entries if getattr(entry, key) == value]
    if exportable:
        entries = [entry for entry in entries if entry.exportable]
    if search:
        entries = [entry for entry in entries if search.lower() in zoo.text(entry).lower()]
    return entries


def row(zoo: Registry, entry: Entry) -> dict[str, Any]:
    """Return what `list --json` says of `entry`; megabytes, where it has weights, are float32's."""
    headline = entry.headline
    return {
        "id": entry.id,
        "aliases": zoo.names(entry),
        "family": entry.family,
        "mode": entry.mode,
        "backbone": entry.backbone,
        "dataset": entry.dataset,
        "modality": entry.modality,
        "frames": entry.frames,
        "size": entry.size,
        "gmacs": entry.gmacs,
        "mparams": round(entry.mparams, 3),
        "top1": headline.top1 if headline else None,
        "top5": headline.top5 if headline else None,
        "protocol": headline.protocol if headline else None,
        "source": entry.source,
        "licence": entry.licence,
        "megabytes": round(entry.params * 4 / 1e6, 1) if entry.has_weights else None,
        "recommended": entry.recommended,
        "doubtful": bool(entry.doubt),
        "cached": is_cached(entry),
    }


def cells(row: dict[str, Any]) -> list[str]:
    """Return the row of the table."""
    return [
        row["id"],
        ", ".join(row["aliases"]),
        row["family"],
        row["mode"],
        row["backbone"] + (" flow" if row["modality"] == "flow" else ""),
        row["dataset"],
        str(row["frames"]),
        gmacs(row["gmacs"]),
        f"{row['mparams']:.2f}",
        "–" if row["top1"] is None else f"{row['top1']:.1f}",
        row["protocol"] or "–",
        "–" if row["megabytes"] is None else f"{row['megabytes']:.0f}",
        row["licence"],
        "yes" if row["doubtful"] else "–",
        "yes" if row["cached"] else "–",
    ]


def gmacs(value: float) -> str:
    """Return GMACs to read: with two decimals, or two digits where those would be zeros."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
