"""Fixtures of the tests of exports."""

from __future__ import annotations

from contextlib import chdir

import pytest

from tests.exporting.exports import Quick, invoke


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    """The smallest conversion there is; tests that damage it take a copy."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("quick")
    with chdir(folder):
        result = invoke("export", "tsm_mbv2_online", "--to", "onnx", "--weights", "random", "--size", 64, "--json")
    assert result.exit_code == 0, result.output
    return Quick(folder / "tsm_mbv2_online-fp32.onnx", result)
