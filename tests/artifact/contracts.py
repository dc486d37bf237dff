"""The contract of a toy."""

from __future__ import annotations

from typing import Any

import msgspec

from tsmzoo.artifact.contract import Contract, StatePair, Tensor


def toy_contract(**changes: Any) -> Contract:
    """An online model of one state and two classes, of random weights."""
    frame = Tensor(name="frame", shape=(1, 3, 8, 8), dtype="float32", layout="NCHW", meaning="one frame")
    state = Tensor(name="state_0", shape=(1, 2, 4, 4), dtype="float32", layout="NCHW", meaning="zeros at first")
    logits = Tensor(name="logits", shape=(1, 2), dtype="float32", layout="NC", meaning="scores")
    facts: dict[str, Any] = {
        "model": "toy",
        "family": "tsm",
        "mode": "online",
        "backbone": "toy",
        "dataset": "toy",
        "format": "onnx",
        "precision": "fp32",
        "preprocess": "external",
        "inputs": (frame, state),
        "outputs": (logits, msgspec.structs.replace(state, name="next_state_0")),
        "states": (StatePair(input="state_0", output="next_state_0"),),
        "classes": 2,
        "labels": ("one", "two"),
        "channel_order": "RGB",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "size": 8,
        "resize": 9,
        "frames": 1,
        "sampling": "stream",
        "stride": None,
        "target_fps": 15.0,
        "weights": "random",
        "seed": 0,
        "licence": "MIT",
        "citation": "somebody",
        "versions": {"tsmzoo": "1"},
    }
    return Contract(**(facts | changes))
