"""What phones' GPUs would make of TFLite files: faults planted in files made by hand, outputs set apart to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from tsmzoo.artifact.store import read_contract
from tsmzoo.errors import ArtifactError

pytest.importorskip("ai_edge_litert")
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from tsmzoo.converters.tflite import convert, flatbuffer, gpu_delegate, runtime
from tsmzoo.converters.tflite.flatbuffer import operator_name, read, write

if TYPE_CHECKING:
    from collections.abc import Callable

ONLINE = "tsm_mbv2_motion_online"

Step = tuple[str, list[str], str]


def made(
    steps: list[Step],
    shapes: dict[str, tuple[int, ...]],
    outputs: tuple[str, ...],
    *,
    constants: dict[str, Any] | None = None,
    types: dict[str, str] | None = None,
    scales: dict[str, float] | None = None,
    **options: Any,
) -> bytes:
    """Return a file of `steps` (kind, what is read, what is written); what nothing writes is an input.

    `options` are those of the last step that has any.
    """
    model, graph, signature = schema.ModelT(), schema.SubGraphT(), schema.SignatureDefT()
    model.version, model.buffers, model.operatorCodes, model.metadata = 3, [schema.BufferT()], [], []
    graph.tensors, graph.operators, index = [], [], {}
    for name, shape in {**shapes, **{k: v.shape for k, v in (constants or {}).items()}}.items():
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), np.array(shape, np.int32), 0
        tensor.type = getattr(schema.TensorType, (types or {}).get(name, "FLOAT32"))
        if (value := (constants or {}).get(name)) is not None:
            tensor.type = schema.TensorType.INT32 if value.dtype == np.int32 else schema.TensorType.FLOAT32
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
        if scale := (scales or {}).get(name):
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [3]
        index[name] = len(graph.tensors)
        graph.tensors.append(tensor)
    for kind, read_, written in steps:
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode, code.version = getattr(schema.BuiltinOperator, kind), options.get("version", 1)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        operator.opcodeIndex = len(model.operatorCodes)
        model.operatorCodes.append(code)
        operator.inputs, operator.outputs = [index[name] for name in read_], [index[written]]
        title = {
            **{"STRIDED_SLICE": "StridedSlice", "MEAN": "Reducer", "BATCH_MATMUL": "BatchMatMul", "ADD": "Add"},
            **{
                "CONCATENATION": "Concatenation",
                "SOFTMAX": "Softmax",
                "MUL": "Mul",
                "FULLY_CONNECTED": "FullyConnected",
            },
            **{"PAD": "Pad", "SLICE": "Slice", "RESHAPE": "Reshape", "TRANSPOSE": "Transpose", "SUM": "Reducer"},
        }.get(kind)
        if title:
            operator.builtinOptions = getattr(schema, f"{title}OptionsT")()
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{title}Options")
            if title == "Softmax":
                operator.builtinOptions.beta = 1.0
            for name, value in options.items():
                if hasattr(operator.builtinOptions, name):
                    setattr(operator.builtinOptions, name, value)
        graph.operators.append(operator)
    written = {step[2] for step in steps}
    inputs = [name for name in shapes if name not in written]
    graph.inputs, graph.outputs = [index[name] for name in inputs], [index[name] for name in outputs]
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    for kind, names in (("inputs", inputs), ("outputs", outputs)):
        maps = []
        for name in names:
            item = schema.TensorMapT()
            item.name, item.tensorIndex = name.encode(), index[name]
            maps.append(item)
        setattr(signature, kind, maps)
    model.subgraphs, model.signatureDefs = [graph], [signature]
    return write(model)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


#: x, N, H, W, C; the operator under test writes y.
X = {"x": (1, 4, 4, 8)}
CUT = {"from": ints(0, 0, 0, 0), "size": ints(1, 4, 4, 2)}


def lone(kind: str, others: list[str], shape: tuple[int, ...] = X["x"], **more: Any) -> bytes:
    """Return a file of one operator."""
    shapes = {**X, **more.pop("shapes", {}), "y": shape}
    return made([(kind, ["x", *others], "y")], shapes, ("y",), **more)


PLANTED = {
    "is no operator": lone("CUMSUM", ["axis"], constants={"axis": ints(1)}),
    "is of version 9, and it knows 2": lone("RELU", [], version=9),
    "rank 5": lone("RESHAPE", ["to"], (1, 2, 2, 4, 8), constants={"to": ints(1, 2, 2, 4, 8)}),
    "neither float nor bytes": lone("RELU", [], types={"x": "INT16", "y": "INT16"}),
    "one tensor twice": lone("MAXIMUM", ["x"]),
    "a constant with a batch": lone(
        "MUL", ["c"], (2, 4, 4, 8), shapes={"x": (2, 4, 4, 8)}, constants={"c": np.ones((2, 4, 4, 8), np.float32)}
    ),
    "inputs of different ranks": lone("ADD", ["z"], shapes={"z": (4, 8)}),
    "not of rank 3 or 4": lone(
        "SLICE", ["from", "size"], (1, 4), shapes={"x": (1, 8)}, constants={"from": ints(0, 0), "size": ints(1, 4)}
    ),
    "adds or drops axes": lone(
        "STRIDED_SLICE",
        ["a", "b", "s"],
        (4, 4, 8),
        constants={"a": ints(0, 0, 0, 0), "b": ints(1, 4, 4, 8), "s": ints(1, 1, 1, 1)},
        shrinkAxisMask=1,
    ),
    "goes backwards": lone(
        "STRIDED_SLICE",
        ["a", "b", "s"],
        constants={"a": ints(0, 3, 0, 0), "b": ints(1, -9, 4, 8), "s": ints(1, -1, 1, 1)},
    ),
    "pads a tensor that is not of rank 4": lone(
        "PAD", ["p"], (5, 8), shapes={"x": (4, 8)}, constants={"p": np.array([[0, 1], [0, 0]], np.int32)}
    ),
    "beta": lone("SOFTMAX", [], beta=2.0),
    "axes that are no constant": lone("MEAN", ["axes"], (1, 8), shapes={"axes": (2,)}, types={"axes": "INT32"}),
    "in front of those it keeps": lone("MEAN", ["axes"], (1, 4), constants={"axes": ints(2, 3)}),
    "to transpose an input": lone("BATCH_MATMUL", ["z"], (1, 4, 4), shapes={"x": (1, 4, 8), "z": (1, 4, 8)}, adjY=True),
    "a constant that is no matrix": lone(
        "BATCH_MATMUL", ["c"], (1, 4, 4, 8), constants={"c": np.ones((1, 4, 8, 8), np.float32)}
    ),
    "takes bytes": lone("CAST", [], types={"x": "UINT8"}),
    "weights in another order": lone(
        "FULLY_CONNECTED",
        ["w"],
        (1, 4),
        shapes={"x": (1, 8)},
        constants={"w": np.ones((4, 8), np.float32)},
        weightsFormat=1,
    ),
    "keep axes": lone(
        "FULLY_CONNECTED", ["w"], (16, 4), constants={"w": np.ones((4, 8), np.float32)}, keepNumDims=True
    ),
    "is an input with something done to it": lone("ADD", ["z"], shapes={"z": X["x"]}),
    "is an input handed through": made([("RELU", ["x"], "y")], {**X, "y": X["x"]}, ("y", "x")),
    "is read inside the graph": made(
        [("RELU", ["x"], "a"), ("TANH", ["a"], "y")], {**X, "a": X["x"], "y": X["x"]}, ("y", "a")
    ),
    "is part of what is read inside": made(
        [("RELU", ["x"], "a"), ("SLICE", ["a", "from", "size"], "s"), ("TANH", ["a"], "y")],
        {**X, "a": X["x"], "s": (1, 4, 4, 2), "y": X["x"]},
        ("y", "s"),
        constants=CUT,
    ),
}


@pytest.mark.parametrize("words", PLANTED)
def test_each_planted_fault_is_found(words: str) -> None:
    found = gpu_delegate.findings(read(PLANTED[words]))
    assert any(words in finding.why for finding in found), found
    assert words in gpu_delegate.summary(found)


def sound() -> bytes:
    """Return a file with nothing against it: cut, joined, padded, multiplied, meant."""
    return made(
        [
            ("MUL", ["x", "c"], "a"),
            ("SLICE", ["a", "from", "size"], "s"),
            ("ADD", ["s", "s"], "t"),
            ("CONCATENATION", ["s", "t"], "j"),
            ("PAD", ["j", "p"], "d"),
            ("MEAN", ["d", "axes"], "m"),
            ("FULLY_CONNECTED", ["m", "w"], "l"),
            ("RESHAPE", ["l", "to"], "y"),
        ],
        {
            **X,
            "a": X["x"],
            "s": (1, 4, 4, 2),
            "t": (1, 4, 4, 2),
            "j": (1, 4, 4, 4),
            "d": (1, 6, 4, 4),
            "m": (1, 4),
            "l": (1, 4),
            "y": (4,),
        },
        ("y",),
        constants={
            **CUT,
            "c": np.ones((1, 1, 8), np.float32),
            "p": np.array([[0, 0], [1, 1], [0, 0], [0, 0]], np.int32),
            "axes": ints(1, 2),
            "w": np.ones((4, 4), np.float32),
            "to": ints(4),
        },
    )


def test_nothing_is_said_of_a_sound_file() -> None:
    content = sound()
    assert gpu_delegate.findings(read(content)) == []
    assert gpu_delegate.decouple(content) is content


def test_the_summary_counts() -> None:
    found = [gpu_delegate.Finding("output", f"next_state_{number}", "is cut") for number in range(3)]
    assert (
        gpu_delegate.summary(found)
        == "LiteRT's GPU delegate: output next_state_0 (and 2 more) is cut (export with --gpu-safe)"
    )
    assert (
        gpu_delegate.summary([gpu_delegate.Finding("CUMSUM", "y", "is unknown")])
        == "LiteRT's GPU delegate: CUMSUM y is unknown"
    )


# --- outputs apart ------------------------------------------------------------------------------------------------


def cell(kind: str = "FLOAT32") -> bytes:
    """Return an online shift in small: the first channels of what is computed are the next state, and read on."""
    channels = {"from": ints(0, 0, 0, 2), "size": ints(1, 4, 4, 6)}
    shapes = {"frame": (1, 4, 4, 8), "state_0": (1, 4, 4, 2), "a": (1, 4, 4, 8), "rest": (1, 4, 4, 6)}
    shapes |= {"shifted": (1, 4, 4, 8), "next_state_0": (1, 4, 4, 2), "features": (1, 4, 4, 8)}
    return made(
        [
            ("RELU", ["frame"], "a"),
            ("SLICE", ["a", "zero", "two"], "next_state_0"),
            ("SLICE", ["a", "from", "size"], "rest"),
            ("CONCATENATION", ["state_0", "rest"], "shifted"),
            ("RELU6", ["shifted"], "features"),
        ],
        shapes,
        ("features", "a", "next_state_0"),
        constants={**channels, "zero": CUT["from"], "two": CUT["size"]},
        types=dict.fromkeys(shapes, kind),
        scales=dict.fromkeys(shapes, 0.5) if kind == "INT8" else None,
        axis=3,
        version=2 if kind == "INT8" else 1,
    )


def streamed(content: bytes, frames: int = 16) -> list[dict[str, np.ndarray]]:
    """Return the outputs of a stream of noise, each state fed back."""
    run = Interpreter(model_content=content, num_threads=1).get_signature_runner("serving_default")
    inputs, random = run.get_input_details(), np.random.default_rng(0)
    held = {name: np.zeros(about["shape"], about["dtype"]) for name, about in inputs.items() if name != "frame"}
    outputs = []
    for _ in range(frames):
        pixels = random.normal(0, 50, inputs["frame"]["shape"]).clip(-128, 127)
        if inputs["frame"]["dtype"] == np.uint8:
            pixels = pixels + 128
        outputs.append(run(frame=pixels.astype(inputs["frame"]["dtype"]), **held))
        held = {name: outputs[-1][f"next_{name}"] for name in held}
    return outputs


def same_bits(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> bool:
    assert [each.keys() for each in one] == [each.keys() for each in other]
    return all(
        each[name].tobytes() == more[name].tobytes() for each, more in zip(one, other, strict=True) for name in each
    )


@pytest.mark.parametrize("kind", ["FLOAT32", "INT8"])
def test_outputs_are_set_apart_to_the_bit(kind: str) -> None:
    content = cell(kind)
    assert [finding.tensor for finding in gpu_delegate.findings(read(content))] == ["a", "next_state_0"]
    apart = gpu_delegate.decouple(content)
    model = read(apart)
    graph = model.subgraphs[0]
    assert gpu_delegate.findings(model) == []
    assert [operator_name(model, operator) for operator in graph.operators].count("AVERAGE_POOL_2D") == 2
    assert len(model.operatorCodes) == len(read(content).operatorCodes) + 1
    written = {*graph.inputs, *(i for i, t in enumerate(graph.tensors) if model.buffers[t.buffer].data is not None)}
    for operator in graph.operators:
        assert written.issuperset(operator.inputs), "each reads what was written before"
        written.update(operator.outputs)
    before, after = streamed(content), streamed(apart)
    assert same_bits(before, after)
    assert before[1]["next_state_0"].any()
    assert gpu_delegate.decouple(apart) is apart


def test_an_input_handed_through_is_set_apart() -> None:
    apart = gpu_delegate.decouple(PLANTED["is an input handed through"])
    assert gpu_delegate.findings(read(apart)) == []
    run = Interpreter(model_content=apart).get_signature_runner("serving_default")
    x = np.random.default_rng(0).normal(size=X["x"]).astype("float32")
    assert run(x=x)["x"].tobytes() == x.tobytes()


# --- means --------------------------------------------------------------------------------------------------------


def pooled(axes: np.ndarray, shape: tuple[int, ...], outputs: tuple[str, ...] = ("y",), **options: Any) -> bytes:
    """Return a file that moves the channels to the front and takes a mean; output u is the channels moved, and more."""
    constants = {"order": ints(0, 3, 1, 2), "axes": axes}
    steps = [("TRANSPOSE", ["x", "order"], "t"), ("MEAN", ["t", "axes"], "y")]
    shapes = {"x": (1, 4, 3, 8), "t": (1, 8, 4, 3), "y": shape}
    if "u" in outputs:
        steps.append(("RELU", ["t"], "u"))
        shapes["u"] = shapes["t"]
    return made(steps, shapes, outputs, constants=constants, **options)


@pytest.mark.parametrize(
    ("axes", "shape"), [(ints(2, 3), (1, 8)), (ints(3, 2), (1, 8)), (ints(-1), (1, 8, 4)), (ints(1), (1, 4, 3))]
)
def test_a_mean_needs_no_transpose(axes: np.ndarray, shape: tuple[int, ...]) -> None:
    """Where what is left keeps its order, which of channels and rows it does not."""
    model = read(pooled(axes, shape))
    gpu_delegate.mean_in_place(model)
    kinds = [operator_name(model, operator) for operator in model.subgraphs[0].operators]
    assert kinds == (["TRANSPOSE", "MEAN"] if shape == (1, 8, 4) else ["MEAN"])
    x = np.random.default_rng(0).normal(size=(1, 4, 3, 8)).astype("float32")
    found = Interpreter(model_content=write(model)).get_signature_runner("serving_default")(x=x)["y"]
    assert np.allclose(found, x.transpose(0, 3, 1, 2).mean(tuple(axes)), atol=1e-6)
    if shape == (1, 8):
        assert gpu_delegate.findings(read(pooled(axes, shape)))
        assert gpu_delegate.findings(model) == []


def test_a_transpose_that_others_read_stays() -> None:
    others = (pooled(ints(2, 3), (1, 8), ("y", "t")), pooled(ints(2, 3), (1, 8), ("y", "u")))
    for content in (*others, pooled(ints(2, 3), (1, 8, 1, 1), keepDims=True)):
        model = read(content)
        gpu_delegate.mean_in_place(model)
        assert "TRANSPOSE" in [operator_name(model, operator) for operator in model.subgraphs[0].operators]


def test_states_are_cut_behind_what_they_are_cut_from() -> None:
    """Whatever it is that is cut: an input, what an operator writes, or a cut; other operators keep their order."""
    steps = [
        ("RELU", ["x"], "r"),
        ("ADD", ["r", "x"], "a"),
        ("SLICE", ["a", "from", "size"], "inside"),
        ("RELU", ["inside"], "y"),
        ("SLICE", ["x", "from", "size"], "of_input"),
        ("SLICE", ["r", "from", "size"], "of_r"),
        ("SLICE", ["of_r", "from", "size"], "of_cut"),
    ]
    cut = (1, 4, 4, 2)
    shapes = {**X, "r": X["x"], "a": X["x"], "inside": cut, "y": cut, "of_input": cut, "of_r": cut, "of_cut": cut}
    model = read(made(steps, shapes, ("y", "of_input", "of_r", "of_cut"), constants=CUT))
    convert._cut_states_early(model)
    (graph,) = model.subgraphs
    written = [graph.tensors[operator.outputs[0]].name.decode() for operator in graph.operators]
    assert written == ["of_input", "r", "of_r", "a", "inside", "y", "of_cut"]


# --- real files ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_states_of_a_stream_are_set_apart(precision: str, bundled_file: Callable[[str, str, str], Path]) -> None:
    content = bundled_file(ONLINE, "tflite", precision).read_bytes()
    shared = [finding.tensor for finding in gpu_delegate.findings(read(content)) if finding.kind == "output"]
    assert shared == [f"next_state_{number}" for number in range(len(shared))]
    assert len(shared) == 10
    apart = gpu_delegate.decouple(content)
    assert [finding for finding in gpu_delegate.findings(read(apart)) if finding.kind == "output"] == []
    before = streamed(content)
    assert same_bits(before, streamed(apart))
    assert len(apart) < len(content) + 2000
    model = read(apart)
    gpu_delegate.mean_in_place(model)
    assert gpu_delegate.findings(model) == []
    after = streamed(write(model))
    assert all(
        np.abs(one[name] - other[name]).max() <= 1e-5 * max(np.ptp(one[name]), 1)
        for one, other in zip(before, after, strict=True)
        for name in one
    )


@pytest.mark.slow
def test_a_file_is_held_to_gpu_safe(bundled_file: Callable[[str, str, str], Path], tmp_path: Path) -> None:
    path = bundled_file(ONLINE, "tflite", "fp32")
    content, contract = path.read_bytes(), msgspec.structs.replace(read_contract(path), gpu_safe=True)
    out = tmp_path / "m.tflite"
    out.write_bytes(flatbuffer.with_metadata(content, contract.embedded()))
    with pytest.raises(ArtifactError, match=r"output next_state_0 is part .* in spite of --gpu-safe"):
        runtime.check(out, contract)
    out.write_bytes(flatbuffer.with_metadata(gpu_delegate.decouple(content), contract.embedded()))
    structure, advice = runtime.check(out, contract)
    assert ("nothing known against LiteRT's GPU delegate" in structure) == (not advice)
