"""Turn decoded pictures upright, as their display matrix says."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type as SideDataType
from PIL import Image

#: Kinds of side data that FFmpeg may have.
_KINDS = 48

#: Parts of a display matrix that turn and mirror, a, b, c, d, in 1/65536.
_Matrix = tuple[int, int, int, int]
_AS_IT_LIES: _Matrix = (1, 0, 0, 1)


# --- upright ---------------------------------------------------------------------------------------------------------


def as_image(frame: av.VideoFrame) -> Image.Image:
    return Image.fromarray(frame.to_ndarray(format="rgb24"))


def upright(frame: av.VideoFrame, matrix: _Matrix) -> Image.Image:
    """Return a frame in RGB as a player shows it: turned and mirrored as cameras record beside the pixels."""
    image = as_image(frame)
    a, b, c, d = matrix
    # x, y of a pixel is shown at a x + c y, b x + d y. Of what is no quarter turn the nearest is taken.
    across = abs(b) + abs(c) > abs(a) + abs(d)
    left, up = (c < 0, b < 0) if across else (a < 0, d < 0)
    if not (across or left or up):
        return image
    pixels = np.asarray(image)
    if across:
        pixels = pixels.transpose(1, 0, 2)
    return Image.fromarray(np.ascontiguousarray(pixels[:: -1 if up else 1, :: -1 if left else 1]))


class Orientations:
    """Tells how each frame lies; ask of all that are decoded, in order.

    What a stream itself says (SEI) stands on one frame and holds till the next key frame.
    """

    def __init__(self) -> None:
        self._last: _Matrix = _AS_IT_LIES

    def of(self, frame: av.VideoFrame) -> _Matrix:
        try:
            found = _display_matrix(frame)
        except ValueError:  # PyAV does not know each kind of side data, such as EXIF
            found = _display_matrix(_known(frame))
        if found is not None:
            a, b, _, c, d = struct.unpack_from("=5i", found)
            self._last = a, b, c, d
        elif frame.key_frame:
            self._last = _AS_IT_LIES
        return self._last


def _display_matrix(frame: av.VideoFrame) -> bytes | None:
    every = cast("Iterable[Any]", frame.side_data)  # not a mapping of names to texts, as PyAV's stubs have it
    return next((bytes(data) for data in every if data.type.name == "DISPLAYMATRIX"), None)


def _known(frame: av.VideoFrame) -> av.VideoFrame:
    """Return a frame without the side data that PyAV does not know."""
    known = {kind.value for kind in cast("Iterable[Any]", SideDataType)}
    graph = Graph()
    last = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    for kind in set(range(_KINDS)) - known:
        step = graph.add("sidedata", f"mode=delete:type={kind}")
        last.link_to(step)
        last = step
    last.link_to(graph.add("buffersink"))
    graph.configure()
    graph.push(frame)
    return cast("av.VideoFrame", graph.pull())
