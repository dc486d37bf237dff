"""Clips of X3D and of MoViNet's base in files: the network's numbers, and the publisher's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.exporting.exports import document_of, invoke


@pytest.mark.parametrize("model", [pytest.param("x3d_xs", marks=pytest.mark.slow), "movinet_a0_base"])
def test_a_small_clip_is_verified(model: str, tmp_path: Path) -> None:
    options = ("--weights", "random", "--frames", "4", "--size", "64", "--json")
    result = invoke("export", model, "--to", "onnx", *options, "-o", tmp_path / "m.onnx")
    assert result.exit_code == 0, result.output
    report = document_of(result)
    assert report["passed"]
    assert report["max_rel_error"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_clip_gives_the_publishers_logits(to: str, exported_case: Callable[..., Any]) -> None:
    model, clip, case = exported_case("x3d_xs", to, "pytorchvideo_x3d_xs_k400")
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (model.contract.mean, model.contract.std))
    found = model.clip_logits(255 * (clip.transpose(0, 2, 1, 3, 4) * std + mean))
    wanted = np.array(case["logits"])
    assert np.abs(found - wanted).max() <= 1e-4 * np.ptp(wanted)
