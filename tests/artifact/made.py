"""Small files made by hand, a mean and a sum in each format, and commands in a process of its own."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tsmzoo.artifact import store
from tsmzoo.artifact.contract import METADATA_KEY, Contract, StatePair, Tensor
from tsmzoo.system.quiet import quiet

SIDE = 8


FORMATS = {"onnx": ".onnx", "tflite": ".tflite", "coreml": ".mlpackage"}


#: Runs the commands that come on stdin, one JSON list a line, and answers each with a line.
SERVER = """
import json, os, sys
from typer.testing import CliRunner
from tsmzoo.cli import app
answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    result = CliRunner().invoke(app, json.loads(line))
    error = result.exception
    told = None if error is None or isinstance(error, SystemExit) else repr(error)[:300]
    print(json.dumps([result.exit_code, result.stdout, result.stderr, told]), file=answers, flush=True)
"""


def contract_of(format_: str) -> Contract:
    """Return the contract of an online model whose state adds up the means of its frames, which are its logits."""
    last = format_ == "tflite"
    about: dict[str, Any] = {"dtype": "float32", "layout": "NHWC" if last else "NCHW", "meaning": "…"}
    frame = Tensor(name="frame", shape=(1, SIDE, SIDE, 3) if last else (1, 3, SIDE, SIDE), **about)
    state = Tensor(name="state_0", shape=(1, 1, 1, 3) if last else (1, 3, 1, 1), **about)
    return Contract(
        model="toy",
        family="tsm",
        mode="online",
        backbone="toy",
        dataset="toy",
        format=format_,
        precision="fp32",
        preprocess="external",
        inputs=(frame, state),
        outputs=(
            Tensor(name="logits", shape=(1, 3), dtype="float32", layout="NC", meaning="…"),
            msgspec.structs.replace(state, name="next_state_0"),
        ),
        states=(StatePair(input="state_0", output="next_state_0"),),
        classes=3,
        labels=("red", "green", "blue"),
        channel_order="RGB",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        size=SIDE,
        resize=SIDE,
        frames=1,
        sampling="stream",
        stride=None,
        target_fps=None,
        weights="random",
        seed=0,
        licence="MIT",
        citation="nobody",
        versions={"tsmzoo": "1"},
    )


def write_onnx(path: Path, contract: Contract) -> None:
    onnx = pytest.importorskip("onnx")
    floats, helper = onnx.TensorProto.FLOAT, onnx.helper
    shapes = {"frame": [1, 3, SIDE, SIDE], "state_0": [1, 3, 1, 1], "logits": [1, 3], "next_state_0": [1, 3, 1, 1]}
    values = {name: helper.make_tensor_value_info(name, floats, shape) for name, shape in shapes.items()}
    axes = onnx.numpy_helper.from_array(np.array([2, 3]), "axes")
    nodes = [
        helper.make_node("ReduceMean", ["frame", "axes"], ["mean"], keepdims=1),
        helper.make_node("Add", ["mean", "state_0"], ["next_state_0"]),
        helper.make_node("Flatten", ["next_state_0"], ["logits"]),
    ]
    inputs, outputs = ([values[name] for name in names] for names in (list(values)[:2], list(values)[2:]))
    graph = helper.make_graph(nodes, "toy", inputs, outputs, [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: contract.embedded()})
    onnx.save_model(model, path)


def write_tflite(path: Path, contract: Contract) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffer = pytest.importorskip("tsmzoo.converters.tflite.flatbuffer", exc_type=ImportError)
    tensors = {
        "frame": (1, SIDE, SIDE, 3),
        "state_0": (1, 1, 1, 3),
        "mean": (1, 1, 1, 3),
        "next_state_0": (1, 1, 1, 3),
        "logits": (1, 3),
        "axes": np.array([1, 2], "int32"),
        "shape": np.array([1, 3], "int32"),
    }
    graph, model, names = schema.SubGraphT(), schema.ModelT(), list(tensors)
    model.version, model.buffers, graph.tensors, graph.operators, model.operatorCodes = (
        3,
        [schema.BufferT()],
        [],
        [],
        [],
    )
    for name, value in tensors.items():
        tensor, is_constant = schema.TensorT(), isinstance(value, np.ndarray)
        tensor.name, tensor.buffer = name.encode(), len(model.buffers) if is_constant else 0
        tensor.shape = np.array(value.shape if isinstance(value, np.ndarray) else value, "int32")
        tensor.type = schema.TensorType.INT32 if is_constant else schema.TensorType.FLOAT32
        if isinstance(value, np.ndarray):
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = np.frombuffer(value.tobytes(), "uint8")
        graph.tensors.append(tensor)
    reducer, reshape = schema.ReducerOptionsT(), schema.ReshapeOptionsT()
    reducer.keepDims, reshape.newShape = True, [1, 3]
    for kind, inputs, output, options in [
        ("MEAN", ["frame", "axes"], "mean", reducer),
        ("ADD", ["mean", "state_0"], "next_state_0", schema.AddOptionsT()),
        ("RESHAPE", ["next_state_0", "shape"], "logits", reshape),
    ]:
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version, operator.opcodeIndex = 1, len(model.operatorCodes)
        operator.inputs, operator.outputs = [names.index(name) for name in inputs], [names.index(output)]
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.inputs, signature.outputs = b"serving_default", [], []
    for items, each in ((signature.inputs, ("frame", "state_0")), (signature.outputs, ("logits", "next_state_0"))):
        for name in each:
            items.append(schema.TensorMapT())
            items[-1].name, items[-1].tensorIndex = name.encode(), names.index(name)
    graph.inputs, graph.outputs = [0, 1], [names.index("logits"), names.index("next_state_0")]
    model.subgraphs, model.signatureDefs = [graph], [signature]
    path.write_bytes(flatbuffer.with_metadata(flatbuffer.write(model), contract.embedded()))


def write_coreml(path: Path, contract: Contract) -> None:
    ct = pytest.importorskip("coremltools")
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((1, 3, SIDE, SIDE)), mb.TensorSpec((1, 3, 1, 1))])
    def program(frame: Any, state_0: Any) -> Any:
        mean = mb.reduce_mean(x=frame, axes=[2, 3], keep_dims=True)
        total = mb.add(x=mean, y=state_0, name="next_state_0")
        return mb.reshape(x=total, shape=[1, 3], name="logits"), total

    def save() -> None:
        made = ct.convert(
            program,
            convert_to="mlprogram",
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS15,
            skip_model_load=True,
        )
        made.user_defined_metadata[METADATA_KEY] = contract.embedded()
        made.save(str(path))

    with quiet():  # coremltools leaves folders behind, of which Python warns when it drops them
        save()
        gc.collect()


WRITERS = {"onnx": write_onnx, "tflite": write_tflite, "coreml": write_coreml}


def put_contract(path: Path, document: dict[str, Any], text: str) -> None:
    """Write `document` beside the file, its digest right, and `text` into the file, as its own copy."""
    if path.suffix == ".onnx":
        import onnx

        model = onnx.load(path)
        onnx.helper.set_model_props(model, {METADATA_KEY: text})
        onnx.save_model(model, path)
    elif path.suffix == ".tflite":
        flatbuffer = pytest.importorskip("tsmzoo.converters.tflite.flatbuffer", exc_type=ImportError)
        path.write_bytes(flatbuffer.with_metadata(path.read_bytes(), text))
    else:
        from coremltools.proto import Model_pb2

        place = path / "Data/com.apple.CoreML/model.mlmodel"
        spec: Any = Model_pb2.Model.FromString(place.read_bytes())
        spec.description.metadata.userDefined[METADATA_KEY] = text
        place.write_bytes(spec.SerializeToString())
    write_beside(path, document)


def write_beside(path: Path, document: dict[str, Any]) -> None:
    sha256, size = store.digest(path)
    document = document | {"artifact": path.name, "sha256": sha256, "bytes": size}
    path.with_suffix(".json").write_text(json.dumps(document))


Ask = Callable[..., tuple[int, str, str, str | None]]


def state_of(path: Path) -> dict[str, tuple[str, int]]:
    """Return digest and time of every file of an artifact and its contract."""
    files = [path.with_suffix(".json"), *([path] if path.is_file() else path.rglob("*"))]
    return {
        str(file): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in files
        if file.is_file()
    }


def copied(original: Path, folder: Path) -> Path:
    """Copy a file and its contract, packages too."""
    import shutil

    folder.mkdir()
    path = folder / original.name
    (shutil.copytree if original.is_dir() else shutil.copy)(original, path)
    shutil.copy(original.with_suffix(".json"), path.with_suffix(".json"))
    return path


def at(document: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        document = document[key]
    return document


def changed(document: dict[str, Any], place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    document = json.loads(json.dumps(document))
    at(document, place[:-1])[place[-1]] = value
    return document
