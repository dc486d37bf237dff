"""Other ways in and out of a file: packed states, states kept inside, probabilities in place of logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tsmzoo import registry
from tsmzoo.artifact.arrays import feed, logits, probabilities, unpacked
from tsmzoo.artifact.contract import Contract, Tensor
from tsmzoo.artifact.converter import converter_of
from tsmzoo.artifact.store import read_contract
from tsmzoo.cli import app
from tsmzoo.errors import ArtifactError
from tsmzoo.exporting.compare import compare, moving_noise
from tsmzoo.exporting.graph.deploy import Deployed
from tsmzoo.exporting.graph.states import Packed, Stateful
from tsmzoo.exporting.plan import plan_export
from tsmzoo.formats import Format
from tsmzoo.inference.describe import describe
from tsmzoo.inference.model import Model, open_file
from tsmzoo.inference.smoothing import Smoothing, decide
from tsmzoo.inference.torch_runner import TorchRunner, torch_model
from tsmzoo.models.wrappers import StreamStep
from tsmzoo.registry import Entry, recipes
from tsmzoo.typing import Array
from tsmzoo.weights.load import Network, load_network

ZOO = registry.load()
ONLINE = "tsm_mbv2_motion_online"


def export(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, ["export", ONLINE, *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


def entry(**changes: Any) -> Entry:
    return msgspec.structs.replace(ZOO.find("tsm_mbv2_online"), size=32, **changes)


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network(entry(), "random", seed=0)


@pytest.fixture(scope="module")
def bundled() -> Network:
    return load_network(ZOO.find(ONLINE))


def by_hand(network: Network, frames: Array) -> list[tuple[Array, list[Array]]]:
    """Return logits and next states after each frame, normalised, T, C, H, W, of the network in torch."""
    step = StreamStep(network.backbone.eval())
    states = [torch.zeros(tensor.shape) for tensor in describe(ZOO, network).inputs[1:]]  # type: ignore[arg-type]
    found = []
    for frame in frames:
        with torch.inference_mode():
            answer, *states = step(torch.from_numpy(frame[None]), *states)
        found.append((answer.numpy(), [state.numpy() for state in states]))
    return found


# --- forms -----------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(1, 4)] * 3), min_size=1, max_size=5), st.integers(1, 3))
def test_states_come_out_of_the_packed_one_as_they_went_in(shapes: list[tuple[int, ...]], batch: int) -> None:
    states = {f"state_{i}": np.random.default_rng(i).random((batch, *shape)) for i, shape in enumerate(shapes)}
    parts = tuple(
        Tensor(name=name, shape=state.shape, dtype="float32", layout="NCHW", meaning="")
        for name, state in states.items()
    )
    packed = np.concatenate([state.reshape(batch, -1) for state in states.values()], 1)
    found = unpacked(packed, parts)
    assert list(found) == list(states)
    for name, state in states.items():
        np.testing.assert_array_equal(found[name], state)


def test_a_packed_step_is_the_step(network: Network) -> None:
    contract = describe(ZOO, network, state="packed")
    assert [(tensor.name, tensor.shape) for tensor in contract.inputs] == [
        ("frame", (1, 3, 32, 32)),
        ("state", (1, 552)),
    ]
    assert [tensor.name for tensor in contract.outputs] == ["logits", "next_state"]
    assert [(pair.input, pair.output) for pair in contract.states] == [("state", "next_state")]
    shapes = [part.shape[1:] for part in contract.parts]
    model = Packed(Deployed(StreamStep(network.backbone.eval()), None, None, channels_last=False), shapes)  # type: ignore[arg-type]
    frames = np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype("float32")
    state = torch.zeros(1, 552)
    for frame, (expected, states) in zip(frames, by_hand(network, frames), strict=True):
        with torch.inference_mode():
            found, state = model(torch.from_numpy(frame[None]), state)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(state, np.concatenate([each.reshape(1, -1) for each in states], 1))


def test_a_step_that_keeps_its_states_is_the_step(network: Network) -> None:
    contract = describe(ZOO, network, converter_of(Format.COREML), state="implicit")
    assert [tensor.name for tensor in (*contract.inputs, *contract.outputs)] == ["frame", "logits"]
    assert contract.states == ()
    assert [part.name for part in contract.parts] == [f"state_{index}" for index in range(10)]
    assert {part.dtype for part in contract.parts} == {"float16"}
    shapes = [part.shape[1:] for part in contract.parts]
    model = Stateful(Deployed(StreamStep(network.backbone.eval()), None, None, channels_last=False), shapes)  # type: ignore[arg-type]
    frames = np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype("float32")
    for frame, (expected, _) in zip(frames, by_hand(network, frames), strict=True):
        with torch.no_grad():
            np.testing.assert_array_equal(model(torch.from_numpy(frame[None])), expected)


class Forgetful:
    """A file that keeps a sum of what it saw; or, if `stubborn`, does not forget it."""

    runtime = "by hand"

    def __init__(self, runner: TorchRunner, contract: Contract, *, stubborn: bool = False) -> None:
        self.runner, self.contract, self.stubborn = runner, contract, stubborn
        self.states: dict[str, Array] = contract.initial_states()

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        outputs = self.runner.run({**inputs, **self.states})
        self.states = {pair.input: outputs[pair.output] for pair in self.contract.states}
        return {"logits": outputs["logits"]}

    def reset(self) -> None:
        self.stream: dict[str, Array] = {}
        if not self.stubborn:
            self.states = self.contract.initial_states()


@pytest.mark.parametrize("stubborn", [False, True])
def test_each_stream_of_a_file_that_keeps_its_states_begins_anew(network: Network, stubborn: bool) -> None:
    plain, kept = describe(ZOO, network), describe(ZOO, network, state="implicit")
    runner = Forgetful(TorchRunner(network, plain), plain, stubborn=stubborn)
    report = compare(torch_model(ZOO, network), Model(runner, kept), tolerance=1e-4, steps=4)
    assert report.status == ("failed" if stubborn else "passed")
    assert [case.steps for case in report.cases] == [4, 4]
    assert report.cases[0].max_rel_error < 1e-4  # the first began from zero either way


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    """Give a file that a recipe of one's own asks for."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "own.yaml").write_text(
        "{format: onnx, precision: fp32, preprocess: embedded, state: packed, softmax: true, "
        "tolerance: {fp32: 2.0e-3}, steps: 17}"
    )
    export("--recipe", folder / "own.yaml", "-o", folder / "m.onnx")
    (folder / "own.yaml").unlink()
    return folder / "m.onnx"


def test_files_of_other_tensors_have_other_names() -> None:
    for library in ("onnx", "coremltools"):
        pytest.importorskip(library)
    entry = ZOO.find(ONLINE)
    names = {
        plan_export(entry, recipes.target(target), **options).out.name
        for target in ("onnx", "coreml")
        for options in ({}, {"state": "packed"}, {"softmax": True}, {"state": "packed", "softmax": True})
    }
    assert len(names) == 8
    assert f"{ONLINE}-fp32.onnx" in names
    assert f"{ONLINE}-fp16-packed-softmax.mlpackage" in names


@pytest.mark.slow
def test_a_packed_file_of_probabilities_answers_as_torch(packed: Path, bundled: Network) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(packed), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["frame", "state"]
    assert [value.name for value in session.get_outputs()] == ["probabilities", "next_state"]
    contract = read_contract(packed)
    pixels = moving_noise(5, 16, 3, contract.size)
    frames = feed(pixels, describe(ZOO, bundled))
    state = np.zeros(session.get_inputs()[1].shape, "float32")
    for frame, (expected, states) in zip(pixels, by_hand(bundled, frames), strict=True):
        odds, state = session.run(None, {"frame": frame[None], "state": state})
        wanted = torch.from_numpy(expected).softmax(1).numpy()
        assert np.abs(odds - wanted).max() <= 1e-4
        together = np.concatenate([each.reshape(1, -1) for each in states], 1)
        assert np.abs(state - together).max() <= 1e-4 * np.ptp(together)


@pytest.mark.slow
def test_whoever_wants_logits_of_a_file_of_probabilities_gets_them(packed: Path, bundled: Network) -> None:
    """But for the constant that softmax forgets: so views are averaged and streams smoothed as ever."""
    model = open_file(packed)
    clips = moving_noise(6, 6, 3, model.contract.size)[None]
    differences = (model.frame_logits(clips) - torch_model(ZOO, bundled).frame_logits(clips))[0]
    assert np.abs(differences - differences.mean(1, keepdims=True)).max() < 1e-3


@pytest.mark.slow
def test_a_packed_state_in_another_order_fails(packed: Path, bundled: Network) -> None:
    model = open_file(packed)

    class Swapped:
        runtime = "swapped"

        def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
            outputs = model.runner.run(inputs)
            states = list(unpacked(outputs["next_state"], model.contract.parts).values())
            states[1], states[2] = states[2], states[1]  # of one shape
            together = np.concatenate([state.reshape(1, -1) for state in states], 1)
            return {**outputs, "next_state": together}

    reference = torch_model(ZOO, bundled)
    assert compare(reference, model, tolerance=1e-4, steps=4).status == "passed"
    report = compare(reference, Model(Swapped(), model.contract), tolerance=1e-4, steps=4)
    assert report.status == "failed"


@pytest.mark.slow
def test_verify_run_and_eval_take_such_a_file(packed: Path, tmp_path: Path) -> None:
    CliRunner().invoke(app, ["data", "motion", str(tmp_path / "clips"), "--videos", "14", "--seed", "4"])
    runner = CliRunner()
    assert json.loads(runner.invoke(app, ["verify", str(packed), "--json"]).stdout)["passed"] is True
    results = []
    for model in (str(packed), ONLINE):
        result = runner.invoke(app, ["eval", model, "--data", str(tmp_path / "clips"), "--workers", "0", "--json"])
        assert result.exit_code == 0, result.output
        results.append(json.loads(result.stdout)["top1"])
    assert results[0] == results[1]
    video = min((tmp_path / "clips").rglob("*.mp4"))
    last = [
        json.loads(runner.invoke(app, ["run", model, str(video), "--json"]).stdout.splitlines()[-1])["top5"]
        for model in (str(packed), ONLINE)
    ]
    assert [row["label"] for row in last[0]] == [row["label"] for row in last[1]]
    assert [row["probability"] for row in last[0]] == pytest.approx([row["probability"] for row in last[1]], abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("precision: fp64", "precision"),
        ("steps: 1", "steps"),
        ("tolerance: {fp32: -1.0}", "tolerance"),
        ("tolerance: {}", "tolerance"),
        ("tolerance: {fp16: 1.0e-2}", "not written in fp32 yet; choose fp16"),
        ("bars: {fp32: {agreement: 1, cosine: 1, lost: 0}}", "would compare a onnx file with itself"),
        ("softmax: true\nprecision: int8", "--no-softmax"),
        ("colour: red", "colour"),
    ],
)
def test_a_recipe_that_is_wrong_is_one_line(changes: str, words: str, tmp_path: Path) -> None:
    if changes.startswith("bars"):
        pytest.importorskip("onnx")
    lines = {
        "format": "onnx",
        "precision": "fp32",
        "preprocess": "embedded",
        "tolerance": "{fp32: 1.0e-4}",
        "steps": 16,
    }
    lines |= dict(line.split(": ", 1) for line in changes.split("\n"))
    own = tmp_path / "own.yaml"
    own.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    result = CliRunner().invoke(app, ["export", ONLINE, "--recipe", str(own), "-o", str(tmp_path / "m.onnx")])
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


@pytest.mark.slow
def test_a_recipe_of_ones_own(packed: Path) -> None:
    contract = read_contract(packed)
    assert (contract.state, contract.preprocess, contract.answer) == ("packed", "embedded", "probabilities")
    report = contract.verification
    assert report is not None
    assert (report.tolerance, [case.steps for case in report.cases]) == (2e-3, [17, 17])
    # `verify` knows the tolerance without the recipe.
    again = CliRunner().invoke(app, ["verify", str(packed), "--json"])
    report = json.loads(again.stdout)["verification"]
    assert (report["tolerance"], [case["steps"] for case in report["cases"]]) == (2e-3, [17, 17])


@pytest.mark.slow
def test_a_contract_of_before_a_key_was_added_is_read(packed: Path) -> None:
    """What a file holds is compared by what it says, not letter by letter."""
    contract = read_contract(packed)
    older = {key: value for key, value in json.loads(contract.embedded()).items() if key != "gpu_safe"}
    contract.check_copy(packed, json.dumps(older))
    for wrong in (None, "{", json.dumps(older | {"size": 1})):
        with pytest.raises(ArtifactError, match="is not that of"):
            contract.check_copy(packed, wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--to", "tflite", "--state", "packed", "--softmax"),
        ("--to", "tflite", "--state", "packed", "--precision", "int8"),
        ("--to", "onnx", "--state", "packed", "--precision", "int8"),
        ("--to", "onnx", "--state", "packed", "--dynamic-batch", "--precision", "fp16", "--preprocess", "external"),
        ("--recipe", "android", "--softmax"),
    ],
    ids=" ".join,
)
def test_other_ways_in_and_out_pass_in_every_format(options: tuple[str, ...], tmp_path: Path) -> None:
    suffix = ".onnx" if "onnx" in options else ".tflite"
    document = json.loads(export(*options, "-o", tmp_path / f"m{suffix}", "--json").stdout)
    assert document["passed"] is True
    assert document["steps"] >= 32


# --- probabilities ---------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-7, 7), min_size=2, max_size=8), st.sampled_from(["softmax", "sigmoid"]))
def test_probabilities_and_back(values: list[float], activation: Any) -> None:
    scores = np.array([values])
    odds = probabilities(scores, activation)
    wanted = torch.tensor(scores).softmax(1) if activation == "softmax" else torch.tensor(scores).sigmoid()
    np.testing.assert_allclose(odds, wanted.numpy(), rtol=1e-9)
    back = logits(odds, activation, "fp32")
    if activation == "softmax":
        scores, back = scores - scores.mean(), back - back.mean()
    np.testing.assert_allclose(back, scores, atol=2e-3)


def test_one_sure_frame_does_not_outweigh_the_others() -> None:
    """A sigmoid of 18 is 1 in float32, and one of 9 in half precision; the mean with eleven of -5 is far below 0."""
    for sure, dtype, precision in ((18.0, "float32", "fp32"), (9.0, "float16", "fp16")):
        odds = probabilities(np.array([sure, *[-5.0] * 11]), "sigmoid").astype(dtype).astype("float32")
        assert odds[0] == 1
        assert probabilities(logits(odds, "sigmoid", precision).mean(keepdims=True), "sigmoid")[0] < 0.06
        assert np.isfinite(logits(np.array([0.0, 1.0], "float32"), "softmax", precision)).all()
    assert logits(np.array([0.0], "float32"), "softmax", "fp16")[0] > -17


def test_large_logits_overflow_nothing() -> None:
    odds = probabilities(np.array([-200.0, 0.0, 200.0], "float32"), "sigmoid")
    assert odds.tolist() == [0, 0.5, 1]


def test_classes_that_exclude_one_another_or_not() -> None:
    several = next(model for model in ZOO.models if model.multi_label)
    scores = np.array([2.0, 1.9, -3.0])
    assert decide(Smoothing(hold=1), scores, activation="sigmoid").odds == pytest.approx(
        [0.8808, 0.8699, 0.0474], abs=1e-4
    )
    assert decide(Smoothing(hold=1), scores).odds.sum() == pytest.approx(1)
    small = msgspec.structs.replace(several, size=64, frames=min(several.frames, 8))
    contract = describe(ZOO, load_network(small, "random", seed=0), activated=True)
    assert (contract.activation, contract.answer) == ("sigmoid", "probabilities")
    assert "sigmoid" in contract.outputs[0].meaning


def test_a_deployed_form_makes_them(network: Network) -> None:
    frame = torch.randn(1, 3, 32, 32)
    states = [torch.zeros(t.shape) for t in describe(ZOO, network).inputs[1:]]  # type: ignore[arg-type]
    makes: Callable[..., Any] = lambda activation: Deployed(  # noqa: E731
        StreamStep(network.backbone.eval()), None, None, channels_last=False, activation=activation
    )(frame, *states)[0]
    with torch.inference_mode():
        torch.testing.assert_close(makes("softmax"), makes(None).softmax(1))
        torch.testing.assert_close(makes("sigmoid"), makes(None).sigmoid())


@pytest.mark.slow
def test_a_stream_is_read_from_the_packed_state_by_names(packed: Path) -> None:
    pixels = moving_noise(1, 2, 3, 64)
    *_, last = open_file(packed).run_stream(frame[None] for frame in pixels)
    assert {f"next_state_{index}" for index in range(10)} <= set(last)
    assert last["next_state_0"].shape == (1, 1, 16, 16)
