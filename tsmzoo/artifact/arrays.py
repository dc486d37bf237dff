"""Convert arrays to and from what a file takes and gives: layouts, normalization, probabilities, packed states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tsmzoo.artifact.contract import Activation, Contract, Layout, Tensor
from tsmzoo.errors import ArtifactError
from tsmzoo.text import of_error
from tsmzoo.typing import Array


def check_outputs(path: Path, contract: Contract, inputs: dict[str, Array], outputs: dict[str, Array]) -> None:
    """Raise ArtifactError if a run gave a tensor of another shape than the contract says."""
    batch = len(inputs[contract.main_input.name])
    for tensor in contract.outputs:
        if (found := outputs[tensor.name].shape) != (wanted := tensor.lengths(batch)):
            raise ArtifactError(
                f"{path}: gives {tensor.name!r} as {list(found)}, its contract says {list(wanted)}; export it again"
            )


def check_tensors(path: Path, found: dict[str, Any], wanted: dict[str, Any], whose: str = "its contract says") -> None:
    """Raise ArtifactError naming the first tensor that a file has otherwise than its contract."""
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ArtifactError(f"{path}: {name!r} is {found.get(name)}, {whose} {wanted.get(name)}; export it again")


def runtime_error(path: Path, what: str, error: Exception) -> ArtifactError:
    """Return the error of a file that a runtime, say "LiteRT", "rejects" or "fails on": `what` is both words."""
    return ArtifactError(f"{path}: {what} it ({of_error(error)}); export it again")


def to_layout(array: Array, layout: Layout) -> Array:
    """Return N, C, H, W or N, T, C, H, W data (N = 1 for THWC) in `layout`."""
    if layout == "NHWC":
        array = array.transpose(0, 2, 3, 1)
    elif layout == "THWC":
        array = array[0].transpose(0, 2, 3, 1)
    return np.ascontiguousarray(array)


def from_layout(array: Array, layout: Layout) -> Array:
    """Return what `to_layout` was given."""
    if layout == "NHWC":
        return array.transpose(0, 3, 1, 2)
    if layout == "THWC":
        return array.transpose(0, 3, 1, 2)[None]
    return array


def unpacked(packed: Array, parts: tuple[Tensor, ...]) -> dict[str, Array]:
    """Return the states that lie one after another in `packed`, N, S, by their names."""
    sizes = [int(np.prod([int(n) for n in part.shape[1:]])) for part in parts]
    pieces = np.split(packed, np.cumsum(sizes)[:-1], axis=1)
    return {
        part.name: piece.reshape(-1, *(int(n) for n in part.shape[1:]))
        for part, piece in zip(parts, pieces, strict=True)
    }


def probabilities(logits: Array, activation: Activation) -> Array:
    """Return the probabilities, 0…1, of logits, …, classes."""
    if activation == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0, -logits)))
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(odds / odds.sum(-1, keepdims=True))


def logits(probabilities: Array, activation: Activation, precision: str) -> Array:
    """Return the logits that gave `probabilities`, …, classes, in a file of that precision.

    Of softmax, which forgets it, without their constant.
    """
    # What was rounded to 0 or 1 stands for the next number that would not have been: else one such frame outweighs all
    # others of a mean.
    least = np.finfo(np.float32).tiny if precision == "fp32" else np.finfo(np.float16).smallest_subnormal
    values = np.log(np.maximum(probabilities, least))
    if activation == "sigmoid":
        values -= np.log(np.maximum(1 - probabilities, np.finfo(np.float32).epsneg))
    return np.asarray(values)


def normalize(pixels: Array, contract: Contract) -> Array:
    """Return camera values 0…255 (RGB), …, C, H, W, as the network was trained on them."""
    if contract.channel_order == "BGR":
        pixels = pixels[..., ::-1, :, :]
    mean, std = (np.asarray(values, "float64").reshape(-1, 1, 1) for values in (contract.mean, contract.std))
    values: Array = ((pixels / 255.0 - mean) / std).astype("float32")
    return values


def feed(pixels: Array, contract: Contract) -> Array:
    """Return camera values 0…255, N, C, H, W or N, T, C, H, W, as the file's main input takes them."""
    values = pixels if contract.preprocess == "embedded" else normalize(pixels, contract)
    return to_layout(values.astype(contract.main_input.dtype), contract.main_input.layout)
