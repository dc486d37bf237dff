"""Frame sources for `run`: a video file, a folder of images, a camera, an address."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from PIL import Image

from tsmzoo.callbacks import Notify, silent
from tsmzoo.data import address, decode, images, seek
from tsmzoo.data.timing import DEFAULT_RATE
from tsmzoo.errors import VideoError
from tsmzoo.live.network_source import NetworkSource
from tsmzoo.typing import Array

_CAMERA = re.compile(r"(?:/dev/video)?(\d{1,3})")


@dataclass(frozen=True)
class Frame:
    """A frame; it is decoded when `image` is called, since most are skipped."""

    #: Seconds from the source's start.
    time: float
    image: Callable[[], Image.Image]


@dataclass(frozen=True)
class FrameSource:
    """A source of frames."""

    name: str
    #: Nominal frames a second.
    rate: Fraction
    #: Yields the frames, from the first, each time it is called. Raises VideoError.
    frames: Callable[[], Iterator[Frame]]
    #: Returns the frames whose indices a function selects, given their number; None for a source without an end.
    pick: Callable[[Callable[[int], Iterable[int]]], seek.SelectedFrames] | None


def open_source(
    name: str,
    fps: float | None = None,
    step: float | None = None,
    *,
    template: str | None = None,
    notify: Notify = silent,
) -> FrameSource:
    """Return the source called `name`: a video, a folder of images, a camera's number, or an address.

    A file or folder of that name takes precedence. A folder has `fps` images a second; by default `step`, the rate of
    the model, so that it sees each. `template` names its images. Raises VideoError if there is no such source.
    """
    path = Path(name)
    if os.path.isdir(path):  # Path.is_dir raises where the name is too long
        files = [file for file, *_ in images.sequence(path, template)]
        rate = Fraction(fps or step or DEFAULT_RATE).limit_denominator(1001)
        return FrameSource(name, rate, lambda: _from_images(files, rate), partial(_pick_images, files, rate))
    there = os.path.isfile(path)
    place = None if there else address.parse(name)
    for option, value in (("--fps", fps), ("--images", template)):
        if value is not None:
            raise VideoError(f"{place or name}: is no folder of images, and has its own; leave out {option}")
    if place is not None:
        return _at(place, notify)
    if (camera := _CAMERA.fullmatch(name)) and not there:
        return FrameSource(f"camera {int(camera[1])}", DEFAULT_RATE, lambda: _from_camera(int(camera[1])), None)
    rate = decode.rate(path) or DEFAULT_RATE
    return FrameSource(name, rate, lambda: _from_video(path, notify), partial(seek.pick, path))


def _at(place: address.NetworkAddress, notify: Callable[[str], None]) -> FrameSource:
    live = NetworkSource(place, notify)
    if live.endless:
        return FrameSource(str(place), live.rate, lambda: (Frame(*item) for item in live.frames()), None)
    live.close()
    return FrameSource(str(place), live.rate, lambda: _from_video(place, notify), partial(seek.pick, place))


def _from_video(place: decode.Place, notify: Callable[[str], None]) -> Iterator[Frame]:
    return (Frame(*frame) for frame in decode.decode_lazily(place, notify))


def _from_images(files: list[Path], rate: Fraction) -> Iterator[Frame]:
    return (Frame(float(number / rate), partial(images.open_upright, path)) for number, path in enumerate(files))


def _pick_images(files: list[Path], rate: Fraction, choose: Callable[[int], Iterable[int]]) -> seek.SelectedFrames:
    wanted = set(choose(len(files)))
    pictures = {index: images.open_upright(files[index]) for index in wanted}
    return seek.SelectedFrames(len(files), pictures, {index: float(index / rate) for index in wanted})


def _from_camera(number: int) -> Iterator[Frame]:
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it reports every driver that it tries
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise VideoError(f"camera {number}: is not there, or in use; try another number, or give a video")
        # A model slower than the camera must see what is there now, not what has waited.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        begun, passed = time.monotonic(), None
        while True:
            there, pixels = capture.read()
            if not there:
                seen = "gives no picture" if passed is None else f"went away after {passed:.1f} s"
                raise VideoError(f"camera {number}: {seen}; check its cable, and that no other program uses it")
            passed = time.monotonic() - begun
            yield Frame(passed, partial(_from_bgr, pixels))
    finally:
        capture.release()


def _from_bgr(pixels: Array) -> Image.Image:
    return Image.fromarray(pixels[..., ::-1])
