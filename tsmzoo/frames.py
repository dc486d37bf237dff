"""Frames as they come, of whatever `run` is pointed at: a video file, a folder of images, a camera."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from PIL import Image, ImageOps

from tsmzoo import video
from tsmzoo.artifact import Array
from tsmzoo.dataset import NUMBERED
from tsmzoo.errors import VideoError

_IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
_CAMERA = re.compile(r"(?:/dev/video)?(\d{1,3})")
#: Frames a second of a source that does not say.
_USUAL = Fraction(30)


@dataclass(frozen=True)
class Frame:
    """One picture; it is decoded where it is asked for, since most are skipped."""

    #: Seconds from the source's start.
    time: float
    image: Callable[[], Image.Image]


@dataclass(frozen=True)
class Source:
    """Where frames come from."""

    name: str
    #: Frames a second that it says it has.
    rate: Fraction
    #: Begins anew each time it is called. Raises VideoError.
    frames: Callable[[], Iterator[Frame]]
    #: Returns the frames whose indices a function gives, told their number; None of a source without an end.
    pick: Callable[[Callable[[int], Iterable[int]]], video.Chosen] | None


def source(name: str, fps: float | None = None, step: float | None = None) -> Source:
    """Return the source called `name`: a video, a folder of images, or a camera's number.

    A file or folder of that name comes first. A folder has `fps` images a second, or those of a model's `step`s, so
    that each is one. Raises VideoError where there is none.
    """
    path = Path(name)
    if os.path.isdir(path):  # Path.is_dir raises where the name is too long
        files = _images(path)
        rate = Fraction(fps or step or _USUAL).limit_denominator(1001)
        return Source(name, rate, lambda: _from_images(files, rate), partial(_pick_images, files, rate))
    if fps is not None:
        raise VideoError(f"{name}: is no folder of images, and has a rate of its own; leave out --fps")
    if (camera := _CAMERA.fullmatch(name)) and not os.path.isfile(path):
        return Source(f"camera {int(camera[1])}", _USUAL, lambda: _from_camera(int(camera[1])), None)
    rate = video.rate(path) or _USUAL
    return Source(name, rate, lambda: (Frame(*frame) for frame in video.decode_lazily(path)), partial(video.pick, path))


def _images(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in _IMAGES and not path.name.startswith(".")]
    except OSError as error:
        raise VideoError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from None
    if not found:
        raise VideoError(f"{folder}: holds no images; put some there, or give a video")
    return sorted(found, key=_place)


def _place(path: Path) -> tuple[str, int, str]:
    """Return what orders images: the number at the end of a name as a number, 9 before 10."""
    match = NUMBERED.fullmatch(path.name)
    return (match[1], int(match[2]), path.name) if match else (path.stem, -1, path.name)


def _from_images(files: list[Path], rate: Fraction) -> Iterator[Frame]:
    return (Frame(float(number / rate), partial(_opened, path)) for number, path in enumerate(files))


def _pick_images(files: list[Path], rate: Fraction, choose: Callable[[int], Iterable[int]]) -> video.Chosen:
    wanted = set(choose(len(files)))
    images = {index: _opened(files[index]) for index in wanted}
    return video.Chosen(len(files), images, {index: float(index / rate) for index in wanted})


def _opened(path: Path) -> Image.Image:
    """Return an image in RGB, upright: the turn that cameras record beside the pixels is undone."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow says of bad files
        raise VideoError(f"{path}: cannot be decoded ({error}); delete it, or give other images") from None


def _from_camera(number: int) -> Iterator[Frame]:
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it tells of every driver that it tries
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
