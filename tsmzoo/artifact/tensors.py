"""The tensors of a model in a file: their names, shapes, types and meanings, by the conventions of the format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import msgspec

from tsmzoo.artifact.contract import Activation, DType, Layout, Preprocess, State, StatePair, Tensor
from tsmzoo.registry import Entry, StateKind, StateSpec

#: What a state holds.
_MEANINGS: dict[StateKind, str] = {
    "feature": "features of the frame before at shifted block {index}; zeros at first",
    "buffer": "features of the {frames} frames before, {channels} channels each, oldest first; zeros at first",
    "mean": "mean of features over the frames so far; zeros at first",
    "count": "how many frames there were so far, 2048 at most; zero at first",
}


@dataclass(frozen=True)
class TensorConventions:
    """How a format has the tensors of a model; the defaults are those of the network in torch."""

    frame_layout: Layout = "NCHW"
    clip_layout: Layout = "NTCHW"
    #: Types of `frame` (online) and `clip` (offline) if preprocessing is embedded.
    frame_dtype: DType = "float32"
    clip_dtype: DType = "float32"
    #: What a `frame` of bytes is.
    frame_type: Literal["tensor", "image"] = "tensor"
    #: The name of the input of packed states.
    packed_state: str = "state"
    #: The type of states that the file keeps itself.
    kept_dtype: DType = "float32"


@dataclass(frozen=True)
class Tensors:
    """Inputs, outputs and states, as `Contract` has them."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parts: tuple[Tensor, ...] = ()

    @property
    def pairs(self) -> tuple[StatePair, ...]:
        """The outputs of one step that are inputs of the next."""
        pairs = zip(self.inputs[1:], self.outputs[1:], strict=True)
        return tuple(StatePair(input=state.name, output=next_state.name) for state, next_state in pairs)


def tensors(
    entry: Entry,
    states_of: Sequence[StateSpec],
    conventions: TensorConventions,
    *,
    order: str,
    preprocess: Preprocess,
    batch: int | str = 1,
    state: State = "explicit",
    activation: Activation | None = None,
) -> Tensors:
    """Return the tensors of `entry` in a file.

    `states_of` are those of an online network, in the order of the blocks. `order` is that of the network's channels
    (RGB, BGR). `batch` is a number of clips or streams, or the name of an axis of any length. With `activation` the
    first output is probabilities.
    """
    embedded = preprocess == "embedded"
    # A file that normalizes takes what cameras give, whatever the network wants.
    kind = ("RGB" if embedded else order) if entry.modality == "rgb" else entry.flow_images
    values = f"{kind}, {'camera values 0…255' if embedded else '(value / 255 - mean) / std'}"
    # An image is three channels of bytes; stacked flow has ten.
    is_bytes = embedded and entry.modality == "rgb"
    axes: dict[str, int | str] = {"N": batch, "C": entry.channels, "H": entry.size, "W": entry.size}
    answer = _answer(batch, entry.classes, activation)
    if entry.mode == "offline":
        axes["T"] = entry.frames
        clip = Tensor(
            name="clip",
            shape=tuple(axes[axis] for axis in conventions.clip_layout),
            dtype=conventions.clip_dtype if is_bytes else "float32",
            layout=conventions.clip_layout,
            meaning=f"{entry.frames} frames in order of time, {values}",
        )
        return Tensors((clip,), (answer,))
    layout = conventions.frame_layout
    dtype = conventions.frame_dtype if is_bytes else "float32"
    frame = Tensor(
        name="frame",
        shape=tuple(axes[axis] for axis in layout),
        dtype=dtype,
        layout=layout,
        meaning=f"one frame, {values}",
        type=conventions.frame_type if dtype == "uint8" else "tensor",
    )
    states, next_states = [], []
    for index, spec in enumerate(states_of):
        _, channels, height, width = spec.shape
        axes = {"N": batch, "C": channels, "H": height, "W": width}
        given = Tensor(
            name=f"state_{index}",
            shape=tuple(axes[axis] for axis in layout),
            dtype="float32",
            layout=layout,
            meaning=_MEANINGS[spec.kind].format(index=index, frames=spec.frames, channels=channels // spec.frames),
            kind=spec.kind,
            bounded=True,
        )
        states.append(given)
        next_states.append(_next(given, f"next_state_{index}"))
    if state == "explicit":
        return Tensors((frame, *states), (answer, *next_states))
    if state == "implicit":
        kept = tuple(msgspec.structs.replace(part, dtype=conventions.kept_dtype) for part in states)
        return Tensors((frame,), (answer,), kept)
    packed = Tensor(
        name=conventions.packed_state,
        shape=(batch, sum(prod(spec.shape) for spec in states_of)),
        dtype="float32",
        layout="NC",
        meaning=f"the {len(states)} states, one after another; zeros at first",
    )
    return Tensors((frame, packed), (answer, _next(packed, "next_state")), tuple(states))


def _answer(batch: int | str, classes: int, activation: Activation | None) -> Tensor:
    return Tensor(
        name="probabilities" if activation else "logits",
        shape=(batch, classes),
        dtype="float32",
        layout="NC",
        meaning=f"probabilities of the classes, 0…1: {activation} of their scores"
        if activation
        else "class scores before any softmax or sigmoid",
    )


def _next(state: Tensor, name: str) -> Tensor:
    return msgspec.structs.replace(state, name=name, meaning=f"what {state.name} is for the next frame")
