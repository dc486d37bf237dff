"""What `flops` prints: our count next to the published one, per clip, per frame and per video."""

from __future__ import annotations

from typing import Any

import msgspec

from tsmzoo.catalog.listing import gmacs
from tsmzoo.models.flops import CONVENTION, Count, count
from tsmzoo.registry import Entry, recipes
from tsmzoo.text import joined

__all__ = ["COLUMNS", "CONVENTION", "cells", "cost", "text"]


def cost(
    published: Entry,
    size: int | None = None,
    frames: int | None = None,
    *,
    per_module: bool = False,
    per_video: bool = True,
) -> dict[str, Any]:
    """Return the cost of an entry at its own or another size and T, and of a video under each protocol it names."""
    entry = msgspec.structs.replace(published, size=size or published.size, frames=frames or published.frames)
    counted = _count(entry)
    document: dict[str, Any] = {
        "id": entry.id,
        "gmacs_per_clip": round(counted.gmacs, 9),
        "gmacs_per_frame": round(counted.gmacs / entry.frames, 9),
        "mparams": round(counted.mparams, 6),
        "published_gmacs": entry.published_gmacs.value if entry.published_gmacs else None,
        "published_basis": entry.published_gmacs.basis if entry.published_gmacs else None,
        "published_mparams": entry.published_mparams.value if entry.published_mparams else None,
        "input_shape": list(counted.input_shape),
        "convention": CONVENTION,
        "gmacs_per_video": {
            result.protocol: _per_video(published, recipes.protocol(result.protocol), result.frames)
            for result in entry.results
            if result.protocol and per_video
        },
    }
    if per_module:
        document["modules"] = {name: round(gmacs, 6) for name, gmacs in counted.modules.items()}
    return document


def _per_video(entry: Entry, protocol: recipes.Protocol, tested: int | None) -> dict[str, Any]:
    frames = tested or protocol.frames or entry.frames
    size = entry.short_side if protocol.full else entry.size
    view = _count(msgspec.structs.replace(entry, frames=frames, size=size))
    return {
        "views": protocol.views,
        "frames": frames,
        "size": size,
        "gmacs": round(view.gmacs * protocol.views, 4),
    }


_counts: dict[tuple[Any, ...], Count] = {}


def _count(entry: Entry) -> Count:
    """Count `entry`, once for all entries that are the same network."""
    network = (
        entry.backbone,
        entry.width,
        entry.shift,
        entry.classes,
        entry.modality,
        entry.non_local,
        entry.non_local_bias,
    )
    key = (*network, entry.frames, entry.size)
    if key not in _counts:
        _counts[key] = count(entry)
    return _counts[key]


COLUMNS = {
    "id": "left",
    "input": "left",
    "GMACs/clip": "right",
    "GMACs/frame": "right",
    "published": "right",
    "Mparams": "right",
    "published ": "right",
    "basis of the published figure": "left",
}


def cells(document: dict[str, Any]) -> list[str]:
    """Return a row of the table."""
    d = document
    return [
        d["id"],
        "x".join(map(str, d["input_shape"])),
        gmacs(d["gmacs_per_clip"]),
        gmacs(d["gmacs_per_frame"]),
        f"{d['published_gmacs'] or '–'}",
        f"{d['mparams']:.2f}",
        f"{d['published_mparams'] or '–'}",
        d["published_basis"] or "–",
    ]


def text(document: dict[str, Any]) -> str:
    """Return one model's cost to read."""
    d = document
    online = len(d["input_shape"]) == 4
    clip = "" if online else f"{d['gmacs_per_clip']:.4g} GMACs a clip, "
    lines = [
        f"{d['id']}  input {'x'.join(map(str, d['input_shape']))}",
        f"  {clip}{d['gmacs_per_frame']:.4g} GMACs a frame, {d['mparams']:.4g} M parameters",
        f"  convention: {d['convention']}",
    ]
    macs = f"{d['published_gmacs']} GMACs, {d['published_basis']}" if d["published_gmacs"] else "no GMACs"
    mparams = f"{d['published_mparams']} M parameters" if d["published_mparams"] else "no parameters"
    lines.append(f"  published: {macs}; {mparams}")
    lines += [
        f"  a video under {name}: {gmacs(video['gmacs'])} GMACs, {video['views']} x {video['frames']} frames "
        f"at {video['size']} px"
        for name, video in d["gmacs_per_video"].items()
    ]
    lines += [f"  {value:>10.4f}  {name}" for name, value in d.get("modules", {}).items()]
    return joined(lines)
