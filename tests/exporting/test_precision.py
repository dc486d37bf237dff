"""Files in fewer bits: what they are calibrated with, how they are judged, that they answer as the float file does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from tsmzoo.converters import costs
from typer.testing import CliRunner

import tsmzoo
from tsmzoo import cli, registry
from tsmzoo.artifact.contract import Contract, Quality, StatePair, Tensor, Verification
from tsmzoo.data import motion
from tsmzoo.exporting import calibration
from tsmzoo.inference.model import Model
from tsmzoo.registry.recipes import QualityThreshold
from tsmzoo.typing import Array

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from tsmzoo.converters.onnx import quantize  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

ZOO = registry.load()
ONLINE, OFFLINE = "tsm_mbv2_motion_online", "tsm_mbv2_motion"


def contract(precision: str = "int8", format_: str = "tflite") -> Contract:
    """A stream of one number: its state is the sum of all frames' means so far."""
    frame = Tensor(name="frame", shape=(1, 3, 2, 2), dtype="float32", layout="NCHW", meaning="")
    state = Tensor(name="state_0", shape=(1, 1, 1, 1), dtype="float32", layout="NCHW", meaning="")
    logits = Tensor(name="logits", shape=(1, 2), dtype="float32", layout="NC", meaning="")
    return Contract(
        model="sum",
        family="tsm",
        mode="online",
        backbone="none",
        dataset="none",
        format=format_,
        precision=precision,
        preprocess="external",
        inputs=(frame, state),
        outputs=(logits, msgspec.structs.replace(state, name="next_state_0")),
        states=(StatePair(input="state_0", output="next_state_0"),),
        classes=2,
        labels=None,
        channel_order="RGB",
        mean=(0.0, 0.0, 0.0),
        std=(1 / 255, 1 / 255, 1 / 255),
        size=2,
        resize=2,
        frames=1,
        sampling="stream",
        stride=None,
        target_fps=None,
        weights="published",
        licence="",
        citation="",
        versions={},
    )


class Sum:
    """Adds up; with `error` a little more at every step, as a state that is rounded badly would."""

    runtime = "by hand"

    def __init__(self, error: float = 0.0) -> None:
        self.error = error

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        total = inputs["state_0"] + inputs["frame"].mean() + self.error
        return {"logits": np.array([[0.0, float(total.item())]], "float32"), "next_state_0": total.astype("float32")}


def test_an_online_model_is_calibrated_with_the_states_it_produced() -> None:
    clips = np.full((2, 3, 3, 2, 2), 10, "uint8")
    clips[1] = 20
    steps = calibration.feeds(Model(Sum(), contract()), clips)
    assert [round(float(step["state_0"].item())) for step in steps] == [0, 10, 20, 0, 20, 40]
    assert [float(step["frame"].mean()) for step in steps] == [10, 10, 10, 20, 20, 20]


def test_long_streams_have_no_cut() -> None:
    clips = np.arange(12, dtype="uint8").reshape(2, 6, 1, 1, 1)
    streams = calibration._long_streams(clips)
    assert streams.shape == (2, calibration.LONG, 1, 1, 1)
    assert np.abs(np.diff(streams[:, :, 0, 0, 0].astype(int))).max() == 1
    assert set(streams[1].ravel()) == set(range(6, 12))


def test_quality_by_hand() -> None:
    """Of eight streams of positive frames, both files say class 1; the drift of a growing error shows."""
    clips = np.random.default_rng(0).integers(1, 50, (8, 4, 3, 2, 2), dtype="uint8")
    given = calibration.CalibrationData(clips, clips, labels=(1, 1, 1, 1, 1, 1, 0, 0), about="clips")
    found = calibration.compare_quality(Model(Sum(), contract("fp32")), Model(Sum(0.5), contract()), given)
    assert (found.top1_float, found.top1, found.agreement, found.clips) == (75.0, 75.0, 1.0, 8)
    assert len(found.drift) == calibration.LONG
    assert found.cosine == pytest.approx(1)  # of two classes there is but one direction
    turned = calibration.compare_quality(Model(Sum(), contract("fp32")), Model(Sum(-1000), contract()), given)
    assert (turned.top1, turned.agreement) == (25.0, 0.0)
    assert turned.cosine == pytest.approx(-1)


BAR = QualityThreshold(agreement=0.95, cosine=0.99, lost=1.0)
PASSED = Verification(status="passed", runtime="", tolerance=1.0)
GOOD = Quality(data="clips", clips=100, agreement=0.99, cosine=0.999, top1_float=90.0, top1=89.5, drift=(0.999,) * 64)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"top1": 88.9}, "top-1 falls from 90.00 to 88.90 % on clips"),
        ({"top1": None, "top1_float": None, "agreement": 0.9}, "90.0% of the first classes"),
        ({"cosine": 0.9}, "turn away from the float file's: cosine 0.900"),
        ({"drift": (1.0,) * 32 + (0.9,) * 32}, "errors of its states add up: cosine 0.900 at the end"),
        ({"drift": (0.9,) + (1.0,) * 63}, None),
    ],
)
def test_a_file_below_the_bar_fails(changes: dict[str, Any], words: str | None) -> None:
    report = calibration.apply_threshold(PASSED, msgspec.structs.replace(GOOD, **changes), contract(), BAR)
    assert report.status == ("failed" if words else "passed")
    assert words is None or words in str(report.reason)
    assert report.quality is not None
    assert calibration.apply_threshold(PASSED, None, contract(), BAR) == PASSED
    assert calibration.apply_threshold(PASSED, GOOD, contract("fp16"), None) == PASSED


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tsm_mbv2_online", "--to", "tflite", "--precision", "int8"], ("--calibrate DIR", "random data", "ruin")),
        ([ONLINE, "--to", "tflite", "--precision", "int8", "--calibrate", "EMPTY"], ("holds no videos",)),
        ([ONLINE, "--to", "tflite", "--calibrate", "EMPTY"], ("--calibrate is for int8",)),
        ([ONLINE, "--to", "coreml", "--precision", "int8"], ("not written in int8", "w8")),
        ([ONLINE, "--to", "onnx", "--precision", "fp16", "--keep-float", "2"], ("--keep-float is for", "int8")),
    ],
)
def test_wrong_wishes_are_one_line(arguments: list[str], words: tuple[str, ...], tmp_path: Path) -> None:
    given = [str(tmp_path) if argument == "EMPTY" else argument for argument in arguments]
    result = CliRunner().invoke(cli.app, ["export", *given])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr


def test_clips_of_the_bundled_task_are_no_training_or_validation_clips() -> None:
    assert {calibration._SEED, calibration._SCORED_SEED}.isdisjoint({1, 2})
    entry = ZOO.find(ONLINE)
    forwards, backwards = (calibration._scene(entry, number, 3) for number in (4, 5))
    assert np.array_equal(forwards[0], backwards[0][::-1])
    assert (forwards[1], backwards[1]) == (motion.scene(2, 3)[1], motion.scene(2, 3)[1] + 1)
    assert forwards[0].shape == (8, 3, entry.size, entry.size)


# --- operators that stay float -----------------------------------------------------------------------------------


def test_costs_by_hand() -> None:
    """Of errors 8, 2 without a, 6 without b and 9 without c, on logits that range over 10."""
    wanted = np.array([[0.0, 10.0]])
    errors = {(): 8.0, ("a",): 2.0, ("b",): 6.0, ("c",): 9.0}
    found = costs.costs("cab", wanted, lambda kept: wanted + errors[tuple(kept)])
    assert [name for name, _ in found] == ["a", "b", "c"]
    assert [cost for _, cost in found] == pytest.approx([0.6, 0.2, -0.1])
    steps = [{"x": np.array(number)} for number in range(100)]
    chosen = [int(step["x"]) for step in costs.probes(steps)]
    assert (len(chosen), chosen[0], chosen[-1]) == (32, 0, 99)
    assert costs.probes(steps[:3]) == steps[:3]


def branches() -> onnx.ModelProto:
    """Return a sum of two layers, the second of which int8 ruins: one number that it reads is large and not used."""
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=(8, 4)).astype("float32") for name in ("first", "second")}
    weights["second"][7] = 0
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "first"], ["a"], "one"),
        onnx.helper.make_node("MatMul", ["z", "second"], ["b"], "two"),
        onnx.helper.make_node("Add", ["a", "b"], ["logits"], "sum"),
    ]
    x, z, logits = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, size])
        for name, size in (("x", 8), ("z", 8), ("logits", 4))
    )
    arrays = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = onnx.helper.make_graph(nodes, "branches", [x, z], [logits], arrays)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


def test_onnx_keeps_the_dearest_float() -> None:
    """What a node costs is what the error falls by in the file that keeps it."""
    random = np.random.default_rng(1)
    feeds = [{name: random.normal(size=(1, 8)).astype("float32") for name in "xz"} for _ in range(40)]
    for step in feeds:
        step["z"][0, 7] *= 100

    def answers(model: onnx.ModelProto) -> Array:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, step)[0] for step in costs.probes(feeds)])

    wanted = answers(branches())
    whole, none = quantize.quantized(branches(), feeds)
    kept, found = quantize.quantized(branches(), feeds, 1)
    assert none == []
    assert found[0][0] == "two"
    assert {name for name, _ in found} == {"one", "two", "sum"}
    errors = [float(np.abs(answers(model) - wanted).mean() / np.ptp(wanted)) for model in (whole, kept)]
    assert errors[1] < errors[0] / 3
    assert errors[0] - errors[1] == pytest.approx(found[0][1])
    weights = [{tensor.name for tensor in model.graph.initializer} & {"first", "second"} for model in (whole, kept)]
    assert weights == [set(), {"second"}]


# --- real files ----------------------------------------------------------------------------------------------------


def report(path: Path) -> dict[str, Any]:
    for beside in (path.with_name(path.name + ".json"), path.with_suffix(".json")):
        if beside.exists():
            document = json.loads(beside.read_bytes())
            if document["artifact"] == path.name:
                return document
    raise AssertionError(path)


#: Bytes, of the float file; small networks have more of what is not weights, ONNX more than TFLite.
SIZES = {"fp16": 0.56, "w8": 0.36, "int8": 0.43}
TFLITE_INT8 = 0.33


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "to", "precision"),
    [
        *((ONLINE, "tflite", precision) for precision in SIZES),
        (ONLINE, "onnx", "fp16"),
        (OFFLINE, "onnx", "int8"),
        (OFFLINE, "tflite", "int8"),
    ],
)
def test_fewer_bits_lose_at_most_a_point(
    model: str, to: str, precision: str, bundled_file: Callable[[str, str, str], Path]
) -> None:
    path, float_ = bundled_file(model, to, precision), bundled_file(model, to, "fp32")
    most = TFLITE_INT8 if (to, precision) == ("tflite", "int8") else SIZES[precision]
    assert path.stat().st_size <= most * float_.stat().st_size
    document = report(path)
    assert document["precision"] == precision
    assert [tensor["dtype"] for tensor in document["inputs"]][1:] == ["float32"] * len(document["states"])
    quality = document["verification"]["quality"]
    if precision != "int8":
        assert quality is None
        return
    assert quality["top1"] >= quality["top1_float"] - 1
    assert quality["cosine"] >= 0.99
    if model == ONLINE:
        assert len(quality["drift"]) == 64
        assert np.mean(quality["drift"][-16:]) >= np.mean(quality["drift"][:16]) - 0.01


@pytest.mark.slow
def test_half_precision_with_a_tensor_that_several_nodes_read_in_float32(tmp_path: Path) -> None:
    """ONNX's maximum stays in float32, and the temporal max pools of Inception I3D take it of the same slices twice."""
    model = tsmzoo.load("i3d_inception_k400_rgb", weights="random", frames=16)
    assert tsmzoo.export(model, "onnx", tmp_path / "i3d.onnx", precision="fp16").passed


@pytest.mark.slow
def test_eval_scores_the_file_itself(bundled_file: Callable[[str, str, str], Path], tmp_path: Path) -> None:
    motion.write(tmp_path / "videos", 70, 5)
    scores = {}
    for precision in ("fp32", "int8"):
        command = ["eval", str(bundled_file(ONLINE, "tflite", precision)), "--data", str(tmp_path / "videos"), "--json"]
        result = CliRunner().invoke(cli.app, command)
        assert result.exit_code == 0, result.output
        scores[precision] = json.loads(result.stdout)["top1"]
    assert abs(scores["int8"] - scores["fp32"]) <= 100 / 70 + 1e-6, "one video at most"


@pytest.mark.slow
def test_own_videos_calibrate(tmp_path: Path) -> None:
    motion.write(tmp_path / "videos", 14, 6)
    out = tmp_path / "m.onnx"
    command = [
        "export",
        "tsm_mbv2_online",
        "--weights",
        "random",
        "--size",
        "64",
        "--to",
        "onnx",
        "--precision",
        "int8",
    ]
    result = CliRunner().invoke(cli.app, [*command, "--calibrate", str(tmp_path / "videos"), "-o", str(out), "--json"])
    quality = json.loads(out.with_suffix(".json").read_bytes())["verification"]["quality"] if out.exists() else None
    assert result.exit_code in (0, 1)
    if quality:
        assert "videos, 14 of 14 videos" in quality["data"]
        assert quality["top1"] is None
    else:  # random weights may fall below the bar; then nothing is left
        assert "failed its verification" in result.stderr


@pytest.mark.slow
def test_the_dearest_operators_stay_float(
    bundled_file: Callable[[str, str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from tsmzoo.converters.tflite import quantize as tflite_quantize

    monkeypatch.setattr(tflite_quantize, "_COSTLY", ("ADD", "FULLY_CONNECTED", "MEAN"))  # 13 of 65 are quicker
    out = tmp_path / "kept.tflite"
    command = ["export", ONLINE, "--to", "tflite", "--precision", "int8", "--keep-float", "2", "-o", str(out), "--json"]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0, result.output
    quality = json.loads(result.stdout)["verification"]["quality"]
    costs = [cost for _, cost in quality["costs"]]
    assert costs == sorted(costs, reverse=True)
    assert quality["kept_float"] == [name for name, _ in quality["costs"][:2]]
    assert quality["top1"] >= quality["top1_float"] - 1
    plain = Interpreter(model_path=str(bundled_file(ONLINE, "tflite", "int8")))
    kept = Interpreter(model_path=str(out))
    floats = [sum(d["dtype"] == np.float32 for d in each.get_tensor_details()) for each in (plain, kept)]
    assert floats[1] > floats[0]


@pytest.mark.slow
@pytest.mark.parametrize("model", [OFFLINE, ONLINE])
def test_numbers_that_only_move_are_rounded_once(model: str, bundled_file: Callable[[str, str, str], Path]) -> None:
    """The shift and its states keep one scale, so that no QUANTIZE stands but where floats come in."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(bundled_file(model, "tflite", "int8")))
    operators = [each["op_name"] for each in interpreter._get_ops_details()]
    states = len(ZOO.find(model).states)
    assert operators.count("QUANTIZE") == 1 + states
    assert "CAST" not in operators
    tensors = {each["index"]: each for each in interpreter.get_tensor_details()}
    moves = 0
    for each in interpreter._get_ops_details():
        first, last = tensors[each["inputs"][0]], tensors[each["outputs"][0]]
        kernel = tensors[each["inputs"][1]]["shape"].tolist() if len(each["inputs"]) > 1 else []
        shift = each["op_name"] == "DEPTHWISE_CONV_2D" and kernel[1:3] == [3, 1]
        if (shift or each["op_name"] in ("SLICE", "CONCATENATION")) and first["dtype"] == np.int8:
            assert first["quantization"] == last["quantization"], each["op_name"]
            moves += 1
    assert moves == {OFFLINE: 10, ONLINE: 30}[model]


@pytest.mark.slow
def test_coreml_holds_weights_of_one_byte(bundled_file: Callable[[str, str, str], Path]) -> None:
    half, byte = (bundled_file(ONLINE, "coreml", precision) for precision in ("fp16", "w8"))
    sizes = [(path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size for path in (half, byte)]
    assert sizes[1] <= 0.6 * sizes[0]
    assert report(byte)["verification"]["status"] == "passed"
