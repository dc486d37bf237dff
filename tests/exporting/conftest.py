"""Fixtures of the tests of exports."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tsmzoo
from tests.exporting.exports import Quick, invoke

#: By format the name of a file in fp32, and the options that make it.
FILES = {
    "onnx": ("m.onnx", ()),
    "tflite": ("m.tflite", ("--gpu-safe",)),
    "coreml": ("m.mlpackage", ("--precision", "fp32")),
}


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    """The smallest conversion there is; tests that damage it take a copy."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("quick")
    with chdir(folder):
        result = invoke("export", "tsm_mbv2_online", "--to", "onnx", "--weights", "random", "--size", 64, "--json")
    assert result.exit_code == 0, result.output
    return Quick(folder / "tsm_mbv2_online-fp32.onnx", result)


@pytest.fixture
def exported_case(
    tmp_path: Path,
    published: Callable[[str], Path],
    parity: Callable[[str], dict[str, Any]],
    make_input: Callable[..., Any],
) -> Callable[[str, str, str], tuple[tsmzoo.Model, np.ndarray, dict[str, Any]]]:
    """Give a function that exports a model with the published file of a parity case: the model, its input, the case."""

    def export(model: str, to: str, name: str) -> tuple[tsmzoo.Model, np.ndarray, dict[str, Any]]:
        case, (file, options) = parity(name), FILES[to]
        weights = ("--weights", published(name), "--preprocess", "external")
        result = invoke("export", model, "--to", to, *weights, *options, "-o", tmp_path / file)
        assert result.exit_code == 0, result.output
        if to == "tflite":
            assert "rank 4 at most" in result.stdout
            assert "TRANSPOSE 0, nothing known against LiteRT's GPU delegate" in result.stdout
        clip = make_input(case["input"]["shape"], case["input"]["seed"]).numpy() * case["input"]["scale"]
        return tsmzoo.load(tmp_path / file), clip, case

    return export
