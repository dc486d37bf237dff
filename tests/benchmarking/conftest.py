"""Fixtures of the tests of `bench`: small files with contracts, and measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tsmzoo.artifact import store
from tsmzoo.artifact.contract import METADATA_KEY, Contract, StatePair, Tensor, contract_path
from tsmzoo.artifact.converter import Profile
from tsmzoo.benchmarking.run import Job, Loaded, Timing
from tsmzoo.cli import app
from tsmzoo.inference.reference import ModelReference

Toy = Callable[..., Path]


@pytest.fixture
def toy(tmp_path: Path, put: Callable[[Path, Contract], Path]) -> Toy:
    """Write an online ONNX file with its contract: the state, its only logit, is the sum of the means of its frames."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")

    def write(name: str = "toy", side: int = 8) -> Path:
        floats = onnx.TensorProto.FLOAT
        frame = onnx.helper.make_tensor_value_info("frame", floats, [1, 3, side, side])
        shapes = {"state_0": [1, 1, 1, 1], "next_state_0": [1, 1, 1, 1], "logits": [1, 1]}
        values = {key: onnx.helper.make_tensor_value_info(key, floats, shape) for key, shape in shapes.items()}
        nodes = [
            onnx.helper.make_node("ReduceMean", ["frame"], ["mean"], keepdims=1),
            onnx.helper.make_node("Add", ["mean", "state_0"], ["next_state_0"]),
            onnx.helper.make_node("Flatten", ["next_state_0"], ["logits"]),
        ]
        outputs = [values["logits"], values["next_state_0"]]
        graph = onnx.helper.make_graph(nodes, "toy", [frame, values["state_0"]], outputs)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
        path = tmp_path / f"{name}.onnx"
        onnx.save_model(model, path)
        about = {"dtype": "float32", "layout": "NCHW", "meaning": "…"}
        state = Tensor(name="state_0", shape=(1, 1, 1, 1), **about)
        contract = Contract(
            model="toy",
            family="tsm",
            mode="online",
            backbone="toy",
            dataset="toy",
            format="onnx",
            precision="fp32",
            preprocess="external",
            inputs=(Tensor(name="frame", shape=(1, 3, side, side), **about), state),
            outputs=(
                Tensor(name="logits", shape=(1, 1), **about | {"layout": "NC"}),
                msgspec.structs.replace(state, name="next_state_0"),
            ),
            states=(StatePair(input="state_0", output="next_state_0"),),
            classes=1,
            labels=None,
            channel_order="RGB",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            size=side,
            resize=side,
            frames=1,
            sampling="stream",
            stride=None,
            target_fps=None,
            weights="random",
            licence="MIT",
            citation="nobody",
            versions={},
            artifact=path.name,
        )
        return put(path, contract)

    return write


@pytest.fixture(scope="session")
def put() -> Callable[[Path, Contract], Path]:
    """Give a function that writes the contract of an ONNX file beside it, and into it."""

    def write(path: Path, contract: Contract) -> Path:
        import onnx

        model = onnx.load(path)
        onnx.helper.set_model_props(model, {METADATA_KEY: contract.embedded()})
        onnx.save_model(model, path)
        sha256, size = store.digest(path)
        contract = msgspec.structs.replace(contract, sha256=sha256, bytes=size)
        store.write_contract(contract, contract_path(path))
        return path

    return write


@pytest.fixture(scope="session")
def bench() -> Callable[..., Result]:
    """Give a function that runs `tsmzoo bench`."""
    return lambda *arguments: CliRunner().invoke(app, ["bench", *map(str, arguments)], prog_name="tsmzoo")


@pytest.fixture(scope="session")
def bench_error(bench: Callable[..., Result]) -> Callable[..., str]:
    """Give a function that runs `tsmzoo bench` and returns its one line of error."""

    def line_of(*arguments: object) -> str:
        result = bench(*arguments)
        assert result.exit_code == 1, result.output
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        return line

    return line_of


@pytest.fixture
def package(toy: Toy, tmp_path: Path) -> Path:
    """Write a package that nothing reads, and its contract: a state of its own."""
    folder = tmp_path / "toy.mlpackage"
    folder.mkdir()
    (folder / "Manifest.json").write_text("{}")
    contract = store.read_contract(toy("of"))
    contract = msgspec.structs.replace(
        contract,
        format="coreml",
        state="implicit",
        inputs=contract.inputs[:1],
        outputs=contract.outputs[:1],
        states=(),
        parts=contract.inputs[1:],
        artifact=folder.name,
        sha256=store.digest(folder)[0],
    )
    store.write_contract(contract, contract_path(folder))
    return folder


@pytest.fixture
def convolutions(toy: Toy, tmp_path: Path) -> Path:
    """Write a TFLite file and its contract: a sum that XNNPACK leaves to LiteRT, between two convolutions."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffer = pytest.importorskip("tsmzoo.converters.tflite.flatbuffer", exc_type=ImportError)
    shape, random = (1, 48, 48, 16), np.random.default_rng(0)
    constants = {
        "weights": random.standard_normal((16, 3, 3, 16)).astype("float32"),
        "bias": np.zeros(16, "float32"),
        "axis": np.array(1, "int32"),
    }
    graph, model = schema.SubGraphT(), schema.ModelT()
    model.version, model.buffers, model.operatorCodes, graph.tensors, graph.operators = (
        3,
        [schema.BufferT()],
        [],
        [],
        [],
    )
    names = ["frame", "a", "b", "logits", *constants]
    for name in names:
        tensor, value = schema.TensorT(), constants.get(name)
        tensor.name, tensor.buffer = name, 0
        tensor.shape = np.array(shape if value is None else value.shape, "int32")
        tensor.type = schema.TensorType.INT32 if name == "axis" else schema.TensorType.FLOAT32
        if value is not None:
            tensor.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = np.frombuffer(value.tobytes(), "uint8")
        graph.tensors.append(tensor)
    same = schema.Conv2DOptionsT()
    same.strideH = same.strideW = same.dilationHFactor = same.dilationWFactor = 1
    for kind, inputs, output, options in [
        ("Conv2D", ["frame", "weights", "bias"], "a", same),
        ("Cumsum", ["a", "axis"], "b", schema.CumsumOptionsT()),
        ("Conv2D", ["b", "weights", "bias"], "logits", same),
    ]:
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = {"Conv2D": schema.BuiltinOperator.CONV_2D, "Cumsum": schema.BuiltinOperator.CUMSUM}[kind]
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        operator.opcodeIndex = len(model.operatorCodes)
        operator.inputs, operator.outputs = [names.index(name) for name in inputs], [names.index(output)]
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{kind}Options")
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    signature, frame, logits = schema.SignatureDefT(), schema.TensorMapT(), schema.TensorMapT()
    frame.name, logits.name, logits.tensorIndex = "frame", "logits", names.index("logits")
    signature.signatureKey, signature.inputs, signature.outputs = "serving_default", [frame], [logits]
    graph.inputs, graph.outputs = [names.index("frame")], [names.index("logits")]
    model.subgraphs, model.signatureDefs = [graph], [signature]
    path = tmp_path / "convolutions.tflite"
    path.write_bytes(flatbuffer.write(model))
    contract = store.read_contract(toy())
    sha256, size = store.digest(path)
    contract = msgspec.structs.replace(
        contract,
        format="tflite",
        inputs=(msgspec.structs.replace(contract.inputs[0], shape=shape, layout="NHWC"),),
        outputs=(msgspec.structs.replace(contract.outputs[0], shape=shape, layout="NHWC"),),
        states=(),
        artifact=path.name,
        sha256=sha256,
        bytes=size,
    )
    store.write_contract(contract, contract_path(path))
    return path


@pytest.fixture(scope="session")
def timing() -> Callable[..., Timing]:
    """Give a function from the seconds of each pass of each round to a measurement."""

    def make(rounds: list[list[float]], mode: str = "online", profile: Profile | None = None) -> Timing:
        loaded = Loaded(
            runtime="r 1", model="m", mode=mode, precision="fp32", weights="random", input_shape=(1, 3, 8, 8)
        )
        times = tuple(tuple(round_) for round_ in rounds)
        return Timing(job=Job(ModelReference("m")), loaded=loaded, rounds=times, peak_mb=12.34, profile=profile)

    return make
