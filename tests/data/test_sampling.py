"""Which frames a rule takes: the publishers' own indices, checked by value, and what holds of every rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsmzoo.data import sampling
from tsmzoo.data.sampling import RULES, Wanted

CENTRES = [6, 18, 31, 43, 56, 68, 81, 93]
STARTS = [0, 12, 25, 37, 50, 62, 75, 87]

totals = st.integers(1, 5000)
counts = st.integers(1, 40)


def flat(clips: list[list[int]]) -> list[int]:
    return [index for clip in clips for index in clip]


# --- the publishers' own ---------------------------------------------------------------------------------------------


def test_every_clip_that_mits_code_takes(parity: Callable[[str], Any]) -> None:
    rules = {"uniform": ("uniform", 1), "twice": ("uniform", 2), "dense10": ("dense", 10)}
    rows = parity("sampling_mit")
    assert {row["sampling"] for row in rows} == set(rules)
    for row in rows:
        rule, clips = rules[row["sampling"]]
        frames = row["segments"]
        found = RULES[rule](row["num_frames"], Wanted(frames, clips, 64 // frames))
        assert flat(found) == row["indices"], row
        assert [len(clip) for clip in found] == [frames] * clips


def test_every_clip_that_mmaction2s_code_takes(parity: Callable[[str], Any]) -> None:
    """In 2-D networks its clips are single frames, so the frames of one clip here."""
    rows = parity("sampling_mmaction2")
    assert {row["clip_len"] > 1 for row in rows} == {row["twice_sample"] for row in rows} == {True, False}
    for row in rows:
        if row["clip_len"] == 1:
            found = RULES["uniform"](row["num_frames"], Wanted(row["num_clips"], 1 + row["twice_sample"]))
        else:
            wanted = Wanted(row["clip_len"], row["num_clips"], row["frame_interval"])
            found = RULES["spread"](row["num_frames"], wanted)
        assert flat(found) == row["indices"], row


@pytest.mark.parametrize(
    ("rule", "total", "wanted", "clips"),
    [
        pytest.param("uniform", 100, Wanted(8), [CENTRES], id="uniform"),
        pytest.param("uniform", 10, Wanted(8), [[0, 1, 3, 4, 5, 6, 8, 9]], id="uniform, short"),
        pytest.param("uniform", 5, Wanted(8), [[0, 0, 1, 2, 2, 3, 4, 4]], id="uniform, shorter than the clip"),
        pytest.param("uniform", 100, Wanted(8, 2), [CENTRES, STARTS], id="twice"),
        pytest.param("uniform", 100, Wanted(8, stack=5), [[6, 18, 30, 42, 54, 66, 78, 90]], id="MIT flow"),
        pytest.param("uniform", 4, Wanted(8, stack=5), [[0] * 8], id="MIT flow, shorter than a stack"),
        pytest.param("interleaved", 100, Wanted(16), [CENTRES + STARTS], id="two clips that are read as one"),
        pytest.param("dense", 40, Wanted(8, 10, 8), [[0, 8, 16, 24, 32, 0, 8, 16]] * 10, id="dense, short"),
        pytest.param("dense", 64, Wanted(8, 10, 8), [list(range(0, 64, 8))] * 10, id="dense, a window long"),
        pytest.param("dense", 1, Wanted(8, 10, 8), [[0] * 8] * 10, id="dense, one frame"),
        pytest.param("spread", 300, Wanted(32, 1, 2), [list(range(118, 182, 2))], id="one clip of a 3-D network"),
        pytest.param("spread", 3, Wanted(4, 1, 2), [[0, 2, 1, 0]], id="3-D, short"),
        pytest.param("uniform", 4, Wanted(25, stack=5), [[0] * 25], id="mmaction2 flow, shorter than a stack"),
        pytest.param("uniform", 5, Wanted(25, stack=5), [[0] * 25], id="mmaction2 flow, one stack"),
        pytest.param("windows", 64, Wanted(8, 2, 8), [list(range(0, 64, 9))] * 2, id="PyTorchVideo, a window long"),
        pytest.param("windows", 84, Wanted(8, 2, 8), [list(range(0, 64, 9)), list(range(10, 74, 9))], id="two windows"),
        pytest.param("windows", 40, Wanted(8, 1, 8), [[0, 5, 11, 16, 22, 27, 33, 39]], id="PyTorchVideo, short"),
        pytest.param("windows", 5, Wanted(1, 1, 8), [[0]], id="one frame of a window"),
        pytest.param("whole", 5, Wanted(300), [[0, 1, 2, 3, 4]], id="a video as it is"),
        pytest.param("whole", 10, Wanted(4), [[3, 4, 5, 6]], id="a video's middle"),
    ],
)
def test_clips_that_can_be_done_by_hand(rule: str, total: int, wanted: Wanted, clips: list[list[int]]) -> None:
    assert RULES[rule](total, wanted) == clips


@pytest.mark.parametrize(
    ("rule", "wanted", "starts"),
    [
        ("dense", Wanted(8, 10, 8), [0, 26, 52, 78, 104, 131, 157, 183, 209, 236]),
        ("spread", Wanted(32, 10, 2), [0, 26, 53, 79, 105, 132, 158, 184, 211, 237]),
    ],
)
def test_clips_begin_where_the_publisher_says(rule: str, wanted: Wanted, starts: list[int]) -> None:
    """Dense starts are truncated; those for 3-D networks are rounded, half to even."""
    clips = RULES[rule](300, wanted)
    assert [clip[0] for clip in clips] == starts
    assert [clip[-1] for clip in clips] == [start + wanted.stride * (wanted.frames - 1) for start in starts]


@pytest.mark.parametrize("stack", [1, 5])
def test_centres_are_rounded_as_mmaction2_rounds_them(stack: int) -> None:
    """0.x `SampleFrames` and main's for 2-D networks: the segments' starts, and half a segment added to them."""
    for frames in (3, 5, 6, 8, 16, 25):
        for total in range(stack, 600):
            tick = (total - stack + 1) / frames
            base = np.arange(frames) * tick
            twice = [(base + tick / 2.0).astype(int).tolist(), base.astype(int).tolist()]
            assert RULES["uniform"](total, Wanted(frames, 2, stack=stack)) == twice
            if stack > 1:
                assert RULES["uniform"](total, Wanted(frames, stack=stack)) == twice[:1], (total, frames)


@pytest.mark.parametrize(("frames", "stride", "clips"), [(8, 8, 10), (16, 4, 10), (4, 16, 3)])
def test_windows_are_those_of_pyslowfast(frames: int, stride: int, clips: int) -> None:
    """Its `get_start_end_idx` and `temporal_sampling`, of videos as long as a window or longer, in torch."""
    size = frames * stride
    for total in range(size, 700):
        found = RULES["windows"](total, Wanted(frames, clips, stride))
        for index, clip in enumerate(found):
            start = (total - size) * index / clips
            wanted = torch.linspace(start, start + size - 1, frames, dtype=torch.float64)
            assert clip == (wanted + 1e-9).clamp(0, total - 1).long().tolist(), (total, index)


@pytest.mark.parametrize(("rule", "most"), [("uniform", 2), ("interleaved", 1), ("whole", 1)])
def test_a_rule_gives_no_more_clips_than_it_has(rule: str, most: int) -> None:
    with pytest.raises(ValueError, match=f"{rule}.* {most} clips at most, not {most + 1}"):
        RULES[rule](100, Wanted(8, most + 1))


# --- what holds of every rule ----------------------------------------------------------------------------------------


@given(st.sampled_from(sorted(RULES)), totals, counts, st.integers(1, 12), st.integers(1, 16), st.sampled_from([1, 5]))
def test_every_rule_gives_clips_of_frames_that_are_there(
    rule: str, total: int, frames: int, clips: int, stride: int, stack: int
) -> None:
    most = {"uniform": 2, "interleaved": 1, "whole": 1}
    wanted = Wanted(frames, min(clips, most.get(rule, clips)), stride, stack)
    found = RULES[rule](total, wanted)
    length = min(frames, total) if rule == "whole" else frames
    assert [len(clip) for clip in found] == [length] * wanted.clips
    assert all(type(index) is int and 0 <= index < total for index in flat(found))
    assert RULES[rule](total, wanted) == found


@given(st.just("uniform"), st.integers(5, 5000), counts)
def test_a_stack_of_flow_ends_with_the_video(rule: str, total: int, frames: int) -> None:
    (clip,) = RULES[rule](total, Wanted(frames, stack=5))
    assert max(clip) + 5 <= total


@given(totals, st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_centres_and_starts_are_those_of_equal_segments(total: int, count: int) -> None:
    assert sampling.centres(total, count) == [(2 * index + 1) * total // (2 * count) for index in range(count)]
    assert sampling.starts(total, count) == [index * total // count for index in range(count)]


@given(totals, counts, st.integers(2, 12), st.integers(1, 16))
def test_dense_clips_reach_from_the_start_to_the_last_window(total: int, frames: int, clips: int, stride: int) -> None:
    found = RULES["dense"](total, Wanted(frames, clips, stride))
    begun = [clip[0] for clip in found]
    assert begun == sorted(begun)
    assert (begun[0], begun[-1]) == (0, max(0, total - 64))
    assert all(clip == [(clip[0] + stride * index) % total for index in range(frames)] for clip in found)


@given(totals, counts, st.integers(2, 12), st.integers(1, 16))
def test_clips_of_a_3d_network_reach_from_the_first_frame_to_the_last(
    total: int, frames: int, clips: int, stride: int
) -> None:
    found = RULES["spread"](total, Wanted(frames, clips, stride))
    length = (frames - 1) * stride + 1
    assert found[0][0] == 0
    assert found[-1][0] == max(total - length, 0)
    assert total < length or all(clip == list(range(clip[0], clip[0] + length, stride)) for clip in found)


# --- stacks of flow --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "total", "stack", "images"),
    [
        (3, 100, 5, [3, 4, 5, 6, 7]),
        (95, 100, 5, [95, 96, 97, 98, 99]),
        (97, 100, 5, [97, 98, 99, 99, 99]),
        (0, 1, 5, [0] * 5),
        (7, 100, 1, [7]),
    ],
)
def test_the_last_image_of_a_stack_is_repeated(index: int, total: int, stack: int, images: list[int]) -> None:
    assert sampling.stacked(index, total, stack) == images


# --- training --------------------------------------------------------------------------------------------------------


@given(totals, counts, st.integers(0, 2**32))
def test_a_frame_is_drawn_of_each_segment(total: int, count: int, seed: int) -> None:
    drawn = sampling.clip(total, count, None, np.random.default_rng(seed))
    assert drawn == sampling.clip(total, count, None, np.random.default_rng(seed))
    for index, frame in enumerate(drawn):
        assert 0 <= frame < total
        assert index * total // count <= frame <= (index + 1) * total / count


@given(totals, counts, st.integers(1, 16), st.integers(0, 2**32))
def test_a_dense_clip_is_drawn_anywhere_it_fits(total: int, count: int, stride: int, seed: int) -> None:
    drawn = sampling.clip(total, count, stride, np.random.default_rng(seed))
    assert drawn == [(drawn[0] + stride * index) % total for index in range(count)]
    assert drawn[0] <= max(0, total - 1 - stride * (count - 1))


def test_draws_differ() -> None:
    rng = np.random.default_rng(0)
    assert len({tuple(sampling.clip(300, 8, None, rng)) for _ in range(20)}) == 20
    assert len({sampling.clip(300, 8, 8, rng)[0] for _ in range(20)}) > 10
    assert {sampling.clip(58, 8, 8, rng)[0] for _ in range(50)} == {0, 1}
