"""Decoding and preparing videos, as the publishers do: short side resized with Pillow, centre crop."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
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
        yield time, _image(frame)


def _frames(path: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    if not os.path.isfile(path):  # Path.is_file raises where the name is too long
        raise VideoError(f"{path}: is no file; give a video")
    given = 0
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: is empty; give a video")
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
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if not given:
        raise VideoError(f"{path}: holds no frame; give a video")


def _image(frame: av.VideoFrame) -> Image.Image:
    """Return a frame in RGB, upright: the rotation that phones record beside the pixels is undone."""
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    return image.rotate(frame.rotation, expand=True) if frame.rotation % 360 else image


def read(path: Path, resize: int) -> Array:
    """Return all frames of a video, their short side at `resize`: T, H, W, 3, uint8."""
    return np.stack([np.asarray(resized(image, resize)) for _, image in decode(path)])


def encode(path: Path, frames: Array, fps: int) -> None:
    """Write `frames`, T, H, W, 3, uint8, H and W even, as Motion JPEG.

    Each frame is coded by itself at one quality, so nothing in the file, not even its size, depends on
    the order of the frames.
    """
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("mjpeg", rate=fps, options={"qmin": "3", "qmax": "3"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def resized(image: Image.Image, resize: int) -> Image.Image:
    """Return `image` with its short side at `resize`, bilinear with anti-aliasing, the long side truncated."""
    width, height = image.size
    short = min(width, height)
    return image.resize((int(resize * width / short), int(resize * height / short)), Image.Resampling.BILINEAR)


def centre(pixels: Array, size: int) -> Array:
    """Return the middle `size` x `size` of pictures, …, H, W, 3; the offset is rounded."""
    top, left = (round((side - size) / 2) for side in pixels.shape[-3:-1])
    return pixels[..., top : top + size, left : left + size, :]


def prepare(image: Image.Image, resize: int, size: int) -> Array:
    """Return the centre `size` x `size` of `image` with its short side at `resize`: C, H, W, uint8.

    These are torchvision's rules, which MIT's pipeline uses (mit-han-lab/temporal-shift-module:ops/transforms.py).
    """
    return centre(np.asarray(resized(image, resize)), size).transpose(2, 0, 1)


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


def pick(path: Path, choose: Callable[[int], Sequence[int]]) -> list[tuple[float, Image.Image]]:
    """Return the frames of a video whose indices `choose` gives, told their number.

    The video is decoded twice, first to count its frames: containers' own counts are not to be trusted.
    """
    wanted = choose(sum(1 for _ in _frames(path)))
    needed, frames = set(wanted), itertools.islice(_frames(path), max(wanted) + 1)
    chosen = {index: (time, _image(frame)) for index, (time, frame) in enumerate(frames) if index in needed}
    return [chosen[index] for index in wanted]
