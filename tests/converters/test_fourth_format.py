"""A format that nobody knows, torch's own, as its author would add it: a folder, a row, a recipe; commands take it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tsmzoo.data import motion

ROOT = Path(__file__).resolve().parents[2]

ROW = '    COREML = "coreml"\n', '    COREML = "coreml"\n    PT2 = "pt2"\n'

FOLDER = {
    "__init__.py": '''
"""PT2: torch's own format of exported programs."""

from tsmzoo.artifact.converter import Converter
from tsmzoo.artifact.tensors import TensorConventions
from tsmzoo.formats import Format

CONVERTER = Converter(
    format=Format.PT2,
    conventions=TensorConventions(frame_dtype="uint8", clip_dtype="uint8"),
    precisions=("fp32",),
    states=("explicit", "packed"),
    chooses_threads=True,
    libraries=("torch",),
)
''',
    "convert.py": """
import torch

from tsmzoo.artifact.contract import METADATA_KEY


def convert(model, contract, out):
    examples = tuple(torch.zeros(tensor.lengths(), dtype=getattr(torch, tensor.dtype)) for tensor in contract.inputs)
    program = torch.export.export(model, examples)
    torch.export.save(program, out, extra_files={METADATA_KEY: contract.embedded()})
""",
    "runtime.py": """
import torch

from tsmzoo.artifact.contract import METADATA_KEY


def check(path, contract):
    inside = {METADATA_KEY: ""}
    torch.export.load(path, extra_files=inside)
    contract.check_copy(path, inside[METADATA_KEY])
    return ["opens"], []


class Pt2Runner:
    runtime = f"torch.export {torch.__version__}"

    def __init__(self, path, contract):
        self._module = torch.export.load(path).module()
        self._inputs = [tensor.name for tensor in contract.inputs]
        self._outputs = [tensor.name for tensor in contract.outputs]

    def run(self, inputs):
        with torch.inference_mode():
            found = self._module(*(torch.from_numpy(inputs[name]) for name in self._inputs))
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, found, strict=True)}


def load(path, contract, threads=None):
    return Pt2Runner(path, contract)
""",
    "session.py": """
from tsmzoo.artifact.session import RunnerSession

from .runtime import load


def session(path, contract, threads):
    return RunnerSession(load(path, contract), contract)
""",
}

RECIPE = """
format: pt2
precision: fp32
preprocess: embedded
tolerance: {fp32: 1.0e-4}
steps: 16
"""


@pytest.mark.slow
def test_a_format_is_a_folder_a_row_and_a_recipe(tmp_path: Path) -> None:
    house = tmp_path / "house"
    for name in ("tsmzoo", "converters", "recipes"):
        shutil.copytree(ROOT / name, house / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "registry.yaml", house)
    formats = house / "tsmzoo" / "formats.py"
    text = formats.read_text()
    assert ROW[0] in text
    formats.write_text(text.replace(*ROW))
    (house / "converters" / "pt2").mkdir()
    for name, content in FOLDER.items():
        (house / "converters" / "pt2" / name).write_text(content)
    (house / "recipes" / "export" / "pt2.yaml").write_text(RECIPE)
    motion.write(tmp_path / "clips", 2, 5)
    video = next((tmp_path / "clips").rglob("*.mp4"))

    def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(house)}
        line = [sys.executable, "-m", "tsmzoo", *map(str, arguments)]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    def answer(*arguments: str | Path) -> str:
        done = command(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = json.loads(answer("export", "tsm_mbv2_motion_online", "--to", "pt2", "--state", "packed", "--json"))
    assert (made["passed"], made["format"], made["artifact"]) == (True, "pt2", "tsm_mbv2_motion_online-fp32-packed.pt2")
    assert json.loads(answer("verify", made["artifact"], "--json"))["max_rel_error"] <= 1e-4
    shown = [answer("run", each, video, "--json").splitlines() for each in (made["artifact"], made["model"])]
    assert [json.loads(line)["label"] for line in shown[0]] == [json.loads(line)["label"] for line in shown[1]]
    (row,) = json.loads(answer("bench", made["artifact"], "--runs", "1", "--json"))
    assert row["threads"] is None
    assert row["runtime"].startswith("torch.export ")
    for wish, said in (("--gpu-safe", "--gpu-safe is for tflite"), ("--dynamic-batch", "is for onnx; pt2 files take")):
        refused = command("export", "tsm_mbv2_motion_online", "--to", "pt2", wish)
        assert (refused.returncode, said in refused.stderr) == (1, True)
