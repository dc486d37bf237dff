"""The contract of a network in a format, before there is a file: tensors, states, labels, preprocessing."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from math import prod
from typing import Literal

import msgspec

from tsmzoo import __version__
from tsmzoo.artifact.contract import Activation, Contract, DType, Layout, State, StatePair, Tensor
from tsmzoo.models.wrappers import state_shapes
from tsmzoo.registry import Registry
from tsmzoo.weights.load import Network

Preprocess = Literal["embedded", "external"]


def describe(
    registry: Registry,
    network: Network,
    *,
    format_: str = "torch",
    precision: str = "fp32",
    preprocess: Preprocess = "external",
    pixel_dtype: DType = "float32",
    pixel_type: Literal["tensor", "image"] = "tensor",
    frame_layout: Layout = "NCHW",
    clip_layout: Layout = "NTCHW",
    dynamic_batch: bool = False,
    state: State = "explicit",
    packed_state: str = "state",
    gpu_safe: bool = False,
    activated: bool = False,
    libraries: tuple[str, ...] = ("torch",),
) -> Contract:
    """Return the contract of `network` in a format; by default that of the network run in torch.

    `activated`: its first output are probabilities, not logits.
    """
    entry = network.entry
    normalisation = registry.normalisations[entry.normalisation]
    activation: Activation = "sigmoid" if entry.multi_label else "softmax"
    inputs, outputs = _tensors(
        network,
        pixel_dtype=pixel_dtype if preprocess == "embedded" else "float32",
        pixel_type=pixel_type,
        frame_layout=frame_layout,
        clip_layout=clip_layout,
        batch="N" if dynamic_batch else 1,
        # A file that normalises takes what cameras give, whatever the network wants.
        order="RGB" if preprocess == "embedded" else normalisation.order,
        values="camera values 0…255" if preprocess == "embedded" else "(value / 255 - mean) / std",
    )
    if activated:
        meaning = f"probabilities of the classes, 0…1: {activation} of their scores"
        outputs = (msgspec.structs.replace(outputs[0], name="probabilities", meaning=meaning), *outputs[1:])
    parts: tuple[Tensor, ...] = ()
    if state != "explicit":
        # Core ML knows no states but in half precision.
        kept: DType = "float16" if state == "implicit" else "float32"
        parts = tuple(msgspec.structs.replace(part, dtype=kept) for part in inputs[1:])
        inputs, outputs = inputs[:1], outputs[:1]
    if state == "packed":
        size = sum(prod(int(n) for n in part.shape[1:]) for part in parts)
        packed = Tensor(
            name=packed_state,
            shape=(inputs[0].shape[0], size),
            dtype="float32",
            layout="NC",
            meaning=f"features of the frame before at {len(parts)} shifted blocks, one after another; zeros at first",
        )
        inputs = (*inputs, packed)
        meaning = f"what {packed_state} is for the next frame"
        outputs = (*outputs, msgspec.structs.replace(packed, name="next_state", meaning=meaning))
    return Contract(
        model=entry.id,
        family=entry.family,
        mode=entry.mode,
        backbone=entry.backbone,
        dataset=entry.dataset,
        format=format_,
        precision=precision,
        preprocess=preprocess,
        state=state,
        activation=activation,
        gpu_safe=gpu_safe,
        inputs=inputs,
        outputs=outputs,
        states=tuple(
            StatePair(input=state.name, output=next_state.name)
            for state, next_state in zip(inputs[1:], outputs[1:], strict=True)
        ),
        parts=parts,
        classes=entry.classes,
        labels=registry.label_names(entry),
        channel_order=normalisation.order,
        mean=normalisation.mean,
        std=normalisation.std,
        size=entry.size,
        resize=entry.short_side,
        frames=entry.frames,
        sampling=entry.sampling,
        stride=entry.stride,
        target_fps=entry.target_fps,
        weights=network.weights,
        checkpoint=network.checkpoint,
        seed=network.seed,
        licence=entry.licence,
        citation=registry.sources[entry.source].citation,
        doubt=entry.doubt,
        versions={"tsmzoo": __version__} | {name: _version(name) for name in libraries},
    )


def _tensors(
    network: Network,
    *,
    pixel_dtype: DType,
    pixel_type: Literal["tensor", "image"],
    frame_layout: Layout,
    clip_layout: Layout,
    batch: int | str,
    order: str,
    values: str,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    entry = network.entry
    kind = order if entry.modality == "rgb" else entry.flow_images
    logits = Tensor(
        name="logits",
        shape=(batch, entry.classes),
        dtype="float32",
        layout="NC",
        meaning="class scores before any softmax or sigmoid",
    )
    if entry.mode == "offline":
        axes = {"N": batch, "T": entry.frames, "C": entry.channels, "H": entry.size, "W": entry.size}
        clip = Tensor(
            name="clip",
            shape=tuple(axes[axis] for axis in clip_layout),
            dtype=pixel_dtype,
            layout=clip_layout,
            meaning=f"{entry.frames} frames in order of time, {kind}, {values}",
        )
        return (clip,), (logits,)
    axes = {"N": batch, "C": entry.channels, "H": entry.size, "W": entry.size}
    frame = Tensor(
        name="frame",
        shape=tuple(axes[axis] for axis in frame_layout),
        dtype=pixel_dtype,
        layout=frame_layout,
        meaning=f"one frame, {kind}, {values}",
        type=pixel_type if pixel_dtype == "uint8" else "tensor",
    )
    inputs, outputs = [frame], [logits]
    for index, (_, channels, height, width) in enumerate(state_shapes(network.backbone, entry.channels, entry.size)):
        axes = {"N": batch, "C": channels, "H": height, "W": width}
        shape = tuple(axes[axis] for axis in frame_layout)
        for tensors, name, meaning in (
            (inputs, f"state_{index}", f"features of the frame before at shifted block {index}; zeros at first"),
            (outputs, f"next_state_{index}", f"what state_{index} is for the next frame"),
        ):
            tensors.append(Tensor(name=name, shape=shape, dtype="float32", layout=frame_layout, meaning=meaning))
    return tuple(inputs), tuple(outputs)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
