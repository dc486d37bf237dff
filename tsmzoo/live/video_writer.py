"""Write a video with the answers of a model on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from tsmzoo.errors import VideoError
from tsmzoo.system import files

if TYPE_CHECKING:
    import av

    from tsmzoo.live.answer import Answer

#: Codecs, best first: H.264 plays everywhere, but not every build of FFmpeg writes it.
_CODECS = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qmin": "3", "qmax": "5"}}
#: Ticks a second of the time base; MPEG-4 takes no more.
_TICKS = 60_000


def check(path: Path, source: str) -> None:
    """Raise VideoError if no video can be written to `path`."""
    if path.suffix.lower() != ".mp4":
        raise VideoError(f"{path}: is written as MP4; give a name that ends in .mp4")
    if os.path.exists(path) and (not path.is_file() or (os.path.exists(source) and path.samefile(source))):
        raise VideoError(f"{path}: is no file, or the video itself; give another name")
    if not os.access(path.parent, os.W_OK):
        raise VideoError(f"{path}: its folder does not exist or cannot be written; make it first")


class Writer:
    """Writes the frames of a source at their times, each with the latest answer on it.

    They go to `part`, which is renamed to `path` at the end.
    """

    def __init__(self, path: Path, part: Path, rate: Fraction) -> None:
        self._path, self._part, self._rate = path, part, rate
        self._failed = False
        self._open: tuple[av.container.OutputContainer, av.VideoStream] | None = None
        self._begun, self._last = 0.0, -1

    def write(self, seconds: float, image: Image.Image, answer: Answer | None) -> None:
        """Add a frame. Raises VideoError."""
        import av

        with self._told():
            if self._open is None:
                self._open, self._begun = _opened(self._part, self._rate, image.size), seconds
            container, stream = self._open
            size = (stream.width, stream.height)
            if image.size != size:  # the images of a folder may differ; an odd side loses a pixel
                near = max(abs(side - other) for side, other in zip(image.size, size, strict=True)) < 2
                image = image.crop((0, 0, *size)) if near else ImageOps.pad(image, size)
            frame = av.VideoFrame.from_ndarray(np.asarray(_written_on(image, answer)), "rgb24")
            # If time jumps back, as in files that were joined, it goes on from there.
            self._last = max(round((seconds - self._begun) * _TICKS), self._last + 1)
            frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
            container.mux(stream.encode(frame))

    def close(self) -> None:
        """Write the last frames and rename the file, if there is any frame. Raises VideoError."""
        if self._open is None:
            return
        container, stream = self._open
        with self._told():
            with container:
                if not self._failed:  # if it failed, frames are missing in the middle
                    container.mux(stream.encode())
            if not self._failed:
                files.sync(self._part)
                files.supplant(self._part, self._path)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn errors of FFmpeg and of the disk into one line."""
        import av

        try:
            yield
        except (OSError, av.error.FFmpegError) as error:
            self._failed = True
            raise VideoError(f"{self._path}: cannot be written ({error.strerror}); give another --save") from None


def _opened(path: Path, rate: Fraction, size: tuple[int, int]) -> tuple[av.container.OutputContainer, av.VideoStream]:
    import av

    codec = next(codec for codec in _CODECS if codec in av.codecs_available)
    container = av.open(str(path), "w", format="mp4")
    stream = cast("av.VideoStream", container.add_stream(codec, rate=rate, options=_CODECS[codec]))
    stream.width, stream.height = (max(2, side // 2 * 2) for side in size)
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, _TICKS)
    return container, stream


@contextmanager
def writer(path: Path, rate: Fraction) -> Iterator[Writer]:
    """Give a writer of the video at `path`.

    If the block ends early, by an error or Ctrl-C, what was written is kept.
    """
    path = Path(os.path.realpath(path))  # the target of a link
    with files.beside(path) as part:
        made = Writer(path, part, rate)
        try:
            yield made
        finally:
            made.close()


def _written_on(image: Image.Image, answer: Answer | None) -> Image.Image:
    """Return an image with label, probability and speed on a dark bar at the bottom."""
    width, height = image.size
    size = max(9, height // 16)
    bar = round(1.7 * size)
    image = image.convert("RGB")
    dark = Image.eval(image.crop((0, height - bar, width, height)), lambda value: value // 4)
    image.paste(dark, (0, height - bar))
    draw = ImageDraw.Draw(image)
    label, fps = texts(answer)
    middle, margin = height - bar // 2, size // 2
    room = width - 3 * margin - draw.textlength(fps, _font(size))
    while size > 6 and draw.textlength(label, _font(size)) > room:
        size -= 1
    draw.text((margin, middle), label, "white", _font(size), anchor="lm")
    draw.text((width - margin, middle), fps, "lightgrey", _font(max(9, height // 16)), anchor="rm")
    return image


def texts(answer: Answer | None) -> tuple[str, str]:
    """Return the texts of an answer, left and right."""
    return answer.text if answer else "no decision", f"{answer.fps:.1f} fps" if answer and answer.fps else ""


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
