"""Sessions of `bench`: each runs the model with its states fed back, and profiles it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tsmzoo.artifact import arrays, store
from tsmzoo.artifact import session as timing
from tsmzoo.artifact.converter import Operator
from tsmzoo.benchmarking import sessions, worker
from tsmzoo.benchmarking.run import Job
from tsmzoo.cli import app
from tsmzoo.formats import Format
from tsmzoo.inference.reference import ModelReference

MODEL = "tsm_mbv2_motion_online"
Toy = Callable[..., Path]
Bench = Callable[..., Result]


def test_onnx_states_are_fed_back(toy: Toy) -> None:
    session, loaded = worker.load(Job(ModelReference(str(toy()))))
    mean = float(timing.pixels(store.read_contract(toy())).mean())
    assert mean != 0
    for frames in range(1, 6):
        assert session.run()[0, 0] == pytest.approx(frames * mean, rel=1e-5)
    assert loaded.model == "toy"
    assert loaded.runtime.startswith("onnxruntime ")


def test_profile_of_onnx_counts_each_node_once_a_pass(toy: Toy) -> None:
    session, _ = worker.load(Job(ModelReference(str(toy()))))
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

    session, loaded = worker.load(Job(ModelReference(MODEL, weights="random", seed=3, size=64)))
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
    session, loaded = worker.load(Job(ModelReference("tsm_mbv2_motion", weights="random", frames=4, size=32)))
    assert (loaded.mode, loaded.input_shape) == ("offline", (1, 4, 3, 32, 32))
    assert session.run().shape == (1, 14)
    profile = session.profile(2)
    assert profile is not None
    calls = {node.name: (node.kind, node.calls) for node in profile.nodes}
    assert calls["backbone.features.0.0"] == ("Conv2d", 1)
    assert profile.kinds[0].ms >= profile.kinds[-1].ms > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format_", "options"),
    [
        (Format.ONNX, ["--state", "packed", "--softmax"]),
        (Format.ONNX, []),
        (Format.TFLITE, []),
        (Format.TFLITE, ["--state", "packed"]),
        (Format.COREML, ["--state", "implicit", "--precision", "fp16"]),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else " ".join(value) or "explicit",
)
def test_a_file_runs_as_verify_runs_it(format_: Format, options: list[str], tmp_path: Path) -> None:
    from tsmzoo.inference.model import open_file

    path = tmp_path / f"m{format_.suffix}"
    words = ["export", MODEL, "--to", format_, "--weights", "random", "-o", str(path), *options]
    assert CliRunner().invoke(app, words).exit_code == 0
    session, _ = worker.load(Job(ModelReference(str(path))))
    model = open_file(path, 1)
    contract = model.contract
    pixels = arrays.from_layout(timing.pixels(contract), contract.main_input.layout)
    before = None
    for outputs in model.run_stream([pixels] * 6):
        answer = session.run().copy()
        assert before is None or not np.array_equal(answer, before)
        before = answer
        if contract.answer != "logits":
            answer = arrays.logits(answer, contract.activation, contract.precision)
        rtol = 1e-4 if contract.precision == "fp32" else 1e-2
        np.testing.assert_allclose(answer, outputs["logits"], rtol=rtol, atol=1e-6)


def test_profile_of_tflite_is_of_the_passes_that_are_timed(
    convolutions: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Twenty of them at least, though three are asked for; convolutions are XNNPACK's, the sum is LiteRT's own."""
    session, _ = worker.load(Job(ModelReference(str(convolutions))))
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
    # Milliseconds, not micro- or nanoseconds: on a busy machine times differ several-fold.
    assert 1 / 20 < total / 1e3 / np.median(timing.timed(session, 20)) < 20


def test_profile_of_a_slow_tflite_ends(convolutions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tsmzoo.converters.tflite.profile.SECONDS", 0.0)
    session, _ = worker.load(Job(ModelReference(str(convolutions))))
    profile = session.profile(1000)
    assert profile is not None
    assert profile.passes == 1
    assert {kind.calls for kind in profile.kinds} == {1, 2}


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_profile_of_tflite_takes_its_threads(convolutions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tsmzoo.converters.tflite import profile as litert_profile

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
    session, _ = worker.load(Job(ModelReference(str(convolutions))))
    monkeypatch.setattr("tsmzoo.converters.tflite.profile.library", lambda: Path("libNone.so"))
    assert session.profile(1) is None
    session.run()


def test_core_ml_keeps_one_state_from_pass_to_pass(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for what a Mac has: `predict` without a state is refused there where the file keeps one."""
    coremltools = pytest.importorskip("coremltools")
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

    monkeypatch.setattr(coremltools.models, "MLModel", Model)
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    session, _ = worker.load(Job(ModelReference(str(package))))
    for _ in range(3):
        session.run()
    assert None not in states
    assert len(states) == 3
    assert len(set(map(id, states))) == 1


def test_events_are_summed_over_kinds_and_nodes() -> None:
    events = [("Conv", "a", 1.0, 1), ("Conv", "b", 2.0, 1), ("Add", "c", 4.0, 1)] * 2
    profile = timing.profile_of(events, 2)
    assert profile.kinds == (Operator("Add", None, 4.0, 1), Operator("Conv", None, 3.0, 2))
    assert [node.name for node in profile.nodes] == ["c", "b", "a"]
