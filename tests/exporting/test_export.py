"""`export` and `verify`: what is written, under which name, and that nothing stays where something failed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from tsmzoo import models, registry
from tsmzoo.artifact import store
from tsmzoo.artifact.contract import Contract
from tsmzoo.cli import app
from tsmzoo.errors import ArtifactError
from tsmzoo.formats import Format
from tsmzoo.models.wrappers import ClipModel, StreamStep
from tsmzoo.registry import recipes
from tsmzoo.typing import Array

ROOT = Path(__file__).resolve().parents[2]
ZOO = registry.load()
MEAN, STD = np.reshape([0.485, 0.456, 0.406], (3, 1, 1)), np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
RANDOM = "warning: the weights of {} are RANDOM (seed 0); its answers mean nothing\n"
#: Channels of the online model's states, and the stride they stand at (design, § 2).
FOLDS = (3, 4, 4, 8, 8, 8, 12, 12, 20, 20)
STRIDES = (4, 8, 8, 16, 16, 16, 16, 16, 32, 32)


pytestmark = pytest.mark.usefixtures("one_registry")


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def document_of(result: Result) -> Any:
    """Return the one JSON document on stdout, by the letter of the standard."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(result.stdout, parse_constant=refuse)


def refusal(result: Result) -> str:
    """Return the one line of an error that a user can cause."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    *warnings, error = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert all(line.startswith("warning: ") for line in warnings)
    return error


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def write_video(path: Path, frames: int = 20, size: tuple[int, int] = (96, 72)) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=15)
        stream.width, stream.height = size
        for number in range(frames):
            image = np.zeros((size[1], size[0], 3), "uint8")
            image[..., 0] = np.linspace(0, 255, size[0])
            image[:, 3 * number % 80 : 3 * number % 80 + 16] = (20, 220, 120)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path


# --- one real file, in ONNX: what stands in it, beside it, and on the terminal ------------------------------------


@dataclass
class Quick:
    path: Path
    result: Result

    @property
    def contract(self) -> dict[str, Any]:
        return json.loads(self.path.with_suffix(".json").read_bytes())


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    """The smallest conversion there is; tests that damage it take a copy."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("quick")
    with chdir(folder):
        result = invoke("export", "tsm_mbv2_online", "--to", "onnx", "--weights", "random", "--size", 64, "--json")
    assert result.exit_code == 0, result.output
    return Quick(folder / "tsm_mbv2_online-fp32.onnx", result)


@pytest.fixture
def copied(quick: Quick, tmp_path: Path) -> Path:
    shutil.copy(quick.path.with_suffix(".json"), tmp_path / "m.json")
    return shutil.copy(quick.path, tmp_path / "m.onnx")


def test_stdout_is_one_document_and_stderr_the_warning(quick: Quick) -> None:
    assert quick.result.stderr == RANDOM.format("tsm_mbv2_online")
    document = document_of(quick.result)
    assert document["artifact"] == quick.path.name
    assert document["sha256"] == sha256(quick.path)
    assert document["bytes"] == quick.path.stat().st_size
    assert document["seconds"] > 0
    assert 0 <= document["max_rel_error"] <= 1e-4
    assert document["steps"] >= 32
    assert document["passed"] is True


def test_a_file_and_its_contract_and_nothing_else_are_left(quick: Quick) -> None:
    assert listing(quick.path.parent) == {"tsm_mbv2_online-fp32.onnx", "tsm_mbv2_online-fp32.json"}


def test_tensors_are_named_and_shaped_as_designed(quick: Quick) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(quick.path).graph

    def described(values: Any) -> list[tuple[str, list[int], str]]:
        types = onnx.TensorProto.DataType
        return [
            (v.name, [d.dim_value for d in v.type.tensor_type.shape.dim], types.Name(v.type.tensor_type.elem_type))
            for v in values
        ]

    states = [[1, fold, 64 // stride, 64 // stride] for fold, stride in zip(FOLDS, STRIDES, strict=True)]
    assert described(graph.input) == [
        ("frame", [1, 3, 64, 64], "UINT8"),
        *((f"state_{i}", shape, "FLOAT") for i, shape in enumerate(states)),
    ]
    assert described(graph.output) == [
        ("logits", [1, 27], "FLOAT"),
        *((f"next_state_{i}", shape, "FLOAT") for i, shape in enumerate(states)),
    ]


def test_contract_tells_all_that_glue_code_needs(quick: Quick) -> None:
    contract = quick.contract
    wanted = {
        "model": "tsm_mbv2_online",
        "mode": "online",
        "format": "onnx",
        "precision": "fp32",
        "preprocess": "embedded",
        "state": "explicit",
        "activation": "softmax",
        "gpu_safe": False,
        "parts": [],
        "classes": 27,
        "channel_order": "RGB",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "size": 64,
        "resize": 73,  # 64 · 256 / 224
        "frames": 1,
        "target_fps": 15.0,
        "weights": "random",
        "seed": 0,
        "checkpoint": None,
        "artifact": quick.path.name,
        "sha256": sha256(quick.path),
        "bytes": quick.path.stat().st_size,
    }
    assert {key: contract[key] for key in wanted} == wanted
    assert contract["inputs"][0] | {"meaning": ""} == {
        "name": "frame",
        "shape": [1, 3, 64, 64],
        "dtype": "uint8",
        "layout": "NCHW",
        "meaning": "",
        "type": "tensor",
    }
    assert "0…255" in contract["inputs"][0]["meaning"]
    assert contract["states"] == [
        {"input": f"state_{i}", "output": f"next_state_{i}", "initial": "zeros"} for i in range(10)
    ]
    assert len(contract["labels"]) == 27
    assert "Swiping Left" in contract["labels"]
    assert {"tsmzoo", "torch", "onnx", "onnxruntime"} <= contract["versions"].keys()
    assert contract["verification"]["status"] == "passed"
    assert contract["verification"] == document_of(quick.result)["verification"]
    assert "onnxruntime" in contract["verification"]["runtime"]
    assert [case["steps"] for case in contract["verification"]["cases"]] == [16, 16]


def test_the_same_facts_stand_inside_the_file(quick: Quick) -> None:
    onnx = pytest.importorskip("onnx")
    inside = json.loads({p.key: p.value for p in onnx.load(quick.path).metadata_props}["tsmzoo"])
    of_the_file_itself = {"artifact", "sha256", "bytes", "verification"}
    assert {key for key, value in quick.contract.items() if inside[key] != value} == of_the_file_itself


def test_the_file_tells_nothing_of_the_machine_it_was_made_on(quick: Quick) -> None:
    """torch.onnx writes a stack trace, folders and all, to each node."""
    content = quick.path.read_bytes()
    for folder in (str(ROOT), sys.prefix, str(quick.path.parent), "site-packages", 'File "'):
        assert folder.encode() not in content


def glue(path: Path) -> Callable[[list[Array]], Iterator[dict[str, Array]]]:
    """Run a stream or clips with the format's own runtime, by what the JSON says and nothing of tsmzoo."""
    contract = json.loads((path.with_suffix(".json")).read_bytes())
    assert contract["artifact"] == path.name
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]

        def call(inputs: dict[str, Array]) -> dict[str, Array]:
            return dict(zip(names, session.run(names, inputs), strict=True))
    else:
        from ai_edge_litert.interpreter import Interpreter

        signature = Interpreter(model_path=str(path)).get_signature_runner("serving_default")

        def call(inputs: dict[str, Array]) -> dict[str, Array]:
            return signature(**inputs)

    main, *states = contract["inputs"]

    def run(inputs: list[Array]) -> Iterator[dict[str, Array]]:
        held = {s["name"]: np.zeros([1 if n == "N" else n for n in s["shape"]], s["dtype"]) for s in states}
        for array in inputs:
            if main["layout"] == "NHWC":
                array = array.transpose(0, 2, 3, 1)
            elif main["layout"] == "THWC":
                array = array[0].transpose(0, 2, 3, 1)
            if states and len(array) != len(held["state_0"]):
                held = {name: np.repeat(value, len(array), 0) for name, value in held.items()}
            outputs = call({main["name"]: np.ascontiguousarray(array.astype(main["dtype"])), **held})
            held = {pair["input"]: outputs[pair["output"]] for pair in contract["states"]}
            yield outputs

    return run


def test_the_file_runs_by_its_contract_alone(quick: Quick) -> None:
    frames = list(np.random.default_rng(5).integers(0, 256, (4, 1, 3, 64, 64), dtype="uint8"))
    entry = msgspec.structs.replace(ZOO.find("tsm_mbv2_online"), size=64)
    step = StreamStep(models.build(entry, seed=0))
    states = [torch.zeros(1, c, 64 // s, 64 // s) for c, s in zip(FOLDS, STRIDES, strict=True)]
    for frame, found in zip(frames, glue(quick.path)(frames), strict=True):
        with torch.no_grad():
            logits, *states = step(torch.from_numpy((frame / 255 - MEAN) / STD).float(), *states)
        assert np.abs(found["logits"] - logits.numpy()).max() <= 1e-4 * np.ptp(logits.numpy())
        for index, state in enumerate(states):
            error = np.abs(found[f"next_state_{index}"] - state.numpy()).max()
            assert error <= 1e-4 * np.ptp(state.numpy()), index


def test_run_answers_alike_with_the_file_and_the_model(quick: Quick, tmp_path: Path) -> None:
    entry = msgspec.to_builtins(msgspec.structs.replace(ZOO.find("tsm_mbv2_online"), size=64))
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({"models": [entry]}))  # JSON is YAML
    video = write_video(tmp_path / "v.mp4")
    of_file = invoke("run", quick.path, video, "--json")
    of_model = invoke("run", "tsm_mbv2_online", video, "--weights", "random", "--registry", own, "--json")
    for result in (of_file, of_model):
        assert result.exit_code == 0, result.output
        assert result.stderr.startswith("warning: ")
        assert "RANDOM" in result.stderr
    assert "onnxruntime" in of_file.stderr
    assert "torch" in of_model.stderr
    file, model = ([json.loads(line) for line in result.stdout.splitlines()] for result in (of_file, of_model))
    assert len(file) == len(model) == 20
    for row, other in zip(file, model, strict=True):
        assert [each["label"] for each in row["top5"]] == [each["label"] for each in other["top5"]]
        probabilities = [[each["probability"] for each in one["top5"]] for one in (row, other)]
        assert probabilities[0] == pytest.approx(probabilities[1], abs=2e-4)


# --- verify, of that file ------------------------------------------------------------------------------------------


def correct_digest(path: Path) -> None:
    """Make the contract say what the file is now."""
    contract = json.loads(path.with_suffix(".json").read_bytes())
    digest, size = store.digest(path)
    path.with_suffix(".json").write_text(json.dumps(contract | {"sha256": digest, "bytes": size}))


def offset_of_largest_weight(path: Path) -> int:
    """Return where the highest byte, sign and exponent, of the first convolution's largest weight stands."""
    onnx = pytest.importorskip("onnx")
    tensor = next(t for t in onnx.load(path).graph.initializer if list(t.dims) == [32, 3, 3, 3])
    values = np.frombuffer(tensor.raw_data, "<f4")
    content = path.read_bytes()
    assert content.count(tensor.raw_data) == 1
    return content.find(tensor.raw_data) + 4 * int(np.abs(values).argmax()) + 3


def flip(path: Path, offset: int, bits: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= bits
    path.write_bytes(content)


def test_an_untouched_file_passes_again(copied: Path, tmp_path: Path) -> None:
    before = listing(tmp_path), sha256(copied)
    result = invoke("verify", copied, "--steps", 3, "--json")
    assert result.exit_code == 0, result.output
    document = document_of(result)
    assert document["passed"] is True
    assert document["artifact"] == str(copied)
    assert document["sha256"] == before[1]
    assert document["steps"] == 6
    assert 0 < document["max_rel_error"] <= 1e-4
    assert (listing(tmp_path), sha256(copied)) == before


def test_a_real_clip_joins_the_noise(copied: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", frames=5)
    result = invoke("verify", copied, "--steps", 2, "--clip", video)
    assert result.exit_code == 0, result.output
    assert "PASSED" in result.stdout
    assert "video, 5 frames" in result.stdout
    assert "is no file" in refusal(invoke("verify", copied, "--clip", tmp_path / "none.mp4"))


def test_one_flipped_bit_is_found(copied: Path) -> None:
    flip(copied, offset_of_largest_weight(copied), 1)
    assert "was changed since its export" in refusal(invoke("verify", copied, "--json"))


@pytest.mark.parametrize("bits", [0x01, 0x40], ids=["exponent", "to infinity"])
def test_a_flipped_bit_under_a_corrected_digest_is_found_by_the_numbers(copied: Path, bits: int) -> None:
    flip(copied, offset_of_largest_weight(copied), bits)
    correct_digest(copied)
    result = invoke("verify", copied, "--steps", 2, "--json")
    error = refusal(result)
    assert "failed its verification" in error
    assert "differs" in error
    document = document_of(result)
    assert document["passed"] is False
    assert document["verification"]["status"] == "failed"


def test_a_cut_file_is_refused(copied: Path) -> None:
    copied.write_bytes(copied.read_bytes()[:-1000])
    assert "was changed" in refusal(invoke("verify", copied))
    correct_digest(copied)
    error = refusal(invoke("verify", copied))
    assert str(copied) in error
    assert "no valid ONNX" in error


@pytest.mark.parametrize("content", [b"", b"not onnx", b"\x08\x0a"])
def test_what_is_no_onnx_file_is_refused(copied: Path, content: bytes) -> None:
    copied.write_bytes(content)
    correct_digest(copied)
    assert str(copied) in refusal(invoke("verify", copied))


def test_a_file_without_its_json_is_refused(copied: Path) -> None:
    copied.with_suffix(".json").unlink()
    for command in (["verify", copied], ["run", copied, "v.mp4"]):
        assert "m.json is not beside it" in refusal(invoke(*command))


def test_another_contract_beside_the_file_is_refused(copied: Path) -> None:
    beside = copied.with_suffix(".json")
    document = json.loads(beside.read_bytes())
    beside.write_text(json.dumps(document | {"mean": [0.5, 0.5, 0.5]}))
    assert "the contract inside it" in refusal(invoke("verify", copied))


def test_other_weights_than_random_ones_are_refused(copied: Path) -> None:
    assert "leave out --weights" in refusal(invoke("verify", copied, "--weights", "w.pth"))


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(invoke("verify", tmp_path / "m.onnx"))
    (tmp_path / "m.txt").touch()
    assert "ends in none of" in refusal(invoke("verify", tmp_path / "m.txt"))


def test_weights_in_another_file_are_refused(copied: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnx.save_model(onnx.load(copied), copied, save_as_external_data=True, location="w.bin", size_threshold=1024)
    assert (copied.parent / "w.bin").stat().st_size > 8e6
    correct_digest(copied)
    error = refusal(invoke("verify", copied))
    assert "keeps weights in" in error
    assert "w.bin" in error


def test_a_constant_in_another_file_is_refused(copied: Path) -> None:
    """External data may hang on a node as well as on the graph."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(copied)
    (copied.parent / "w.bin").write_bytes(bytes(8))
    tensor = onnx.TensorProto(name="far", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["far"], value=tensor))
    copied.write_bytes(model.SerializeToString())
    correct_digest(copied)
    error = refusal(invoke("verify", copied))
    assert "keeps weights in" in error
    assert "w.bin" in error


def test_tensors_other_than_in_the_contract_are_named(copied: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(copied)
    for node in model.graph.node:
        node.output[:] = ["renamed" if name == "next_state_3" else name for name in node.output]
        node.input[:] = ["renamed" if name == "next_state_3" else name for name in node.input]
    next(value for value in model.graph.output if value.name == "next_state_3").name = "renamed"
    onnx.save_model(model, copied)
    correct_digest(copied)
    error = refusal(invoke("verify", copied))
    assert "'next_state_3' is None" in error or "'renamed' is" in error
    assert "its contract says" in error


# --- failures, with a converter that is none -------------------------------------------------------------------------


class Direct:
    """The form that would be converted, run as it is."""

    runtime = "direct"

    def __init__(self, model: nn.Module, contract: Contract) -> None:
        self.model, self.contract = model, contract

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            outputs = self.model(*(torch.from_numpy(inputs[tensor.name]) for tensor in self.contract.inputs))
        return {tensor.name: out.numpy() for tensor, out in zip(self.contract.outputs, outputs, strict=True)}


class Fake:
    """The modules of a converter in no time: its files hold a few bytes, its runner holds the network."""

    def __init__(self) -> None:
        self.content = b"a file"
        #: Raised by the step of that name.
        self.errors: dict[str, BaseException] = {}
        self.factor = 1.0

    def _step(self, name: str) -> None:
        if name in self.errors:
            raise self.errors[name]

    def convert(self, model: nn.Module, _: Contract, out: Path) -> None:
        self.model = model
        if out.suffix == ".mlpackage":
            out.mkdir()
            (out / "model").write_bytes(self.content)
        else:
            out.write_bytes(self.content)
        self._step("convert")

    def quantize(self, source: Path, _: Contract, _feeds: Any, out: Path, _keep: int) -> list[Any]:
        shutil.copytree(source, out) if source.is_dir() else shutil.copy(source, out)
        return []

    def check(self, path: Path, _: Contract) -> tuple[list[str], list[str]]:
        assert path.exists()
        self._step("check")
        return ["looked at"], ["mind the gap"]

    def load(self, _: Path, contract: Contract, _threads: int | None = None) -> Direct:
        self._step("load")
        direct = Direct(self.model, contract)
        run = direct.run
        direct.run = lambda inputs: {  # type: ignore[method-assign]
            name: value * np.float32(self.factor) if name == contract.outputs[-1].name else value
            for name, value in run(inputs).items()
        }
        return direct


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    converter = Fake()
    for format_, module in product(Format, ("convert", "quantize", "runtime")):
        monkeypatch.setitem(sys.modules, f"tsmzoo.converters.{format_}.{module}", converter)  # type: ignore[arg-type]
    target = recipes.target
    monkeypatch.setattr(recipes, "target", lambda name: msgspec.structs.replace(target(name), steps=2))
    return converter


#: An offline model is verified with three clips only.
SMALL = ("export", "tsm_mbv2_k400", "--weights", "random", "--size", 32, "--frames", 2)


def test_the_fake_converter_makes_a_file(fake: Fake, tmp_path: Path) -> None:
    """Else the tests below would pass whatever happened."""
    result = invoke(*SMALL, "--to", "onnx", "-o", tmp_path / "m.onnx", "--json")
    assert result.exit_code == 0, result.output
    assert document_of(result)["passed"] is True
    assert listing(tmp_path) == {"m.onnx", "m.json"}
    assert (tmp_path / "m.onnx").read_bytes() == fake.content
    assert invoke("verify", tmp_path / "m.onnx").exit_code == 0


ONE_LINE = {
    "load": ArtifactError("m.onnx: ONNX Runtime rejects it; export it again"),
    "check": ArtifactError("m.onnx: is no valid ONNX file"),
    "convert": ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript"),
}
BUGS = {"load": RuntimeError("bug"), "check": KeyError("bug"), "convert": ValueError("bug")}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def older(quick: Quick, tmp_path: Path) -> dict[str, bytes]:
    """What lies in the folder before, and must after."""
    (tmp_path / "m.onnx").write_bytes(b"older")
    shutil.copy(quick.path.with_suffix(".json"), tmp_path / "m.json")
    return contents(tmp_path)


def test_a_file_that_fails_its_verification_is_not_kept(fake: Fake, older: dict[str, bytes], tmp_path: Path) -> None:
    fake.factor = 1.01
    result = invoke(*SMALL, "--to", "onnx", "-o", tmp_path / "m.onnx", "--json")
    error = refusal(result)
    assert "failed its verification and was not kept: logits differs by" in error
    assert result.stdout == ""
    assert contents(tmp_path) == older
    refusal(invoke(*SMALL, "--to", "onnx", "-o", tmp_path / "new.onnx"))
    assert contents(tmp_path) == older


@pytest.mark.parametrize("step", ONE_LINE)
def test_an_error_leaves_nothing_and_takes_one_line(
    fake: Fake, step: str, older: dict[str, bytes], tmp_path: Path
) -> None:
    fake.errors = {step: ONE_LINE[step]}
    result = invoke(*SMALL, "--to", "onnx", "-o", tmp_path / "m.onnx", "--json")
    error = refusal(result)
    assert ("pip install 'tsmzoo[onnx]'" in error) == (step == "convert")
    assert result.stdout == ""
    assert contents(tmp_path) == older


@pytest.mark.parametrize("step", BUGS)
def test_a_bug_leaves_nothing_and_keeps_its_traceback(
    fake: Fake, step: str, older: dict[str, bytes], tmp_path: Path
) -> None:
    fake.errors = {step: BUGS[step]}
    result = invoke(*SMALL, "--to", "onnx", "-o", tmp_path / "m.onnx")
    assert result.exception is BUGS[step]
    assert contents(tmp_path) == older


@pytest.mark.parametrize("step", ["convert", "check", "load"])
def test_ctrl_c_leaves_nothing(fake: Fake, step: str, older: dict[str, bytes], tmp_path: Path) -> None:
    fake.errors = {step: KeyboardInterrupt()}
    result = invoke(*SMALL, "--to", "onnx", "-o", tmp_path / "m.onnx")
    assert result.exit_code not in (0, 2)
    assert "Traceback" not in result.output
    assert contents(tmp_path) == older


def test_a_full_disk_is_told_in_one_line(fake: Fake, older: dict[str, bytes], tmp_path: Path) -> None:
    fake.errors = {"convert": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "m.onnx"))}
    assert "No space left" in refusal(invoke(*SMALL, "--to", "onnx", "-o", tmp_path / "m.onnx"))
    assert contents(tmp_path) == older


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that not even root writes to")
def test_a_folder_that_takes_no_files_is_told_in_one_line(fake: Fake) -> None:
    assert fake
    assert "/proc" in refusal(invoke(*SMALL, "--to", "onnx", "-o", "/proc/m.onnx"))


def test_a_new_file_replaces_the_older_one(fake: Fake, tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        fake.content = content
        assert invoke(*SMALL, "--to", "onnx", "-o", tmp_path / "m.onnx").exit_code == 0
        assert (tmp_path / "m.onnx").read_bytes() == content
        assert invoke("verify", tmp_path / "m.onnx").exit_code == 0
    assert listing(tmp_path) == {"m.onnx", "m.json"}


def test_a_new_package_replaces_the_older_one_and_all_in_it(fake: Fake, tmp_path: Path) -> None:
    package = tmp_path / "m.mlpackage"
    assert invoke(*SMALL, "--to", "coreml", "-o", package).exit_code == 0
    (package / "stale").touch()
    assert "was changed" in refusal(invoke("verify", package))
    fake.factor = 1.5
    refusal(invoke(*SMALL, "--to", "coreml", "-o", package))
    assert listing(package) == {"model", "stale"}
    fake.factor = 1
    assert invoke(*SMALL, "--to", "coreml", "-o", package).exit_code == 0
    assert listing(package) == {"model"}
    assert listing(tmp_path) == {"m.mlpackage", "m.json"}


@pytest.mark.usefixtures("fake")
def test_files_of_one_name_and_two_formats_both_verify(tmp_path: Path) -> None:
    for suffix, to in ((".onnx", "onnx"), (".tflite", "tflite"), (".onnx", "onnx")):
        assert invoke(*SMALL, "--to", to, "-o", tmp_path / f"m{suffix}").exit_code == 0
    for suffix in (".onnx", ".tflite"):
        assert invoke("verify", tmp_path / f"m{suffix}").exit_code == 0
    assert listing(tmp_path) == {"m.onnx", "m.tflite", "m.json", "m.tflite.json"}


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(("options", "precision"), [((), "fp16"), (("--precision", "fp32"), "fp32")])
def test_the_default_name_tells_id_and_precision(options: tuple[str, ...], precision: str, tmp_path: Path) -> None:
    with chdir(tmp_path):
        assert invoke(*SMALL, "--to", "coreml", *options).exit_code == 0
    name = f"{ZOO.find('tsm_mbv2_k400').id}-{precision}"
    assert listing(tmp_path) == {f"{name}.mlpackage", f"{name}.json"}


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(("model", "preprocess"), [("tsm_mbv2_online", "embedded"), ("tsm_mbv2_k400", "external")])
def test_any_batch_is_verified_with_two(model: str, preprocess: str, tmp_path: Path) -> None:
    options = ("--weights", "random", "--size", 32, "--preprocess", preprocess, "--dynamic-batch", "--json")
    result = invoke("export", model, "--to", "onnx", *options, "-o", tmp_path / "m.onnx")
    assert result.exit_code == 0, result.output or result.exception
    assert "a batch of two" in [case["name"] for case in document_of(result)["verification"]["cases"]]
    contract = json.loads((tmp_path / "m.json").read_bytes())
    assert all(tensor["shape"][0] == "N" for tensor in (*contract["inputs"], *contract["outputs"]))


@pytest.mark.usefixtures("fake")
def test_one_frame_is_a_clip_as_well(tmp_path: Path) -> None:
    result = invoke(*SMALL[:-1], 1, "--to", "onnx", "-o", tmp_path / "m.onnx")
    assert result.exit_code == 0, result.output


WRONG: dict[str, tuple[list[str], int, str]] = {
    "ending": (["tsm_mbv2_online", "--to", "onnx", "-o", "m.tflite"], 1, "must end in .onnx"),
    "no ending": (["tsm_mbv2_online", "--to", "tflite", "-o", "m"], 1, "must end in .tflite"),
    "folder": (["tsm_mbv2_online", "--to", "onnx", "-o", "none/m.onnx"], 1, "make none first"),
    "in the way": (["tsm_mbv2_online", "--to", "onnx", "-o", "taken.onnx"], 1, "is in the way"),
    "json in the way": (["tsm_mbv2_online", "--to", "onnx", "-o", "mine.onnx"], 1, "mine.json: is in the way"),
    "precision": (["tsm_mbv2_online", "--to", "onnx", "--precision", "fp8"], 2, "--precision"),
    "bytes": (["tsm_mbv2_online", "--to", "coreml", "--precision", "int8"], 1, "not written in int8"),
    "batch": (["tsm_mbv2_online", "--to", "tflite", "--dynamic-batch"], 1, "--dynamic-batch is for onnx"),
    "frames": (["tsm_mbv2_online", "--to", "onnx", "--frames", "8"], 1, "one frame a step"),
    "model": (["tsm_mbv2_onlin", "--to", "onnx"], 1, "did you mean tsm_mbv2_online"),
    "weights": (["tsm_mbv2_online", "--to", "onnx", "--weights", "none.pth"], 1, "none.pth"),
    "clip": (["tsm_mbv2_online", "--to", "onnx", "--clip", "none.mp4"], 1, "none.mp4: is no file"),
    "registry": (["tsm_mbv2_online", "--to", "onnx", "--registry", "none.yaml"], 1, "none.yaml"),
    "format": (["tsm_mbv2_online", "--to", "onxx"], 2, "--to"),
    "no format": (["tsm_mbv2_online"], 2, "--to"),
    "preprocess": (["tsm_mbv2_online", "--to", "onnx", "--preprocess", "baked"], 2, "--preprocess"),
    "state": (["tsm_mbv2_online", "--to", "onnx", "--state", "hidden"], 2, "--state"),
    "implicit": (["tsm_mbv2_online", "--to", "onnx", "--state", "implicit"], 1, "implicit states are for coreml"),
    "implicit in fp32": (
        ["tsm_mbv2_online", "--to", "coreml", "--state", "implicit", "--precision", "fp32"],
        1,
        "half precision",
    ),
    "states of clips": (["tsm_mbv2_k400", "--to", "onnx", "--state", "packed"], 1, "offline and has no states"),
    "GPU": (["tsm_mbv2_online", "--to", "onnx", "--gpu-safe"], 1, "--gpu-safe is for tflite"),
    "softmax": (["tsm_mbv2_online", "--to", "tflite", "--softmax", "--precision", "int8"], 1, "take --no-softmax"),
    "kit of probabilities": (
        ["tsm_mbv2_online", "--to", "onnx", "--softmax", "--kit", "kit"],
        1,
        "leave out --softmax",
    ),
    "kit that keeps states": (
        ["tsm_mbv2_online", "--to", "coreml", "--state", "implicit", "--kit", "kit"],
        1,
        "leave out --state implicit",
    ),
    "two targets": (["tsm_mbv2_online", "--to", "onnx", "--recipe", "ios"], 2, "--to"),
    "recipe": (["tsm_mbv2_online", "--recipe", "androd"], 1, "there are android, coreml, ios, onnx, tflite"),
    "recipe's file": (["tsm_mbv2_online", "--recipe", "none.yaml"], 1, "none.yaml: cannot be read"),
    "size": (["tsm_mbv2_online", "--to", "onnx", "--size", "16"], 2, "--size"),
    "number of frames": (["tsm_mbv2_k400", "--to", "onnx", "--frames", "0"], 2, "--frames"),
    "seed": (["tsm_mbv2_online", "--to", "onnx", "--seed", "-1"], 2, "--seed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_wishes_are_refused_before_anything_is_fetched(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSMZOO_OFFLINE", "1")  # to fetch is an error of its own
    arguments, code, message = WRONG[case]
    (tmp_path / "taken.onnx").mkdir()
    (tmp_path / "mine.json").write_text("{}")
    with chdir(tmp_path):
        result = invoke("export", *arguments, "--json")
    assert result.exit_code == code, result.output
    assert message in (refusal(result) if code == 1 else result.stderr)
    assert result.stdout == ""
    assert listing(tmp_path) == {"taken.onnx", "mine.json"}
    assert (tmp_path / "mine.json").read_text() == "{}"


# --- the weights that a file was made from ---------------------------------------------------------------------------


@pytest.fixture
def of_local_weights(
    fake: Fake,  # noqa: ARG001 - a fixture takes no usefixtures
    published: Callable[[str], Path],
    tmp_path: Path,
) -> tuple[Path, Path]:
    """A file and the checkpoint it was made from."""
    weights = shutil.copy(published("mit_tsm_mbv2_jester_online"), tmp_path / "w.pth.tar")
    path = tmp_path / "m.onnx"
    result = invoke("export", "tsm_mbv2_online", "--to", "onnx", "--weights", weights, "--size", 32, "-o", path)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return path, weights


def test_the_contract_names_the_checkpoint_and_verify_goes_back_to_it(of_local_weights: tuple[Path, Path]) -> None:
    path, weights = of_local_weights
    contract = json.loads(path.with_suffix(".json").read_bytes())
    assert contract["weights"] == "local"
    assert contract["checkpoint"] == {
        "sha256": sha256(weights),
        "format": "mit-tsm-online",
        "file": weights.name,
        "url": None,
        "shift": None,
        "shift_mismatch": False,
    }
    assert str(weights.parent) not in path.with_suffix(".json").read_text()

    result = invoke("verify", path, "--json")
    assert result.exit_code == 0, result.output
    assert (result.stderr, document_of(result)["passed"]) == ("", True)
    moved = weights.rename(weights.with_name("moved.pth.tar"))
    error = refusal(invoke("verify", path))
    assert weights.name in error
    assert "--weights FILE" in error
    assert invoke("verify", path, "--weights", moved).exit_code == 0


def test_verify_refuses_other_weights(of_local_weights: tuple[Path, Path]) -> None:
    path, weights = of_local_weights
    state = torch.load(weights, weights_only=True)
    key = next(iter(state))
    state[key] = state[key] + 1e-6
    other = weights.with_name("other.pth.tar")
    torch.save(state, other)
    error = refusal(invoke("verify", path, "--weights", other))
    assert "made from other weights" in error
    assert "--weights FILE" in error
    assert sha256(weights)[:12] in error
    # What lies where they were is no better.
    other.rename(weights)
    assert "made from other weights" in refusal(invoke("verify", path))


# --- real conversions, with weights laid out as published ------------------------------------------------------------

slow = pytest.mark.slow
ONLINE, OFFLINE = "mit_tsm_mbv2_jester_online", "mmaction2_tsm_mbv2_k400"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, published: Callable[[str], Path]) -> Callable[..., Path]:
    """Give a function that exports in a process of its own, once, and looks at what it prints."""
    done: dict[tuple[str, ...], Path] = {}

    def run(model: str, to: Format, weights: str, *options: str) -> Path:
        key = (model, to, weights, *options)
        if key not in done:
            suffix = {Format.ONNX: ".onnx", Format.TFLITE: ".tflite", Format.COREML: ".mlpackage"}[to]
            path = tmp_path_factory.mktemp(f"{to}") / f"m{suffix}"
            chosen = weights if weights == "random" else str(published(weights))
            command = [sys.executable, "-m", "tsmzoo", "export", model, "--to", to, "--weights", chosen]
            result = subprocess.run([*command, *options, "-o", str(path)], capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr
            # Nothing of the converters' chatter.
            assert result.stderr == (RANDOM.format(ZOO.find(model).id) if weights == "random" else "")
            assert len(result.stdout.splitlines()) <= 12
            assert listing(path.parent) == {path.name, "m.json"}
            done[key] = path
        return done[key]

    return run


def contract_of(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".json").read_bytes())


def close(found: Array, wanted: Array) -> bool:
    return bool(np.abs(found - wanted).max() <= 1e-4 * np.ptp(wanted))


@slow
@pytest.mark.parametrize("to", [Format.ONNX, Format.TFLITE])
def test_a_stream_gives_the_publishers_logits(
    to: Format,
    exported: Callable[..., Path],
    parity: Callable[[str], dict[str, Any]],
    make_input: Callable[..., torch.Tensor],
) -> None:
    case = parity(ONLINE)
    path = exported("tsm_mbv2_online", to, ONLINE, "--preprocess", "external")
    clip = make_input(case["input"]["shape"], case["input"]["seed"]).numpy()
    frames = [clip[:, step] for step in range(case["frames"])]
    run = glue(path)
    for _ in range(2):  # again, from zero
        steps = list(run(frames))
        assert close(np.concatenate([outputs["logits"] for outputs in steps]), np.array(case["logits"]))
    last = [steps[-1][f"next_state_{index}"] for index in range(10)]
    assert [state.mean() for state in last] == pytest.approx(case["final_state_mean"], abs=1e-4)
    assert [state.std(ddof=1) for state in last] == pytest.approx(case["final_state_std"], abs=1e-4)


@slow
@pytest.mark.parametrize("to", [Format.ONNX, Format.TFLITE])
def test_a_clip_gives_the_publishers_logits(
    to: Format,
    exported: Callable[..., Path],
    parity: Callable[[str], dict[str, Any]],
    make_input: Callable[..., torch.Tensor],
) -> None:
    case = parity(OFFLINE)
    path = exported("tsm_mbv2_k400", to, OFFLINE, "--preprocess", "external")
    clip = make_input(case["input"]["shape"], case["input"]["seed"]).numpy()
    (outputs,) = glue(path)([clip])
    assert close(outputs["logits"], np.array(case["logits"]))
    (reversed_,) = glue(path)([clip[:, ::-1]])
    assert not close(reversed_["logits"], np.array(case["logits"]))


@slow
def test_tflite_takes_camera_values(exported: Callable[..., Path], published: Callable[[str], Path]) -> None:
    path = exported("tsm_mbv2_online", Format.TFLITE, ONLINE)
    contract = contract_of(path)
    assert contract["preprocess"] == "embedded"
    assert contract["inputs"][0] | {"meaning": ""} == {
        "name": "frame",
        "shape": [1, 224, 224, 3],
        "dtype": "uint8",
        "layout": "NHWC",
        "meaning": "",
        "type": "tensor",
    }
    assert contract["verification"]["status"] == "passed"
    assert contract["verification"]["steps"] == 32
    assert str(published(ONLINE).parent).encode() not in path.read_bytes()
    assert str(ROOT).encode() not in path.read_bytes()
    assert invoke("verify", path, "--steps", 2).exit_code == 0
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    (path.parent / "changed").mkdir()
    changed = path.parent / "changed" / path.name
    changed.write_bytes(content)
    shutil.copy(path.with_suffix(".json"), changed.with_suffix(".json"))
    assert "was changed" in refusal(invoke("verify", changed))
    changed.write_bytes(path.read_bytes()[:5000])
    correct_digest(changed)
    assert str(changed) in refusal(invoke("verify", changed))
    shutil.rmtree(changed.parent)


@slow
@pytest.mark.parametrize("model", ["tsm_mbv2_online", "tsm_mbv2_k400", "i3d_r50_k400_8x8"])
def test_onnx_takes_any_batch(model: str, exported: Callable[..., Path]) -> None:
    path = exported(model, Format.ONNX, "random", "--size", "64", "--dynamic-batch", "--preprocess", "external")
    entry = msgspec.structs.replace(ZOO.find(model), size=64)
    backbone = models.build(entry, seed=0)
    shape = (2, 3, 3, 64, 64) if entry.mode == "online" else (1, 3, 8, 3, 64, 64)
    inputs = np.random.default_rng(0).standard_normal(shape).astype("float32")
    form: nn.Module = StreamStep(backbone) if entry.mode == "online" else ClipModel(backbone, 8)
    for batch in (1, 2, 3):
        given = [array[:batch] for array in inputs]
        states = [torch.zeros(batch, c, 64 // s, 64 // s) for c, s in zip(FOLDS, STRIDES, strict=True)]
        for array, outputs in zip(given, glue(path)(given), strict=True):
            with torch.no_grad():
                out = form(torch.from_numpy(array), *(states if entry.mode == "online" else []))
            logits, *states = out if isinstance(out, tuple) else (out,)
            assert outputs["logits"].shape == (batch, entry.classes)
            assert close(outputs["logits"], logits.numpy())


TFLITE_FILES = {
    "online": ("tsm_mbv2_online", ONLINE),
    "online, embedded": ("tsm_mbv2_online", ONLINE),
    "offline": ("tsm_mbv2_k400", OFFLINE),
    "resnet": ("tsm_r50_sthv2", "random", "--size", "64"),
    "non-local": ("tsm_r50_nl_k400", "random", "--size", "64"),
    "i3d": ("i3d_r50_k400_8x8", "random", "--size", "64"),
    "inception": ("i3d_inception_k400_rgb_piergiaj", "random", "--size", "64", "--frames", "16"),
}


def tflite_file(name: str, exported: Callable[..., Path]) -> Path:
    model, weights, *options = TFLITE_FILES[name]
    if name in ("online", "offline"):
        options = ["--preprocess", "external"]
    return exported(model, Format.TFLITE, weights, *options)


@slow
@pytest.mark.parametrize("name", TFLITE_FILES)
def test_tflite_is_what_phones_run(name: str, exported: Callable[..., Path]) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from tsmzoo.converters.tflite import gpu_delegate
    from tsmzoo.converters.tflite.flatbuffer import read

    path = tflite_file(name, exported)
    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    names = {value: key for key, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    (graph,) = model.subgraphs
    codes = [model.operatorCodes[operator.opcodeIndex] for operator in graph.operators]
    operators = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in codes]
    # No Flex, nothing that needs more than the builtin operators of tflite-runtime 2.14, among which Core ML's too.
    assert set(operators) <= {
        *("ADD", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "FULLY_CONNECTED", "MAX_POOL_2D"),
        *("MEAN", "MUL", "PAD", "PADV2", "RESHAPE", "SLICE", "STRIDED_SLICE", "SUM", "TRANSPOSE"),
        *("AVERAGE_POOL_2D", "BATCH_MATMUL", "LOGISTIC", "MAXIMUM", "RELU", "SOFTMAX"),
    }
    assert max(len(tensor.shape) for tensor in graph.tensors if tensor.shape is not None) <= 4
    if "TRANSPOSE" in operators:  # one at most, in front of the classifier, where there is little to move
        rest = operators[operators.index("TRANSPOSE") + 1 :]
        assert set(rest) <= {"MEAN", "SUM", "RESHAPE", "FULLY_CONNECTED", "SLICE"}
    # Nor anything that LiteRT's GPU delegate refuses, but for states that are also read inside (--gpu-safe).
    assert set(operators) <= set(gpu_delegate.TAKEN)
    assert {finding.kind for finding in gpu_delegate.findings(read(content))} <= (
        {"output"} if name.startswith("online") else set()
    )

    # Each next state is cut from what has just been written.
    cuts = [
        (operator, before)
        for before, operator, kind in zip(graph.operators, graph.operators[1:], operators[1:], strict=False)
        if kind == "SLICE" and operator.outputs[0] in graph.outputs
    ]
    assert len(cuts) == (10 if name.startswith("online") else 0)
    assert all(operator.inputs[0] in before.outputs for operator, before in cuts)

    # Runtimes map the file into memory and read weights where they lie.
    root = schema.Model.GetRootAs(content, 0)
    start = np.frombuffer(content, "uint8").__array_interface__["data"][0]
    buffers = [root.Buffers(index) for index in range(root.BuffersLength())]
    offsets = [b.DataAsNumpy().__array_interface__["data"][0] - start for b in buffers if b.DataLength()]
    assert len(offsets) > 50
    assert all(0 < offset < len(content) and offset % 16 == 0 for offset in offsets)

    contract = contract_of(path)
    (signature,) = model.signatureDefs
    assert signature.signatureKey == b"serving_default"
    for tensors, described in ((signature.inputs, contract["inputs"]), (signature.outputs, contract["outputs"])):
        shapes = {tensor.name.decode(): graph.tensors[tensor.tensorIndex].shape.tolist() for tensor in tensors}
        assert shapes == {tensor["name"]: tensor["shape"] for tensor in described}
    inside = next(entry for entry in model.metadata if entry.name == b"tsmzoo")
    document = json.loads(bytes(model.buffers[inside.buffer].data))
    assert document["labels"] == contract["labels"]
    assert document["sha256"] is None
    assert document["checkpoint"] == contract["checkpoint"]


OLD_RUNTIME = """
import json, sys
import numpy as np
from tflite_runtime.interpreter import Interpreter

path, arrays, out = sys.argv[1:]
contract = json.load(open(path.replace(".tflite", ".json")))
run = Interpreter(path).get_signature_runner("serving_default")
main, *states = contract["inputs"]
held = {s["name"]: np.zeros(s["shape"], s["dtype"]) for s in states}
logits = []
for array in np.load(arrays)["inputs"]:
    outputs = run(**{main["name"]: array}, **held)
    held = {pair["input"]: outputs[pair["output"]] for pair in contract["states"]}
    logits.append(outputs["logits"])
np.savez(out, logits=np.concatenate(logits))
"""


@pytest.fixture(scope="module")
def old_runtime(environment: Callable[..., Path]) -> Path:
    """The Python of an environment with tflite-runtime 2.14: what old Android apps carry."""
    if sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime 2.14 was built for Python 3.11 at most")
    return environment("numpy<2", "tflite-runtime==2.14.0")


@slow
@pytest.mark.parametrize("name", TFLITE_FILES)
def test_tflite_runs_on_the_oldest_runtime(
    name: str, exported: Callable[..., Path], old_runtime: Path, tmp_path: Path
) -> None:
    path = tflite_file(name, exported)
    main = contract_of(path)["inputs"][0]
    pixels = np.random.default_rng(1).integers(0, 256, (4, *main["shape"]), dtype="uint8")
    inputs = pixels if main["dtype"] == "uint8" else (pixels / 64 - 2).astype("float32")
    np.savez(tmp_path / "in.npz", inputs=inputs)
    (tmp_path / "old.py").write_text(OLD_RUNTIME)
    command = [old_runtime, tmp_path / "old.py", path, tmp_path / "in.npz", tmp_path / "out.npz"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = np.load(tmp_path / "out.npz")["logits"]
    as_given = [np.moveaxis(array, -1, 1) if len(main["shape"]) == 4 else array for array in inputs]
    if contract_of(path)["mode"] == "offline":
        as_given = [array[None] for array in as_given]
    wanted = np.concatenate([outputs["logits"] for outputs in glue(path)(as_given)])
    assert close(found, wanted)
    assert not close(wanted[:1], wanted[1:2])


@slow
@pytest.mark.parametrize(
    ("model", "weights", "precision"),
    [
        ("tsm_mbv2_online", ONLINE, None),
        ("tsm_mbv2_online", ONLINE, "fp32"),
        ("tsm_mbv2_k400", OFFLINE, None),
    ],
)
def test_coreml_is_checked_and_run(
    model: str, weights: str, precision: str | None, exported: Callable[..., Path], tmp_path: Path
) -> None:
    path = exported(model, Format.COREML, weights, *(["--precision", precision] if precision else []))
    contract = contract_of(path)
    assert contract["precision"] == precision or "fp16"
    assert contract["verification"]["status"] == "passed"
    assert contract["verification"]["max_rel_error"] <= {"fp32": 1e-4, None: 1e-2}[precision]
    assert contract["sha256"] == store.digest(path)[0]
    result = invoke("verify", path, "--json")
    assert result.exit_code == 0, result.output
    assert document_of(result)["passed"] is True

    import coremltools as ct

    spec = ct.utils.load_spec(str(path))
    main = spec.description.input[0]
    if contract["mode"] == "online":
        assert (main.name, main.type.WhichOneof("Type")) == ("frame", "imageType")
        image = main.type.imageType
        assert (image.height, image.width, image.ColorSpace.Name(image.colorSpace)) == (224, 224, "RGB")
    else:
        frames = ZOO.find(model).frames
        assert (main.name, list(main.type.multiArrayType.shape)) == ("clip", [1, frames, 3, 224, 224])
    names = [item.name for item in spec.description.output]
    assert sorted(names) == sorted(tensor["name"] for tensor in contract["outputs"])
    inside = json.loads(spec.description.metadata.userDefined["tsmzoo"])
    assert inside["checkpoint"] == contract["checkpoint"]
    assert inside["labels"] == contract["labels"]

    # Half precision means half the bytes.
    size = (path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    bytes_a_weight = size / ZOO.find(model).params
    assert bytes_a_weight == pytest.approx(4 if precision == "fp32" else 2, rel=0.1)
    assert f"{path.stat().st_mode & 0o777:o}"[0] == "7"

    blob = tmp_path / "m.mlpackage"
    shutil.copytree(path, blob)
    shutil.copy(path.with_suffix(".json"), tmp_path / "m.json")
    weights_file = blob / "Data/com.apple.CoreML/weights/weight.bin"
    weights_file.write_bytes(weights_file.read_bytes()[: size // 2])
    assert "was changed" in refusal(invoke("verify", blob))
    correct_digest(blob)
    assert "has weights that lie at bytes" in refusal(invoke("verify", blob))


@slow
def test_ctrl_c_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tsmzoo", "export", "tsm_mbv2_online", "--to", "onnx", "--weights", "random"]
    with subprocess.Popen([*command, "-o", str(tmp_path / "m.onnx")], stderr=subprocess.PIPE, text=True) as process:
        try:
            while process.poll() is None and not listing(tmp_path):
                time.sleep(0.05)
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode not in (0, 1)
    assert "Traceback" not in stderr
    assert listing(tmp_path) == set()
