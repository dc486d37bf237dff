"""`run`: videos of all kinds, decoded and prepared as MIT does, and answers that can be done by hand.

The files that are run here are not converted: they are ONNX graphs of three nodes, whose answers NumPy gives.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from tsmzoo import artifact, models, registry, sampling, video, views
from tsmzoo.artifact import Contract, StatePair, Tensor
from tsmzoo.cli import app
from tsmzoo.errors import VideoError
from tsmzoo.models.forms import Clips

SHARED = Path(__file__).resolve().parents[2] / "shared"
ZOO = registry.load()
SIZE, RESIZE = 32, 36
NAMES = ("red", "green", "blue", "Grün – ½", "none")
MEAN, STD = np.reshape([0.485, 0.456, 0.406], (3, 1, 1)), np.reshape([0.229, 0.224, 0.225], (3, 1, 1))


pytestmark = pytest.mark.usefixtures("one_registry")


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: str | Path) -> dict[str, Any]:
    """Return the document of a `run` that succeeds."""
    result = invoke("run", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


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
        digest, size = artifact.digest(path)
        beside = msgspec.structs.replace(made, artifact=path.name, sha256=digest, bytes=size)
        artifact.write_contract(beside, artifact.contract_path(path))
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
    every_second = decoded(clip)[::2]
    document = answer(toy, clip)
    assert document["model"] == "toy"
    assert "onnxruntime" in document["runtime"]
    assert document["video"] == str(clip)
    assert document["steps"] == 12
    assert document["seconds_of_video"] == pytest.approx(22 / 30, abs=0.001)
    assert document["median_ms"] > 0
    logits = logits_of(every_second)
    assert_top(document["top"], logits.mean(0))
    assert_top(answer(toy, clip, "--window", "1")["top"], logits[-1])
    assert_top(answer(toy, clip, "--window", "5")["top"], logits[-5:].mean(0))


def test_every_answer_is_told(toy: Path, clip: Path) -> None:
    logits = logits_of(decoded(clip)[::2])
    answers = answer(toy, clip, "--window", "3")["answers"]
    assert [one["time"] for one in answers] == pytest.approx((np.arange(12) / 15).tolist(), abs=0.001)
    for number, one in enumerate(answers):
        assert_top(one["top"], logits[max(0, number - 2) : number + 1].mean(0))


def test_without_a_rate_every_frame_is_taken(save: Callable[[Contract], Path], clip: Path) -> None:
    document = answer(save(contract("online", target_fps=None)), clip, "--window", "24")
    assert document["steps"] == 24
    assert_top(document["top"], logits_of(decoded(clip)).mean(0))


def test_classes_without_names_are_numbered(save: Callable[[Contract], Path], clip: Path) -> None:
    document = answer(save(contract("online", labels=None)), clip)
    logits = logits_of(decoded(clip)[::2]).mean(0)
    assert_top(document["top"], logits, [f"class {index}" for index in range(5)])


def test_a_clip_is_answered_once(save: Callable[[Contract], Path], clip: Path) -> None:
    document = answer(save(contract("offline")), clip)
    assert document["steps"] == 1
    images = decoded(clip)
    colours = np.stack([prepared(images[index]).mean((1, 2)) / 255 for index in (3, 9, 15, 21)])
    assert_top(document["top"], colours.reshape(-1) @ BY_FRAME)


def test_a_dense_clip_is_taken_where_the_contract_says(save: Callable[[Contract], Path], clip: Path) -> None:
    document = answer(save(contract("offline", sampling="dense", stride=3)), clip)
    images = decoded(clip)
    colours = np.stack([prepared(images[index]).mean((1, 2)) / 255 for index in (7, 10, 13, 16)])
    assert_top(document["top"], colours.reshape(-1) @ BY_FRAME)


def test_a_model_is_run_in_torch(clip: Path, tmp_path: Path) -> None:
    entry = msgspec.structs.replace(ZOO.find("tsm_mbv2_k400"), size=SIZE, frames=4, stride=None)
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({"models": [msgspec.to_builtins(entry)]}))  # JSON is YAML
    result = invoke("run", entry.id, clip, "--weights", "random", "--seed", "3", "--registry", own, "--json")
    assert result.exit_code == 0, result.output
    assert f"warning: the weights of {entry.id} are RANDOM (seed 3)" in result.stderr
    document = json.loads(result.stdout)
    assert document["steps"] == 1
    assert document["runtime"].startswith("torch ")
    resize = round(SIZE * 256 / 224)
    images = decoded(clip)
    pixels = np.stack([prepared(images[index], resize=resize) for index in (3, 9, 15, 21)])
    with torch.no_grad():
        normalised = torch.from_numpy((pixels / 255 - MEAN) / STD).float()
        logits = Clips(models.build(entry, seed=3), 4)(normalised[None])[0].numpy()
    names = ZOO.label_names(entry)
    assert names is not None
    assert_top(document["top"], logits, names)


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
            list(video.decode(tmp_path / f"list.{kind}"))


def test_the_name_of_a_video_does_not_matter(toy: Path, clip: Path, tmp_path: Path) -> None:
    wanted = answer(toy, clip)["top"]
    for name in ("v.txt", "v.avi", "v", "ein Vidéo, 1%d #2.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
        assert answer(toy, tmp_path / name)["top"] == wanted


def test_one_frame_is_a_video(toy: Path, save: Callable[[Contract], Path], tmp_path: Path) -> None:
    path = write(tmp_path / "one.mp4", moving(24)[23:])
    document = answer(toy, path)
    assert document["steps"] == 1
    assert_top(document["top"], logits_of(decoded(path))[0])
    colour = prepared(decoded(path)[0]).mean((1, 2)) / 255
    assert_top(answer(save(contract("offline")), path)["top"], np.tile(colour, 4) @ BY_FRAME)


def test_a_video_that_breaks_off_is_answered_by_what_there_is(toy: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 72, 96, 3), dtype="uint8")
    whole = write(tmp_path / "whole.mp4", noise, movflags="faststart")
    content = whole.read_bytes()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(content[: len(content) // 2])
    assert 0 < answer(toy, broken)["steps"] < answer(toy, whole)["steps"] == 20


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
    found = [image for _, image in video.decode(path)]
    wanted = [image.transpose(turn) for image in decoded(clip)]
    assert found[0].size == ((72, 96) if degrees != 180 else (96, 72))
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_times_are_the_files_own(tmp_path: Path) -> None:
    times = [0, 20, 40, 100, 400, 410, 1000, 1033]
    path = write(tmp_path / "uneven.mkv", moving(8), times=times)
    assert [time for time, _ in video.decode(path)] == pytest.approx(np.array(times) / 1000, abs=1e-3)


@pytest.mark.parametrize("size", [(97, 33), (33, 97), (16, 16), (1, 1)])
def test_odd_sizes_come_back_to_the_bit(size: tuple[int, int], tmp_path: Path) -> None:
    width, height = size
    frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype="uint8")
    path = lossless(tmp_path / "odd.mkv", frames)
    assert np.array_equal([np.asarray(image) for _, image in video.decode(path)], frames)
    assert views.prepared(next(video.decode(path))[1], RESIZE, SIZE).shape == (3, SIZE, SIZE)


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
    found = views.prepared(image, 256, 224)
    assert found.dtype == np.uint8
    assert found.shape == (3, 224, 224)
    assert np.array_equal(found, small[top : top + 224, left : left + 224].transpose(2, 0, 1))


def test_colours_are_red_green_blue(tmp_path: Path) -> None:
    frame = np.zeros((40, 60, 3), "uint8")
    frame[...] = (200, 100, 50)
    ((_, image),) = video.decode(lossless(tmp_path / "c.mkv", [frame]))
    assert views.prepared(image, RESIZE, SIZE).mean((1, 2)).tolist() == [200, 100, 50]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo.mp4", "demo_skeleton.mp4"])
def test_a_video_gets_mits_logits(name: str, published: Callable[[str], Path]) -> None:
    recorded, path = SHARED / "parity" / "pipeline_mit.json", SHARED / "clips" / name
    if not (recorded.is_file() and path.is_file()):
        pytest.skip("the recorded pipeline lies beside the project, not in it")
    case = next(case for case in json.loads(recorded.read_text()) if case["clip"] == name)
    document = answer("tsm_r50_sthv2", path, "--weights", published("mit_tsm_r50_sthv2"))
    names = ZOO.label_names(ZOO.find("tsm_r50_sthv2"))
    assert names is not None
    wanted = softmax(np.array(case["logits"][0]))
    order = np.argsort(-wanted)[:5]
    assert [row["label"] for row in document["top"]] == [names[index] for index in order]
    # Logits of 25 agree to a thousandth or so.
    assert [row["probability"] for row in document["top"]] == pytest.approx(wanted[order].tolist(), rel=5e-3, abs=1e-4)


# --- sampling --------------------------------------------------------------------------------------------------------


def picked(times: Sequence[float], fps: float | None) -> list[int]:
    images: Iterator[Any] = ((time, index) for index, time in enumerate(times))
    return [index for _, index in video.at_rate(images, fps)]


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
    chosen = video.pick(lossless(tmp_path / "v.mkv", frames), lambda total: sampling.centres(total, 8))
    assert chosen.total == 17
    for index in (1, 3, 5, 7, 9, 11, 13, 15):
        assert np.asarray(chosen.images[index])[0, 0, 0] == 10 * index
        assert chosen.times[index] == pytest.approx(index / 30, abs=1e-3)
