"""Frame sampling: pure functions from the number of frames of a video to the 0-based indices of its clips."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

#: Frames that a dense clip spans (Non-local Neural Networks, § 4): its stride is 1/T of it.
DENSE_WINDOW = 64


def centres(total: int, count: int) -> list[int]:
    """Return the centres of `count` equal segments (mit-han-lab/temporal-shift-module:ops/dataset.py, testing)."""
    tick = total / count
    return [int(tick / 2 + tick * index) for index in range(count)]


def starts(total: int, count: int) -> list[int]:
    """Return the first frames of `count` equal segments (the second clip of MIT's and mmaction2's twice-sample)."""
    tick = total / count
    return [int(tick * index) for index in range(count)]


def jittered(total: int, count: int, rng: Generator) -> list[int]:
    """Return a random frame of each of `count` equal segments (TSN, § 3.1: training)."""
    return [min(int((index + share) * total / count), total - 1) for index, share in enumerate(rng.random(count))]


def window(total: int, count: int, stride: int, rng: Generator | None = None) -> list[int]:
    """Return every `stride`th frame of a window in the middle, or with `rng` at a random place (dense sampling).

    If the video is too short, the window continues from its start.
    """
    room = max(0, total - ((count - 1) * stride + 1))
    start = room // 2 if rng is None else int(rng.integers(0, room + 1))
    return _from(start, total, count, stride)


def clip(total: int, count: int, stride: int | None, rng: Generator | None = None) -> list[int]:
    """Return the frames of one clip for training (with `rng`) or use: dense with a `stride`, else of segments."""
    if stride is not None:
        return window(total, count, stride, rng)
    return centres(total, count) if rng is None else jittered(total, count, rng)


# --- the clips of a protocol ---------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """The clips that a protocol takes."""

    frames: int
    clips: int = 1
    #: Frames from one to the next, in rules that have it.
    stride: int = 1
    #: What the network sees at each index: 1 frame, or so many flow images in a row.
    stack: int = 1


def uniform(total: int, want: Wanted) -> list[list[int]]:
    """Return the segments' centres, and as a second clip the segments' starts.

    MIT's rule (ops/dataset.py, `_get_test_indices`), flow stacks included; mmaction2's for 2-D networks is the same.
    """
    _at_most(want.clips, 2, "uniform")
    room = max(total - want.stack + 1, 0)
    return [rule(room, want.frames) for rule in (centres, starts)[: want.clips]]


def interleaved(total: int, want: Wanted) -> list[list[int]]:
    """Return one clip of half as many centres, and then starts: mmaction2's 16-frame SthV2 recipe, as it is coded."""
    _at_most(want.clips, 1, "interleaved")
    half = want.frames // 2
    return [(centres(total, half) if half else []) + starts(total, want.frames - half)]


def dense(total: int, want: Wanted) -> list[list[int]]:
    """Return clips of every `stride`th frame, their starts evenly spaced where 64 frames have room.

    MIT's dense rule (ops/dataset.py) and mmaction2's `DenseSampleFrames`; a short video goes on from its start.
    """
    last = max(0, total - DENSE_WINDOW)
    begun = np.linspace(0, last, want.clips, dtype=int).tolist()
    return [_from(start, total, want.frames, want.stride) for start in begun]


def spread(total: int, want: Wanted) -> list[list[int]]:
    """Return clips of every `stride`th frame, spread from the video's start to its end; a single clip is centered.

    mmaction2's `SampleFrames` for 3-D networks (main branch), which rounds half to even.
    """
    room = max(total - ((want.frames - 1) * want.stride + 1), 0)
    begun = [room // 2]
    if want.clips > 1:
        begun = np.round(np.arange(want.clips) * (room / (want.clips - 1))).astype(int).tolist()
    return [_from(start, total, want.frames, want.stride) for start in begun]


def windows(total: int, want: Wanted) -> list[list[int]]:
    """Return clips of frames from the first to the last of a window of `frames` x `stride`.

    PySlowFast's rule (slowfast/datasets/decoder.py), with which PyTorchVideo's figures were measured: the room is cut
    into equal parts, at whose starts the windows begin. A shorter video is the window itself, as in PyTorchVideo.
    """
    length, steps = min(total, want.frames * want.stride), max(1, want.frames - 1)
    room, reach = (total - length) * steps, (length - 1) * want.clips
    return [
        [(index * room + step * reach) // (want.clips * steps) for step in range(want.frames)]
        for index in range(want.clips)
    ]


def whole(total: int, want: Wanted) -> list[list[int]]:
    """Return one clip of all frames, or of the `frames` in the middle of a longer video."""
    _at_most(want.clips, 1, "whole")
    return [window(total, min(total, want.frames), 1)]


#: Sampling rules by their names in protocols.
RULES: dict[str, Callable[[int, Wanted], list[list[int]]]] = {
    "uniform": uniform,
    "interleaved": interleaved,
    "dense": dense,
    "spread": spread,
    "windows": windows,
    "whole": whole,
}


def _from(start: int, total: int, count: int, stride: int) -> list[int]:
    return [(start + stride * index) % total for index in range(count)]


def _at_most(clips: int, most: int, rule: str) -> None:
    if clips > most:
        raise ValueError(f"sampling `{rule}` gives {most} clips at most, not {clips}")


def stacked(index: int, total: int, stack: int) -> list[int]:
    """Return the `stack` flow images from `index` on, repeating the last one at the end (MIT, ops/dataset.py)."""
    return [min(index + step, total - 1) for step in range(stack)]
