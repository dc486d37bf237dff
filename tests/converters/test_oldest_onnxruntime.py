"""ONNX files of the oldest opset and IR version that they are of: what they declare, and that old runtimes agree."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tsmzoo.cli import app

#: The oldest ONNX Runtime that this Python can install; on 3.10 it was 1.14.0 that was tried, which is the floor.
OLDEST = {(3, 11): "1.15.0", (3, 12): "1.17.0", (3, 13): "1.20.0"}

VARIANTS = {
    "online": ["tsm_mbv2_motion_online"],
    "packed": ["tsm_mbv2_motion_online", "--state", "packed", "--preprocess", "external"],
    "softmax": ["tsm_mbv2_motion_online", "--softmax"],
    "offline": ["tsm_mbv2_motion"],
    "any batch": ["tsm_mbv2_motion", "--dynamic-batch"],
    "fp16": ["tsm_mbv2_motion_online", "--precision", "fp16"],
    "w8": ["tsm_mbv2_motion_online", "--precision", "w8"],
    "int8": ["tsm_mbv2_motion_online", "--precision", "int8"],
    "non-local": ["tsm_r50_nl_k400_8f_dense_mit", "--size", "32", "--weights", "random"],
    "i3d": ["i3d_r50_replace_8f", "--size", "32", "--weights", "random"],
    "densenet": ["tsn_dense161_k400", "--size", "32", "--weights", "random"],
}

OLD = """
import sys
import numpy as np
import onnxruntime
path, given, out = sys.argv[1:]
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
feeds = dict(np.load(given))
for step in range(3):
    outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds)))
    feeds.update({name[5:]: value for name, value in outputs.items() if name.startswith("next_")})
np.savez(out, **outputs)
"""


def exported(variant: str, folder: Path) -> Path:
    path = folder / "m.onnx"
    result = CliRunner().invoke(app, ["export", *VARIANTS[variant], "--to", "onnx", "-o", str(path)])
    assert result.exit_code == 0, result.output
    return path


def declared(path: Path) -> tuple[int, dict[str, int]]:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    return model.ir_version, {opset.domain: opset.version for opset in model.opset_import}


def run(python: str | Path, path: Path, folder: Path) -> dict[str, np.ndarray]:
    """Return what three steps of a file give, with the ONNX Runtime of an environment."""
    contract = json.loads(path.with_suffix(".json").read_bytes())
    random, (main, *states) = np.random.default_rng(0), contract["inputs"]
    shape = [2 if n == "N" else n for n in main["shape"]]
    pixels = random.integers(0, 256, shape)
    feeds = {main["name"]: pixels.astype("uint8") if main["dtype"] == "uint8" else (pixels / 64 - 2).astype("float32")}
    feeds |= {state["name"]: np.zeros(state["shape"], "float32") for state in states}
    np.savez(folder / "in.npz", **feeds)
    command = [python, "-c", OLD, path, folder / "in.npz", folder / "out.npz"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return dict(np.load(folder / "out.npz"))


@pytest.fixture(scope="module")
def oldest(environment: Callable[..., Path]) -> Path:
    """The Python of an environment with the oldest ONNX Runtime there is for it."""
    version = OLDEST.get(sys.version_info[:2])
    if version is None:
        pytest.skip("the oldest ONNX Runtime for this Python is not known here")
    return environment("numpy<2", f"onnxruntime=={version}")


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_oldest_runtime_gives_the_same(variant: str, oldest: Path, tmp_path: Path) -> None:
    path = exported(variant, tmp_path)
    ir_version, opsets = declared(path)
    assert ir_version <= 8
    assert opsets[""] <= 18
    found, wanted = run(oldest, path, tmp_path), run(sys.executable, path, tmp_path)
    assert found.keys() == wanted.keys()
    # Older kernels of int8 and half round elsewhere; the first class is the same.
    tolerance = 1e-4 if not {"fp16", "int8"} & {variant} else 3e-2
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance * max(np.ptp(values), 1e-6))
    answer = next(name for name in wanted if not name.startswith("next_"))
    assert (found[answer].argmax(1) == wanted[answer].argmax(1)).all()
