"""Cost of models: counted operations and parameters next to the published ones, per clip, per frame and per video."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from tsmzoo.catalog.listing import gmacs
from tsmzoo.models.flops import CONVENTION, count
from tsmzoo.registry import Entry, recipes
from tsmzoo.text import Column, joined

__all__ = ["COLUMNS", "CONVENTION", "Cost", "VideoCost", "cost", "text"]


class VideoCost(msgspec.Struct, frozen=True):
    """Cost of a video under a protocol."""

    #: Clips of the video times crops of each.
    views: int
    #: Frames of a view.
    frames: int
    #: Side of a view, in pixels.
    size: int
    #: Of all views.
    gmacs: float


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of a model, counted and published."""

    id: str
    #: Multiply-accumulates, in thousand millions; an online model's clip is one frame.
    gmacs_per_clip: float
    #: The same, divided by the frames of the clip.
    gmacs_per_frame: float
    #: Parameters, in millions.
    mparams: float
    published_gmacs: float | None
    #: What the published GMACs cover, in words.
    published_basis: str | None
    published_mparams: float | None
    #: N, T, C, H, W; of an online model, which takes one frame, N, C, H, W.
    input_shape: list[int]
    #: What counts as an operation, in words.
    convention: str
    #: Cost of a video, by the protocol of each published accuracy.
    gmacs_per_video: dict[str, VideoCost]
    #: GMACs of each module, with those inside it; only with --per-module.
    modules: dict[str, float] | UnsetType = UNSET


def cost(
    published: Entry,
    size: int | None = None,
    frames: int | None = None,
    *,
    per_module: bool = False,
    per_video: bool = True,
) -> Cost:
    """Count the cost of an entry, at its own or another size and T, and of a video under each protocol it names."""
    entry = msgspec.structs.replace(published, size=size or published.size, frames=frames or published.frames)
    counted = count(entry)
    return Cost(
        id=entry.id,
        gmacs_per_clip=round(counted.gmacs, 9),
        gmacs_per_frame=round(counted.gmacs / entry.frames, 9),
        mparams=round(counted.mparams, 6),
        published_gmacs=entry.published_gmacs.value if entry.published_gmacs else None,
        published_basis=entry.published_gmacs.basis if entry.published_gmacs else None,
        published_mparams=entry.published_mparams.value if entry.published_mparams else None,
        input_shape=list(counted.input_shape),
        convention=CONVENTION,
        gmacs_per_video={
            result.protocol: _per_video(published, recipes.protocol(result.protocol), result.frames)
            for result in entry.results
            if result.protocol and per_video
        },
        modules={name: round(gmacs, 6) for name, gmacs in counted.modules.items()} if per_module else UNSET,
    )


def _per_video(entry: Entry, protocol: recipes.Protocol, tested: int | None) -> VideoCost:
    frames = tested or protocol.frames or entry.frames
    size = entry.short_side if protocol.full else entry.size
    view = count(msgspec.structs.replace(entry, frames=frames, size=size))
    return VideoCost(protocol.views, frames, size, round(view.gmacs * protocol.views, 4))


COLUMNS: list[Column[Cost]] = [
    ("id", "left", lambda cost: cost.id),
    ("input", "left", lambda cost: "x".join(map(str, cost.input_shape))),
    ("GMACs/clip", "right", lambda cost: gmacs(cost.gmacs_per_clip)),
    ("GMACs/frame", "right", lambda cost: gmacs(cost.gmacs_per_frame)),
    ("published", "right", lambda cost: cost.published_gmacs or "–"),
    ("Mparams", "right", lambda cost: f"{cost.mparams:.2f}"),
    ("published ", "right", lambda cost: cost.published_mparams or "–"),
    ("basis of the published figure", "left", lambda cost: cost.published_basis or "–"),
]


def text(cost: Cost) -> str:
    """Return the cost of one model as text."""
    online = len(cost.input_shape) == 4
    clip = "" if online else f"{cost.gmacs_per_clip:.4g} GMACs a clip, "
    macs = f"{cost.published_gmacs} GMACs, {cost.published_basis}" if cost.published_gmacs else "no GMACs"
    mparams = f"{cost.published_mparams} M parameters" if cost.published_mparams else "no parameters"
    lines = [
        f"{cost.id}  input {'x'.join(map(str, cost.input_shape))}",
        f"  {clip}{cost.gmacs_per_frame:.4g} GMACs a frame, {cost.mparams:.4g} M parameters",
        f"  convention: {cost.convention}",
        f"  published: {macs}; {mparams}",
    ]
    lines += [
        f"  a video under {name}: {gmacs(video.gmacs)} GMACs, {video.views} x {video.frames} frames at {video.size} px"
        for name, video in cost.gmacs_per_video.items()
    ]
    lines += [f"  {value:>10.4f}  {name}" for name, value in (cost.modules or {}).items()]
    return joined(lines)
