"""Read pictures of a listed video: a video file, or a folder of images or of optical flow."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from tsmzoo.data import decode, images, seek, transforms
from tsmzoo.data.dataset import Video
from tsmzoo.errors import VideoError
from tsmzoo.typing import Array

#: Frames of a video that a file is verified on.
_FIRST = 64


def pick(
    listed: Video, choose: Callable[[int], Iterable[int]], *, flow: bool = False, threads: int = 0
) -> tuple[int, dict[int, Array]]:
    """Return the number of pictures of a video, and by index those that `choose` returns for that number.

    A picture is (H, W, C) uint8: RGB, or x and y of `flow`. `threads` 0 means one per core. Raises VideoError if the
    video is missing, gives no picture, or has fewer images than its list says.
    """
    try:
        if _is_folder(listed.path):
            return _pick_images(listed, choose, flow)
    except OSError as error:
        raise VideoError(f"{listed.path}: cannot be read ({error.strerror})") from None
    if flow:
        raise VideoError(f"{listed.path}: is no folder of flow images; extract them, or choose an RGB model")
    chosen = seek.pick(listed.path, choose, threads)
    return chosen.total, {index: np.asarray(image) for index, image in chosen.images.items()}


def first(path: Path, short_side: int, size: int, template: str | None = None) -> Array:
    """Return MIT's center crop of the first 64 frames of a video or a folder of images: (S, C, H, W) uint8."""
    if path.is_dir():
        frames = (images.open_upright(image) for image, *_ in images.sequence(path, template)[:_FIRST])
    else:
        frames = (image for _, image in itertools.islice(decode.decode(path), _FIRST))
    return np.stack([transforms.prepared(image, short_side, size) for image in frames])


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: not a possible file name
        raise VideoError(f"{path}: is missing") from None


def _pick_images(listed: Video, choose: Callable[[int], Iterable[int]], flow: bool) -> tuple[int, dict[int, Array]]:
    frames = images.sequence(listed.path, listed.images, flow=flow)
    total = len(frames) if listed.frames is None else listed.frames
    if flow and total == 2 * len(frames):  # MIT's lists of Something-Something V1 count x and y (ops/dataset.py)
        total = len(frames)
    if not 0 < total <= len(frames):
        raise VideoError(f"{listed.path}: has {len(frames)} {'flow ' if flow else ''}images, its list says {total}")
    pictures = {index: _open(frames[index], flow) for index in sorted(set(choose(total)))}
    sizes: dict[tuple[int, ...], int] = {}
    for index, picture in pictures.items():
        sizes.setdefault(picture.shape[1::-1], index)
    if len(sizes) > 1:
        differing = [
            f"{frames[index][0].name} is {width}x{height}" for (width, height), index in list(sizes.items())[:2]
        ]
        raise VideoError(f"{listed.path}: images differ in size, {' and '.join(differing)}; scale them alike")
    return total, pictures


def _open(paths: tuple[Path, ...], flow: bool) -> Array:
    if len(paths) == 1:
        picture = np.asarray(images.open_upright(paths[0]))
        return picture[..., :2] if flow else picture
    x, y = (np.asarray(images.open_upright(path, "L")) for path in paths)
    if x.shape != y.shape:
        raise VideoError(f"{paths[0].parent}: images {paths[0].name} and {paths[1].name} differ in size; extract anew")
    return np.stack([x, y], axis=-1)
