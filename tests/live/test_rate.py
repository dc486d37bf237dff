"""Frames selected by rate, and clips sampled."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tsmzoo.data import sampling
from tsmzoo.live.pacing import FramePacer


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
