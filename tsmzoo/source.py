"""Pictures of a listed video, whatever it lies there as: a video file, or a folder of images or of optical flow."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from tsmzoo import video, views
from tsmzoo.artifact import Array
from tsmzoo.dataset import NUMBERED, Video
from tsmzoo.errors import VideoError

#: One component of flow, before the number: `flow_x_`, `x_`, `000012-x_`.
_COMPONENT = re.compile(r"(?:^|[_-])([xyuv])_?$")


def pick(
    listed: Video, choose: Callable[[int], Iterable[int]], *, flow: bool = False, threads: int = 0
) -> tuple[int, dict[int, Array]]:
    """Return the number of pictures of a video, and by index those that `choose` gives, told that number.

    A picture is H, W, C, uint8: RGB, or x and y of the `flow`. Raises VideoError where it is not there, gives no
    picture, or holds fewer images than its list says.
    """
    if listed.path.is_dir():
        return _pick_images(listed, choose, flow)
    if not os.path.exists(listed.path):
        raise VideoError(f"{listed.path}: is missing")
    if flow:
        raise VideoError(f"{listed.path}: is no folder of flow images; extract them, or choose an RGB model")
    chosen = video.pick(listed.path, choose, threads)
    return chosen.total, {index: np.asarray(image) for index, image in chosen.images.items()}


def first(path: Path, short_side: int, size: int, most: int = 64) -> Array:
    """Return the first `most` frames of a video, MIT's centre crop of each: S, C, H, W, uint8."""
    frames = itertools.islice(video.decode(path), most)
    return np.stack([views.prepared(image, short_side, size) for _, image in frames])


def _pick_images(listed: Video, choose: Callable[[int], Iterable[int]], flow: bool) -> tuple[int, dict[int, Array]]:
    try:
        frames = images(listed.path, flow)
    except OSError as error:
        raise VideoError(f"{listed.path}: cannot be read ({error.strerror})") from None
    if not frames:
        raise VideoError(f"{listed.path}: holds no {'flow ' if flow else ''}images")
    total = len(frames) if listed.frames is None else listed.frames
    if flow and total == 2 * len(frames):  # MIT's lists of Something-Something V1 count x and y (ops/dataset.py)
        total = len(frames)
    if not 0 < total <= len(frames):
        raise VideoError(f"{listed.path}: has {len(frames)} {'flow ' if flow else ''}images, its list says {total}")
    return total, {index: _open(frames[index], flow) for index in set(choose(total))}


def images(folder: Path, flow: bool) -> list[tuple[Path, ...]]:
    """Return the images of a sequence in the order of their numbers: RGB, or x and y of flow (or both in one).

    Names need no template: the number at their end orders them, an x or y in front of it makes them flow.
    """
    found: dict[str, dict[int, Path]] = {}
    for path in folder.iterdir():
        if match := NUMBERED.fullmatch(path.name):
            component = _COMPONENT.search(match[1])
            found.setdefault(component[1] if component else "", {})[int(match[2])] = path
    if not flow or not found.keys() & set("xyuv"):
        # MIT's Something-Something V2 keeps x in the red and y in the green of one image.
        whole = found.get("", {})
        return [(whole[number],) for number in sorted(whole)]
    x, y = ("x", "y") if "x" in found else ("u", "v")
    both = sorted(found.get(x, {}).keys() & found.get(y, {}).keys())
    return [(found[x][number], found[y][number]) for number in both]


def _open(paths: tuple[Path, ...], flow: bool) -> Array:
    try:
        if len(paths) == 2:
            return np.stack([np.asarray(_decoded(path, "L")) for path in paths], axis=-1)
        picture = np.asarray(_decoded(paths[0], "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow says of bad files
        raise VideoError(f"{paths[0].parent}: image {paths[0].name} cannot be decoded ({error})") from None
    return picture[..., :2] if flow else picture


def _decoded(path: Path, mode: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert(mode)
