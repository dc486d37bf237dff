"""A model in Python: what it answers to clips, videos and streams, and what it refuses."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import tsmzoo
from tsmzoo.cli import app
from tsmzoo.data import motion
from tsmzoo.data.encode import encode
from tsmzoo.models.wrappers import StreamStep

OFFLINE, ONLINE = "tsm_mbv2_motion", "tsm_mbv2_motion_online"
#: Every step's label is shown.
AT_ONCE = tsmzoo.Smoothing(window=1, threshold=0.0, hold=1)


@pytest.fixture(scope="module")
def offline() -> tsmzoo.Model:
    return tsmzoo.load(OFFLINE)


@pytest.fixture(scope="module")
def online() -> tsmzoo.Model:
    return tsmzoo.load(ONLINE)


@pytest.fixture(scope="module")
def scene() -> Any:
    """Give the frames of something that opens: T, H, W, 3."""
    frames, label = motion.scene(4, 3)
    assert motion.CLASSES[label] == "opening"
    return frames


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "clips"
    motion.write(folder, 14, 6, lambda *_: None)
    return folder


def softmax(logits: Any) -> Any:
    return torch.from_numpy(np.asarray(logits)).softmax(-1).numpy()


# --- clips -----------------------------------------------------------------------------------------------------------


def test_a_clip_is_run_as_torch_runs_it(offline: tsmzoo.Model, scene: Any) -> None:
    clip = offline.transform(scene[:8])
    assert (clip.shape, clip.dtype) == ((8, 3, 64, 64), np.uint8)
    assert offline.module is not None
    with torch.inference_mode():
        expected = offline.module(torch.from_numpy(offline.normalize(clip[None])))[0].numpy()
    np.testing.assert_allclose(offline(clip), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [OFFLINE, ONLINE])
def test_several_clips_are_run_as_one_by_one(name: str, scene: Any, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue("online" if name == ONLINE else "offline")
    clips = np.stack([model.transform(scene[start : start + 8]) for start in (0, 4, 9)])
    np.testing.assert_allclose(model(clips), np.stack([model(clip) for clip in clips]), rtol=1e-4, atol=1e-4)


def test_an_online_model_averages_what_torch_answers_frame_by_frame(online: tsmzoo.Model, scene: Any) -> None:
    clip = online.transform(scene[:5])
    states = [torch.zeros(shape) for pair in online.contract.states for shape in [shape_of(online, pair.input)]]
    assert isinstance(online.module, StreamStep)
    logits = []
    with torch.inference_mode():
        for frame in torch.from_numpy(online.normalize(clip)):
            answer, *states = online.module(frame[None], *states)
            logits.append(answer[0].numpy())
    np.testing.assert_allclose(online(clip), np.mean(logits, axis=0), rtol=1e-4, atol=1e-4)


def shape_of(model: tsmzoo.Model, name: str) -> tuple[int, ...]:
    return next(tensor.lengths() for tensor in model.contract.inputs if tensor.name == name)


@pytest.mark.parametrize("shape", [(7, 3, 64, 64), (8, 3, 64, 65), (8, 1, 64, 64), (3, 64, 64), (0, 8, 3, 64, 64)])
def test_a_clip_of_another_shape_is_refused(shape: tuple[int, ...], offline: tsmzoo.Model) -> None:
    with pytest.raises(tsmzoo.DataError, match=r"takes clips T, C, H, W of 8 frames, 3 channels and 64 px"):
        offline(np.zeros(shape, np.uint8))


def test_frames_may_be_arrays_or_images(offline: tsmzoo.Model, scene: Any) -> None:
    images = [Image.fromarray(frame).convert("RGBA") for frame in scene]
    np.testing.assert_array_equal(offline.transform(images), offline.transform(scene))


@pytest.mark.parametrize("frame", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8)])
def test_a_frame_that_is_no_picture_is_refused(frame: Any, offline: tsmzoo.Model) -> None:
    with pytest.raises(tsmzoo.DataError, match="a frame is H, W, 3, uint8"):
        offline.transform([frame])


# --- videos and streams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [OFFLINE, ONLINE])
def test_a_video_is_classified_as_its_frames(
    name: str, scene: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue("online" if name == ONLINE else "offline")
    encode(tmp_path / "v.mp4", scene, motion.FPS)
    (tmp_path / "v").mkdir()
    for number, frame in enumerate(scene):
        Image.fromarray(frame).save(tmp_path / "v" / f"{number:02d}.png")
    found = model.classify(list(scene), top=14)
    assert found[0].label == "opening"
    assert [model.labels[prediction.index] for prediction in found] == [prediction.label for prediction in found]
    assert sum(prediction.probability for prediction in found) == pytest.approx(1)
    assert model.classify(tmp_path / "v", top=14) == found  # without loss
    assert model.classify(str(tmp_path / "v.mp4"))[0].label == "opening"


def test_an_offline_model_sees_the_frames_it_was_trained_on(offline: tsmzoo.Model, scene: Any) -> None:
    indices = [int((index + 0.5) * len(scene) / 8) for index in range(8)]  # centres of equal segments
    odds = softmax(offline(offline.transform(scene[indices])))
    (best,) = offline.classify(list(scene), top=1)
    assert (best.index, best.probability) == (odds.argmax(), pytest.approx(odds.max(), abs=1e-5))


def test_no_frames_are_no_video(offline: tsmzoo.Model) -> None:
    with pytest.raises(tsmzoo.DataError, match="no frames"):
        offline.classify([])
    with pytest.raises(tsmzoo.VideoError, match=r"nothing\.mp4: is missing"):
        offline.classify("nothing.mp4")


def test_a_stream_of_an_online_model_answers_each_frame(online: tsmzoo.Model, scene: Any) -> None:
    expected = softmax(online.frame_logits(online.transform(scene)[None])[0])
    with online.stream(smoothing=AT_ONCE) as stream:
        found = [stream.step(frame) for frame in scene]
        stream.reset()
        again = stream.step(scene[0])
    assert found[0] == again
    assert [prediction.index for prediction in found if prediction] == list(expected.argmax(1))
    np.testing.assert_allclose([each.probability for each in found if each], expected.max(1), rtol=1e-4)


def test_a_stream_of_an_offline_model_answers_each_clip(offline: tsmzoo.Model, scene: Any) -> None:
    frames = np.concatenate([scene, scene[::-1]])
    with offline.stream(smoothing=AT_ONCE, every=4) as stream:
        found = [stream.step(frame) for frame in frames]
    assert found[:7] == [None] * 7
    for end in range(8, len(frames) + 1, 4):
        odds = softmax(offline(offline.transform(frames[end - 8 : end])))
        shown = found[end - 1 : end + 3]
        assert all(each == shown[0] for each in shown)
        assert shown[0] is not None
        assert (shown[0].index, shown[0].probability) == (odds.argmax(), pytest.approx(odds.max(), abs=1e-5))


@pytest.mark.parametrize(
    ("name", "options", "fed"),
    [
        (ONLINE, [], {}),
        (OFFLINE, ["--fps", "8", "--span", "1", "--every", "0.5"], {"every": 4}),
        (OFFLINE, ["--fps", "8", "--span", "1", "--every", "1"], {}),
    ],
)
def test_frames_fed_one_by_one_are_answered_as_run_answers_them(
    name: str, options: list[str], fed: dict[str, int], scene: Any, tmp_path: Path
) -> None:
    frames = np.concatenate([scene, scene[::-1]])
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number:02d}.png")
    result = CliRunner().invoke(app, ["run", name, str(tmp_path), "--cut", "0", "--json", *options])
    assert result.exit_code == 0, result.output
    shown, tops = [], []
    with tsmzoo.load(name).stream(**fed) as stream:
        for frame in frames:
            before = stream.top()
            prediction = stream.step(frame)
            if stream.top() != before:
                shown.append(prediction)
                tops.append([(each.label, each.index, round(each.probability, 4)) for each in stream.top()])
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) > 3
    assert [[(each["label"], each["index"], each["probability"]) for each in line["top5"]] for line in lines] == tops
    assert [line["label"] for line in lines] == [prediction and prediction.label for prediction in shown]


def test_a_stream_too_short_for_a_clip_is_answered_if_asked(offline: tsmzoo.Model, scene: Any) -> None:
    with offline.stream(smoothing=AT_ONCE) as stream:
        assert (stream.answer(), stream.top()) == (None, [])
        assert [stream.step(frame) for frame in scene[:3]] == [None] * 3
        found = stream.answer()
        assert stream.answer() == found
    odds = softmax(offline(offline.transform(scene[[0, 0, 0, 1, 1, 2, 2, 2]])))
    assert found is not None
    assert (found.index, found.probability) == (odds.argmax(), pytest.approx(odds.max(), abs=1e-5))


def test_a_generator_of_frames_is_a_video(offline: tsmzoo.Model, scene: Any) -> None:
    assert offline.classify(frame for frame in scene) == offline.classify(list(scene))


def test_nothing_is_shown_below_the_threshold(online: tsmzoo.Model, scene: Any) -> None:
    with online.stream(smoothing=tsmzoo.Smoothing(window=1, threshold=1.0, hold=1)) as stream:
        assert [stream.step(frame) for frame in scene[:4]] == [None] * 4


# --- measuring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [OFFLINE, ONLINE])
def test_a_loaded_model_is_measured_as_its_name(
    name: str, clips: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue("online" if name == ONLINE else "offline")
    results = [
        tsmzoo.evaluate(each, clips, predictions=tmp_path / f"{number}.jsonl", workers=0)
        for number, each in enumerate((name, model))
    ]
    assert results[0].top1 > 90
    first, second = (msgspec.structs.replace(result, videos_per_s=None) for result in results)
    assert first == second
    assert (tmp_path / "0.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()


def test_the_network_in_memory_is_what_is_measured(clips: Path) -> None:
    model = tsmzoo.load(OFFLINE)
    assert model.module is not None
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.zero_()
    assert tsmzoo.evaluate(model, clips).top1 < 50


def test_scores_of_a_model_and_of_saved_predictions_add_up(offline: tsmzoo.Model, clips: Path, tmp_path: Path) -> None:
    tsmzoo.evaluate(ONLINE, clips, predictions=tmp_path / "online.jsonl", workers=0)
    result = tsmzoo.evaluate([offline, tmp_path / "online.jsonl"], clips, factors=(1, 0.5))
    assert [(member.model, member.factor) for member in result.members] == [(OFFLINE, 1), (ONLINE, 0.5)]
    assert tsmzoo.evaluate(tmp_path / "online.jsonl").videos == 14


@pytest.mark.slow
def test_processes_do_not_run_a_script_again(clips: Path, tmp_path: Path) -> None:
    """A script of three lines has no `if __name__ == "__main__"`."""
    script = tmp_path / "three_lines.py"
    lines = (
        "import tsmzoo",
        f"result = tsmzoo.evaluate({OFFLINE!r}, {str(clips)!r}, workers=1)",
        "print(result.videos)",
    )
    script.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=300)
    assert (done.stdout, done.returncode) == ("14\n", 0), done.stderr


def test_what_is_live_needs_data(offline: tsmzoo.Model) -> None:
    with pytest.raises(tsmzoo.ZooError, match="give the folder of the `data`"):
        tsmzoo.evaluate(offline)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (OFFLINE, {"device": "cuda"}, "'cuda' is no `device` that tsmzoo runs on yet"),
        (ONLINE, {"frames": 8}, "is online and takes one frame a step"),
        ("x.onnx", {"weights": "random"}, "holds its own weights; leave out --weights"),
        ("x.tflite", {"size": 64}, "holds its own weights; leave out --size"),
        ("x.tflite", {}, "x.tflite: does not exist"),
        (OFFLINE, {"weights": "random", "labels": ("a", "b"), "classes": 3}, "2 labels are not those of 3 classes"),
    ],
)
def test_refused_by_load(
    model: str, options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tsmzoo.ZooError) as caught:
        tsmzoo.load(model, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_input_and_other_classes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tsmzoo"):
        model = tsmzoo.load(OFFLINE, weights="random", frames=4, size=96, labels=("yes", "no"))
    assert model.labels == ("yes", "no")
    assert model(np.zeros((4, 3, 96, 96), np.uint8)).shape == (2,)
    assert "RANDOM" in caplog.text


def test_a_file_is_not_exported_again(offline: tsmzoo.Model) -> None:
    with pytest.raises(tsmzoo.ExportError, match="is an exported file"):
        tsmzoo.export(replace(offline, network=None), to="onnx")


def test_a_model_of_flow_sees_no_video(tmp_path: Path) -> None:
    name = tsmzoo.list_models("tsn_*flow*")[0]
    model = tsmzoo.load(name, weights="random", notify=lambda _: None)
    with pytest.raises(tsmzoo.ZooError, match="sees optical flow, not video"):
        model.classify(tmp_path)
    with pytest.raises(tsmzoo.ZooError, match="sees optical flow, not video"):
        model.stream()


def test_a_result_is_its_json(clips: Path, offline: tsmzoo.Model) -> None:
    result = tsmzoo.evaluate(offline, clips)
    document = json.loads(msgspec.json.encode(result))
    assert (document["model"], document["top1"], document["videos"]) == (OFFLINE, result.top1, 14)


# --- a file that keeps its states itself ---------------------------------------------------------------------------


class Keeper:
    """An online network behind the interface of a file of implicit states."""

    runtime = "none"

    def __init__(self, model: tsmzoo.Model) -> None:
        self._model = model
        self.reset()

    def reset(self) -> None:
        self.stream: dict[str, Any] = {}
        self._states = self._model.contract.initial_states(1)

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = self._model.runner.run({**inputs, **self._states})
        self._states = {pair.input: outputs[pair.output] for pair in self._model.contract.states}
        return {"logits": outputs["logits"]}


def test_a_file_that_keeps_its_states_is_in_one_stream_at_a_time(online: tsmzoo.Model, scene: Any) -> None:
    contract = msgspec.structs.replace(
        online.contract,
        state="implicit",
        inputs=online.contract.inputs[:1],
        outputs=online.contract.outputs[:1],
        states=(),
        artifact="x.mlpackage",
    )
    model = tsmzoo.Model(Keeper(online), contract)
    with online.stream(smoothing=AT_ONCE) as stream:
        expected = [stream.step(frame) for frame in scene[:3]]
    one, other = model.stream(smoothing=AT_ONCE), model.stream(smoothing=AT_ONCE)
    assert [one.step(frame) for frame in scene[:3]] == expected
    assert other.step(scene[0]) == expected[0]
    with pytest.raises(tsmzoo.DataError, match=r"^x\.mlpackage: keeps its states itself, and another stream has begun"):
        one.step(scene[3])
    assert other.step(scene[1]) == expected[1]
    model.classify(list(scene))
    with pytest.raises(tsmzoo.DataError, match="one at a time"):
        other.step(scene[2])
    other.reset()
    assert other.step(scene[0]) == expected[0]
    replace(model).classify(list(scene))  # another model around the same file
    with pytest.raises(tsmzoo.DataError, match="one at a time"):
        other.step(scene[1])


# --- in other processes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [OFFLINE, ONLINE])
def test_a_network_is_pickled_and_copied(name: str, scene: Any, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue("online" if name == ONLINE else "offline")
    clip = model.transform(scene[:8])
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert again.module is not model.module
        np.testing.assert_array_equal(again(clip), model(clip))


def test_an_open_file_is_neither_pickled_nor_copied(offline: tsmzoo.Model) -> None:
    model = replace(offline, path=Path("x.onnx"))
    for function in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=r"^x\.onnx: .* call tsmzoo\.load once more$"):
            function(model)
