"""Turn decoded frames upright, as their display matrix says."""

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

#: The most kinds of side data that FFmpeg has.
_KINDS = 48

#: The entries a, b, c, d of a display matrix, in 1/65536: rotation and mirroring.
_Matrix = tuple[int, int, int, int]
_AS_IT_LIES: _Matrix = (1, 0, 0, 1)


# --- upright ---------------------------------------------------------------------------------------------------------


def as_image(frame: av.VideoFrame) -> Image.Image:
    return Image.fromarray(frame.to_ndarray(format="rgb24"))


def upright(frame: av.VideoFrame, matrix: _Matrix) -> Image.Image:
    """Return a frame as an RGB image, rotated and mirrored as a player shows it."""
    image = as_image(frame)
    a, b, c, d = matrix
    # A pixel at x, y is shown at a x + c y, b x + d y. Other angles are rounded to the nearest quarter turn.
    across = abs(b) + abs(c) > abs(a) + abs(d)
    left, up = (c < 0, b < 0) if across else (a < 0, d < 0)
    if not (across or left or up):
        return image
    pixels = np.asarray(image)
    if across:
        pixels = pixels.transpose(1, 0, 2)
    return Image.fromarray(np.ascontiguousarray(pixels[:: -1 if up else 1, :: -1 if left else 1]))


class Orientations:
    """Returns the display matrix of each frame; call it for all decoded frames, in order.

    The matrix in the stream itself (SEI) is on one frame and holds until the next key frame.
    """

    def __init__(self) -> None:
        self._last: _Matrix = _AS_IT_LIES

    def of(self, frame: av.VideoFrame) -> _Matrix:
        try:
            found = _display_matrix(frame)
        except ValueError:  # PyAV does not know every kind of side data, for instance EXIF
            found = _display_matrix(_known(frame))
        if found is not None:
            a, b, _, c, d = struct.unpack_from("=5i", found)
            self._last = a, b, c, d
        elif frame.key_frame:
            self._last = _AS_IT_LIES
        return self._last


def _display_matrix(frame: av.VideoFrame) -> bytes | None:
    every = cast("Iterable[Any]", frame.side_data)  # PyAV's stubs wrongly say a mapping of names to texts
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
