"""Clips of labeled videos, for training and for validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from tsmzoo.callbacks import Progress
from tsmzoo.data import sampling, select, transforms
from tsmzoo.data.dataset import Dataset as Videos
from tsmzoo.data.dataset import Video
from tsmzoo.errors import TrainingError, VideoError
from tsmzoo.registry import Entry
from tsmzoo.registry.recipes import Training
from tsmzoo.system import processes
from tsmzoo.typing import Array

#: The label of a clip that could not be read.
UNREAD = -1


class ClipSet(Dataset[tuple[Tensor, int]]):
    """Clips of a list of videos, T, C, H, W, uint8, and their labels: random as `drawn` says, or the middle of each.

    If a video cannot be read, the random clip is drawn from the next one that can; the middle clip is blank, its label
    UNREAD. `lost` then names the video.
    """

    def __init__(
        self, videos: Videos, entry: Entry, frames: int, *, drawn: Training | None = None, strict: bool = False
    ) -> None:
        self.videos, self.entry, self.frames, self.drawn, self.strict = videos, entry, frames, drawn, strict
        self.epoch = 0
        #: Why each of the videos could not be read, by name.
        self.lost: dict[str, str] = {}
        self._decoded: list[Array | str] | None = None

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a clip and its label. Raises VideoError if none can be read, or with `strict` if this one cannot."""
        for turn in range(len(self) if self.drawn else 1):
            place = (index + turn) % len(self)
            listed = self.videos.videos[place]
            try:
                pictures = self._clip(place, index)
            except VideoError as error:
                if self.strict:
                    raise
                self.lost[listed.name] = reason(listed, error)
            else:
                return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))), listed.label
        if self.drawn:
            raise VideoError(f"none of the {len(self)} videos can be read any more; bring them back and run it again")
        return torch.zeros((self.frames, 3, self.entry.size, self.entry.size), dtype=torch.uint8), UNREAD

    def decode(self, progress: Progress) -> None:
        """Decode all videos into memory."""
        read = partial(_read_all, short_side=self.entry.short_side)
        # Processes, since threads would wait for Python's lock.
        with ProcessPoolExecutor(mp_context=processes.Spawn()) as pool:
            self._decoded = []
            try:
                for pictures in pool.map(read, self.videos.videos, chunksize=16):
                    self._decoded.append(pictures)
                    progress("decoding", len(self._decoded), len(self))
            except BrokenProcessPool:
                raise TrainingError(
                    "a process that decodes died, perhaps for want of memory; leave `in_memory` out of the recipe"
                ) from None

    def _clip(self, place: int, index: int) -> Array:
        """Return clip `index` of this epoch, T, H, W, 3, taken from the video at `place`."""
        recipe, size, stride = self.drawn, self.entry.size, self.entry.stride
        if recipe is None:
            choose = partial(sampling.clip, count=self.frames, stride=stride)
            return np.stack([transforms.crop(picture, size, 1, "mit")[0] for picture in self._pictures(place, choose)])
        rng = np.random.default_rng([recipe.seed, self.epoch, index])
        choose = partial(sampling.clip, count=self.frames, stride=stride, rng=rng)
        return _crop(self._pictures(place, choose), size, recipe, rng)

    def _pictures(self, place: int, choose: Callable[[int], list[int]]) -> Array:
        """Return frames of a video, T, H, W, 3, resized as for evaluation."""
        if self._decoded is None:
            return _read(self.videos.videos[place], choose, short_side=self.entry.short_side)
        pictures = self._decoded[place]
        if isinstance(pictures, str):
            raise VideoError(f"{self.videos.videos[place].path}: {pictures}")
        return np.asarray(pictures[choose(len(pictures))])


def reason(listed: Video, error: VideoError) -> str:
    """Return the message of an error without the path of its video."""
    return str(error).removeprefix(f"{listed.path}: ")


def _read_all(listed: Video, *, short_side: int) -> Array | str:
    """Return all frames of a video, or why it cannot be read."""
    try:
        return _read(listed, short_side=short_side)
    except VideoError as error:
        return reason(listed, error)


def _read(
    listed: Video, choose: Callable[[int], Sequence[int]] = lambda total: range(total), *, short_side: int
) -> Array:
    """Return frames of a video, T, H, W, 3, by default all, resized as MIT does.

    Raises VideoError if it cannot be read, or if its pictures differ in size.
    """
    indices: list[int] = []

    def wanted(total: int) -> list[int]:
        indices[:] = choose(total)
        return indices

    _, pictures = select.pick(listed, wanted)
    small = {index: transforms.resized(picture, short_side, "mit") for index, picture in pictures.items()}
    if len(sizes := {picture.shape[:2] for picture in small.values()}) > 1:  # a phone that was turned, joined files
        (height, width), (other_height, other_width), *_ = sorted(sizes)
        raise VideoError(
            f"{listed.path}: its pictures are {width}x{height} and {other_width}x{other_height}; "
            "cut it where they change"
        )
    return np.stack([small[index] for index in indices])


def _crop(pictures: Array, size: int, recipe: Training, rng: np.random.Generator) -> Array:
    """Return one random square of all frames, T, H, W, 3, scaled to `size`, mirrored at random if asked."""
    height, width = pictures.shape[1:3]
    side = max(1, round(min(height, width) * rng.choice(recipe.scales)))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    square = pictures[:, top : top + side, left : left + side]
    if side != size:
        scaled = (Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR) for frame in square)
        square = np.stack([np.asarray(frame) for frame in scaled])
    return square[:, :, ::-1] if recipe.hflip and rng.random() < 0.5 else square
