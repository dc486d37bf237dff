"""Detect scene changes by small gray pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tsmzoo.typing import Array

# --- scenes ----------------------------------------------------------------------------------------------------------

#: Difference at which two pictures are of two scenes. Measured between frames of a stream: 0.17 % of pairs within drawn
#: scenes reach it (4 frames a second), and none within filmed ones, a shaken camera's included; of cuts, 78 and 89 %.
CUT = 0.4
#: Points a side that pictures are compared at, levels of their histograms, and by how much of 255 a point has changed.
_POINTS, _LEVELS, _CHANGED = 32, 16, 25.5


def thumbnail(image: Image.Image) -> Array:
    """Return the few grey points that tell scenes apart."""
    small = image.convert("L").resize((_POINTS, _POINTS), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def difference(one: Array, other: Array) -> float:
    """Return how far two thumbnails differ, 0…1: the mean, by product, of two shares.

    Of points that changed: a camera that pans changes many, too. And of the histogram that moved: a thing that comes
    near moves it, too. A cut does both.
    """
    changed = float((np.abs(one - other) > _CHANGED).mean())
    counts = [np.histogram(points, _LEVELS, (0, 256))[0] / points.size for points in (one, other)]
    return float(np.sqrt(changed * np.abs(counts[0] - counts[1]).sum() / 2))
