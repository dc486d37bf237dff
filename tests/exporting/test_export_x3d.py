"""Clips of X3D and of MoViNet's base in files: the network's numbers, and the publisher's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import tsmzoo
from tests.exporting.exports import document_of, invoke

CASE = "pytorchvideo_x3d_xs_k400"
FILES = {"onnx": ("m.onnx", ()), "tflite": ("m.tflite", ("--gpu-safe",))}


@pytest.mark.parametrize("model", [pytest.param("x3d_xs", marks=pytest.mark.slow), "movinet_a0_base"])
def test_a_small_clip_is_verified(model: str, tmp_path: Path) -> None:
    options = ("--weights", "random", "--frames", "4", "--size", "64", "--json")
    result = invoke("export", model, "--to", "onnx", *options, "-o", tmp_path / "m.onnx")
    assert result.exit_code == 0, result.output
    report = document_of(result)
    assert report["passed"]
    assert report["max_rel_error"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("to", FILES)
def test_a_clip_gives_the_publishers_logits(
    to: str,
    tmp_path: Path,
    published: Callable[[str], Path],
    parity: Callable[[str], dict[str, Any]],
    make_input: Callable[..., Tensor],
) -> None:
    case, (name, options) = parity(CASE), FILES[to]
    weights = ("--weights", published(CASE), "--preprocess", "external")
    result = invoke("export", "x3d_xs", "--to", to, *weights, *options, "-o", tmp_path / name)
    assert result.exit_code == 0, result.output
    if to == "tflite":
        assert "rank 4 at most" in result.stdout
        assert "TRANSPOSE 0, nothing known against LiteRT's GPU delegate" in result.stdout
    model = tsmzoo.load(tmp_path / name)
    clip = make_input(case["input"]["shape"], case["input"]["seed"]).numpy() * case["input"]["scale"]
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (model.contract.mean, model.contract.std))
    found = model.clip_logits(255 * (clip.transpose(0, 2, 1, 3, 4) * std + mean))
    wanted = np.array(case["logits"])
    assert np.abs(found - wanted).max() <= 1e-4 * np.ptp(wanted)
