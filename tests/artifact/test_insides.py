"""Files whose digest is right and whose inside is not: one line or a right answer, no crash, and nothing written.

The files are made by hand, a mean and a sum in each format; they go through the command line of a process of its own,
which a runtime that follows a wrong offset would end.
"""

from __future__ import annotations

import gc
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

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


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a function from a format to its file, which nobody may change."""
    made: dict[str, Path] = {}

    def original(format_: str) -> Path:
        if format_ not in made:
            path = tmp_path_factory.mktemp(format_) / f"toy{FORMATS[format_]}"
            WRITERS[format_](path, contract_of(format_))
            write_beside(path, msgspec.to_builtins(contract_of(format_)))
            made[format_] = path
        return made[format_]

    return original


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images: a green one, a red one, a red one."""
    folder = tmp_path_factory.mktemp("frames")
    for number, colour in enumerate([(0, 200, 0), (255, 0, 0), (255, 0, 0)]):
        Image.new("RGB", (SIDE, SIDE), colour).save(folder / f"{number}.png")
    return folder


Ask = Callable[..., tuple[int, str, str, str | None]]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Give a function that runs a command in another process and returns status, stdout, stderr and a bug's name."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def command(*arguments: str | Path) -> tuple[int, str, str, str | None]:
        stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, f"the process died of {arguments}: {process.wait()}"
        code, out, err, bug = json.loads(line)
        return code, out, err, bug

    yield command
    process.communicate()
    assert process.returncode == 0


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


def refused(answer: tuple[int, str, str, str | None], path: Path) -> str:
    """Return the one line of an error that names the file, or its contract."""
    code, _, err, bug = answer
    assert (code, bug) == (1, None), (answer, path)
    (line,) = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert line.startswith(f"error: {path.with_suffix('')}"), line
    return line


def answered(answer: tuple[int, str, str, str | None]) -> list[dict[str, Any]]:
    code, out, _, bug = answer
    assert (code, bug) == (0, None), answer
    return [json.loads(line) for line in out.splitlines()]


# --- right ones ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_is_run_and_not_written(format_: str, originals: Callable[[str], Path], frames: Path, ask: Ask) -> None:
    path = originals(format_)
    before = state_of(path)
    lines = answered(
        ask(
            "run",
            path,
            frames,
            "--fps",
            "4",
            "--json",
            "--cut",
            "0",
            "--window",
            "1",
            "--threshold",
            "0",
            "--hold",
            "1",
        )
    )
    # By hand: (0 - 0.5) / 0.25 = -2 for black, 2 for full, (200 / 255 - 0.5) / 0.25 = 1.137 for the first green.
    logits = np.array([[-2, 1.13725, -2], [0, -0.86275, -4], [2, -2.86275, -6]])
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert [line["label"] for line in lines] == ["green", "red", "red"]
    assert [line["top5"][0]["probability"] for line in lines] == pytest.approx(odds.max(1), abs=1e-4)
    assert state_of(path) == before


# --- contracts that contradict themselves --------------------------------------------------------------------------


def at(document: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        document = document[key]
    return document


def changed(document: dict[str, Any], place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    document = json.loads(json.dumps(document))
    at(document, place[:-1])[place[-1]] = value
    return document


#: One for each thing that a contract says twice, or that has bounds.
CONTRADICTIONS: list[tuple[tuple[str | int, ...], Any]] = [
    (("labels",), ["red", "green"]),
    (("labels",), []),
    (("classes",), 4),
    (("classes",), 10**12),
    (("classes",), 0),
    (("mean",), [0.5, 0.5]),
    (("mean",), []),
    (("mean", 0), 1e308),
    (("std", 1), 0.0),
    (("std", 1), -0.25),
    (("std",), [0.25] * 4),
    (("size",), 9),
    (("size",), -8),
    (("size",), 10**30),
    (("resize",), 4),
    (("frames",), 2),
    (("frames",), 0),
    (("mode",), "offline"),
    (("state",), "packed"),
    (("state",), "implicit"),
    (("states",), []),
    (("states", 0, "input"), "frame"),
    (("states", 0, "output"), "logits"),
    (("inputs",), []),
    (("outputs",), []),
    (("inputs", 0, "shape"), [1, 3, SIDE]),
    (("inputs", 0, "shape"), []),
    (("inputs", 0, "shape"), [1, -3, SIDE, SIDE]),
    (("inputs", 0, "shape"), [1, 3, 2**40, 2**40]),
    (("inputs", 0, "shape"), ["N", 3, SIDE, SIDE]),
    (("inputs", 0, "shape"), [1, "N", SIDE, SIDE]),
    (("inputs", 0, "layout"), "NTCHW"),
    (("inputs", 0, "layout"), "NC"),
    (("inputs", 0, "dtype"), "float16"),
    (("inputs", 0, "type"), "image-like"),
    (("inputs", 1, "name"), "frame"),
    (("inputs", 1, "shape"), [1, 1, 3, 1]),
    (("inputs", 1, "type"), "image"),
    (("outputs", 0, "name"), "scores"),
    (("outputs", 0, "shape"), [1, 4]),
    (("outputs", 0, "shape"), [2, 3]),
    (("outputs", 1, "dtype"), "uint8"),
    (("parts",), [{"name": "state_0", "shape": [1, 3, 1, 1], "dtype": "float32", "layout": "NCHW", "meaning": ""}]),
    (("channel_order",), "GBR"),
    (("target_fps",), 0.0),
    (("stride",), 0),
]


@pytest.mark.parametrize(("place", "value"), CONTRADICTIONS, ids=str)
def test_a_contract_that_contradicts_itself_is_refused(
    place: tuple[str | int, ...], value: Any, originals: Callable[[str], Path], tmp_path: Path, frames: Path, ask: Ask
) -> None:
    path = copied(originals("onnx"), tmp_path / "m")
    document = changed(msgspec.to_builtins(contract_of("onnx")), place, value)
    put_contract(path, document, json.dumps(document))
    before = state_of(path)
    for command in (["run", path, frames], ["verify", path]):
        line = refused(ask(*command), path)
        assert "contradicts itself" in line or "is no contract of this version" in line
    assert state_of(path) == before


def test_real_contracts_contradict_nothing() -> None:
    """Of every kind of file that can be exported of the bundled models."""
    from tsmzoo import registry
    from tsmzoo.artifact.converter import converter_of
    from tsmzoo.formats import Format
    from tsmzoo.inference.describe import describe
    from tsmzoo.weights.load import load_network

    zoo = registry.load()
    for model in ("tsm_mbv2_motion", "tsm_mbv2_motion_online"):
        network = load_network(zoo.find(model), "random")
        for converter in (None, *map(converter_of, Format)):
            options: list[dict[str, Any]] = [
                {},
                {"preprocess": "embedded"},
                {"dynamic_batch": True},
                {"activated": True},
            ]
            if model.endswith("online") and converter is not None:
                options += [{"state": state} for state in converter.states]
            for each in options:
                assert list(describe(zoo, network, converter, **each).faults()) == []


# --- files that are not what their contracts say -------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_tensors_other_than_the_files_are_named(
    format_: str, originals: Callable[[str], Path], tmp_path: Path, frames: Path, ask: Ask
) -> None:
    """A contract that agrees with itself, of a file that has other shapes."""
    path = copied(originals(format_), tmp_path / "m")
    document = msgspec.to_builtins(contract_of(format_))
    for group in (("inputs", 1), ("outputs", 1)):
        document = changed(document, (*group, "shape"), [1, 3, 2, 1] if format_ != "tflite" else [1, 2, 1, 3])
    put_contract(path, document, json.dumps(document))
    line = refused(ask("run", path, frames), path)
    assert "next_state_0" in line
    assert "its contract says" in line


def leaves(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if place:
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from leaves(each, (*place, key))


ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    3,
    2**31,
    2**63,
    1e308,
    1e-320,
    "",
    "N",
    "x" * 300,
    "\x1b[2J",
    [],
    {},
    [[]],
)


def contract_fuzz(format_: str, count: int, seed: int, original: Path, folder: Path) -> Iterator[Path]:
    """Yield files whose contracts, within and beside, have odd values of every type at random places."""
    rng = random.Random(seed)
    document = msgspec.to_builtins(contract_of(format_))
    places = list(leaves(document))
    for number in range(count):
        odd = document
        for place in rng.sample(places, rng.choice((1, 1, 2))):
            try:
                before = at(odd, place)
            except (KeyError, IndexError, TypeError):
                continue  # what stood there is gone
            values: list[Any] = [*ODD, before[:-1], before + before] if isinstance(before, list) else [*ODD]
            odd = changed(odd, place, rng.choice(values))
        path = copied(original, folder / f"c{number}")
        put_contract(path, odd, json.dumps(odd))
        yield path


def byte_fuzz(count: int, seed: int, original: Path, folder: Path) -> Iterator[Path]:
    """Yield files with a few bytes changed somewhere, their digests right."""
    rng = random.Random(seed)
    document = json.loads(original.with_suffix(".json").read_bytes())
    for number in range(count):
        path = copied(original, folder / f"b{number}")
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        file = rng.choice([file for file in files if file.stat().st_size])
        content = bytearray(file.read_bytes())
        # The contract inside is most of such a small file, and found at once.
        text = content.find(b'{"schema"')
        places = [place for place in range(len(content)) if text < 0 or not text <= place < text + 1500]
        for _ in range(rng.choice((1, 1, 2, 4))):
            place = rng.choice(places)
            content[place] = rng.choice((0, 1, 127, 128, 255, content[place] ^ (1 << rng.randrange(8))))
        if rng.random() < 0.1:
            content = content[: rng.randrange(len(content))]
        file.write_bytes(content)
        write_beside(path, document)
        yield path


def fuzz(files: Iterator[Path], frames: Path, ask: Ask) -> dict[int, int]:
    """Return how often each exit status came."""
    statuses = {0: 0, 1: 0}
    for path in files:
        before = state_of(path)
        for command in (["run", path, frames, "--fps", "4", "--json"], ["verify", path, "--json"]):
            code, out, err, bug = ask(*command)
            assert bug is None, (path, bug)
            assert code in statuses, (path, code, err)
            statuses[code] += 1
            if code:
                lines = [line for line in err.splitlines() if not line.startswith(("warning: ", "note: "))]
                assert len(lines) == 1, (path, err)
                assert lines[0].startswith("error: ")
            else:
                json.loads(out.splitlines()[-1], parse_constant=lambda constant: pytest.fail(constant))
        assert state_of(path) == before
    return statuses


@pytest.mark.parametrize("format_", FORMATS)
def test_odd_contracts_take_one_line(
    format_: str, originals: Callable[[str], Path], tmp_path: Path, frames: Path, ask: Ask
) -> None:
    statuses = fuzz(contract_fuzz(format_, 12, 0, originals(format_), tmp_path), frames, ask)
    assert min(statuses.values()) > 0


@pytest.mark.parametrize("format_", FORMATS)
def test_odd_bytes_take_one_line(
    format_: str, originals: Callable[[str], Path], tmp_path: Path, frames: Path, ask: Ask
) -> None:
    assert fuzz(byte_fuzz(15, 1, originals(format_), tmp_path), frames, ask)[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
def test_more_odd_files_take_one_line(
    format_: str, originals: Callable[[str], Path], tmp_path: Path, frames: Path, ask: Ask
) -> None:
    fuzz(contract_fuzz(format_, 150, 2, originals(format_), tmp_path), frames, ask)
    fuzz(byte_fuzz(200, 2, originals(format_), tmp_path), frames, ask)
