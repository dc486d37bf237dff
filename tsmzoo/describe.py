"""The contract of a network in a format, before there is a file: tensors, states, labels, preprocessing."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from tsmzoo import __version__
from tsmzoo.artifact import Contract, DType, Layout, StatePair, Tensor
from tsmzoo.models.forms import state_shapes
from tsmzoo.registry import Registry
from tsmzoo.weights import Network

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
    libraries: tuple[str, ...] = ("torch",),
) -> Contract:
    """Return the contract of `network` in a format; by default that of the network run in torch."""
    entry = network.entry
    normalisation = registry.normalisations[entry.normalisation]
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
    return Contract(
        model=entry.id,
        family=entry.family,
        mode=entry.mode,
        backbone=entry.backbone,
        dataset=entry.dataset,
        format=format_,
        precision=precision,
        preprocess=preprocess,
        inputs=inputs,
        outputs=outputs,
        states=tuple(
            StatePair(input=state.name, output=next_state.name)
            for state, next_state in zip(inputs[1:], outputs[1:], strict=True)
        ),
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
        name="logits", shape=(batch, entry.classes), dtype="float32", layout="NC", meaning="class scores before softmax"
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
