"""`export --kit`: what is in the folder, and that its texts say all that the contract does."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.exporting.kits import CASES, ONLINE, ZOO, Toy, contract_of, invoke, written
from tsmzoo.artifact.contract import Contract, Verification
from tsmzoo.errors import ExportError
from tsmzoo.exporting.kit import kit
from tsmzoo.exporting.kit import vector as kit_vector
from tsmzoo.exporting.plan import Plan
from tsmzoo.inference.model import Model
from tsmzoo.registry import recipes


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def kit_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Contract, Path]]:
    """Give a function from a case to its contract and its kit; do not change what lies there."""

    @functools.cache
    def make(case: str) -> tuple[Contract, Path]:
        contract = contract_of(*CASES[case][:2], **CASES[case][2])
        return contract, written(tmp_path_factory.mktemp("case"), contract)

    return make


Kit = Callable[[str], tuple[Contract, Path]]


@pytest.mark.parametrize("case", CASES)
def test_a_kit_is_whole_and_says_all_that_the_contract_does(case: str, kit_of: Kit) -> None:
    contract, folder = kit_of(case)
    code = {"tflite": ".kt", "coreml": ".swift"}.get(contract.format)
    name = kit.class_name(contract.model)
    model = {"tflite": "m.tflite", "coreml": "m.mlpackage/Data/weights", "onnx": "m.onnx"}[contract.format]
    wanted = {"README.md", "labels.txt", "m.json", "reference.py", model}
    wanted |= {f"vector/{file}" for file in ("vector.json", "input.bin", "logits.bin")}
    assert listing(folder) == wanted | ({name + code} if code else set())
    assert {path.name for path in folder.parent.iterdir()} == {"kit", model.split("/")[0]}

    labels = contract.labels or tuple(f"class {index}" for index in range(contract.classes))
    assert (folder / "labels.txt").read_text("utf-8").splitlines() == list(labels)
    assert msgspec.json.decode((folder / "m.json").read_bytes(), type=Contract) == contract
    for path in (folder / "README.md", *folder.glob("*.kt"), *folder.glob("*.swift")):
        text = path.read_text("utf-8")
        for odd in ("{{", "{%", "None", "dtype(", "\t"):
            assert odd not in text, path.name
        assert "\n\n\n" not in text
        assert not re.search(r"[ \t]+$", text, re.M)
        assert ("Its weights are random" in text) == (path.suffix == ".md")
        for tensor in (*contract.inputs, *contract.outputs):
            assert re.search(rf'[`"]{tensor.name}[`"]', text), f"{tensor.name} in {path.name}"
        if path.suffix != ".md":
            assert all(label in text for label in labels)
            assert (contract.sha256 or "") in text
            for facts in (contract.mean, contract.std) if "preprocess" in CASES[case][2] else ():
                assert ", ".join(map(str, facts)) in text
    readme = (folder / "README.md").read_text("utf-8")
    assert "before it got its name" in readme
    assert ("litert" in readme) == (contract.format == "tflite")
    assert ("Xcode" in readme) == (contract.format == "coreml")
    assert all(doubt in readme for doubt in contract.doubt)
    assert ("has doubts" in readme) == bool(contract.doubt)
    assert ("frames a second" in readme) == (contract.target_fps is not None)
    assert ("Several classes" in readme) == (contract.activation == "sigmoid")
    for pair in contract.states if contract.state == "packed" else ():
        assert f"Feed what comes out as `{pair.output}` back as `{pair.input}`" in readme
    if code:
        text = (folder / f"{name}{code}").read_text("utf-8")
        assert ("1 / (1 + exp(-mean[index]))" in text) == (contract.activation == "sigmoid")
        assert ("keeps its 10 states" in text) == (contract.mode == "online")


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("android, online", "export it again with `tsmzoo export tsm_mbv2_motion_online … --gpu-safe`"),
        ("android, for GPUs", "This file's outputs are set apart for that (`--gpu-safe`)."),
        ("android, packed", "copied into one, `next_state`"),
        ("android, offline", None),  # it has no output that it goes on with
        ("ios, online", None),
    ],
)
def test_a_kit_says_what_gpus_do_to_its_outputs(case: str, said: str | None, kit_of: Kit) -> None:
    readme = (kit_of(case)[1] / "README.md").read_text("utf-8")
    assert ("Some GPUs corrupt" in readme) == (said is not None)
    assert said is None or said in readme
    assert readme.count("gpu-safe") == (said is not None and "gpu-safe" in said)


@pytest.mark.parametrize(
    ("runtime", "doubted"), [("Core ML, macOS 15.1", False), ("tsmzoo's ML Program interpreter, torch 2.13.0", True)]
)
def test_a_kit_says_what_ran_the_file(runtime: str, doubted: bool, tmp_path: Path) -> None:
    contract = msgspec.structs.replace(
        contract_of(ONLINE, "coreml"), verification=Verification(status="passed", runtime=runtime, tolerance=1e-2)
    )
    readme = (written(tmp_path, contract) / "README.md").read_text("utf-8")
    assert f"by {runtime}, and\nevery output compared" in readme
    assert ("That is not Core ML itself" in readme) == doubted


@pytest.mark.parametrize("case", CASES)
def test_the_vector_holds_what_the_file_takes_and_answers(case: str, kit_of: Kit) -> None:
    contract, folder = kit_of(case)
    vector = folder / "vector"
    header = json.loads((vector / "vector.json").read_bytes())
    arrays = {
        name: np.frombuffer((vector / header[name]["file"]).read_bytes(), header[name]["dtype"]).reshape(
            header[name]["shape"]
        )
        for name in ("input", "logits")
    }
    assert header["input"]["dtype"] == ("uint8" if contract.preprocess == "embedded" else "float32")
    assert arrays["input"].shape[1:] == contract.main_input.shape
    assert len(arrays["input"]) >= (16 if contract.mode == "online" else 3)
    states = contract.initial_states()
    for given, expected in zip(arrays["input"], arrays["logits"], strict=True):
        outputs = Toy(contract).run({contract.main_input.name: given, **states})
        states = {pair.input: outputs[pair.output] for pair in contract.states}
        assert outputs["logits"][0] == pytest.approx(expected, abs=1e-3)
    if contract.mode == "offline":
        axis = contract.main_input.layout.index("T")
        assert (np.flip(arrays["input"][0], axis) == arrays["input"][1]).all()


def test_the_motion_models_see_a_scene_of_their_own() -> None:
    contract = contract_of(ONLINE, "onnx")
    vector = kit_vector.vector(Model(Toy(contract), contract))
    assert "motion" in vector.shown
    assert len(vector.inputs) == 18  # 9 of 17 frames, at 4 a second, both ways
    assert (vector.inputs[:9] == vector.inputs[:8:-1]).all()
    other = msgspec.structs.replace(contract, dataset="jester")
    assert "noise" in kit_vector.vector(Model(Toy(other), other)).shown


def test_eight_bits_may_differ_less_between_phones_than_from_torch() -> None:
    contract = contract_of(ONLINE, "onnx")
    loose = msgspec.structs.replace(contract, verification=Verification(status="passed", runtime="toy", tolerance=1.0))
    assert kit_vector.vector(Model(Toy(contract), contract)).tolerance == 1e-4
    assert kit_vector.vector(Model(Toy(loose), loose)).tolerance == 0.1


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("tsm_mbv2_online", "TsmMbv2Online"),
        ("my-gestures.v2", "MyGesturesV2"),
        ("3d", "Model3d"),
        ("X", "X"),
    ],
)
def test_a_class_has_a_name_that_languages_take(model: str, name: str) -> None:
    assert kit.class_name(model) == name


def test_a_folder_that_holds_something_is_refused_before_the_long_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsmzoo.exporting.export.plan_export", lambda *_, **__: pytest.fail("the long work began"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    (tmp_path / "file").touch()
    for taken in ("mine", "file"):
        result = invoke("export", ONLINE, "--to", "onnx", "--kit", tmp_path / taken, "-o", tmp_path / "m.onnx")
        assert result.exit_code == 1
        assert result.stderr == f"error: {tmp_path / taken}: is not empty; give a new folder with --kit\n"
    assert listing(tmp_path) == {"mine/notes", "file"}


@pytest.mark.parametrize(
    ("out", "folder"),
    [
        ("kk/m.onnx", "kk"),
        ("kk/m.onnx", "kk/../kk"),
        ("kk/deep/m.onnx", "kk"),
        ("m.onnx", "m.onnx"),
        ("m.onnx", "m.json"),
        ("m.onnx", "m.onnx/kit"),
        ("link/m.onnx", "kk"),
    ],
)
def test_a_file_in_its_kits_way_is_refused_before_the_long_work(out: str, folder: str, tmp_path: Path) -> None:
    entry = ZOO.find(ONLINE)
    (tmp_path / "kk" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("kk")
    plan = Plan(entry, recipes.target("onnx"), None, tmp_path / out, False)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=r"/m\.\w+ is to be written there, too; give a new folder with --kit$"):
        kit.check_plan(plan, tmp_path / folder)
    for other in ("kit", "k", "kk/kit", "kk/m", "kk/deep/m"):
        kit.check_plan(plan, tmp_path / other)


def test_the_command_refuses_it_before_it_makes_anything(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    (tmp_path / "kk").mkdir()
    result = invoke("export", ONLINE, "--to", "onnx", "-o", tmp_path / "kk" / "x.onnx", "--kit", tmp_path / "kk")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'kk'}: {tmp_path / 'kk' / 'x.onnx'} is to be")
    assert listing(tmp_path) == set()


def test_a_kit_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = contract_of(ONLINE, "onnx")
    (tmp_path / "m.onnx").touch()
    vector = kit_vector.vector(Model(Toy(contract), contract))
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="cannot be written"):
        kit.write(tmp_path / "file" / "kit", tmp_path / "m.onnx", contract, vector)
    monkeypatch.setattr(kit, "texts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kit.write(tmp_path / "kit", tmp_path / "m.onnx", contract, vector)
    assert listing(tmp_path) == {"m.onnx", "file"}
    assert not (tmp_path / "kit").exists()


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    assert (written(tmp_path, contract_of(ONLINE, "onnx")) / "README.md").is_file()
