"""Detect scene changes by small gray pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tsmzoo.typing import Array

#: Difference from which two pictures belong to two scenes. Measured between frames of a stream (4 a second): 0.17 % of
#: pairs within drawn scenes reach it, and none within filmed ones, a shaken camera's included; of cuts, 78 and 89 %.
CUT = 0.4
#: Points a side that pictures are compared at, levels of their histograms, and by how much of 255 a point has changed.
_POINTS, _LEVELS, _CHANGED = 32, 16, 25.5


def thumbnail(image: Image.Image) -> Array:
    """Return a small gray picture, 32 x 32, 0…255, float32, by which scenes are told apart."""
    small = image.convert("L").resize((_POINTS, _POINTS), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def difference(one: Array, other: Array) -> float:
    """Return how far two thumbnails differ, 0…1: the mean, by product, of two shares.

    The first is the share of points that changed: a camera that pans changes many, too. The second is the share of the
    histogram that moved: a thing that comes near moves it, too. A cut does both.
    """
    changed = float((np.abs(one - other) > _CHANGED).mean())
    counts = [np.histogram(points, _LEVELS, (0, 256))[0] / points.size for points in (one, other)]
    return float(np.sqrt(changed * np.abs(counts[0] - counts[1]).sum() / 2))
