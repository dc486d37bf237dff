"""`bench`: what the sessions run is the model with its states fed back, turns, figures, memory, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tsmzoo.artifact import arrays, store
from tsmzoo.artifact.contract import METADATA_KEY, Contract, StatePair, Tensor, contract_path
from tsmzoo.benchmark import litert_profile, run, sessions
from tsmzoo.benchmark import worker as benchmark_worker
from tsmzoo.benchmark.run import Job, Loaded, Operator, Profile, Timing
from tsmzoo.cli import app
from tsmzoo.errors import ZooError
from tsmzoo.formats import Format

pytestmark = pytest.mark.usefixtures("one_registry")

MODEL = "tsm_mbv2_motion_online"
KEYS = {"artifact", "runtime", "threads", "median_ms", "p95_ms", "peak_mb", "ratio", "per", "runs", "profile"}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="tsmzoo")


def error_of(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


Toy = Callable[..., Path]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """Write an online ONNX file whose state adds up the mean of its frames and is its only logit, and its contract."""
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


def put(path: Path, contract: Contract) -> Path:
    """Write the contract of an ONNX file beside it, and into it."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.embedded()})
    onnx.save_model(model, path)
    sha256, size = store.digest(path)
    contract = msgspec.structs.replace(contract, sha256=sha256, bytes=size)
    store.write_contract(contract, contract_path(path))
    return path


# --- what is run ---------------------------------------------------------------------------------------------------


def test_onnx_states_are_fed_back(toy: Toy) -> None:
    session, loaded = benchmark_worker.load(Job(subject=str(toy())))
    mean = float(sessions._pixels(store.read_contract(toy())).mean())
    assert mean != 0
    for frames in range(1, 6):
        assert session.run()[0, 0] == pytest.approx(frames * mean, rel=1e-5)
    assert loaded.model == "toy"
    assert loaded.runtime.startswith("onnxruntime ")


def test_profile_of_onnx_counts_each_node_once_a_pass(toy: Toy) -> None:
    session, _ = benchmark_worker.load(Job(subject=str(toy())))
    profile = session.profile(1)
    assert profile is not None
    assert {(operator.kind, operator.calls) for operator in profile.kinds} >= {("ReduceMean", 1), ("Add", 1)}
    assert all(operator.ms >= 0 and operator.calls == 1 for operator in profile.nodes)
    assert sum(o.ms for o in profile.kinds) == pytest.approx(sum(o.ms for o in profile.nodes))


def test_torch_states_are_fed_back() -> None:
    """Two passes over the same frame answer otherwise, and as `run` answers to the same stream."""
    import torch

    from tsmzoo import registry
    from tsmzoo.models.wrappers import StreamStep, state_shapes
    from tsmzoo.weights.load import load_network

    session, loaded = benchmark_worker.load(Job(subject=MODEL, weights="random", seed=3, size=64))
    assert isinstance(session, sessions.TorchSession)
    network = load_network(registry.load().find(MODEL), "random", seed=3)
    states = [torch.zeros(shape) for shape in state_shapes(network.backbone, 3, 64)]
    before = None
    for _ in range(3):
        with torch.inference_mode():
            logits, *states = StreamStep(network.backbone)(session._pixels, *states)
        answer = session.run()
        torch.testing.assert_close(answer, logits, rtol=1e-4, atol=1e-6)
        assert before is None or not torch.allclose(before, answer, atol=1e-4)
        before = answer.clone()
    assert (loaded.mode, loaded.weights, loaded.input_shape) == ("online", "random", (1, 3, 64, 64))


def test_torch_takes_frames_size_and_profiles_modules() -> None:
    session, loaded = benchmark_worker.load(Job(subject="tsm_mbv2_motion", weights="random", frames=4, size=32))
    assert (loaded.mode, loaded.input_shape) == ("offline", (1, 4, 3, 32, 32))
    assert session.run().shape == (1, 14)
    profile = session.profile(2)
    assert profile is not None
    calls = {node.name: (node.kind, node.calls) for node in profile.nodes}
    assert calls["backbone.features.0.0"] == ("Conv2d", 1)
    assert profile.kinds[0].ms >= profile.kinds[-1].ms > 0


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        (Format.ONNX, ["--state", "packed", "--softmax"]),
        pytest.param(Format.ONNX, [], marks=pytest.mark.slow),
        pytest.param(Format.TFLITE, [], marks=pytest.mark.slow),
        pytest.param(Format.TFLITE, ["--state", "packed"], marks=pytest.mark.slow),
        pytest.param(Format.COREML, ["--state", "implicit", "--precision", "fp16"], marks=pytest.mark.slow),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else " ".join(value) or "explicit",
)
def test_a_file_runs_as_verify_runs_it(format_: Format, options: list[str], tmp_path: Path) -> None:
    from tsmzoo.inference import runner
    from tsmzoo.inference.model import open_file

    path = tmp_path / f"m{format_.suffix}"
    assert invoke("export", MODEL, "--to", format_, "--weights", "random", "-o", path, *options).exit_code == 0
    session, _ = benchmark_worker.load(Job(subject=str(path)))
    opened, contract = open_file(path, 1)
    pixels = arrays.from_layout(sessions._pixels(contract), contract.main_input.layout)
    before = None
    for outputs in runner.stream(opened, contract, [pixels] * 6):
        answer = session.run().copy()
        assert before is None or not np.array_equal(answer, before)
        before = answer
        if contract.answer != "logits":
            answer = arrays.logits(answer, contract.activation, contract.precision)
        rtol = 1e-4 if contract.precision == "fp32" else 1e-2
        np.testing.assert_allclose(answer, outputs["logits"], rtol=rtol, atol=1e-6)


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


def test_profile_of_tflite_is_of_the_passes_that_are_timed(
    convolutions: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Twenty of them at least, though three are asked for; convolutions are XNNPACK's, the sum is LiteRT's own."""
    session, _ = benchmark_worker.load(Job(subject=str(convolutions)))
    capfd.readouterr()
    profile = session.profile(3)
    assert capfd.readouterr() == ("", "")
    assert profile is not None
    assert profile.passes >= 20
    (convolution,) = [kind for kind in profile.kinds if kind.kind.startswith("Convolution (NHWC, F32)")]
    (sum_,) = [kind for kind in profile.kinds if kind.kind == "CUMSUM"]
    assert (convolution.calls, sum_.calls) == (2, 1)
    assert {node.name for node in profile.nodes} == {f"#{place}" for place in range(len(profile.nodes))}
    assert min(convolution.ms, sum_.ms) > 0
    total = sum(node.ms for node in profile.nodes)
    assert total == pytest.approx(sum(kind.ms for kind in profile.kinds))
    assert 1 / 4 < total / 1e3 / np.median(sessions.timed(session, 20)) < 4


def test_profile_of_a_slow_tflite_ends(convolutions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert_profile, "SECONDS", 0.0)
    session, _ = benchmark_worker.load(Job(subject=str(convolutions)))
    profile = session.profile(1000)
    assert profile is not None
    assert profile.passes == 1
    assert {kind.calls for kind in profile.kinds} == {1, 2}


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_profile_of_tflite_takes_its_threads(convolutions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, call = [], litert_profile._Library.call

    def counted(self: litert_profile._Library, name: str, *arguments: Any) -> None:
        if name == "StopProfiler":
            counts.append(len(os.listdir("/proc/self/task")))
        call(self, name, *arguments)

    monkeypatch.setattr(litert_profile._Library, "call", counted)
    for threads in (1, 3):
        assert litert_profile.profile(convolutions, threads, 1) is not None
    one, three = counts
    assert three - one == 2


def test_profile_of_a_litert_that_does_not_tell(convolutions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = benchmark_worker.load(Job(subject=str(convolutions)))
    monkeypatch.setattr(litert_profile, "library", lambda: Path("libNone.so"))
    assert session.profile(1) is None
    session.run()


def test_core_ml_keeps_one_state_from_pass_to_pass(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for what a Mac has: `predict` without a state is refused there where the file keeps one."""
    coreml = pytest.importorskip("tsmzoo.converters.coreml.convert", exc_type=ImportError)
    states: list[object] = []

    class Model:
        def __init__(self, path: str) -> None:
            copy = Path(path)  # coremltools rewrites the manifest of what it opens
            assert copy != package
            assert (copy / "Manifest.json").read_bytes() == (package / "Manifest.json").read_bytes()

        def make_state(self) -> object:
            return object()

        def predict(self, values: dict[str, Any], state: object) -> dict[str, Any]:
            states.append(state)
            return {"logits": values["frame"].mean().reshape(1, 1)}

    monkeypatch.setattr(coreml.ct.models, "MLModel", Model)
    monkeypatch.setattr(coreml.platform, "system", lambda: "Darwin")
    session, _ = benchmark_worker.load(Job(subject=str(package)))
    for _ in range(3):
        session.run()
    assert None not in states
    assert len(states) == 3
    assert len(set(map(id, states))) == 1


# --- figures -------------------------------------------------------------------------------------------------------


def timing(rounds: list[list[float]], mode: str = "online", profile: Profile | None = None) -> Timing:
    loaded = Loaded(runtime="r 1", model="m", mode=mode, precision="fp32", weights="random", input_shape=(1, 3, 8, 8))
    times = tuple(tuple(round_) for round_ in rounds)
    return Timing(job=Job(subject="m"), loaded=loaded, rounds=times, peak_mb=12.34, profile=profile)


def test_figures_by_hand() -> None:
    first = timing([[0.001, 0.002, 0.003], [0.004, 0.005]])
    (row,) = run.rows([first])
    assert (row.median_ms, row.fps, row.ratio, row.peak_mb) == (3.0, 333.33, 1.0, 12.3)
    assert (row.runs, row.passes, row.per) == (2, 5, "frame")
    assert row.p95_ms == pytest.approx(4.8)  # 0.8 of the way from the fourth to the fifth
    (row,) = run.rows([timing([[0.5]], "offline")])
    assert (row.per, row.clips_per_s, row.fps) == ("clip", 2.0, msgspec.UNSET)


times = st.lists(st.lists(st.floats(1e-5, 10), min_size=1, max_size=5), min_size=1, max_size=7)


@given(times, st.floats(0.1, 10), st.data())
def test_a_slow_spell_that_hits_all_changes_no_ratio(
    rounds: list[list[float]], factor: float, data: st.DataObject
) -> None:
    spells = [data.draw(st.floats(0.1, 100)) for _ in rounds]
    first = timing([[t * spell for t in round_] for round_, spell in zip(rounds, spells, strict=True)])
    second = timing([[t * spell * factor for t in round_] for round_, spell in zip(rounds, spells, strict=True)])
    assert run.ratio(second, first) == pytest.approx(factor)


def test_a_clip_and_a_frame_have_no_ratio() -> None:
    _, clip = run.rows([timing([[1.0]]), timing([[1.0]], "offline")])
    assert clip.ratio is None
    assert run.cells(clip)[-2] == "–"


def test_of_core_ml_nobody_chose_the_threads() -> None:
    (row,) = run.rows([msgspec.structs.replace(timing([[1.0]]), job=Job(subject="m.mlpackage", threads=2))])
    assert row.threads is None
    assert run.cells(row)[2] == "–"


@pytest.mark.parametrize(
    ("runtime", "notes"),
    [
        ("tsmzoo's ML Program interpreter, torch 2.13.0", ["m.onnx: an interpreter ran it; its times say nothing"]),
        ("Core ML, macOS 26.0", []),
        ("onnxruntime 1.31.1", []),
    ],
)
def test_an_interpreters_times_come_with_a_note(
    runtime: str, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = timing([[1.0]])
    measured = msgspec.structs.replace(
        measured, job=Job(subject="m.onnx"), loaded=msgspec.structs.replace(measured.loaded, runtime=runtime)
    )
    monkeypatch.setattr(run, "check", lambda *_, **__: None)
    monkeypatch.setattr(run, "run_benchmark", lambda *_, **__: [measured])
    for options in ([], ["--json"]):
        result = invoke("bench", "m.onnx", *options)
        assert result.exit_code == 0
        lines = result.stderr.splitlines()
        assert len(lines) == len(notes)
        assert all(line.startswith(note) for line, note in zip(lines, notes, strict=True))


def test_the_interpreters_name_is_known() -> None:
    mlprogram = pytest.importorskip("tsmzoo.converters.coreml.program", exc_type=ImportError)
    assert run.interpreted(mlprogram.ProgramRunner.runtime)


def test_profile_in_the_document() -> None:
    profile = Profile(
        3, (Operator("Conv", None, 3.0, 2), Operator("Add", None, 1.0, 1)), (Operator("Conv", "a", 3.0, 1),)
    )
    (row,) = run.rows([timing([[1.0]], profile=profile)])
    document = msgspec.to_builtins(row)
    assert document["operators"][0] == {"kind": "Conv", "name": None, "calls": 2, "ms": 3.0, "share": 0.75}
    assert document["nodes"] == [{"kind": "Conv", "name": "a", "calls": 1, "ms": 3.0, "share": 0.75}]
    said, kinds, nodes = run.profiles(row, lambda columns, rows: str([list(columns), *rows]))
    assert said == "m: 4 ms a frame by the profiler, of which shares compare, times do not"
    shares = [["Conv", "2", "3.000", "75.0%"], ["Add", "1", "1.000", "25.0%"]]
    assert kinds == str([["operator", "calls", "ms", "share"], *shares])
    assert nodes.splitlines()[1:] == [str([["node", "operator", "ms", "share"], ["a", "Conv", "3.000", "75.0%"]])]
    long = msgspec.structs.replace(row, nodes=row.nodes * 14)
    assert run.profiles(long, lambda *_: "")[2].splitlines()[-1] == "and 2 more (--json)"


def test_a_profile_of_nothing_has_no_shares() -> None:
    profile = Profile(20, (Operator("Add", None, 0.0, 1),), (Operator("Add", "#0", 0.0, 1),))
    (row,) = run.rows([timing([[1.0]], profile=profile)])
    assert row.operators[0].share == 0


def test_a_runtime_that_tells_no_times_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "check", lambda *_, **__: None)
    monkeypatch.setattr(run, "run_benchmark", lambda *_, **__: [timing([[1.0]])])
    result = invoke("bench", "m.tflite", "--profile")
    assert result.stdout.splitlines()[-1] == "r 1: its Python does not tell the times of operators"


def test_events_are_summed_over_kinds_and_nodes() -> None:
    events = [("Conv", "a", 1.0, 1), ("Conv", "b", 2.0, 1), ("Add", "c", 4.0, 1)] * 2
    profile = sessions._profile(events, 2)
    assert profile.kinds == (Operator("Add", None, 4.0, 1), Operator("Conv", None, 3.0, 2))
    assert [node.name for node in profile.nodes] == ["c", "b", "a"]


def test_peak_is_that_of_this_process_from_here_on() -> None:
    script = (
        "import numpy as np; from tsmzoo.benchmark.worker import peak; before = peak();"
        "kept = np.ones(10_000_000); print(before, peak() - before)"
    )
    ballast = np.ones(50_000_000)  # 400 MB of a parent that the child must not be charged with
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    before, more = map(float, answer.stdout.split())
    assert ballast.nbytes / 1e6 > before
    assert 78 < more < 100


@pytest.mark.parametrize(
    ("threads", "allowed", "expected"),
    [(1, {0, 1}, {1}), (1, {0}, {0}), (2, {0, 1}, {0, 1}), (2, {4, 0, 5, 6}, {4, 5}), (8, {0, 1}, {0, 1})],
)
def test_cores_of_a_job(threads: int, allowed: set[int], expected: set[int]) -> None:
    assert benchmark_worker.cores(threads, allowed) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are not held to cores")
def test_every_file_runs_on_the_same_cores(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = started(monkeypatch)
    expected = benchmark_worker.cores(1, os.sched_getaffinity(0))
    with run.Worker(Job(subject=str(toy("a")))) as a, run.Worker(Job(subject=str(toy("b")))) as b:
        for worker in (a, b):
            worker.ask(worker.job, Loaded)
        assert [os.sched_getaffinity(process.pid) for process in processes] == [expected] * 2


# --- turns and processes -------------------------------------------------------------------------------------------


class Fake(run.Worker):
    """Answers as a worker would whose pass takes as many milliseconds as its subject says."""

    asked: ClassVar[list[tuple[str, Any]]] = []

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append((self.job.subject, "ended"))

    def ask(self, request: Any, kind: Any) -> Any:  # noqa: ARG002 - as a worker's
        self.asked.append((self.job.subject, request))
        if isinstance(request, Job):
            return timing([[1.0]]).loaded
        return (float(self.job.subject) / 1e3,) * request["passes"] if "passes" in request else 1.0


def test_all_take_turns_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "Worker", Fake)
    monkeypatch.setattr(Fake, "asked", [])
    subjects = ["50", "4"]  # milliseconds: one pass fills a turn, five do
    timings = run.run_benchmark([Job(subject=subject) for subject in subjects], runs=3)
    assert [[len(round_) for round_ in timing.rounds] for timing in timings] == [[1, 1, 1], [5, 5, 5]]
    turns = [subject for subject, request in Fake.asked if request in ({"passes": 1}, {"passes": 5})]
    assert turns[-6:] == ["50", "4"] * 3
    assert [subject for subject, request in Fake.asked if request == "ended"] == ["4", "50"]


def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    processes: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(popen(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(run.subprocess, "Popen", start)
    return processes


def test_a_profile_that_fails_costs_nothing_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Falls(Fake):
        def ask(self, request: Any, kind: Any) -> Any:
            if isinstance(request, dict) and "profile" in request:
                raise ZooError("the process that ran it was ended by SIGSEGV")
            return super().ask(request, kind)

    monkeypatch.setattr(run, "Worker", Falls)
    (timing_,) = run.run_benchmark([Job(subject="4")], runs=2, profile=True)
    assert len(timing_.rounds) == 2
    assert timing_.profile is None


def test_interruption_leaves_no_process(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = started(monkeypatch)

    def interrupt(text: str, done: int, _: int) -> None:
        if text == "running" and done == 1:
            assert [process.poll() for process in processes] == [None, None]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run_benchmark([Job(subject=str(toy("a"))), Job(subject=str(toy("b")))], progress=interrupt)
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 2


def test_a_worker_ends_with_its_stdin(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does when who started it is killed."""
    processes = started(monkeypatch)
    with run.Worker(Job(subject=str(toy()))) as worker:
        worker.ask(worker.job, Loaded)
        stdin, processes[0].stdin = processes[0].stdin, None
        assert stdin is not None
        stdin.close()
        assert processes[0].wait(60) == 0


def test_a_worker_that_is_killed_is_named(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = started(monkeypatch)
    with run.Worker(Job(subject=str(toy()))) as worker:
        worker.ask(worker.job, Loaded)
        os.kill(processes[0].pid, signal.SIGKILL)
        with pytest.raises(ZooError, match=r"toy\.onnx: .*SIGKILL; it may need more memory"):
            worker.ask({"passes": 1}, tuple[float, ...])


def test_side_by_side_from_the_command_line(toy: Toy) -> None:
    small, large = toy("small"), toy("large", 128)
    result = invoke("bench", small, large, "--runs", 3, "--profile", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = json.loads(result.stdout)
    assert [row["artifact"] for row in rows] == [str(small), str(large)]
    assert [row["threads"] for row in rows] == [1, 1]
    for row in rows:
        assert row.keys() >= (KEYS - {"profile"}) | {"operators", "nodes", "fps"}
        assert 0 < row["median_ms"] <= row.p95_ms
        assert row["runs"] == 3
    table = invoke("bench", small, "--runs", 1).stdout.splitlines()
    assert table[2].split()[:2] == [str(small), "onnxruntime"]
    assert table[-1] == run.MEMORY


def test_profile_of_tflite_from_the_command_line(convolutions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "check", lambda *_, **__: None)  # made by hand: no file of ours has a CUMSUM
    result = invoke("bench", convolutions, "--runs", 2, "--profile", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    (row,) = json.loads(result.stdout)
    kinds = {operator["kind"]: operator for operator in row["operators"]}
    assert kinds["CUMSUM"]["calls"] == 1
    assert all(operator["name"] is None for operator in row["operators"])
    assert {node["kind"] for node in row["nodes"]} == kinds.keys()
    assert sum(operator["share"] for operator in row["operators"]) == pytest.approx(1, abs=1e-3)


def test_who_starts_the_workers_imports_no_runtime(toy: Toy) -> None:
    script = (
        "import sys\nfrom tsmzoo.cli import main\nsys.argv = ['tsmzoo', *sys.argv[1:]]\n"
        "try:\n    main()\nfinally:\n    print('\\n', *sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "bench", str(toy()), "--runs", "1", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert not {"torch", "onnx", "onnxruntime", "rich"} & set(result.stderr.split())


# --- what a user can do wrong --------------------------------------------------------------------------------------


def test_a_file_that_the_runtime_rejects(toy: Toy) -> None:
    path = toy()
    path.write_bytes(b"no graph")
    contract = store.read_contract(path)
    store.write_contract(msgspec.structs.replace(contract, sha256=store.digest(path)[0]), path.with_suffix(".json"))
    with pytest.raises(ZooError, match=r"toy\.onnx: ONNX Runtime rejects it"):
        run.run_benchmark([Job(subject=str(path))])
    line = error_of(invoke("bench", path))
    assert f"{path}: is no valid ONNX file" in line


def test_a_changed_file_is_refused(toy: Toy) -> None:
    path = toy()
    path.write_bytes(path.read_bytes() + b"\0")
    line = error_of(invoke("bench", path))
    assert f"{path}: was changed since its export" in line


def renamed(contract: Contract) -> Contract:
    logits = msgspec.structs.replace(contract.outputs[0], name="lgits")
    return msgspec.structs.replace(contract, outputs=(logits, *contract.outputs[1:]))


def reshaped(contract: Contract) -> Contract:
    state = msgspec.structs.replace(contract.inputs[1], shape=(1, 2, 1, 1))
    return msgspec.structs.replace(contract, inputs=(contract.inputs[0], state))


@pytest.mark.parametrize("change", [renamed, reshaped])
def test_a_contract_that_does_not_fit(
    change: Callable[[Contract], Contract], toy: Toy, capfd: pytest.CaptureFixture[str]
) -> None:
    path = toy()
    put(path, change(store.read_contract(path)))
    with pytest.raises(ZooError, match=r"toy\.onnx: is not what its contract says \("):
        run.run_benchmark([Job(subject=str(path))], profile=True)
    line = error_of(invoke("bench", path, "--profile"))
    assert f"{path}: its contract contradicts itself" in line
    assert capfd.readouterr().err == ""  # nor does the worker say anything


def test_a_networks_bug_keeps_its_traceback() -> None:
    with pytest.raises(KeyError), benchmark_worker._as_its_contract_says(Job(subject=MODEL)):
        raise KeyError


def test_missing_runtime_names_the_extra(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ZooError, match=r"pip install 'tsmzoo\[onnx\]'"):
        benchmark_worker.load(Job(subject=str(toy())))


def test_a_missing_file_and_an_unknown_model(tmp_path: Path) -> None:
    assert "does not exist" in error_of(invoke("bench", tmp_path / "no.onnx"))
    assert "did you mean" in error_of(invoke("bench", "tsm_mbv2_motion_onlin"))
    assert "leave out --frames" in error_of(invoke("bench", MODEL, "--frames", 8))
    (tmp_path / "notes.txt").write_text("")
    assert "is neither a model nor a file that export wrote" in error_of(invoke("bench", tmp_path / "notes.txt"))


def test_more_threads_than_cores_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run_benchmark", lambda *_, **__: [timing([[1.0]])])
    monkeypatch.setattr(run, "check", lambda *_, **__: None)
    cores = os.cpu_count() or 1
    assert invoke("bench", "m.onnx", "--threads", cores).stderr == ""
    assert f"take --threads {cores}" in invoke("bench", "m.onnx", "--threads", cores + 1).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["m.onnx", "--size", "64"],
        ["m.onnx", "--weights", "random"],
        ["tsm_mbv2_motion", "tsn_mbv2_motion", "--weights", "w.pth"],
        ["m.onnx", "--runs", "0"],
        [],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert invoke("bench", *arguments).exit_code == 2
