"""Decoding and preparing videos, as the publishers do: short side resized with Pillow, centre crop."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tsmzoo.artifact import Array
from tsmzoo.errors import VideoError

#: Seconds by which a frame's time may be early: containers round to a millisecond.
_CLOCK_SLACK = 2e-3


def resize_for(size: int) -> int:
    """Return the short side that a video is resized to before a crop of `size`: 256 for 224, as both publishers do."""
    return round(size * 256 / 224)


def decode(path: Path) -> Iterator[tuple[float, Image.Image]]:
    """Yield (time in seconds, RGB image) of each frame, upright.

    A file that breaks off ends early. Raises VideoError where it gives no frame at all.
    """
    for time, frame in _frames(path):
        yield time, _upright(Image.fromarray(frame.to_ndarray(format="rgb24")), frame.rotation)


def _frames(path: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    if not os.path.isfile(path):  # Path.is_file raises where the name is too long
        raise VideoError(f"{path}: is no file; give a video")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: is empty; give a video")
    given = 0
    try:
        # The bytes are read here and no protocol is open to FFmpeg: a playlist must not lead to other files or hosts.
        with path.open("rb") as file, av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
            if not container.streams.video:
                raise VideoError(f"{path}: has no video stream; give a video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                yield frame.time if frame.time is not None else given / float(stream.average_rate or 30), frame
                given += 1
    except av.error.FFmpegError as error:
        if not given:
            raise VideoError(f"{path}: cannot be decoded ({error.strerror}); give a video") from None
    if not given:
        raise VideoError(f"{path}: holds no frame; give a video")


def _upright(image: Image.Image, degrees: int) -> Image.Image:
    """Undo the rotation that phones record beside the pixels."""
    return image.rotate(degrees, expand=True) if degrees % 360 else image


def prepare(image: Image.Image, resize: int, size: int) -> Array:
    """Return the centre `size` x `size` of `image` with its short side at `resize`: C, H, W, uint8.

    Bilinear with anti-aliasing, the long side truncated, the offset rounded: torchvision's rules, which
    MIT's pipeline uses (mit-han-lab/temporal-shift-module:ops/transforms.py).
    """
    width, height = image.size
    short = min(width, height)
    resized = image.resize((int(resize * width / short), int(resize * height / short)), Image.Resampling.BILINEAR)
    left, top = round((resized.width - size) / 2), round((resized.height - size) / 2)
    cropped = resized.crop((left, top, left + size, top + size))
    return np.asarray(cropped).transpose(2, 0, 1)


def first(path: Path, size: int, most: int = 64) -> Array:
    """Return the first `most` frames of a video, prepared for a model of `size`: S, C, H, W, uint8."""
    return np.stack([prepare(image, resize_for(size), size) for _, image in itertools.islice(decode(path), most)])


def at_rate(frames: Iterator[tuple[float, Image.Image]], fps: float | None) -> Iterator[tuple[float, Image.Image]]:
    """Yield the frames that a stream of `fps` frames a second would have seen; all of them without `fps`."""
    due = -math.inf
    for time, image in frames:
        if fps is None:
            yield time, image
        elif time >= due - _CLOCK_SLACK:
            yield time, image
            # The clock keeps its beat, whatever the frames' own; after a gap it starts anew.
            due = (due if time < due + 1 / fps else time) + 1 / fps


def sample(path: Path, count: int, stride: int | None) -> list[tuple[float, Image.Image]]:
    """Return `count` frames of a video, as a model was trained to see it.

    Without `stride` they are the centres of as many equal segments (MIT's uniform sampling), with it every
    `stride`th frame of a window in the middle, from the start again where the video is too short (dense).
    The video is decoded twice, first to count its frames: containers' own counts are not to be trusted.
    """
    total = sum(1 for _ in _frames(path))
    if stride is None:
        tick = total / count
        wanted = [int(tick / 2 + tick * index) for index in range(count)]
    else:
        start = max(0, (total - stride * count) // 2)
        wanted = [(start + stride * index) % total for index in range(count)]
    chosen = {index: frame for index, frame in enumerate(decode(path)) if index in set(wanted)}
    return [chosen[index] for index in wanted]
