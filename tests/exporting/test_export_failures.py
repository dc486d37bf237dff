"""Failures of an export, and names: with a converter that writes a few bytes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import chdir
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from tests.exporting.exports import Quick, document_of, invoke, listing, refusal, sha256
from tsmzoo.artifact.contract import Contract
from tsmzoo.errors import ArtifactError
from tsmzoo.formats import Format
from tsmzoo.registry import recipes
from tsmzoo.typing import Array


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
        self.models: dict[str, nn.Module] = {}
        #: Raised by the step of that name.
        self.errors: dict[str, BaseException] = {}
        self.factor = 1.0

    def _step(self, name: str) -> None:
        if name in self.errors:
            raise self.errors[name]

    def convert(self, model: nn.Module, _: Contract, out: Path) -> None:
        self.models[out.suffix] = model
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

    def load(self, path: Path, contract: Contract, _threads: int | None = None) -> Direct:
        self._step("load")
        direct = Direct(self.models[path.suffix], contract)
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
SMALL = ("export", "tsm_mbv2_motion", "--weights", "random", "--size", 32, "--frames", 2)


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
    name = f"tsm_mbv2_motion-{precision}"
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
#: Those that are found only once the converter's library is there.
LATE = {"weights": "onnx", "clip": "onnx", "kit of probabilities": "onnx", "kit that keeps states": "coremltools"}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_wishes_are_refused_before_anything_is_fetched(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case in LATE:
        pytest.importorskip(LATE[case])
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
