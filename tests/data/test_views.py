"""Resizing and cutting as each publisher does, and what a whole pipeline gives for the recorded clips."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from tsmzoo import registry
from tsmzoo.cli import app
from tsmzoo.data import transforms
from tsmzoo.data.dataset import Video
from tsmzoo.data.encode import encode
from tsmzoo.data.transforms import Pipeline
from tsmzoo.errors import VideoError
from tsmzoo.evaluation import predict
from tsmzoo.evaluation.protocol import Changes, EvaluationPlan, choose
from tsmzoo.registry.recipes import Crops

CLIPS = Path(__file__).resolve().parents[3] / "shared" / "clips"
ZOO = registry.load()
MEAN, STD = np.reshape([0.485, 0.456, 0.406], (3, 1, 1)), np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
both = pytest.mark.parametrize("pipeline", ["mit", "mmaction2"])


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype="uint8")


# --- where crops lie -------------------------------------------------------------------------------------------------

#: Pipeline, height and width, crop, number; top and left of each. The facts' examples, and portrait videos.
CORNERS: list[tuple[Pipeline, tuple[int, int], int, Crops, list[tuple[int, int]]]] = [
    ("mit", (256, 340), 224, 5, [(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)]),
    ("mit", (256, 340), 224, 10, [(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)]),
    ("mmaction2", (256, 340), 224, 10, [(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)]),
    # Four quarters rounded down: 3 pixels short of the right edge.
    ("mit", (256, 343), 224, 5, [(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)]),
    ("mit", (256, 340), 224, 3, [(16, 0), (16, 116), (16, 58)]),
    ("mit", (256, 341), 256, 3, [(0, 0), (0, 84), (0, 42)]),
    ("mit", (341, 256), 256, 3, [(42, 0), (42, 0), (42, 0)]),
    ("mit", (341, 256), 224, 3, [(58, 0), (58, 32), (58, 16)]),
    ("mit", (256, 256), 256, 3, [(0, 0)] * 3),
    ("mmaction2", (256, 341), 256, 3, [(0, 0), (0, 84), (0, 42)]),
    ("mmaction2", (256, 343), 256, 3, [(0, 0), (0, 86), (0, 43)]),
    ("mmaction2", (341, 256), 256, 3, [(0, 0), (84, 0), (42, 0)]),
    ("mmaction2", (455, 256), 256, 3, [(0, 0), (198, 0), (99, 0)]),
    ("mmaction2", (256, 256), 256, 3, [(0, 0)] * 3),
    # Halves: MIT rounds them to the even number, mmaction2 down.
    ("mit", (256, 341), 224, 1, [(16, 58)]),
    ("mit", (256, 343), 224, 1, [(16, 60)]),
    ("mit", (343, 256), 224, 1, [(60, 16)]),
    ("mmaction2", (256, 341), 224, 1, [(16, 58)]),
    ("mmaction2", (256, 343), 224, 1, [(16, 59)]),
    ("mmaction2", (343, 256), 224, 1, [(59, 16)]),
]


@pytest.mark.parametrize(("pipeline", "sides", "size", "crops", "wanted"), CORNERS)
def test_corners(
    pipeline: Pipeline, sides: tuple[int, int], size: int, crops: Crops, wanted: list[tuple[int, int]]
) -> None:
    assert transforms.corners(*sides, size, crops, pipeline) == wanted
    picture = noise(*sides)
    squares = transforms.crop(picture, size, crops, pipeline)
    if crops == 10:
        squares = squares[::2]
    for square, (top, left) in zip(squares, wanted, strict=True):
        assert np.array_equal(square, picture[top : top + size, left : left + size])


@given(
    st.integers(1, 90),
    st.integers(0, 60),
    st.integers(0, 60),
    st.sampled_from([1, 3, 5, 10]),
    st.sampled_from(["mit", "mmaction2"]),
    st.sampled_from([2, 3]),
)
def test_crops_are_squares_that_lie_inside(
    size: int, down: int, right: int, crops: Crops, pipeline: Pipeline, channels: int
) -> None:
    squares = transforms.crop(np.zeros((size + down, size + right, channels), "uint8"), size, crops, pipeline)
    assert [square.shape for square in squares] == [(size, size, channels)] * crops


@both
def test_of_ten_crops_each_is_followed_by_its_mirror_image(pipeline: Pipeline) -> None:
    picture = noise(48, 64)
    ten, five = transforms.crop(picture, 33, 10, pipeline), transforms.crop(picture, 33, 5, pipeline)
    assert np.array_equal(ten[::2], five)
    assert np.array_equal(ten[1::2], np.asarray(five)[:, :, ::-1])


def test_mirrored_flow_moves_the_other_way_at_mit_alone() -> None:
    picture = noise(48, 64, 2)
    plain = np.asarray(transforms.crop(picture, 33, 5, "mit"))[:, :, ::-1]
    assert np.array_equal(transforms.crop(picture, 33, 10, "mmaction2")[1::2], plain)
    mirrored = np.asarray(transforms.crop(picture, 33, 10, "mit")[1::2])
    assert mirrored.dtype == np.uint8
    assert np.array_equal(mirrored[..., 0], 255 - plain[..., 0])
    assert np.array_equal(mirrored[..., 1], plain[..., 1])


# --- resizing --------------------------------------------------------------------------------------------------------

#: Height and width of a video, short side; height and width at MIT, at mmaction2.
SIDES = [
    ((240, 320), 256, (256, 341), (256, 341)),
    ((320, 240), 256, (341, 256), (341, 256)),
    ((240, 341), 256, (256, 363), (256, 364)),
    ((341, 240), 256, (363, 256), (364, 256)),
    ((512, 513), 256, (256, 256), (256, 257)),
    ((100, 176), 256, (256, 450), (256, 451)),
    ((33, 97), 73, (73, 214), (73, 215)),
    ((256, 340), 256, (256, 340), (256, 340)),
    ((1, 1), 256, (256, 256), (256, 256)),
]


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize(("sides", "short", "mit", "mmaction2"), SIDES)
def test_the_long_side_is_truncated_or_rounded(
    sides: tuple[int, int], short: int, mit: tuple[int, int], mmaction2: tuple[int, int], channels: int
) -> None:
    picture = noise(*sides, channels)
    assert transforms.resized(picture, short, "mit").shape == (*mit, channels)
    assert transforms.resized(picture, short, "mmaction2").shape == (*mmaction2, channels)


def test_each_publisher_has_its_filter() -> None:
    picture = noise(120, 90)
    pillow = np.asarray(Image.fromarray(picture).resize((60, 80), Image.Resampling.BILINEAR))
    opencv = cv2.resize(picture, (60, 80), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(transforms.resized(picture, 60, "mit"), pillow)
    assert np.array_equal(transforms.resized(picture, 60, "mmaction2"), opencv)
    assert np.abs(pillow.astype(int) - opencv).mean() > 5


def test_only_mits_filter_averages_what_is_left_out() -> None:
    """Of stripes a pixel wide every third is met: grey at MIT, still black and white at mmaction2."""
    stripes = np.zeros((90, 90, 3), "uint8")
    stripes[:, ::2] = 255
    assert np.ptp(transforms.resized(stripes, 30, "mit")[:, 1:-1]) < 100
    assert set(np.unique(transforms.resized(stripes, 30, "mmaction2"))) == {0, 255}


@both
def test_components_of_flow_do_not_mix(pipeline: Pipeline) -> None:
    picture = noise(50, 70, 2)
    small = transforms.resized(picture, 40, pipeline)
    for channel in range(2):
        alone = np.repeat(picture[..., channel : channel + 1], 3, axis=2)
        assert np.array_equal(small[..., channel], transforms.resized(alone, 40, pipeline)[..., 0])


def test_a_frame_is_prepared_as_mit_does() -> None:
    picture = noise(72, 96)
    (square,) = transforms.crop(transforms.resized(picture, 36, "mit"), 32, 1, "mit")
    prepared = transforms.prepared(Image.fromarray(picture), 36, 32)
    assert prepared.dtype == np.uint8
    assert np.array_equal(prepared, square.transpose(2, 0, 1))


# --- whole pipelines, as they were recorded -----------------------------------------------------------------------

#: Case, model and protocol.
PIPELINES = [
    ("pipeline_mit", "tsm_r50_sthv2_8f_mit", "efficient"),
    ("pipeline_mmaction2", "tsm_r50_sthv2_8f_mm0", "mm_tsm_uniform8_crop1x224"),
]
recorded = pytest.mark.parametrize(("name", "model", "protocol"), PIPELINES)
clip = pytest.mark.parametrize("clip", ["demo.mp4", "demo_skeleton.mp4"])


def case_of(cases: Any, clip: str) -> tuple[Path, Any]:
    """Return a recorded clip and what was recorded of it."""
    if not (CLIPS / clip).is_file():
        pytest.skip("the clips lie beside the project, not in it")
    return CLIPS / clip, next(case for case in cases if case["clip"] == clip)


def seen(path: Path, followed: EvaluationPlan) -> tuple[list[list[int]], np.ndarray]:
    """Return the frames' indices, and the normalised frames of the first view: T, C, H, W."""
    found = predict.load_views(Video(path.name, path, 0), followed)
    return found.clips, (found.whole[0] / 255 - MEAN) / STD


def grid(frames: np.ndarray) -> np.ndarray:
    """Return the means of blocks of 32 x 32 pixels: frames; channels, rows and columns."""
    return frames.reshape(len(frames), 3, 7, 32, 7, 32).mean((3, 5)).reshape(len(frames), -1)


@recorded
@clip
def test_frames_are_those_of_the_publishers_pipeline(
    name: str, model: str, protocol: str, clip: str, parity: Callable[[str], Any]
) -> None:
    path, case = case_of(parity(name), clip)
    followed = choose(ZOO.find(model), None, protocol, Changes())
    assert followed.views == case["views"]
    clips, frames = seen(path, followed)
    assert clips == [case["frame_indices"]]
    assert list(frames.shape) == case["shape"]
    assert np.abs(grid(frames) - case["grid7x7"]).max() <= 1e-4


@pytest.mark.parametrize(("name", "model", "protocol"), PIPELINES)
def test_frames_of_a_generated_clip_are_resized_and_cut_by_the_publishers_libraries(
    name: str, model: str, protocol: str, tmp_path: Path
) -> None:
    """Decoded by PyAV, resized by Pillow (MIT) or OpenCV (mmaction2) to 341 x 256, and the middle 224 x 224 of it."""
    coarse = np.random.default_rng(3).integers(0, 256, (30, 12, 16, 3), dtype="uint8")
    encode(tmp_path / "v.mp4", coarse.repeat(8, 1).repeat(8, 2), 10)
    clips, frames = seen(tmp_path / "v.mp4", choose(ZOO.find(model), None, protocol, Changes()))
    assert clips == [[int(30 / 8 * (index + 0.5)) for index in range(8)]]
    with av.open(tmp_path / "v.mp4") as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for index, frame in zip(clips[0], frames, strict=True):
        if name == "pipeline_mit":
            large = np.asarray(Image.fromarray(decoded[index]).resize((341, 256), Image.Resampling.BILINEAR))
        else:
            large = cv2.resize(decoded[index], (341, 256), interpolation=cv2.INTER_LINEAR)
        wanted = large[16:240, 58:282].transpose(2, 0, 1)
        assert np.allclose(frame, (wanted / 255 - MEAN) / STD, atol=1e-6)


def test_the_other_publishers_filter_would_show(parity: Callable[[str], Any]) -> None:
    path, case = case_of(parity("pipeline_mmaction2"), "demo_skeleton.mp4")
    _, frames = seen(path, choose(ZOO.find("tsm_r50_sthv2_8f_mit"), None, "efficient", Changes()))
    assert np.abs(grid(frames) - case["grid7x7"]).mean() > 0.01


@pytest.mark.slow
@recorded
@clip
def test_a_video_gets_the_publishers_logits(
    name: str,
    model: str,
    protocol: str,
    clip: str,
    parity: Callable[[str], Any],
    published: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    path, case = case_of(parity(name), clip)
    shutil.copyfile(path, tmp_path / clip)
    (tmp_path / "annotations.txt").write_text(f"{clip} 0\n")
    weights = published(case["weights"].removeprefix("tensors of ").removesuffix(".json"))
    file = tmp_path / "predictions.jsonl"
    options = {"--data": tmp_path, "--weights": weights, "--protocol": protocol, "--predictions": file, "--workers": 0}
    arguments = [model, *(str(part) for option in options.items() for part in option)]
    result = CliRunner().invoke(app, ["eval", *arguments])
    assert result.exit_code == 0, result.output
    (row,) = (json.loads(line) for line in file.read_text().splitlines())
    assert row["video"] == clip
    logits = np.array(case["logits"])
    assert np.shape(row["logits"]) == logits.shape
    assert np.abs(row["logits"] - logits).max() <= 1e-3 * np.ptp(logits)


# --- what a network of flow sees -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mit_flow_1clip", "mm_tsn_flow_uniform25_crop10x224"])
def test_a_stack_of_flow_is_x_and_y_of_five_images_in_turn(name: str, tmp_path: Path) -> None:
    """Image i holds x = 2 i and y = 2 i + 1; the crop's mirror image has x inverted in MIT's pipeline alone."""
    total = 40
    for index in range(total):
        for component, value in (("x", 2 * index), ("y", 2 * index + 1)):
            picture = Image.new("L", (300, 260), value)
            picture.save(tmp_path / f"flow_{component}_{index + 1:05d}.png")
    entry = next(entry for entry in ZOO.models if any(r.protocol == name for r in entry.results))
    followed = choose(entry, None, name, Changes(crops=10))
    seen = predict.load_views(Video("v", tmp_path, 0), followed)
    assert seen.whole.shape == (10, followed.frames, 10, 224, 224)
    tick = (total - 4) / followed.frames
    for step, stack in enumerate(seen.whole[0]):
        first = int(tick / 2 + tick * step)
        wanted = [value for index in range(first, first + 5) for value in (2 * index, 2 * index + 1)]
        assert stack[:, 0, 0].tolist() == stack[:, 223, 223].tolist() == wanted
        mirrored = [255 - v if v % 2 == 0 else v for v in wanted] if followed.pipeline == "mit" else wanted
        assert seen.whole[1, step, :, 0, 0].tolist() == mirrored


@pytest.mark.parametrize("pipeline", ["mit", "mmaction2"])
@pytest.mark.parametrize("shape", [(1, 4000, 3), (4000, 2, 3)])
def test_a_strip_is_no_picture(shape: tuple[int, ...], pipeline: transforms.Pipeline) -> None:
    with pytest.raises(VideoError, match=f"{shape[1]}x{shape[0]} is too narrow"):
        transforms.resized(np.zeros(shape, np.uint8), 256, pipeline)
