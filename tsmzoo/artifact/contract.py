"""The contract of an exported file: what its tensors are and mean, what it was made from, how it was verified.

It is written as `NAME.json` beside the file, and, but for digest and verification, inside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np

from tsmzoo.errors import ArtifactError
from tsmzoo.registry import Classes, Frames, Mean, Rate, StateKind, Std, Stride
from tsmzoo.typing import Array

#: Axes in order; N is the batch, T the frames of a clip.
Layout = Literal["NCHW", "NHWC", "NTCHW", "THWC", "NC"]
DType = Literal["uint8", "float32", "float16"]
#: How the states of an online model are handed on: as inputs and outputs, as one of each, or kept by the file itself.
State = Literal["explicit", "packed", "implicit"]
#: Whether pixels are normalized inside the file or by who calls it.
Preprocess = Literal["embedded", "external"]
#: What makes probabilities of logits: classes exclude one another, or each may hold.
Activation = Literal["softmax", "sigmoid"]

#: Values along an axis, bytes of a file, steps of a verification in all.
Length = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
#: Frames of a stream of a verification, which `verify` holds in memory.
Steps = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
#: Of errors relative to an output's range: at 1 they are not judged.
Tolerance = Annotated[float, msgspec.Meta(gt=0, le=1)]
#: Pixels of a side: of the input, and of what it is cropped from.
Pixels = Annotated[int, msgspec.Meta(ge=1, le=4096)]

#: Key of the contract among a file's own metadata, in every format.
METADATA_KEY = "tsmzoo"

#: Numbers that a tensor may hold.
MOST_NUMBERS = 2**31


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Tensor(_Record, frozen=True, kw_only=True):
    """An input or output; an axis of any length is a string."""

    name: str
    shape: Annotated[tuple[Length | str, ...], msgspec.Meta(max_length=8)]
    dtype: DType
    layout: Layout
    meaning: str
    #: An image (Core ML) is given as such, not as an array of this shape.
    type: Literal["tensor", "image"] = "tensor"
    #: Of a state, what it holds, and whether its numbers stay within the range of features however long a stream is.
    kind: StateKind | None = None
    bounded: bool | None = None

    def lengths(self, batch: int = 1) -> tuple[int, ...]:
        """Return the shape for `batch` clips or streams, which is what an axis of any length counts."""
        return tuple(batch if isinstance(n, str) else n for n in self.shape)


class StatePair(_Record, frozen=True, kw_only=True):
    """What comes out of one step as `output` goes into the next as `input`."""

    input: str
    output: str
    initial: Literal["zeros"] = "zeros"


class Checkpoint(_Record, frozen=True, kw_only=True):
    """The weights file that the artifact was made from."""

    sha256: str
    format: str
    #: Its name, and where it was published; a user's folders are nobody else's business.
    file: str
    url: str | None = None
    #: A bidirectional checkpoint in an online model: its answers are not those of the paper.
    shift_mismatch: bool = False
    #: The shift that it was said to be trained with, where its keys do not tell.
    shift: Literal["uni", "bi"] | None = None


class Case(_Record, frozen=True, kw_only=True):
    """One stream or clip of a verification."""

    name: str
    steps: Steps
    max_rel_error: float


class Quality(_Record, frozen=True, kw_only=True):
    """How a quantized file answers on real clips, next to the same file in float."""

    #: What the clips are.
    data: str
    clips: Number
    #: Share of clips whose first class is the same.
    agreement: float
    #: Mean cosine between both files' logits, their means taken off.
    cosine: float
    #: Operators that stayed float, and what each operator cost, largest first: by how much of their range the logits'
    #: error falls without its rounding.
    kept_float: tuple[str, ...] = ()
    costs: tuple[tuple[str, float], ...] = ()
    #: In percent, where labels are known.
    top1_float: float | None = None
    top1: float | None = None
    #: Mean cosine after each frame of long streams (online): errors of states must not add up.
    drift: tuple[float, ...] = ()


class Verification(_Record, frozen=True, kw_only=True):
    """How an artifact's bytes compared with the torch model.

    Errors are the largest differences, each relative to the range of that output in torch.
    """

    status: Literal["passed", "failed"]
    runtime: str
    #: Why it failed.
    reason: str | None = None
    tolerance: Tolerance
    max_rel_error: float | None = None
    mean_rel_error: float | None = None
    #: The output that the largest error stands in.
    worst: str | None = None
    #: Share of answers whose first class is the same.
    top1_agreement: float | None = None
    steps: Number = 0
    cases: tuple[Case, ...] = ()
    quality: Quality | None = None
    #: What was checked of the file without running it.
    structure: tuple[str, ...] = ()
    #: What keeps the file from a phone's accelerator, or what it needs there.
    advice: tuple[str, ...] = ()


class Contract(_Record, frozen=True, kw_only=True):
    """`NAME.json`. Sizes in pixels, mean and std on the scale 0…1."""

    #: 1 lacks `shift` of the checkpoint, 2 the kinds of states.
    schema: Literal[1, 2, 3] = 3
    model: str
    family: str
    mode: Literal["offline", "online"]
    backbone: str
    dataset: str
    format: str
    precision: str
    preprocess: Preprocess
    state: State = "explicit"
    #: What turns logits into probabilities.
    activation: Activation = "softmax"
    #: Outputs are no tensors that the network goes on with, which some mobile GPUs corrupt (tflite).
    gpu_safe: bool = False
    inputs: Annotated[tuple[Tensor, ...], msgspec.Meta(min_length=1)]
    outputs: Annotated[tuple[Tensor, ...], msgspec.Meta(min_length=1)]
    states: tuple[StatePair, ...]
    #: States that have no input of their own: one after another in the packed one, or kept by the file itself.
    parts: tuple[Tensor, ...] = ()
    classes: Classes
    #: None where the class names are not at hand.
    labels: tuple[str, ...] | None
    #: Of mean and std, and of the input where its preprocessing is external; an embedded one takes RGB for BGR.
    channel_order: Literal["RGB", "BGR", "flow"]
    mean: tuple[Mean, ...]
    std: tuple[Std, ...]
    size: Pixels
    #: Short side that a video is resized to before the centre crop of `size`.
    resize: Pixels
    frames: Frames
    #: How a clip is taken from a video: `uniform`, `dense` with every `stride`th frame, or a live `stream`.
    sampling: Literal["uniform", "dense", "stream"]
    stride: Stride | None
    target_fps: Rate | None
    weights: Literal["published", "local", "random"]
    checkpoint: Checkpoint | None = None
    #: Of random weights.
    seed: Number | None = None
    licence: str
    citation: str
    doubt: tuple[str, ...] = ()
    versions: dict[str, str]
    #: Of the file itself; absent from the copy inside it.
    artifact: str | None = None
    sha256: str | None = None
    bytes: Number | None = None
    verification: Verification | None = None

    @property
    def main_input(self) -> Tensor:
        """`frame` of an online model, `clip` of an offline one."""
        return self.inputs[0]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels, or stand-ins where none are at hand."""
        return self.labels or tuple(f"class {index}" for index in range(self.classes))

    @property
    def answer(self) -> str:
        """`logits`, or `probabilities` of a file that makes them itself."""
        return self.outputs[0].name

    @property
    def averages(self) -> bool:
        """Whether its states hold running means: then what it answers after a frame is of all frames before."""
        return any(tensor.kind == "mean" for tensor in (*self.inputs, *self.parts))

    @property
    def state_bytes(self) -> int:
        """Bytes of the states of one stream in float32; 0 of an offline model."""
        return 4 * sum(prod(tensor.lengths()) for tensor in self.parts or self.inputs[1:])

    @property
    def kept_states(self) -> tuple[Tensor, ...]:
        """The states that the file keeps itself."""
        return self.parts if self.state == "implicit" else ()

    def initial_states(self, batch: int = 1) -> dict[str, Array]:
        """Return the states of the first step of `batch` streams, in the file's own layout."""
        tensors = {tensor.name: tensor for tensor in self.inputs}
        return {pair.input: np.zeros(tensors[pair.input].lengths(batch), "float32") for pair in self.states}

    def faults(self) -> Iterator[str]:
        """Yield the contradictions between parts of the contract; files of ours have none."""
        tensors = (*self.inputs, *self.outputs, *self.parts)
        yield from (fault for tensor in tensors if (fault := _shape_fault(tensor)))
        channels, batch = len(self.mean), self.outputs[0].shape[0]
        layouts = ("NCHW", "NHWC") if self.mode == "online" else ("NTCHW", "THWC")
        main = dict(zip(self.main_input.layout, self.main_input.shape, strict=False))
        if batch != 1 and not isinstance(batch, str):
            yield f"it takes {batch} clips or streams at once; 1 or any number are known"
        wanted = {"N": batch, "T": self.frames, "C": channels, "H": self.size, "W": self.size}
        if self.main_input.layout not in layouts or any(wanted[axis] != n for axis, n in main.items()):
            yield f"{self.main_input.name!r} is not made of {self.frames} frames, {channels} channels, {self.size} px"
        if self.main_input.dtype not in (("uint8", "float32") if self.preprocess == "embedded" else ("float32",)):
            yield f"{self.main_input.name!r} is of {self.main_input.dtype}, which {self.preprocess} pixels are not"
        if self.main_input.type == "image" and (self.main_input.layout, channels) != ("NCHW", 3):
            yield f"{self.main_input.name!r} is no image"
        if any(tensor.type == "image" for tensor in tensors[1:]):
            yield "a tensor other than the first input is an image"
        if self.answer not in ("logits", "probabilities") or self.outputs[0].shape[1:] != (self.classes,):
            yield f"{self.answer!r} {list(self.outputs[0].shape)} are no logits of {self.classes} classes"
        if self.labels is not None and len(self.labels) != self.classes:
            yield f"it has {len(self.labels)} labels of {self.classes} classes"
        if len(self.std) != channels or channels != (3 if self.channel_order != "flow" else max(channels, 1)):
            yield f"mean and std, of {channels} and {len(self.std)} channels, are not those of {self.channel_order}"
        if self.resize < self.size:
            yield f"a video is resized to {self.resize} px, of which {self.size} px cannot be cut"
        if self.mode == "online" and self.frames != 1:
            yield f"an online model takes a frame a step, not {self.frames}"
        yield from _state_faults(self)

    def embedded(self) -> str:
        """Return the JSON that goes inside the file."""
        return msgspec.json.encode(self._bare()).decode()

    def _bare(self) -> Contract:
        return msgspec.structs.replace(self, verification=None, sha256=None, bytes=None, artifact=None)

    def check_copy(self, path: Path, text: str | None) -> None:
        """Raise ArtifactError if `text`, the contract inside the file at `path`, is not this one."""
        try:
            same = msgspec.json.decode(text or "", type=Contract) == self._bare()
        except msgspec.MsgspecError:
            same = False
        if not same:
            raise ArtifactError(
                f"{path}: the contract inside it is not that of {contract_path(path).name}; export it again"
            )


def _shape_fault(tensor: Tensor) -> str | None:
    """Return why nothing has the shape of `tensor`."""
    free = [n for n in tensor.shape if isinstance(n, str)]
    fixed = [n for n in tensor.shape if isinstance(n, int)]
    if len(tensor.shape) != len(tensor.layout):
        return f"{tensor.name!r} has {len(tensor.shape)} axes, {tensor.layout} {len(tensor.layout)}"
    if min(fixed, default=1) < 1 or prod(fixed) > MOST_NUMBERS or free not in ([], [tensor.shape[0]]):
        return f"{tensor.name!r} has the shape {list(tensor.shape)}"
    return None


def _state_faults(contract: Contract) -> Iterator[str]:
    """Yield what is wrong with the states: their names, pairs and shapes."""
    (_, *given), (_, *returned), parts = contract.inputs, contract.outputs, contract.parts
    if contract.mode == "offline" and (given or returned or contract.states or contract.state != "explicit"):
        yield "an offline model has no states"
    if bool(parts) == (contract.state == "explicit"):
        yield f"its states are {contract.state} and have {len(parts)} parts"
    if contract.state == "implicit" and (given or returned):
        yield "it keeps its states itself, and has inputs and outputs for them"
    # By name, since they are read so: those of the parts in torch, those of a file in every step.
    count = len(parts or given)
    names = [tensor.name for tensor in parts or given]
    after = [tensor.name for tensor in returned]
    if names != [f"state_{index}" for index in range(count)]:
        yield f"its states are called {', '.join(names)[:60]}"
    if contract.state == "explicit" and after != [f"next_{name}" for name in names]:
        yield f"its next states are called {', '.join(after)[:60]}"
    if contract.state == "packed" and (len(given) != 1 or after != ["next_state"]):
        yield "its packed states are not one input and one output"
    pairs = [StatePair(input=tensor.name, output=name) for tensor, name in zip(given, after, strict=False)]
    if list(contract.states) != pairs:
        yield "its pairs of states are not those of its inputs and outputs"
    batch = contract.outputs[0].shape[0]
    for before, behind in zip(given, returned, strict=False):
        if (before.shape, before.layout, before.dtype) != (behind.shape, behind.layout, behind.dtype):
            yield f"{behind.name!r} is not what {before.name!r} takes"
    for tensor in (*contract.outputs, *given):
        if tensor.dtype != "float32" or tensor.shape[0] != batch:
            yield f"{tensor.name!r} is of {tensor.dtype}, {list(tensor.shape)}"
    axes = 2 if contract.state == "packed" else 4
    if any(len(tensor.layout) != axes for tensor in given) or any(len(part.layout) != 4 for part in parts):
        yield "its states are not features of a frame"
    elif any(isinstance(n, str) for part in parts for n in part.shape[1:]):
        yield "a part of its states is of any size"
    elif contract.state == "packed" and given:
        sizes = sum(prod(part.lengths()[1:]) for part in parts)
        if given[0].shape[1] != sizes:
            yield f"its packed state holds {given[0].shape[1]} numbers, its parts {sizes}"


def contract_path(artifact: Path) -> Path:
    """Return where the contract of `artifact` is written: `NAME.json`."""
    return artifact.with_suffix(".json")


def check_consistent(path: Path, contract: Contract) -> None:
    """Raise ArtifactError if the contract of the file at `path` contradicts itself."""
    if (fault := next(contract.faults(), None)) is not None:
        raise ArtifactError(f"{path}: its contract contradicts itself: {fault}; export it again")
