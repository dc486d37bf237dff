"""Which frames of a video make a clip: pure functions from its number of frames to indices."""

from __future__ import annotations

from numpy.random import Generator


def centres(total: int, count: int) -> list[int]:
    """Return the centres of `count` equal segments (mit-han-lab/temporal-shift-module:ops/dataset.py, testing)."""
    tick = total / count
    return [int(tick / 2 + tick * index) for index in range(count)]


def jittered(total: int, count: int, rng: Generator) -> list[int]:
    """Return a frame of each of `count` equal segments, anywhere in it (TSN, § 3.1: training)."""
    return [min(int((index + share) * total / count), total - 1) for index, share in enumerate(rng.random(count))]


def window(total: int, count: int, stride: int, rng: Generator | None = None) -> list[int]:
    """Return every `stride`th frame of a window in the middle, or with `rng` anywhere (dense sampling).

    Where the video is too short the window goes on from its start.
    """
    room = max(0, total - stride * count)
    start = room // 2 if rng is None else int(rng.integers(0, room + 1))
    return [(start + stride * index) % total for index in range(count)]


def clip(total: int, count: int, stride: int | None, rng: Generator | None = None) -> list[int]:
    """Return the frames of one clip as a model is trained (`rng`) or used: dense with a stride, else of segments."""
    if stride is not None:
        return window(total, count, stride, rng)
    return centres(total, count) if rng is None else jittered(total, count, rng)
