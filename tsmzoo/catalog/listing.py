"""The rows of `list`: which models it shows, and what it says about each."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tsmzoo.errors import RegistryError
from tsmzoo.registry import Entry, Registry
from tsmzoo.text import Column
from tsmzoo.weights.cache import Pin, is_cached, pin


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


def matching(
    zoo: Registry, pattern: str | None, wanted: Mapping[str, str | None] = {}, *, search: str | None = None
) -> list[Entry]:
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


def gmacs(value: float) -> str:
    """Return GMACs as text: with two decimals, or two digits if those would be zeros."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


COLUMNS: list[Column[ModelRow]] = [
    ("id", "left", lambda row: row.id),
    ("alias", "left", lambda row: ", ".join(row.aliases)),
    ("family", "left", lambda row: row.family),
    ("mode", "left", lambda row: row.mode),
    ("backbone", "left", lambda row: row.backbone + (" flow" if row.modality == "flow" else "")),
    ("dataset", "left", lambda row: row.dataset),
    ("T", "right", lambda row: row.frames),
    ("GMACs", "right", lambda row: gmacs(row.gmacs)),
    ("Mparams", "right", lambda row: f"{row.mparams:.2f}"),
    ("top-1", "right", lambda row: "–" if row.top1 is None else f"{row.top1:.1f}"),
    ("protocol", "left", lambda row: row.protocol or "–"),
    ("MB", "right", lambda row: "–" if row.megabytes is None else f"{row.megabytes:.0f}"),
    ("licence", "left", lambda row: row.licence),
    ("doubtful", "left", lambda row: "yes" if row.doubtful else "–"),
    ("cached", "left", lambda row: "yes" if row.cached else "–"),
]
