"""Resize and crop decoded pictures exactly as the publishers do.

A picture is (H, W, C) uint8: RGB, or x and y of optical flow. `pipeline` selects the publisher's rules:

    mit        Pillow bilinear, anti-aliased; the long side truncated (torchvision, ops/transforms.py)
    mmaction2  OpenCV bilinear, not anti-aliased; both sides rounded (mmcv, transforms/processing.py)
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from PIL import Image

from tsmzoo.errors import VideoError
from tsmzoo.registry.recipes import Crops
from tsmzoo.typing import Array

Pipeline = Literal["mit", "mmaction2"]

#: The most pixels of the long side of a resized picture.
_LONGEST = 2**14

cv2.setNumThreads(0)  # many processes run it already


def resized(picture: Array, short_side: int, pipeline: Pipeline) -> Array:
    """Return a picture resized to `short_side` pixels on its short side.

    Raises VideoError if it is so narrow that the result would take gigabytes.
    """
    height, width, channels = picture.shape
    if short_side * max(height, width) > _LONGEST * min(height, width):
        raise VideoError(f"a picture of {width}x{height} is too narrow to be resized; cut it first")
    scale = short_side / min(height, width)
    if pipeline == "mmaction2":
        size = (int(width * scale + 0.5), int(height * scale + 0.5))
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR))
    size = (int(short_side * width / min(height, width)), int(short_side * height / min(height, width)))
    if channels == 3:
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    planes = (Image.fromarray(np.ascontiguousarray(picture[..., channel])) for channel in range(channels))
    return np.stack([np.asarray(plane.resize(size, Image.Resampling.BILINEAR)) for plane in planes], axis=-1)


def corners(height: int, width: int, size: int, crops: Crops, pipeline: Pipeline) -> list[tuple[int, int]]:
    """Return top and left of each square of `size` pixels, in the publisher's order.

    Steps are quarters rounded down, so that a right corner may lie 3 pixels short of the edge.
    """
    down, right = height - size, width - size
    if crops == 1:
        return [(round(down / 2), round(right / 2))] if pipeline == "mit" else [(down // 2, right // 2)]
    if crops == 3 and pipeline == "mmaction2":
        if right >= down:
            return [(down // 2, left) for left in (0, right // 2 * 2, right // 2)]
        return [(top, right // 2) for top in (0, down // 2 * 2, down // 2)]
    b, a = down // 4, right // 4
    if crops == 3:  # left, right, centre: also of a portrait video, where all three are the same
        return [(2 * b, 0), (2 * b, 4 * a), (2 * b, 2 * a)]
    return [(0, 0), (0, 4 * a), (4 * b, 0), (4 * b, 4 * a), (2 * b, 2 * a)]


def crop(picture: Array, size: int, crops: Crops, pipeline: Pipeline) -> list[Array]:
    """Return the crops of a resized picture, each (`size`, `size`, C); of ten, each is followed by its mirror image."""
    squares = [
        picture[top : top + size, left : left + size]
        for top, left in corners(picture.shape[0], picture.shape[1], size, crops, pipeline)
    ]
    if crops != 10:
        return squares
    return [view for square in squares for view in (square, _mirrored(square, pipeline))]


def _mirrored(square: Array, pipeline: Pipeline) -> Array:
    mirrored = square[:, ::-1]
    if square.shape[2] == 2 and pipeline == "mit":
        # Motion to the right becomes motion to the left; mmaction2's TenCrop leaves the values as they are.
        mirrored = np.stack([255 - mirrored[..., 0], mirrored[..., 1]], axis=-1)
    return mirrored


def prepared(image: Image.Image, short_side: int, size: int) -> Array:
    """Return MIT's center crop of an RGB image, (C, H, W) uint8."""
    (square,) = crop(resized(np.asarray(image), short_side, "mit"), size, 1, "mit")
    return square.transpose(2, 0, 1)
