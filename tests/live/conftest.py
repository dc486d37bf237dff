"""Videos, small files to run and their answers, that the tests of `run` share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.given import give
from tsmzoo.artifact import store
from tsmzoo.artifact.contract import Contract, StatePair, Tensor, contract_path
from tsmzoo.cli import app

SIZE, RESIZE = 32, 36


NAMES = ("red", "green", "blue", "Grün – ½", "none")


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


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames, 30 a second."""
    return write(tmp_path_factory.mktemp("video") / "v.mp4", moving(24))


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


def clip_logits(images: Sequence[Image.Image]) -> np.ndarray:
    """Return what the offline file answers to four frames."""
    return np.stack([prepared(image).mean((1, 2)) / 255 for image in images]).reshape(-1) @ BY_FRAME


def by_scene(path: Path, *lengths: int) -> list[np.ndarray]:
    """Return the online file's logits of scenes after each of which its state is zero."""
    images, found = decoded(path), []
    for length in lengths:
        found.append(logits_of(images[:length]))
        images = images[length:]
    assert not images
    return found


give_invoke = give(invoke)
give_answers = give(answers)
give_top = give(top)
give_refusal = give(refusal)
give_write = give(write)
give_lossless = give(lossless)
give_moving = give(moving)
give_decoded = give(decoded)
give_prepared = give(prepared)
give_contract = give(contract)
give_logits_of = give(logits_of)
give_softmax = give(softmax)
give_assert_top = give(assert_top)
give_clip_logits = give(clip_logits)
give_by_scene = give(by_scene)
