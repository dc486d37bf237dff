"""The rows of `list`: which models it shows, and what it says about each."""

from __future__ import annotations

import msgspec

from tsmzoo.errors import RegistryError
from tsmzoo.registry import Entry, Registry
from tsmzoo.weights.cache import Pin, is_cached, pin

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


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a list of models."""

    id: str
    #: Other names of the model.
    aliases: list[str]
    #: `tsn`, `tsm` or `i3d`.
    family: str
    #: `offline`: a clip in, scores out. `online`: a frame and states in, scores and the next states out.
    mode: str
    backbone: str
    dataset: str
    #: `rgb` or `flow`.
    modality: str
    #: Frames of a clip; 1 for an online model.
    frames: int
    #: Side of the square input, in pixels.
    size: int
    #: Multiply-accumulates of a clip (online: a frame), in thousand millions.
    gmacs: float
    #: Parameters, in millions.
    mparams: float
    #: Published accuracy, in percent.
    top1: float | None
    #: Published top-5 accuracy, in percent.
    top5: float | None
    #: Protocol of the published accuracy.
    protocol: str | None
    #: Key of the publisher in the registry.
    source: str
    licence: str
    #: Size of the weights in float32; null if no weights were published.
    megabytes: float | None
    #: Whether it is the model to choose for its task and cost.
    recommended: bool
    #: Whether something about the file or its figures is doubtful; `info` says what.
    doubtful: bool
    #: Whether the weights are in the cache.
    cached: bool
    #: What the weights are held to: all of a sha256, a git blob id, the first digits of a sha256 (weak), the sha256 of
    #: the first download on this machine, nothing.
    pin: Pin


def matching(zoo: Registry, pattern: str | None, wanted: dict[str, str | None], *, search: str | None) -> list[Entry]:
    """Return the entries whose id fits `pattern`, whose fields are as `wanted`, and that hold the text of `search`.

    Raises RegistryError if no entry at all has a wanted value: it is misspelt.
    """
    entries = zoo.match(pattern) if pattern else list(zoo.models)
    if pattern and not entries and not set("*?[") & set(pattern):
        zoo.find(pattern)  # raises the error that suggests ids
    for key, value in wanted.items():
        if value is None:
            continue
        known = sorted({getattr(entry, key) for entry in zoo.models})
        if value not in known:
            raise RegistryError(f"no model's {key} is {value!r}; choose one of {', '.join(known)}")
        entries = [entry for entry in entries if getattr(entry, key) == value]
    if search:
        entries = [entry for entry in entries if search.lower() in zoo.text(entry).lower()]
    return entries


def row(zoo: Registry, entry: Entry) -> ModelRow:
    """Return the row of `entry`."""
    headline = entry.headline
    return ModelRow(
        id=entry.id,
        aliases=zoo.names(entry),
        family=entry.family,
        mode=entry.mode,
        backbone=entry.backbone,
        dataset=entry.dataset,
        modality=entry.modality,
        frames=entry.frames,
        size=entry.size,
        gmacs=entry.gmacs,
        mparams=round(entry.mparams, 3),
        top1=headline.top1 if headline else None,
        top5=headline.top5 if headline else None,
        protocol=headline.protocol if headline else None,
        source=entry.source,
        licence=entry.licence,
        megabytes=round(entry.params * 4 / 1e6, 1) if entry.has_weights else None,
        recommended=entry.recommended,
        doubtful=bool(entry.doubt),
        cached=is_cached(entry),
        pin=pin(entry),
    )


def cells(row: ModelRow) -> list[str]:
    """Return the cells of a row, in the order of COLUMNS."""
    return [
        row.id,
        ", ".join(row.aliases),
        row.family,
        row.mode,
        row.backbone + (" flow" if row.modality == "flow" else ""),
        row.dataset,
        str(row.frames),
        gmacs(row.gmacs),
        f"{row.mparams:.2f}",
        "–" if row.top1 is None else f"{row.top1:.1f}",
        row.protocol or "–",
        "–" if row.megabytes is None else f"{row.megabytes:.0f}",
        row.licence,
        "yes" if row.doubtful else "–",
        "yes" if row.cached else "–",
    ]


def gmacs(value: float) -> str:
    """Return GMACs as text: with two decimals, or two digits if those would be zeros."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
