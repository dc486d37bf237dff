"""The Python loop of a kit, run on real files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.exporting.kits import OFFLINE, ONLINE, contract_of, invoke, written
from tsmzoo.artifact.contract import Contract


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Give a function from model and format to the kit of a real export; do not change what lies there."""
    made: dict[tuple[str, ...], Path] = {}

    def make(model: str, to: str, *options: str) -> Path:
        key = (model, to, *options)
        if key not in made:
            pytest.importorskip({"onnx": "onnxscript", "tflite": "litert_torch", "coreml": "coremltools"}[to])
            folder = tmp_path_factory.mktemp("kit")
            suffix = {"onnx": ".onnx", "tflite": ".tflite", "coreml": ".mlpackage"}[to]
            out = ("-o", folder / f"m{suffix}", "--kit", folder / "new" / "kit")
            result = invoke("export", model, "--to", to, *options, *out, "--json")
            assert result.exit_code == 0, result.output
            document = json.loads(result.stdout)
            assert document["kit"] == str(folder / "new" / "kit")
            made[key] = folder / "new" / "kit"
        return made[key]

    return make


def reference(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "reference.py")]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)


def swap(contract: dict[str, Any]) -> None:
    """Feed two states of one shape back into each other."""
    shapes = {tensor["name"]: tensor["shape"] for tensor in contract["inputs"]}
    pairs = contract["states"]
    one, other = next((a, b) for a in pairs for b in pairs if a is not b and shapes[a["input"]] == shapes[b["input"]])
    one["output"], other["output"] = other["output"], one["output"]


@pytest.mark.parametrize("to", ["onnx", "tflite"])
@pytest.mark.slow
def test_the_python_loop_passes_and_finds_what_is_wrong(to: str, kits: Callable[..., Path], tmp_path: Path) -> None:
    good = reference(kits(ONLINE, to))
    assert good.returncode == 0, good.stderr
    assert "18 steps" in good.stdout
    assert "'going away'" in good.stdout  # what comes closer is played backwards after that

    shutil.copytree(kits(ONLINE, to), tmp_path / "swapped")
    contract = json.loads((tmp_path / "swapped" / "m.json").read_bytes())
    swap(contract)
    (tmp_path / "swapped" / "m.json").write_text(json.dumps(contract))
    swapped = reference(tmp_path / "swapped")
    assert swapped.returncode == 1
    assert "FAILED" in swapped.stderr

    for number, file in enumerate(("input.bin", "logits.bin")):
        folder = tmp_path / str(number)
        shutil.copytree(kits(ONLINE, to), folder)
        content = bytearray((folder / "vector" / file).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "vector" / file).write_bytes(content)
        flipped = reference(folder)
        assert flipped.returncode == 1
        assert flipped.stderr.strip() == f"{file} is not the one that was written; copy the kit again"


@pytest.mark.slow
def test_the_python_loop_feeds_states_of_every_kind(kits: Callable[..., Path]) -> None:
    folder = kits("movinet_a0_stream", "onnx", "--weights", "random")
    contract = json.loads((folder / "m.json").read_bytes())
    kinds = [tensor["kind"] for tensor in contract["inputs"][1:]]
    assert {kinds.count(kind) for kind in ("buffer", "mean")} == {11, 16}
    assert kinds[-1] == "count"
    result = reference(folder)
    assert result.returncode == 0, result.stderr
    assert "16 steps" in result.stdout
    assert "Running means" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_python_loop_takes_any_batch_as_one(kits: Callable[..., Path]) -> None:
    result = reference(kits(OFFLINE, "onnx", "--dynamic-batch", "--preprocess", "external"))
    assert result.returncode == 0, result.stderr
    assert "3 steps" in result.stdout


@pytest.mark.slow
def test_the_python_loop_feeds_back_one_state_for_all(kits: Callable[..., Path]) -> None:
    folder = kits(ONLINE, "onnx", "--state", "packed")
    contract = msgspec.json.decode((folder / "m.json").read_bytes(), type=Contract)
    assert [tensor.name for tensor in contract.inputs] == ["frame", "state"]
    result = reference(folder)
    assert result.returncode == 0, result.stderr
    assert "18 steps; the last answer is 'going away'" in result.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML predicts there")
def test_the_python_loop_says_where_core_ml_predicts(tmp_path: Path) -> None:
    result = reference(written(tmp_path, contract_of(ONLINE, "coreml")))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Core ML predicts on macOS alone; run this on a Mac, or `tsmzoo verify` here\n"


#: Runs a script as on a Mac, where Core ML is our interpreter of its files; the unit given, if any, forgets states.
MAC = """
import runpy
import sys
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from tsmzoo.converters.coreml.interpreter import ProgramRunner

script, wrong = sys.argv[1:]
Unit = Enum("ComputeUnit", ["CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL"])


class MLModel:
    def __init__(self, path: str, *, compute_units: Unit) -> None:
        self.runner, self.unit = ProgramRunner(Path(path)), compute_units

    def predict(self, given: dict) -> dict:
        frame = given["frame"]
        assert isinstance(frame, Image.Image) and frame.mode == "RGB"
        assert {type(value) for name, value in given.items() if name != "frame"} == {np.ndarray}
        outputs = self.runner.run(given | {"frame": np.asarray(frame).transpose(2, 0, 1)[None]})
        if self.unit.name == wrong:
            outputs |= {name: 0 * value for name, value in outputs.items() if name != "logits"}
        return outputs


sys.modules["coremltools"] = SimpleNamespace(ComputeUnit=Unit, models=SimpleNamespace(MLModel=MLModel))
sys.platform = "darwin"
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("options", "wrong"), [((), ""), ((), "CPU_AND_NE"), (("--state", "packed"), "")])
def test_the_python_loop_tries_each_choice_of_core_mls_processors(
    options: tuple[str, ...], wrong: str, kits: Callable[..., Path]
) -> None:
    script = str(kits(ONLINE, "coreml", *options) / "reference.py")
    command = [sys.executable, "-c", MAC, script, wrong]
    result = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    units = re.findall(r"^Core ML, (\w+): 18 steps; the last answer is (.*)$", result.stdout, re.M)
    assert [unit for unit, _ in units] == ["CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL"], result.stderr
    assert {answer for unit, answer in units if unit != wrong} == {"'going away'"}
    assert result.returncode == bool(wrong)
    failure = f"FAILED: Core ML, {wrong} does not compute what the model should\n"
    assert result.stderr.endswith(failure) if wrong else "FAILED" not in result.stderr


@pytest.mark.slow
def test_core_mls_answers_are_torchs(kits: Callable[..., Path]) -> None:
    folder = kits(ONLINE, "coreml")
    header, other = (
        json.loads((path / "vector" / "vector.json").read_bytes()) for path in (folder, kits(ONLINE, "onnx"))
    )
    mac = sys.platform == "darwin"
    assert header["runtime"].startswith("Core ML" if mac else "tsmzoo's ML Program interpreter, torch")
    assert header["tolerance"] == 1e-2
    readme = (folder / "README.md").read_text("utf-8")
    assert f"by {header['runtime']}, and" in readme
    assert ("That is not Core ML itself" in readme) == (not mac)
    assert header["input"]["sha256"] == other["input"]["sha256"]
    logits = [
        np.frombuffer((path / "vector" / "logits.bin").read_bytes(), "<f4") for path in (folder, kits(ONLINE, "onnx"))
    ]
    assert logits[0] == pytest.approx(logits[1], abs=2e-3 * float(np.ptp(logits[1])))
    assert (folder / "m.mlpackage" / "Manifest.json").is_file()
