"""Quantize the weights of Core ML packages by coremltools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as optimize

from tsmzoo.artifact.contract import Contract
from tsmzoo.typing import Array

from .convert import save, writing


@writing()
def quantize(
    source: Path, contract: Contract, feeds: Sequence[dict[str, Array]], out: Path, keep_float: int = 0
) -> list[tuple[str, float]]:
    """Write the package `source` with its weights in int8, one scale a channel; computed in half precision."""
    package = ct.models.MLModel(str(source), skip_model_load=True)
    weights = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel")
    save(optimize.linear_quantize_weights(package, optimize.OptimizationConfig(weights)), contract, out)
    return []
