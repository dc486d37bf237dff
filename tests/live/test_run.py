"""`run`: videos of all kinds, decoded and prepared as MIT does, and answers that can be done by hand.

The files that are run here are not converted: they are ONNX graphs of three nodes, whose answers NumPy gives.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import av
import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from tsmzoo import models, registry
from tsmzoo.artifact import store
from tsmzoo.artifact.contract import Contract, StatePair, Tensor, contract_path
from tsmzoo.cli import _screen as screen
from tsmzoo.cli import app
from tsmzoo.data import decode, sampling, seek, transforms
from tsmzoo.errors import VideoError
from tsmzoo.live import video_writer
from tsmzoo.live.answer import Answer, Summary
from tsmzoo.live.pacing import FramePacer
from tsmzoo.models.wrappers import ClipModel

SHARED = Path(__file__).resolve().parents[3] / "shared"
ZOO = registry.load()
SIZE, RESIZE = 32, 36
NAMES = ("red", "green", "blue", "Grün – ½", "none")
MEAN, STD = np.reshape([0.485, 0.456, 0.406], (3, 1, 1)), np.reshape([0.229, 0.224, 0.225], (3, 1, 1))


pytestmark = pytest.mark.usefixtures("one_registry")


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answers(*arguments: str | Path) -> list[dict[str, Any]]:
    """Return the decisions of a `run` that succeeds, a line each."""
    result = invoke("run", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def top(*arguments: str | Path) -> list[dict[str, Any]]:
    """Return the last classes of a `run` that succeeds."""
    return answers(*arguments)[-1]["top5"]


def refusal(result: Result) -> str:
    """Return the one line of an error that a user can cause."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    (error,) = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert result.stdout == ""
    return error


# --- videos ----------------------------------------------------------------------------------------------------------


def write(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    rate: int = 30,
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    **options: str,
) -> Path:
    """Write frames, H, W, RGB; `times` are in milliseconds."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, "rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def lossless(path: Path, frames: Sequence[np.ndarray], **options: Any) -> Path:
    """Write a file whose frames come back to the bit."""
    return write(path, frames, codec="ffv1", pixels="bgr0", **options)


def moving(count: int, width: int = 96, height: int = 72) -> list[np.ndarray]:
    """A gradient under a bar that moves, ever redder."""
    frames = []
    for number in range(count):
        frame = np.zeros((height, width, 3), "uint8")
        frame[..., 2] = np.linspace(0, 255, width)
        frame[..., 0] = 255 * number // max(count - 1, 1)
        frame[:, 5 * number % width : 5 * number % width + 12, 1] = 230
        frames.append(frame)
    return frames


def decoded(path: Path) -> list[Image.Image]:
    """Return the frames, by PyAV alone."""
    with av.open(str(path)) as container:
        return [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def prepared(image: Image.Image, resize: int = RESIZE, size: int = SIZE) -> np.ndarray:
    """Return the centre of an image of 96 x 72 pixels: C, H, W, 0…255."""
    assert image.size == (96, 72)
    width = int(resize * 96 / 72)
    left, top = (width - size) // 2, (resize - size) // 2
    small = image.resize((width, resize), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    return np.asarray(small).transpose(2, 0, 1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames, 30 a second."""
    return write(tmp_path_factory.mktemp("video") / "v.mp4", moving(24))


# --- files to run ----------------------------------------------------------------------------------------------------

BY_COLOUR = np.array([[9, 0, 0, 3, 1], [0, 8, 0, 3, 1], [0, 0, 7, 3, 1]], "float32")
BY_AGE = np.array([[0, 0, 0, -0.2, 0.3]], "float32")
BY_FRAME = np.random.default_rng(0).standard_normal((4 * 3, 5)).astype("float32")


def contract(mode: str, **changes: Any) -> Contract:
    def tensor(name: str, *shape: int, layout: Any = "NCHW", dtype: Any = "float32") -> Tensor:
        return Tensor(name=name, shape=shape, dtype=dtype, layout=layout, meaning="")

    logits = tensor("logits", 1, 5, layout="NC")
    facts: dict[str, Any] = {
        "model": "toy",
        "family": "tsm",
        "mode": mode,
        "backbone": "toy",
        "dataset": "toy",
        "format": "onnx",
        "precision": "fp32",
        "preprocess": "embedded",
        "classes": 5,
        "labels": NAMES,
        "channel_order": "RGB",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "size": SIZE,
        "resize": RESIZE,
        "weights": "published",
        "licence": "MIT",
        "citation": "toy",
        "versions": {},
        "stride": None,
    }
    if mode == "online":
        facts |= {
            "inputs": (tensor("frame", 1, 3, SIZE, SIZE, dtype="uint8"), tensor("state_0", 1, 1, 1, 1)),
            "outputs": (logits, tensor("next_state_0", 1, 1, 1, 1)),
            "states": (StatePair(input="state_0", output="next_state_0"),),
            "frames": 1,
            "sampling": "stream",
            "target_fps": 15.0,
        }
    else:
        facts |= {
            "inputs": (tensor("clip", 1, 4, 3, SIZE, SIZE, layout="NTCHW", dtype="uint8"),),
            "outputs": (logits,),
            "states": (),
            "frames": 4,
            "sampling": "uniform",
            "target_fps": None,
        }
    return Contract(**(facts | changes))


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Contract], Path]:
    """Give a function that writes the file of a contract above, and the contract beside it."""
    onnx = pytest.importorskip("onnx")
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    types = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}

    def constants(**arrays: Any) -> list[Any]:
        return [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()]

    def write_file(made: Contract) -> Path:
        if made.mode == "online":  # colours of the frame, and a state that counts the frames
            nodes = [
                node("Cast", ["frame"], ["f"], to=1),
                node("ReduceMean", ["f", "axes"], ["mean"], keepdims=0),
                node("Div", ["mean", "most"], ["colour"]),
                node("Add", ["state_0", "one"], ["next_state_0"]),
                node("Reshape", ["state_0", "flat"], ["age"]),
                node("MatMul", ["colour", "by_colour"], ["a"]),
                node("MatMul", ["age", "by_age"], ["b"]),
                node("Add", ["a", "b"], ["logits"]),
            ]
            weights = constants(
                axes=np.array([2, 3]),
                most=np.float32(255),
                one=np.float32(1),
                flat=np.array([1, 1]),
                by_colour=BY_COLOUR,
                by_age=BY_AGE,
            )
        else:  # colours of each frame, weighted by its place
            nodes = [
                node("Cast", ["clip"], ["f"], to=1),
                node("ReduceMean", ["f", "axes"], ["mean"], keepdims=0),
                node("Div", ["mean", "most"], ["colours"]),
                node("Reshape", ["colours", "flat"], ["row"]),
                node("MatMul", ["row", "by_frame"], ["logits"]),
            ]
            weights = constants(axes=np.array([3, 4]), most=np.float32(255), flat=np.array([1, 12]), by_frame=BY_FRAME)
        values = [[info(t.name, types[t.dtype], t.shape) for t in tensors] for tensors in (made.inputs, made.outputs)]
        graph = onnx.helper.make_graph(nodes, "toy", *values, weights)
        opset = onnx.helper.make_opsetid("", 18)
        path = tmp_path / "toy.onnx"
        model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
        model.metadata_props.add(key="tsmzoo", value=made.embedded())
        onnx.save_model(model, path)
        digest, size = store.digest(path)
        beside = msgspec.structs.replace(made, artifact=path.name, sha256=digest, bytes=size)
        store.write_contract(beside, contract_path(path))
        return path

    return write_file


@pytest.fixture
def toy(save: Callable[[Contract], Path]) -> Path:
    return save(contract("online"))


def logits_of(images: Sequence[Image.Image]) -> np.ndarray:
    """Return what the online file answers after each frame."""
    colours = np.stack([prepared(image).mean((1, 2)) / 255 for image in images])
    return colours @ BY_COLOUR + np.arange(len(images))[:, None] * BY_AGE


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()


def assert_top(found: list[dict[str, Any]], logits: np.ndarray, names: Sequence[str] = NAMES) -> None:
    wanted = softmax(logits)
    order = np.argsort(-wanted)[:5]
    assert [row["label"] for row in found] == [names[index] for index in order]
    assert [row["probability"] for row in found] == pytest.approx(wanted[order].tolist(), abs=1e-4)


# --- answers ---------------------------------------------------------------------------------------------------------


def test_a_stream_is_answered_at_its_own_rate_over_a_window(toy: Path, clip: Path) -> None:
    result = invoke("run", toy, clip, "--json")
    assert "toy on " + str(clip) + ": 12 frames, " in result.stderr
    assert "onnxruntime" in result.stderr
    logits = logits_of(decoded(clip)[::2])
    found = answers(toy, clip)
    assert len(found) == 12
    assert found[-1]["time"] == pytest.approx(22 / 30, abs=0.001)
    assert_top(found[-1]["top5"], logits.mean(0))
    assert_top(top(toy, clip, "--window", "1"), logits[-1])
    assert_top(top(toy, clip, "--window", "5"), logits[-5:].mean(0))


def test_every_decision_is_a_line_as_it_comes(toy: Path, clip: Path) -> None:
    logits = logits_of(decoded(clip)[::2])
    found = answers(toy, clip, "--window", "3", "--threshold", "0.55", "--hold", "3")
    assert [one["time"] for one in found] == pytest.approx((np.arange(12) / 15).tolist(), abs=0.001)
    # By hand: what leads with 0.55 for three steps running is shown, and stays.
    shown: int | None = None
    leaders: list[int | None] = []
    for number, one in enumerate(found):
        mean = logits[max(0, number - 2) : number + 1].mean(0)
        odds = softmax(mean)
        assert_top(one["top5"], mean)
        leaders.append(int(odds.argmax()) if odds.max() >= 0.55 else None)
        if leaders[-1] is not None and leaders[-3:] == [leaders[-1]] * 3:
            shown = leaders[-1]
        assert one["index"] == shown
        assert one["label"] == (None if shown is None else NAMES[shown])
        assert one["probability"] == (None if shown is None else pytest.approx(odds[shown], abs=1e-4))
        assert one["reset"] is False
        assert one["latency_ms"] >= one["model_ms"] > 0
    assert [one["index"] for one in found] != [found[-1]["index"]] * 12


def test_a_window_is_as_long_at_every_rate(save: Callable[[Contract], Path], clip: Path) -> None:
    logits = logits_of(decoded(clip)[::3])  # 0.8 s at 10 a second are these 8, at 3 they are 2 of 3
    assert_top(top(save(contract("online", target_fps=10.0)), clip, "--cut", "0"), logits.mean(0))
    logits = logits_of(decoded(clip)[::10])
    assert_top(top(save(contract("online", target_fps=3.0)), clip), logits[-2:].mean(0))


def test_without_a_rate_every_frame_is_taken(save: Callable[[Contract], Path], clip: Path) -> None:
    found = answers(save(contract("online", target_fps=None)), clip, "--window", "24")
    assert len(found) == 24
    assert_top(found[-1]["top5"], logits_of(decoded(clip)).mean(0))


def test_classes_without_names_are_numbered(save: Callable[[Contract], Path], clip: Path) -> None:
    found = top(save(contract("online", labels=None)), clip)
    logits = logits_of(decoded(clip)[::2]).mean(0)
    assert_top(found, logits, [f"class {index}" for index in range(5)])
    assert [row["index"] for row in found] == np.argsort(-logits).tolist()


def clip_logits(images: Sequence[Image.Image]) -> np.ndarray:
    """Return what the offline file answers to four frames."""
    return np.stack([prepared(image).mean((1, 2)) / 255 for image in images]).reshape(-1) @ BY_FRAME


def test_a_clip_is_answered_once(save: Callable[[Contract], Path], clip: Path) -> None:
    (found,) = answers(save(contract("offline")), clip)
    images = decoded(clip)
    assert_top(found["top5"], clip_logits([images[index] for index in (3, 9, 15, 21)]))


def test_a_dense_clip_is_taken_where_the_contract_says(save: Callable[[Contract], Path], clip: Path) -> None:
    (found,) = answers(save(contract("offline", sampling="dense", stride=3)), clip)
    images = decoded(clip)
    assert_top(found["top5"], clip_logits([images[index] for index in (7, 10, 13, 16)]))


def test_a_clip_slides_over_a_stream(save: Callable[[Contract], Path], tmp_path: Path) -> None:
    path = write(tmp_path / "long.mp4", moving(70))
    images = decoded(path)
    # 4 frames over 0.8 s are 5 a second: every 6th; the fourth is the first that makes a clip, then one every 0.5 s.
    found = answers(save(contract("offline")), path, "--every", "0.5", "--span", "0.8")
    ends = (18, 36, 48, 66)
    assert [one["time"] for one in found] == pytest.approx([end / 30 for end in ends], abs=1e-3)
    for one, end in zip(found, ends, strict=True):
        assert_top(one["top5"], clip_logits([images[end - back] for back in (18, 12, 6, 0)]))
    # With a stride, every 3rd of 30 a second.
    found = answers(save(contract("offline", sampling="dense", stride=3)), path, "--every", "1")
    ends = (9, 39, 69)
    assert [one["time"] for one in found] == pytest.approx([end / 30 for end in ends], abs=1e-3)
    assert_top(found[1]["top5"], clip_logits([images[index] for index in (30, 33, 36, 39)]))


def test_a_clip_reaches_not_behind_a_reset(save: Callable[[Contract], Path], tmp_path: Path) -> None:
    path = write(tmp_path / "long.mp4", moving(70))
    every = ("--every", "0.2", "--span", "0.8", "--reset-every", "1.2")  # every 6th frame; resets at the 36th
    found = answers(save(contract("offline")), path, *every)
    ends = (18, 24, 30, 54, 60, 66)  # four frames from 36 on are 36, 42, 48 and 54
    assert [one["time"] for one in found] == pytest.approx([end / 30 for end in ends], abs=1e-3)
    assert [one["reset"] for one in found] == [False] * 3 + [True] + [False] * 2


def test_a_stream_too_short_for_a_clip_is_stretched(save: Callable[[Contract], Path], clip: Path) -> None:
    (found,) = answers(save(contract("offline")), clip, "--every", "1")  # 4 frames in 4 s: the first alone
    assert_top(found["top5"], clip_logits([decoded(clip)[0]] * 4))


def test_a_model_is_run_in_torch(clip: Path, tmp_path: Path) -> None:
    entry = msgspec.structs.replace(ZOO.find("tsm_mbv2_k400"), size=SIZE, frames=4, stride=None)
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({"models": [msgspec.to_builtins(entry)]}))  # JSON is YAML
    result = invoke("run", entry.id, clip, "--weights", "random", "--seed", "3", "--registry", own, "--json")
    assert result.exit_code == 0, result.output
    assert f"warning: the weights of {entry.id} are RANDOM (seed 3)" in result.stderr
    document = json.loads(result.stdout)
    assert "torch " in result.stderr
    resize = round(SIZE * 256 / 224)
    images = decoded(clip)
    pixels = np.stack([prepared(images[index], resize=resize) for index in (3, 9, 15, 21)])
    with torch.no_grad():
        normalised = torch.from_numpy((pixels / 255 - MEAN) / STD).float()
        logits = ClipModel(models.build(entry, seed=3), 4)(normalised[None])[0].numpy()
    names = ZOO.label_names(entry)
    assert names is not None
    assert_top(document["top5"], logits, names)


def test_text_ends_with_the_answer(toy: Path, clip: Path) -> None:
    result = invoke("run", toy, clip)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    logits = logits_of(decoded(clip)[::2]).mean(0)
    last = result.stdout.splitlines()[-5:]
    order = np.argsort(-logits)
    assert [line.split(maxsplit=1)[1] for line in last] == [NAMES[index] for index in order]
    assert f"{softmax(logits).max():.1%}" in last[0]
    assert "12 frames" in result.stdout


def test_a_file_is_checked_against_its_contract_before_it_is_run(toy: Path, clip: Path) -> None:
    beside = toy.with_suffix(".json")
    document = json.loads(beside.read_text())
    beside.write_text(json.dumps(document | {"resize": RESIZE + 1}))
    assert "the contract inside it" in refusal(invoke("run", toy, clip))
    beside.write_text(json.dumps(document))
    toy.write_bytes(toy.read_bytes() + b" ")
    assert "was changed" in refusal(invoke("run", toy, clip))


def test_a_model_of_flow_is_refused(save: Callable[[Contract], Path], clip: Path) -> None:
    assert "optical flow" in refusal(invoke("run", save(contract("online", channel_order="flow")), clip))


def test_wrong_arguments_are_refused(toy: Path, clip: Path, tmp_path: Path) -> None:
    assert "did you mean tsm_mbv2_online" in refusal(invoke("run", "tsm_mbv2_onlin", clip))
    assert "does not exist" in refusal(invoke("run", tmp_path / "none.onnx", clip))
    assert "leave out --weights" in refusal(invoke("run", toy, clip, "--weights", "random"))
    assert invoke("run", toy, clip, "--window", "0").exit_code == 2
    assert invoke("run", toy).exit_code == 2


# --- scenes, sources, and what is saved ------------------------------------------------------------------------------


def scenes(count: int, *seeds: int) -> list[np.ndarray]:
    """Return scenes of `count` frames each: noise in blocks, light or dark, that shimmers."""
    frames = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        blocks = rng.integers(0, 120, (9, 12, 3)) + 130 * (seed % 2)
        still = np.kron(blocks, np.ones((8, 8, 1)))
        frames += [(still + rng.integers(0, 6, still.shape)).astype("uint8") for _ in range(count)]
    return frames


def by_scene(path: Path, *lengths: int) -> list[np.ndarray]:
    """Return the online file's logits of scenes after each of which its state is zero."""
    images, found = decoded(path), []
    for length in lengths:
        found.append(logits_of(images[:length]))
        images = images[length:]
    assert not images
    return found


def test_a_cut_makes_the_model_forget(save: Callable[[Contract], Path], tmp_path: Path) -> None:
    toy = save(contract("online", target_fps=None))
    path = lossless(tmp_path / "cut.mkv", scenes(6, 1, 2))
    first, second = by_scene(path, 6, 6)
    found = answers(toy, path, "--threshold", "0")
    assert [one["reset"] for one in found] == [False] * 6 + [True] + [False] * 5
    assert_top(found[5]["top5"], first.mean(0))
    assert_top(found[6]["top5"], second[0])
    assert_top(found[-1]["top5"], second.mean(0))
    assert [one["index"] is None for one in found[6:8]] == [True, False]  # what was shown was of another scene
    assert "12 frames, 1 reset," in invoke("run", toy, path).stdout
    never = answers(toy, path, "--cut", "0", "--window", "100")
    assert not any(one["reset"] for one in never)
    assert_top(never[-1]["top5"], logits_of(decoded(path)).mean(0))


def test_a_model_begins_anew_every_so_often_where_asked(toy: Path, tmp_path: Path) -> None:
    path = lossless(tmp_path / "v.mkv", scenes(60, 1))
    found = answers(toy, path, "--reset-every", "0.8")
    assert [number for number, one in enumerate(found) if one["reset"]] == [12, 24]
    images = decoded(path)[::2]
    assert_top(found[23]["top5"], logits_of(images[12:24]).mean(0))


def test_a_slow_clip_is_not_held_to_be_cut(save: Callable[[Contract], Path], tmp_path: Path) -> None:
    path = lossless(tmp_path / "cut.mkv", scenes(60, 1, 2))
    toy = save(contract("offline"))
    assert not any(one["reset"] for one in answers(toy, path, "--every", "1", "--span", "2"))
    assert any(one["reset"] for one in answers(toy, path, "--every", "1", "--span", "0.4"))


def folder_of(path: Path, images: Sequence[np.ndarray], name: str = "{}.png") -> Path:
    path.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(path / name.format(number + 1))
    return path


def test_a_folder_of_images_is_a_video(toy: Path, save: Callable[[Contract], Path], tmp_path: Path) -> None:
    frames = moving(12)
    folder = folder_of(tmp_path / "images", frames)
    (folder / "notes.txt").write_text("no image")
    logits = logits_of([Image.fromarray(frame) for frame in frames])
    found = answers(toy, folder)  # 1, 2 … 10: as numbers, not as text
    assert [one["time"] for one in found] == pytest.approx((np.arange(12) / 15).tolist(), abs=1e-3)
    assert_top(found[-1]["top5"], logits.mean(0))
    assert_top(found[0]["top5"], logits[0])
    # Of 45 a second, a model that takes 15 sees every third.
    found = answers(toy, folder, "--fps", "45", "--cut", "0")
    assert len(found) == 4
    assert_top(found[-1]["top5"], logits_of([Image.fromarray(frame) for frame in frames[::3]]).mean(0))
    images = [Image.fromarray(frames[index]) for index in (1, 4, 7, 10)]
    offline = save(contract("offline"))
    assert_top(top(offline, folder), clip_logits(images))


def test_images_of_several_sizes_and_turned_ones_are_answered(toy: Path, tmp_path: Path) -> None:
    frames = moving(3)
    folder = folder_of(tmp_path / "images", frames, "photo {}.png")
    Image.fromarray(frames[1]).resize((48, 90)).save(folder / "photo 2.png")
    Image.fromarray(np.full((200, 31, 3), 90, "uint8")).convert("L").save(folder / "photo 4.png")
    # A phone's picture: the pixels lie on their side, and a tag says so.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(frames[0])).save(folder / "photo 1.png", exif=exif)
    found = answers(toy, folder, "--cut", "0", "--save", tmp_path / "saved.mp4")
    assert len(found) == 4
    assert_top(found[0]["top5"], logits_of([Image.fromarray(frames[0])])[0])
    assert [image.size for image in decoded(tmp_path / "saved.mp4")] == [(96, 72)] * 4


def test_a_folder_that_gives_nothing_is_told_in_one_line(toy: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert "holds no images" in refusal(invoke("run", toy, tmp_path / "none"))
    folder = folder_of(tmp_path / "images", moving(1))
    (folder / "1.png").write_bytes(b"this is no image")
    assert "1.png: cannot be decoded" in refusal(invoke("run", toy, folder))
    assert "leave out --fps" in refusal(invoke("run", toy, clip, "--fps", "10"))


class Camera:
    """Stands in for OpenCV's: 30 pictures a second for as long as there are any, then it is gone."""

    pictures: ClassVar[list[np.ndarray]] = []
    there = True
    released = 0
    #: The clock, by which frames are taken.
    now = 100.0

    def __init__(self, number: int) -> None:
        self.number, self.left = number, list(self.pictures)

    def isOpened(self) -> bool:
        return self.there and self.number == 1

    def set(self, *_: object) -> bool:
        return False

    def read(self) -> tuple[bool, np.ndarray | None]:
        if not self.left:
            return False, None
        Camera.now += 1 / 30
        return True, self.left.pop(0)[..., ::-1]

    def release(self) -> None:
        Camera.released += 1


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> type[Camera]:
    import cv2

    from tsmzoo.live import source as live_source

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(live_source.time, "monotonic", lambda: Camera.now)
    monkeypatch.setattr(Camera, "pictures", moving(24))
    monkeypatch.setattr(Camera, "released", 0)
    return Camera


def test_a_camera_is_answered_till_it_goes(toy: Path, camera: type[Camera], tmp_path: Path) -> None:
    saved = tmp_path / "saved.mp4"
    result = invoke("run", toy, "1", "--json", "--save", saved)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error: camera 1: went away after 0.8 s; check its cable, and that no other program uses it"
    ]
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(found) == 12
    assert_top(found[-1]["top5"], logits_of([Image.fromarray(frame) for frame in moving(24)[::2]]).mean(0))
    assert len(decoded(saved)) == 24
    assert camera.released == 1


def test_an_offline_model_answers_a_camera_every_second(
    save: Callable[[Contract], Path], camera: type[Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera, "pictures", moving(90))
    result = invoke("run", save(contract("offline", sampling="dense", stride=3)), "1", "--json")
    times = [json.loads(line)["time"] for line in result.stdout.splitlines()]
    assert times == pytest.approx([10 / 30, 40 / 30, 70 / 30], abs=0.04)


def test_a_camera_that_is_absent_is_told_in_one_line(
    toy: Path, camera: type[Camera], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "camera 0: is not there" in refusal(invoke("run", toy, "0"))
    assert "camera 3: is not there" in refusal(invoke("run", toy, "/dev/video3", "--save", tmp_path / "v.mp4"))
    monkeypatch.setattr(camera, "pictures", [])
    assert "camera 1: gives no picture" in refusal(invoke("run", toy, "1", "--save", tmp_path / "v.mp4"))
    assert {entry.name for entry in tmp_path.iterdir()} == {"toy.onnx", "toy.json"}


def test_a_file_whose_name_is_a_number_is_no_camera(
    toy: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0").write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert top(toy, "0") == top(toy, clip)


def test_a_real_camera_that_is_absent_chatters_not(toy: Path) -> None:
    # OpenCV tells on stderr, past Python, of all the drivers that it tries.
    command = [sys.executable, "-m", "tsmzoo", "run", str(toy), "97"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: camera 97: is not there")


@pytest.mark.parametrize("rate", [30, 12, Fraction(30000, 1001)])
def test_what_is_saved_has_the_frames_and_the_rate_of_the_source(rate: Any, toy: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", moving(31), rate=rate)
    saved = tmp_path / "saved.mp4"
    result = invoke("run", toy, path, "--save", saved)
    assert result.exit_code == 0, result.output
    assert f"saved {saved}" in result.stderr
    with av.open(str(saved)) as container, av.open(str(path)) as source:
        assert container.streams.video[0].average_rate == source.streams.video[0].average_rate
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([time for time, _ in decode.decode(path)], abs=1e-4)
    # The bar at the foot is written on; what stands above it is the source's.
    for ours, theirs in zip(decoded(saved), decoded(path), strict=True):
        difference = np.abs(np.asarray(ours, float) - np.asarray(theirs, float)).mean(axis=(1, 2))
        assert difference[:60].mean() < 8
        assert difference[-8:].mean() > 20
    assert {entry.name for entry in tmp_path.iterdir()} == {"toy.onnx", "toy.json", "v.mp4", "saved.mp4"}


def test_what_is_saved_keeps_uneven_times(toy: Path, tmp_path: Path) -> None:
    times = [0, 20, 40, 100, 400, 410, 1000, 1033]
    path = write(tmp_path / "uneven.mkv", moving(8), times=times)
    assert invoke("run", toy, path, "--save", tmp_path / "saved.mp4").exit_code == 0
    found = [time for time, _ in decode.decode(tmp_path / "saved.mp4")]
    assert found == pytest.approx(np.array(times) / 1000, abs=1e-3)


@pytest.mark.parametrize("size", [(97, 33), (16, 16), (3, 200)])
def test_odd_sizes_are_saved_even(size: tuple[int, int], toy: Path, tmp_path: Path) -> None:
    width, height = size
    frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype="uint8")
    path = lossless(tmp_path / "odd.mkv", frames)
    result = invoke("run", toy, path, "--save", tmp_path / "saved.mp4")
    assert result.exit_code == 0, result.output
    assert decoded(tmp_path / "saved.mp4")[0].size == (width // 2 * 2, height // 2 * 2)


def test_a_clips_answer_is_on_all_that_is_saved(
    save: Callable[[Contract], Path], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: list[str] = []

    def texts(answer: Answer) -> tuple[str, str]:
        labels.append(str(answer.label))
        return "", ""

    monkeypatch.setattr(video_writer, "texts", texts)
    (found,) = answers(save(contract("offline")), clip, "--threshold", "0", "--save", tmp_path / "saved.mp4")
    assert labels == [found["label"]] * 24


def test_wrong_places_to_save_are_refused(toy: Path, clip: Path, tmp_path: Path) -> None:
    before = clip.read_bytes()
    assert "ends in .mp4" in refusal(invoke("run", toy, clip, "--save", tmp_path / "v.avi"))
    assert "the video itself" in refusal(invoke("run", toy, clip, "--save", clip))
    assert "its folder" in refusal(invoke("run", toy, clip, "--save", tmp_path / "none" / "v.mp4"))
    assert clip.read_bytes() == before


def test_a_disk_that_is_full_is_told_and_leaves_nothing(
    toy: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    result = invoke("run", toy, clip, "--save", tmp_path / "saved.mp4")
    assert result.exit_code == 1
    assert "error: " in result.stderr
    assert "No space left on device" in result.stderr
    assert {entry.name for entry in tmp_path.iterdir()} == {"toy.onnx", "toy.json"}


def test_ctrl_c_ends_a_run_and_keeps_what_was_saved(toy: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "long.mp4", moving(3000))
    command = [sys.executable, "-m", "tsmzoo", "run", str(toy), str(path), "--json", "--save", str(tmp_path / "s.mp4")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    steps = [json.loads(line) for line in [first, *rest.splitlines()]]
    assert 0 < len(steps) < 1500
    assert "Traceback" not in errors
    # Two frames a step, and the last may stand at either.
    assert len(decoded(tmp_path / "s.mp4")) in (2 * len(steps) - 1, 2 * len(steps))
    assert not list(tmp_path.glob(".*"))


def test_options_that_a_model_does_not_take_are_refused(
    toy: Path, save: Callable[[Contract], Path], clip: Path
) -> None:
    assert "is online" in refusal(invoke("run", toy, clip, "--every", "1"))
    dense = save(contract("offline", sampling="dense", stride=3))
    assert "leave out --span" in refusal(invoke("run", dense, clip, "--span", "1"))


# --- a terminal ------------------------------------------------------------------------------------------------------


def test_a_view_says_what_is_there() -> None:
    answer = Answer(1.5, 1, [(1, 0.75), (0, 0.25)], ("red [b]", "green"), 3.0, 4.0, True, 12.5, 0.75)
    summary = Summary()
    summary.add(answer)
    label, *bars, state, _ = screen.view(answer, summary).splitlines()
    assert label.strip() == "green 75%"
    assert [bar.split()[0] for bar in bars] == ["75.0%", "25.0%"]
    assert bars[1].endswith("red [b]")
    assert [bar.count("█") for bar in bars] == [22, 8]  # of 30
    assert state.strip().split("   ") == ["1.50 s", "12.5 fps", "3.0 ms", "1 step", "1 reset"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_r_begins_anew_and_ctrl_c_ends_on_a_terminal(toy: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "long.mp4", moving(6000))
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-m", "tsmzoo", "run", str(toy), str(path), "--cut", "0"])
    shown = b""
    sent = set()
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
        if b" fps" in shown and "r" not in sent:
            sent.add("r")
            os.write(terminal, b"r")
        if b"1 reset" in shown and "c" not in sent:
            sent.add("c")
            os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert sent == {"r", "c"}
    end = shown.decode().rpartition("toy on")[2]
    assert " frames, 1 reset, " in end
    assert "Traceback" not in shown.decode()


# --- files that are no videos, and videos that are odd ---------------------------------------------------------------


def test_videos_that_give_nothing_are_told_in_one_line(toy: Path, clip: Path, tmp_path: Path) -> None:
    content = clip.read_bytes()
    files = {
        "empty.mp4": b"",
        "text.mp4": b"this is no video\n" * 50,
        "cut.mp4": content[: len(content) // 2],  # the index stands at the end
        "noise.mp4": np.random.default_rng(0).bytes(5000),
        "list.m3u8": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), "int16"), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    unknown = write(tmp_path / "unknown.avi", moving(3), rate=10)
    unknown.write_bytes(unknown.read_bytes().replace(b"FMP4", b"XQZW"))
    (tmp_path / "folder.mp4").mkdir()
    for name in (*files, "sound.wav", "unknown.avi", "folder.mp4", "missing.mp4"):
        error = refusal(invoke("run", toy, tmp_path / name, "--json"))
        assert str(tmp_path / name) in error
        assert error.endswith("give a video")


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat"])
def test_a_playlist_leads_to_no_other_file(kind: str, clip: Path, tmp_path: Path) -> None:
    # Without its end a list is live, and FFmpeg waits for more of it.
    form = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    if kind == "ffconcat":
        form = "ffconcat version 1.0\nfile {}\n"
    (tmp_path / "v.mp4").write_bytes(clip.read_bytes())
    for target in ("v.mp4", str(clip)):
        (tmp_path / f"list.{kind}").write_text(form.format(target))
        with pytest.raises(VideoError):
            list(decode.decode(tmp_path / f"list.{kind}"))


def test_the_name_of_a_video_does_not_matter(toy: Path, clip: Path, tmp_path: Path) -> None:
    wanted = top(toy, clip)
    for name in ("v.txt", "v.avi", "v", "ein Vidéo, 1%d #2.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
        assert top(toy, tmp_path / name) == wanted


def test_one_frame_is_a_video(toy: Path, save: Callable[[Contract], Path], tmp_path: Path) -> None:
    path = write(tmp_path / "one.mp4", moving(24)[23:])
    (found,) = answers(toy, path)
    assert_top(found["top5"], logits_of(decoded(path))[0])
    assert_top(top(save(contract("offline")), path), clip_logits(decoded(path) * 4))


def test_a_video_that_breaks_off_is_answered_by_what_there_is(toy: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 72, 96, 3), dtype="uint8")
    whole = write(tmp_path / "whole.mp4", noise, movflags="faststart")
    content = whole.read_bytes()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(content[: len(content) // 2])
    assert 0 < len(answers(toy, broken)) < len(answers(toy, whole)) == 20


#: Clockwise turns that a phone asks for, as QuickTime's matrix (a, b, c, d) and as Pillow's name for it.
TURNS = {
    90: ((0, 1, -1, 0), Image.Transpose.ROTATE_270),
    180: ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
    270: ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
}


@pytest.mark.parametrize("degrees", TURNS)
def test_a_turned_video_is_put_upright(degrees: int, clip: Path, tmp_path: Path) -> None:
    (a, b, c, d), turn = TURNS[degrees]
    content = bytearray(clip.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # past version, times, track, duration, layer, volume
    assert struct.unpack_from(">9i", content, start) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, start, *(n << 16 for n in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(content)
    found = [image for _, image in decode.decode(path)]
    wanted = [image.transpose(turn) for image in decoded(clip)]
    assert found[0].size == ((72, 96) if degrees != 180 else (96, 72))
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_times_are_the_files_own(tmp_path: Path) -> None:
    times = [0, 20, 40, 100, 400, 410, 1000, 1033]
    path = write(tmp_path / "uneven.mkv", moving(8), times=times)
    assert [time for time, _ in decode.decode(path)] == pytest.approx(np.array(times) / 1000, abs=1e-3)


@pytest.mark.parametrize("size", [(97, 33), (33, 97), (16, 16), (1, 1)])
def test_odd_sizes_come_back_to_the_bit(size: tuple[int, int], tmp_path: Path) -> None:
    width, height = size
    frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype="uint8")
    path = lossless(tmp_path / "odd.mkv", frames)
    assert np.array_equal([np.asarray(image) for _, image in decode.decode(path)], frames)
    assert transforms.prepared(next(decode.decode(path))[1], RESIZE, SIZE).shape == (3, SIZE, SIZE)


# --- preparing -------------------------------------------------------------------------------------------------------

#: Size of a video; size after its short side became 256; corner of the crop of 224. Halves go to the even number.
GEOMETRY = [
    ((340, 256), (340, 256), (58, 16)),
    ((320, 240), (341, 256), (58, 16)),
    ((1920, 1080), (455, 256), (116, 16)),
    ((1080, 1920), (256, 455), (16, 116)),
    ((176, 100), (450, 256), (113, 16)),
    ((100, 176), (256, 450), (16, 113)),
    ((97, 33), (752, 256), (264, 16)),
    ((480, 480), (256, 256), (16, 16)),
    ((427, 240), (455, 256), (116, 16)),
    ((257, 256), (257, 256), (16, 16)),
]


@pytest.mark.parametrize(("size", "resized", "corner"), GEOMETRY)
def test_short_side_is_resized_and_the_centre_cropped(
    size: tuple[int, int], resized: tuple[int, int], corner: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype="uint8")
    image = Image.fromarray(pixels)
    left, top = corner
    small = np.asarray(image.resize(resized, Image.Resampling.BILINEAR))
    found = transforms.prepared(image, 256, 224)
    assert found.dtype == np.uint8
    assert found.shape == (3, 224, 224)
    assert np.array_equal(found, small[top : top + 224, left : left + 224].transpose(2, 0, 1))


def test_colours_are_red_green_blue(tmp_path: Path) -> None:
    frame = np.zeros((40, 60, 3), "uint8")
    frame[...] = (200, 100, 50)
    ((_, image),) = decode.decode(lossless(tmp_path / "c.mkv", [frame]))
    assert transforms.prepared(image, RESIZE, SIZE).mean((1, 2)).tolist() == [200, 100, 50]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo.mp4", "demo_skeleton.mp4"])
def test_a_video_gets_mits_logits(name: str, published: Callable[[str], Path]) -> None:
    recorded, path = SHARED / "parity" / "pipeline_mit.json", SHARED / "clips" / name
    if not (recorded.is_file() and path.is_file()):
        pytest.skip("the recorded pipeline lies beside the project, not in it")
    case = next(case for case in json.loads(recorded.read_text()) if case["clip"] == name)
    found = top("tsm_r50_sthv2", path, "--weights", published("mit_tsm_r50_sthv2"))
    names = ZOO.label_names(ZOO.find("tsm_r50_sthv2"))
    assert names is not None
    wanted = softmax(np.array(case["logits"][0]))
    order = np.argsort(-wanted)[:5]
    assert [row["label"] for row in found] == [names[index] for index in order]
    # Logits of 25 agree to a thousandth or so.
    assert [row["probability"] for row in found] == pytest.approx(wanted[order].tolist(), rel=5e-3, abs=1e-4)


# --- sampling --------------------------------------------------------------------------------------------------------


def picked(times: Sequence[float], fps: float | None) -> list[int]:
    beat = FramePacer(fps)
    return [index for index, time in enumerate(times) if beat.takes(time)]


#: Frames a second of the video and of the model; the first frames that are taken: each the first at or after its turn.
RATES = [
    (30, 15, [0, 2, 4, 6, 8, 10, 12]),
    (60, 15, [0, 4, 8, 12, 16, 20, 24]),
    (25, 15, [0, 2, 4, 5, 7, 9, 10, 12]),
    (24, 15, [0, 2, 4, 5, 7, 8, 10, 12]),
    (50, 15, [0, 4, 7, 10, 14, 17, 20]),
    (15, 15, [0, 1, 2, 3, 4, 5, 6]),
    (10, 15, [0, 1, 2, 3, 4, 5, 6]),
    (30, None, [0, 1, 2, 3, 4, 5, 6]),
]


@pytest.mark.parametrize(("video_fps", "fps", "wanted"), RATES)
def test_a_stream_is_thinned_to_its_rate(video_fps: int, fps: int | None, wanted: list[int]) -> None:
    assert picked([index / video_fps for index in range(100)], fps)[: len(wanted)] == wanted
    # In Matroska times are rounded to a millisecond, and no file need begin at zero.
    assert picked([round(7 + index / video_fps, 3) for index in range(100)], fps)[: len(wanted)] == wanted


@pytest.mark.parametrize("video_fps", [24, 25, 30_000 / 1001, 50, 60, 120])
def test_in_the_long_run_a_stream_has_its_rate(video_fps: float) -> None:
    times = [index / video_fps for index in range(int(60 * video_fps))]
    assert len(picked(times, 15)) == pytest.approx(60 * 15, abs=2)


def test_after_a_gap_a_stream_goes_on_at_its_rate() -> None:
    times = [0, 1 / 30, 2 / 30, *(5 + index / 30 for index in range(7))]
    assert picked(times, 15) == [0, 2, 3, 5, 7, 9]


def test_where_time_jumps_back_a_stream_goes_on_at_its_rate() -> None:
    joined = [*(9 + index / 30 for index in range(5)), *(index / 30 for index in range(5))]
    assert picked(joined, 15) == [0, 2, 4, 5, 7, 9]


#: Frames of a video, and which are taken for a clip of 8 or 16: computed with MIT's own code (dataset.py).
UNIFORM = [
    (3, [0, 0, 0, 1, 1, 2, 2, 2]),
    (7, [0, 1, 2, 3, 3, 4, 5, 6]),
    (9, [0, 1, 2, 3, 5, 6, 7, 8]),
    (15, [0, 2, 4, 6, 8, 10, 12, 14]),
    (17, [1, 3, 5, 7, 9, 11, 13, 15]),
    (31, [1, 5, 9, 13, 17, 21, 25, 29]),
    (63, [3, 11, 19, 27, 35, 43, 51, 59]),
    (64, [4, 12, 20, 28, 36, 44, 52, 60]),
    (117, [7, 21, 36, 51, 65, 80, 95, 109]),
    (299, [18, 56, 93, 130, 168, 205, 242, 280]),
    (300, [18, 56, 93, 131, 168, 206, 243, 281]),
    (1000, [62, 187, 312, 437, 562, 687, 812, 937]),
    (3, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]),
    (15, [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14]),
    (17, [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16]),
    (300, [9, 28, 46, 65, 84, 103, 121, 140, 159, 178, 196, 215, 234, 253, 271, 290]),
]


@pytest.mark.parametrize(("total", "wanted"), UNIFORM)
def test_a_clip_is_sampled_as_mit_does(total: int, wanted: list[int]) -> None:
    assert sampling.clip(total, len(wanted), None) == wanted


#: Frames of a video, length and stride of a clip, and which frames are taken.
DENSE = [
    (100, 8, 8, [21, 29, 37, 45, 53, 61, 69, 77]),
    (64, 8, 8, [3, 11, 19, 27, 35, 43, 51, 59]),
    (65, 8, 8, [4, 12, 20, 28, 36, 44, 52, 60]),
    (66, 8, 8, [4, 12, 20, 28, 36, 44, 52, 60]),
    (20, 8, 8, [0, 8, 16, 4, 12, 0, 8, 16]),
    (1, 8, 8, [0] * 8),
    (10, 4, 2, [1, 3, 5, 7]),
]


@pytest.mark.parametrize(("total", "count", "stride", "wanted"), DENSE)
def test_a_dense_clip_stands_in_the_middle(total: int, count: int, stride: int, wanted: list[int]) -> None:
    assert sampling.clip(total, count, stride) == wanted


def test_a_clip_is_sampled_from_the_frames_of_a_file(tmp_path: Path) -> None:
    frames = [np.full((16, 16, 3), 10 * index, "uint8") for index in range(17)]
    chosen = seek.pick(lossless(tmp_path / "v.mkv", frames), lambda total: sampling.centres(total, 8))
    assert chosen.total == 17
    for index in (1, 3, 5, 7, 9, 11, 13, 15):
        assert np.asarray(chosen.images[index])[0, 0, 0] == 10 * index
        assert chosen.times[index] == pytest.approx(index / 30, abs=1e-3)
