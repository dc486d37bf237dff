"""The plan of an evaluation: a protocol, completed for one model and the changes that the user asks for."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal

import msgspec

from tsmzoo.artifact.contract import Contract
from tsmzoo.checks import check_fields
from tsmzoo.data.sampling import DENSE_WINDOW, Wanted
from tsmzoo.errors import DataError
from tsmzoo.registry import Entry, recipes
from tsmzoo.registry.recipes import Crops, Protocol

#: Protocols of models without published ones, by the sampling they were trained with.
_DEFAULT = {
    "uniform": "mit_sth_center_1clip",
    "dense": "dense_center_1clip",
    "stream": "uniform8_center_1clip",
}


class Changes(msgspec.Struct, frozen=True, omit_defaults=True):
    """Values that the user sets in place of those of the protocol."""

    clips: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    crops: Crops | None = None
    frames: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        check_fields(self)


class EvaluationPlan(msgspec.Struct, frozen=True):
    """All that decides which views of a video a network sees, and how its answers are combined."""

    protocol: str
    pipeline: Literal["mit", "mmaction2"]
    sampling: str
    clips: int
    #: Frames of a clip; for a video that is seen whole, at most.
    frames: int
    stride: int
    crops: Crops
    #: Pixels: the short side after resizing, and the side of the crop.
    short_side: int
    size: int
    average: Literal["logits", "probabilities"]
    #: Of an online model: the mean of its logits after each frame of a view, or those after the last.
    answer: Literal["mean", "last"] = "mean"
    #: Flow images in an input; 1 for RGB.
    stack: int = 1
    #: The input is optical flow, not RGB.
    flow: bool = False
    changes: Changes = Changes()

    @property
    def wanted(self) -> Wanted:
        """The request to the sampling rule."""
        return Wanted(self.frames, self.clips, self.stride, self.stack)

    @property
    def views(self) -> int:
        return self.clips * self.crops

    @property
    def name(self) -> str:
        """The id of the protocol, with the changes."""
        changed = ", ".join(f"{key} {value}" for key, value in msgspec.to_builtins(self.changes).items())
        return f"{self.protocol} with {changed}" if changed else self.protocol


def default(entry: Entry) -> str:
    """Return the id of the protocol of a model without published figures, by which training measures it."""
    return _DEFAULT[entry.sampling]


def choose(entry: Entry, contract: Contract | None, protocol: str | None, changes: Changes) -> EvaluationPlan:
    """Return the plan of `protocol`, an id or a short name, for `entry`; default: that of the first published figure.

    An exported file (`contract`) has its frames and size built in, and a model may be loaded with others than the
    entry's: the default is the first published protocol that fits them. Raises DataError if none does.
    """
    published = dict.fromkeys(result.protocol for result in entry.results if result.protocol)
    names = [protocol] if protocol is not None else list(published) or [default(entry)]
    if contract is None:
        return _resolve(*recipes.find_protocol(names[0]), entry, changes)
    for name in names:
        with suppress(DataError):
            plan = _resolve(*recipes.find_protocol(name), entry, changes)
            if _fits(plan, contract):
                return plan
    plan = _resolve(*recipes.find_protocol(names[0]), entry, changes)
    if plan.sampling == "whole" and plan.size == contract.size:
        raise DataError(
            f"{contract.artifact or contract.model} takes {contract.frames} frames, protocol {plan.name} gives all of "
            f"a video; give it those in the middle: --protocol {plan.protocol} --frames {contract.frames}"
        )
    make = "load" if contract.artifact is None else "export"
    advice = f"{make} with --frames {plan.frames} --size {plan.size}"
    usual = default(entry)
    followed = recipes.protocol(usual)
    if _fits(_resolve(usual, followed, entry, Changes(frames=contract.frames)), contract):
        name = followed.short or usual
        advice += f", or measure it otherwise: --protocol {name} --frames {contract.frames}"
    raise DataError(
        f"{contract.artifact or contract.model} takes {contract.frames} frames of {contract.size} px, protocol "
        f"{plan.name} gives {plan.frames} of {plan.size}; {advice}"
    )


def _resolve(name: str, protocol: Protocol, entry: Entry, asked: Changes) -> EvaluationPlan:
    tested = next((result.frames for result in entry.results if result.protocol == name), None)
    own_frames = tested or protocol.frames or (entry.frames if entry.mode == "offline" else None)
    frames = asked.frames or own_frames
    if frames is None:
        raise DataError(f"{entry.id} is online and protocol {name} leaves the frames to the model; give --frames")
    own_stride = entry.stride if protocol.sampling == "spread" else None
    clips, crops = asked.clips or protocol.clips, asked.crops or protocol.crops
    if protocol.sampling not in recipes.STRIDED and clips > (most := 2 if protocol.sampling == "uniform" else 1):
        raise DataError(f"protocol {name} takes {most} clips at most; choose a dense one for {clips}")
    if protocol.sampling == "interleaved" and frames < 2:
        raise DataError(f"protocol {name} needs 2 frames at least, half of them centres and half starts")
    own = {"clips": protocol.clips, "crops": protocol.crops, "frames": own_frames}
    whole = protocol.sampling == "whole"
    return EvaluationPlan(
        protocol=name,
        pipeline=protocol.pipeline,
        # A number of frames of the whole video means those in its middle.
        sampling="spread" if whole and asked.frames else protocol.sampling,
        clips=clips,
        frames=frames,
        stride=1 if whole else protocol.stride or own_stride or max(1, DENSE_WINDOW // frames),
        crops=crops,
        short_side=entry.short_side,
        size=entry.short_side if protocol.full else entry.size,
        average=protocol.average,
        answer=protocol.answer if entry.mode == "online" else "mean",
        stack=entry.stack,
        flow=entry.modality == "flow",
        changes=Changes(**{key: value for key, value in msgspec.to_builtins(asked).items() if value != own[key]}),
    )


def _fits(plan: EvaluationPlan, contract: Contract) -> bool:
    any_length = contract.mode == "online"
    return plan.size == contract.size and (any_length or (plan.frames == contract.frames and plan.sampling != "whole"))
