"""Real conversions of weights laid out as published, in each format."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from tests.exporting.exports import (
    FOLDS,
    RANDOM,
    ROOT,
    STRIDES,
    ZOO,
    correct_digest,
    document_of,
    glue,
    invoke,
    listing,
    refusal,
)
from tsmzoo import models
from tsmzoo.artifact import store
from tsmzoo.formats import Format
from tsmzoo.models.wrappers import ClipModel, StreamStep
from tsmzoo.typing import Array

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
        "kind": None,
        "bounded": None,
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
