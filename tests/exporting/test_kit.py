"""`export --kit`: what is in the folder, that its texts are whole, and that what it runs is what the contract says."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tsmzoo import registry
from tsmzoo.artifact.arrays import feed
from tsmzoo.artifact.contract import Contract, Verification
from tsmzoo.artifact.converter import converter_of
from tsmzoo.cli import app
from tsmzoo.data import sampling
from tsmzoo.errors import ExportError
from tsmzoo.exporting.export import Plan
from tsmzoo.exporting.kit import kit
from tsmzoo.exporting.kit import vector as kit_vector
from tsmzoo.formats import Format
from tsmzoo.inference.describe import describe
from tsmzoo.inference.model import Model
from tsmzoo.inference.reference import resized
from tsmzoo.inference.smoothing import decide, default_smoothing
from tsmzoo.live.pacing import FramePacer
from tsmzoo.registry import recipes
from tsmzoo.typing import Array
from tsmzoo.weights.load import load_network

pytestmark = pytest.mark.usefixtures("one_registry")

ZOO = registry.load()
ONLINE, OFFLINE, FLOW, BGR = "tsm_mbv2_motion_online", "tsm_mbv2_motion", "tsm_r50_k400_flow", "tsn_bninception_k400"
KOTLIN = Path(__file__).parents[1] / "data" / "kotlin"


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- contracts without a conversion --------------------------------------------------------------------------------


def contract_of(entry_id: str, to: str, **changes: Any) -> Contract:
    """Return the contract that an export of a model, small, would have."""
    entry = resized(ZOO.find(entry_id), 4, 32)
    preprocess, state = changes.pop("preprocess", "embedded"), changes.pop("state", "explicit")
    converter = converter_of(Format(to))
    contract = describe(ZOO, load_network(entry, "random"), converter, preprocess=preprocess, state=state)
    passed = Verification(status="passed", runtime="toy", tolerance=1e-4)
    return msgspec.structs.replace(contract, verification=passed, sha256="ab" * 32, bytes=8, **changes)


class Toy:
    """The network of `tests/data/kotlin/Interpreter.kt`."""

    runtime = "toy"

    def __init__(self, contract: Contract) -> None:
        self._contract = contract

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        values = inputs[self._contract.main_input.name].astype("float64").ravel()
        index = np.arange(values.size)
        drive = float((values * (index % 3 + index / values.size)).mean()) / 100
        states = [inputs[pair.input] for pair in self._contract.states]
        total = drive + sum(float(state.flat[-1]) for state in states)
        outputs = {
            pair.output: states[k] / np.float32(2) + np.float32(drive * (k + 1))
            for k, pair in enumerate(self._contract.states)
        }
        return outputs | {
            "logits": 3 * np.sin(total * np.arange(1, self._contract.classes + 1))[None].astype("float32")
        }


def written(folder: Path, contract: Contract) -> Path:
    """Write the kit of a file that `Toy` runs."""
    suffix = {"tflite": ".tflite", "onnx": ".onnx", "coreml": ".mlpackage"}[contract.format]
    model = folder / f"m{suffix}"
    if suffix == ".mlpackage":
        (model / "Data").mkdir(parents=True)
        (model / "Data" / "weights").write_bytes(b"a model!")
    else:
        model.write_bytes(b"a model!")
    kit.write(folder / "kit", model, contract, kit_vector.vector(Model(Toy(contract), contract)))
    return folder / "kit"


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "android, online": (ONLINE, "tflite", {}),
    "android, online, outside": (ONLINE, "tflite", {"preprocess": "external", "channel_order": "BGR"}),
    "android, offline": (OFFLINE, "tflite", {}),
    "android, dense": (OFFLINE, "tflite", {"stride": 3, "sampling": "dense"}),
    "android, flow": (FLOW, "tflite", {}),
    "android, packed": (ONLINE, "tflite", {"state": "packed"}),
    "android, for GPUs": (ONLINE, "tflite", {"gpu_safe": True}),
    "android, many labels": (OFFLINE, "tflite", {"activation": "sigmoid"}),
    "ios, online": (ONLINE, "coreml", {"precision": "fp16"}),
    "ios, online, outside": (ONLINE, "coreml", {"preprocess": "external"}),
    "ios, any rate": (ONLINE, "coreml", {"target_fps": None}),
    "ios, packed": (ONLINE, "coreml", {"state": "packed"}),
    "ios, many labels": (ONLINE, "coreml", {"activation": "sigmoid"}),
    "ios, offline": (OFFLINE, "coreml", {}),
    "ios, offline, outside": (OFFLINE, "coreml", {"preprocess": "external", "channel_order": "BGR"}),
    "ios, flow": (FLOW, "coreml", {"stride": 3, "sampling": "dense"}),
    "onnx": (ONLINE, "onnx", {}),
    "onnx, doubted": (OFFLINE, "onnx", {"doubt": ("nobody knows",), "labels": None}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_kit_is_whole_and_says_all_that_the_contract_does(case: str, tmp_path: Path) -> None:
    contract = contract_of(*CASES[case][:2], **CASES[case][2])
    folder = written(tmp_path, contract)
    code = {"tflite": ".kt", "coreml": ".swift"}.get(contract.format)
    name = kit.class_name(contract.model)
    model = {"tflite": "m.tflite", "coreml": "m.mlpackage/Data/weights", "onnx": "m.onnx"}[contract.format]
    wanted = {"README.md", "labels.txt", "m.json", "reference.py", model}
    wanted |= {f"vector/{file}" for file in ("vector.json", "input.bin", "logits.bin")}
    assert listing(folder) == wanted | ({name + code} if code else set())
    assert {path.name for path in tmp_path.iterdir()} == {"kit", model.split("/")[0]}

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
def test_a_kit_says_what_gpus_do_to_its_outputs(case: str, said: str | None, tmp_path: Path) -> None:
    contract = contract_of(*CASES[case][:2], **CASES[case][2])
    readme = (written(tmp_path, contract) / "README.md").read_text("utf-8")
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
def test_the_vector_holds_what_the_file_takes_and_answers(case: str, tmp_path: Path) -> None:
    contract = contract_of(*CASES[case][:2], **CASES[case][2])
    vector = written(tmp_path, contract) / "vector"
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


# --- the command ---------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_something_is_refused_before_the_long_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tsmzoo.exporting import export

    monkeypatch.setattr(export, "plan", lambda *_, **__: pytest.fail("the long work began"))
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


# --- real files ----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("to", ["onnx", pytest.param("tflite", marks=pytest.mark.slow)])
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


def test_the_python_loop_takes_any_batch_as_one(kits: Callable[..., Path]) -> None:
    result = reference(kits(OFFLINE, "onnx", "--dynamic-batch", "--preprocess", "external"))
    assert result.returncode == 0, result.stderr
    assert "3 steps" in result.stdout


def test_the_python_loop_feeds_back_one_state_for_all(kits: Callable[..., Path]) -> None:
    folder = kits(ONLINE, "onnx", "--state", "packed")
    contract = msgspec.json.decode((folder / "m.json").read_bytes(), type=Contract)
    assert [tensor.name for tensor in contract.inputs] == ["frame", "state"]
    result = reference(folder)
    assert result.returncode == 0, result.stderr
    assert "18 steps; the last answer is 'going away'" in result.stdout


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


# --- Kotlin, compiled and run --------------------------------------------------------------------------------------

LABELS = ("costs $5", 'a "b" \\ c', "Ünïcode – ½", "${x}")
#: Kits by the name of their class: model, and what is changed.
KOTLIN_KITS: dict[str, tuple[str, dict[str, Any]]] = {
    "ByteFrames": (ONLINE, {"labels": LABELS, "classes": 4}),
    "FloatFrames": (ONLINE, {"preprocess": "external", "channel_order": "BGR", "mean": (0.1, 0.2, 0.3)}),
    "ByteClips": (OFFLINE, {}),
    "FlowClips": (FLOW, {"stride": 3, "sampling": "dense"}),
    "ManyLabels": (ONLINE, {"activation": "sigmoid"}),
}


def snippets(readme: Path, language: str) -> list[str]:
    """Return the code in a README."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", readme.read_text("utf-8"), re.S | re.M)
    return [textwrap.dedent(code) for code in found]


def kotlin_contract(name: str) -> Contract:
    model, changes = KOTLIN_KITS[name]
    contract = contract_of(model, "tflite", model=name, **changes)
    if "classes" in changes:
        first = msgspec.structs.replace(contract.outputs[0], shape=(1, changes["classes"]))
        contract = msgspec.structs.replace(contract, outputs=(first, *contract.outputs[1:]))
    return contract


@pytest.fixture(scope="module")
def say(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path | None], list[list[str]]]:
    """Give a function from the name of a kit, and what lies there in place of its vector, to what its class says."""
    kotlinc, java = shutil.which("kotlinc"), shutil.which("java")
    if not kotlinc or not java:
        pytest.skip("there is no kotlinc here (Debian: apt install kotlin)")
    folder = tmp_path_factory.mktemp("kotlin")
    sources = [str(path) for path in KOTLIN.glob("*.kt")]
    for name in KOTLIN_KITS:
        (folder / name).mkdir()
        made = written(folder / name, kotlin_contract(name))
        sources += map(str, made.glob("*.kt"))
        for code in snippets(made / "README.md", "kotlin"):
            if "import" in code:  # not the line of Gradle
                path = folder / name / "Readme.kt"
                path.write_text(f"package readme.{name.lower()}\n\n{code}", "utf-8")
                sources.append(str(path))
    jar = folder / "all.jar"
    command = [kotlinc, *sources, "-include-runtime", "-d", str(jar)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    # Unused things would be a sign of a template whose conditions do not fit.
    assert not [line for line in result.stderr.splitlines() if ".kt:" in line], result.stderr

    def run(name: str, vector: Path | None = None) -> list[list[str]]:
        assets = folder / name / "assets"
        if not assets.exists():
            assets.mkdir()
            for path in (*(folder / name / "kit" / "vector").iterdir(), folder / name / "kit" / "m.tflite"):
                shutil.copy(path, assets)
        command = [java, "-Dfile.encoding=UTF-8", "-cp", str(jar), "MainKt", name, str(vector or assets)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
        assert result.returncode == 0, result.stderr
        return [line.split(" ", 1) for line in result.stdout.splitlines()]

    return run


def picture(number: int, size: int) -> Array:
    """Return what `picture` of Main.kt does: 3, H, W."""
    at = np.arange(size * size)
    top = 256 >> (number // 10 % 3)
    planes = [(number * 37 + at) % top, (number * 11 + 3 * at) % (top // 2), (number + 7 * at) % (top // 4)]
    return np.stack(planes).reshape(3, size, size).astype("uint8")


def toy_stream(contract: Contract, pixels: Iterator[Array]) -> Iterator[Array]:
    states = contract.initial_states()
    for frame in pixels:
        outputs = Toy(contract).run({contract.main_input.name: feed(frame[None], contract), **states})
        states = {pair.input: outputs[pair.output] for pair in contract.states}
        yield outputs["logits"][0]


@pytest.mark.slow
def test_kotlin_keeps_states_paces_and_decides(say: Callable[..., list[list[str]]]) -> None:
    contract = kotlin_contract("ByteFrames")
    said = say("ByteFrames")
    assert float(said[0][1]) <= 1e-5
    answers = [line[1] for line in said if line[0] == "answer"]
    wanted, decision = [], None
    smoothing = default_smoothing(contract.mode, contract.target_fps)
    for logits in toy_stream(contract, (picture(number, contract.size) for number in range(40))):
        decision = decide(smoothing, logits, decision)
        wanted.append((decision.shown, None if decision.shown is None else float(decision.odds[decision.shown])))
    assert len({shown for shown, _ in wanted}) >= 3, "else nothing was decided"
    for number, (shown, odds) in enumerate(wanted):
        for half in (answers[:40], answers[40:]):  # before a reset, and after
            _, index, rest = half[number].split(" ", 2)
            label, probability = rest.rsplit(" ", 1)
            assert index == ("null" if shown is None else str(shown))
            assert label == ("null" if shown is None else LABELS[shown])
            assert probability == "null" if odds is None else float(probability) == pytest.approx(odds, abs=1e-4)

    times = [*(number / 30 for number in range(60)), 9.0, 9.01, 9.3, 2.0, 2.01, 2.3, 20.0, 20.249, 20.4975]
    beat = FramePacer(contract.target_fps)
    assert said[-1] == ["due", " ".join("1" if beat.takes(time) else "0" for time in times)]


@pytest.mark.slow
def test_kotlin_normalises_where_the_file_does_not(say: Callable[..., list[list[str]]]) -> None:
    contract = kotlin_contract("FloatFrames")
    check, *answers = say("FloatFrames")
    assert float(check[1]) <= 1e-4
    frames = (picture(number, contract.size) for number in range(3))
    for (_, answer), logits in zip(answers, toy_stream(contract, frames), strict=True):
        assert f"index={logits.argmax()}," in answer


@pytest.mark.slow
def test_kotlin_takes_clips(say: Callable[..., list[list[str]]]) -> None:
    for name in ("ByteClips", "FlowClips"):
        contract = kotlin_contract(name)
        said = say(name)
        assert float(said[0][1]) <= 1e-4
        for _, line in (line for line in said if line[0] == "indices"):
            total, *indices = map(int, line.split())
            assert indices == sampling.clip(total, contract.frames, contract.stride)
    contract, said = kotlin_contract("ByteClips"), say("ByteClips")
    for number, (_, answer) in enumerate(line for line in said if line[0] == "answer"):
        clip = np.stack([picture(number + step, contract.size) for step in range(contract.frames)])
        logits = Toy(contract).run({"clip": feed(clip[None], contract)})["logits"][0]
        odds = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert (answer == "null") == (odds.max() < 0.5)
        assert answer == "null" or f"index={logits.argmax()}," in answer
    assert said[-1] == ["wrong", "a clip has 4 frames, not 0"]


@pytest.mark.slow
def test_kotlin_gives_each_of_many_labels_a_probability_of_its_own(say: Callable[..., list[list[str]]]) -> None:
    contract = kotlin_contract("ManyLabels")
    check, *answers = say("ManyLabels")
    assert float(check[1]) <= 1e-5
    assert contract.labels is not None
    shown = None
    frames = (picture(number, contract.size) for number in range(20))
    for (_, answer), logits in zip(answers, toy_stream(contract, frames), strict=True):
        odds = [1 / (1 + math.exp(-float(logit))) for logit in logits]
        shown = odds.index(max(odds)) if max(odds) >= 0.5 else shown
        assert (shown is None) == (answer == "null")
        if shown is not None:
            wanted, probability = f"Answer(index={shown}, label={contract.labels[shown]}, probability=", answer[:-1]
            assert answer.startswith(wanted)
            assert float(probability.removeprefix(wanted)) == pytest.approx(odds[shown], abs=1e-4)
    assert len({answer for _, answer in answers}) > 10


@pytest.mark.slow
@pytest.mark.parametrize("file", ["input.bin", "logits.bin"])
def test_kotlins_self_check_finds_another_vector(
    file: str, say: Callable[..., list[list[str]]], tmp_path: Path
) -> None:
    say("ByteClips")  # for its folder
    written(tmp_path, kotlin_contract("ByteClips"))
    vector = tmp_path / "kit" / "vector"
    content = (vector / file).read_bytes()
    half = len(content) // 3
    (vector / file).write_bytes(content[half:] + content[:half])
    shutil.copy(tmp_path / "kit" / "m.tflite", vector)
    with pytest.raises(AssertionError, match="this device computes something else"):
        say("ByteClips", vector)


# --- Swift, parsed: no compiler of it is at hand --------------------------------------------------------------------

PARSE = """
import sys
import tree_sitter, tree_sitter_swift

parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
for path in sys.argv[1:]:
    pending = [parser.parse(open(path, "rb").read()).root_node]
    while pending:
        node = pending.pop()
        if node.type == "ERROR" or node.is_missing:
            sys.exit(f"{path}: {node.type} at line {node.start_point[0] + 1}: {node.text[:80]}")
        if node.type == "function_declaration":
            print(node.child_by_field_name("name").text.decode())
        pending += node.children
"""


@pytest.mark.slow
def test_swift_is_grammatical(environment: Callable[..., Path], tmp_path: Path) -> None:
    python = environment("tree-sitter==0.26.1", "tree-sitter-swift==0.7.4")
    sources = []
    for number, (model, to, changes) in enumerate(CASES.values()):
        if to == "coreml":
            (tmp_path / str(number)).mkdir()
            folder = written(
                tmp_path / str(number),
                contract_of(
                    model,
                    to,
                    **changes,
                ),
            )
            sources += map(str, folder.glob("*.swift"))
            (code,) = snippets(folder / "README.md", "swift")
            (folder / "Readme.swift").write_text(code, "utf-8")
            sources.append(str(folder / "Readme.swift"))
    (tmp_path / "parse.py").write_text(PARSE)
    result = subprocess.run([python, tmp_path / "parse.py", *sources], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert {"reset", "see", "run", "selfCheck", "isDue", "indices", "zeros"} <= set(result.stdout.split())
