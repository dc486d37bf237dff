"""Frames and crops that a clip is drawn from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tsmzoo import registry
from tsmzoo.data import dataset, decode, layouts, sampling, transforms
from tsmzoo.data.dataset import Dataset, Video
from tsmzoo.data.encode import encode
from tsmzoo.training.clips import ClipSet

ZOO = registry.load()


CLASSES = ("red", "blue")


totals = st.integers(1, 3000)


counts = st.integers(1, 64)


strides = st.integers(1, 16)


seeds = st.integers(0, 2**32)


def segments(total: int, count: int) -> Iterator[tuple[Fraction, Fraction]]:
    return ((Fraction(total * index, count), Fraction(total * (index + 1), count)) for index in range(count))


@given(total=totals, count=counts, seed=seeds)
def test_segments_give_one_frame_each(total: int, count: int, seed: int) -> None:
    for chosen in (sampling.centres(total, count), sampling.jittered(total, count, np.random.default_rng(seed))):
        assert len(chosen) == count
        assert chosen == sorted(chosen)
        assert all(0 <= frame < total for frame in chosen)
        # A frame lasts from its index to the next: some of it lies in the segment.
        assert all(
            frame < end and frame + 1 > start
            for frame, (start, end) in zip(chosen, segments(total, count), strict=True)
        )


@given(total=totals, count=counts)
def test_centres_are_in_the_middle(total: int, count: int) -> None:
    for frame, (start, end) in zip(sampling.centres(total, count), segments(total, count), strict=True):
        assert abs((start + end) / 2 - frame) <= 1 + Fraction(1, 10**9)


@given(total=totals, count=counts, stride=strides, seed=seeds)
def test_a_window_is_evenly_spaced_and_starts_anew_where_the_video_ends(
    total: int, count: int, stride: int, seed: int
) -> None:
    for rng in (None, np.random.default_rng(seed)):
        chosen = sampling.window(total, count, stride, rng)
        assert len(chosen) == count
        assert all(0 <= frame < total for frame in chosen)
        assert all((b - a - stride) % total == 0 for a, b in itertools.pairwise(chosen))
        if (count - 1) * stride < total:  # it fits
            assert chosen == list(range(chosen[0], chosen[0] + stride * count, stride))
        else:
            assert chosen[0] == 0


@given(total=totals, count=counts, stride=st.none() | strides, seed=seeds)
def test_a_clip_is_drawn_by_its_seed_alone(total: int, count: int, stride: int | None, seed: int) -> None:
    one, two = (sampling.clip(total, count, stride, np.random.default_rng(seed)) for _ in range(2))
    assert one == two
    assert sampling.clip(total, count, stride) == (
        sampling.centres(total, count) if stride is None else sampling.window(total, count, stride)
    )


def test_sampling_is_as_by_hand() -> None:
    assert sampling.centres(16, 8) == [1, 3, 5, 7, 9, 11, 13, 15]
    assert sampling.centres(10, 4) == [1, 3, 6, 8]  # 1.25, 3.75, 6.25, 8.75
    assert sampling.centres(3, 8) == [0, 0, 0, 1, 1, 2, 2, 2]  # 0.1875 and every 0.375
    assert sampling.window(20, 4, 3) == [5, 8, 11, 14]  # from first to last 10 of 20 frames, 10 to spare
    assert sampling.window(5, 4, 2) == [0, 2, 4, 1]
    assert sampling.window(1, 3, 2) == [0, 0, 0]


def test_every_frame_of_a_segment_and_every_place_of_a_window_is_drawn() -> None:
    drawn = [sampling.jittered(6, 3, np.random.default_rng(seed)) for seed in range(60)]
    assert {tuple(clip) for clip in drawn} == {(a, b, c) for a in (0, 1) for b in (2, 3) for c in (4, 5)}
    starts = [sampling.window(10, 3, 2, np.random.default_rng(seed))[0] for seed in range(60)]
    assert set(starts) == {0, 1, 2, 3, 4, 5}


#: A clip of 28 px comes from a short side of 32 px, which the videos below have: nothing is resized but crops.
SIDE, SIZE, LENGTH = 32, 28, 8  # 32 is the short side for 28


CLIP = msgspec.structs.replace(ZOO.find("tsm_mbv2_motion"), size=SIZE)


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Give videos in which no two squares are alike."""
    folder = tmp_path_factory.mktemp("textures")
    rng = np.random.default_rng(3)
    for number, width in enumerate((SIDE, SIDE + 8)):
        encode(folder / f"{number}.mp4", rng.integers(0, 256, (LENGTH, SIDE, width, 3), np.uint8), 8)
    dataset.write(folder, [("0.mp4", 1), ("1.mp4", 0)], CLASSES)
    return layouts.read(folder)


def shown(clips: ClipSet, index: int, epoch: int = 0) -> np.ndarray:
    """Return clip `index` of an epoch as T, H, W, C."""
    clips.epoch = epoch
    pixels, label = clips[index]
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (clips.frames, 3, clips.entry.size, clips.entry.size)
    assert label == clips.videos.videos[index].label
    return pixels.numpy().transpose(0, 2, 3, 1)


def read(listed: Video) -> np.ndarray:
    """Return all frames of a video, T, H, W, C, their short side at SIDE."""
    return np.stack([transforms.resized(np.asarray(image), SIDE, "mit") for _, image in decode.decode(listed.path)])


def scaled(square: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(square).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def located(clip: np.ndarray, pictures: np.ndarray, side: int) -> tuple[list[int], int, int]:
    """Search squares of `side` for those that the clip shows; return frames, top and left, which all share."""
    found = [
        [
            (index, top, left)
            for index, picture in enumerate(pictures)
            for top in range(picture.shape[0] - side + 1)
            for left in range(picture.shape[1] - side + 1)
            if np.array_equal(scaled(picture[top : top + side, left : left + side]), frame)
        ]
        for frame in clip
    ]
    assert all(len(matches) == 1 for matches in found), found
    places = {(top, left) for [(_, top, left)] in found}
    assert len(places) == 1, "the frames of a clip are cropped alike"
    return [index for [(index, _, _)] in found], *places.pop()


def test_the_middle_clip_is_what_a_deployed_model_is_given(textures: Dataset) -> None:
    for stride, chosen in ((None, [1, 3, 5, 7]), (2, [0, 2, 4, 6]), (1, [2, 3, 4, 5])):
        clips = ClipSet(textures, msgspec.structs.replace(CLIP, stride=stride), 4)
        assert len(clips) == 2
        for index, listed in enumerate(textures.videos):
            images = [image for _, image in decode.decode(listed.path)]
            wanted = np.stack([transforms.prepared(images[frame], SIDE, SIZE) for frame in chosen])
            np.testing.assert_array_equal(clips[index][0].numpy(), wanted)


def test_a_crop_is_one_square_of_frames_one_a_segment(textures: Dataset, made: Callable[..., Any]) -> None:
    pictures = read(textures.videos[1])
    for scale, side in ((0.875, 28), (0.5, 16)):
        clips = ClipSet(textures, CLIP, 2, drawn=made(scales=(scale,)))
        frames, _, _ = located(shown(clips, 1), pictures, side)
        assert 0 <= frames[0] < LENGTH // 2 <= frames[1] < LENGTH


@pytest.mark.slow
def test_crops_reach_every_edge(textures: Dataset, made: Callable[..., Any]) -> None:
    pictures = read(textures.videos[1])
    clips = ClipSet(textures, CLIP, 1, drawn=made(scales=(0.875,)))
    places = [located(shown(clips, 1, epoch), pictures, 28)[1:] for epoch in range(30)]
    assert {top for top, _ in places} == set(range(5))
    assert {0, 12} <= {left for _, left in places} <= set(range(13))


def test_a_crop_of_scale_one_is_all_of_a_square_video(textures: Dataset, made: Callable[..., Any]) -> None:
    pictures = [scaled(picture) for picture in read(textures.videos[0])]
    clips = ClipSet(textures, CLIP, 4, drawn=made())
    for first, frame in enumerate(shown(clips, 0)):
        assert any(np.array_equal(frame, picture) for picture in pictures[2 * first : 2 * first + 2])


def test_each_of_several_scales_is_drawn(textures: Dataset, made: Callable[..., Any]) -> None:
    clips = ClipSet(textures, CLIP, 1, drawn=made(scales=(1.0, 0.5)))
    pictures = {scaled(picture).tobytes() for picture in read(textures.videos[0])}
    assert 10 < sum(shown(clips, 0, epoch)[0].tobytes() in pictures for epoch in range(40)) < 30


@pytest.mark.parametrize("hflip", [False, True])
def test_clips_are_mirrored_where_the_recipe_says_so(textures: Dataset, hflip: bool, made: Callable[..., Any]) -> None:
    pictures = [scaled(picture) for picture in read(textures.videos[0])]
    clips = ClipSet(textures, CLIP, 2, drawn=made(hflip=hflip))
    mirrored = 0
    for epoch in range(40):
        clip = shown(clips, 0, epoch)
        as_is, mirror = (
            all(any(np.array_equal(frame, picture) for picture in pictures) for frame in way)
            for way in (clip, clip[:, :, ::-1])
        )
        assert as_is != mirror
        mirrored += mirror
    assert 10 < mirrored < 30 if hflip else mirrored == 0


def test_seed_epoch_and_index_give_the_clip(textures: Dataset, made: Callable[..., Any]) -> None:
    twice = Dataset(textures.videos * 2, textures.classes, textures.list_sha256)
    recipes = [made(scales=(0.875, 0.7), hflip=True, seed=seed) for seed in (0, 0, 1)]
    clips = [ClipSet(twice, CLIP, 4, drawn=recipe) for recipe in recipes]
    drawn = [
        {(epoch, index): shown(of, index, epoch).tobytes() for epoch, index in order}
        for of, order in zip(
            clips,
            # The order in which they are asked for is of no account.
            (
                [(epoch, index) for epoch in range(3) for index in range(4)],
                [(epoch, index) for index in (3, 1, 0, 2) for epoch in (2, 0, 1)],
                [(epoch, index) for epoch in range(3) for index in range(4)],
            ),
            strict=True,
        )
    ]
    assert drawn[0] == drawn[1]
    # Another epoch, another index of the same video, another seed: another clip.
    assert len({*drawn[0].values(), *drawn[2].values()}) == 24


@pytest.mark.slow
def test_in_memory_and_from_disk_are_the_same(textures: Dataset, made: Callable[..., Any]) -> None:
    for recipe in (None, made(scales=(0.8, 0.5), hflip=True)):
        streamed, kept = (ClipSet(textures, CLIP, 3, drawn=recipe) for _ in range(2))
        progress = Mock()
        kept.decode(progress)
        assert [call.args[1:] for call in progress.call_args_list] == [(1, 2), (2, 2)]
        for epoch in range(4):
            for index in range(2):
                np.testing.assert_array_equal(shown(streamed, index, epoch), shown(kept, index, epoch))
