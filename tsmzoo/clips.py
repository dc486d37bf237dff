"""Labelled videos as the clips that a network is trained and measured on while it is trained."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from tsmzoo import sampling, source, views
from tsmzoo.artifact import Array
from tsmzoo.dataset import Dataset as Videos
from tsmzoo.dataset import Video
from tsmzoo.recipe import Training
from tsmzoo.registry import Entry

#: Called with what is going on, and how far it is: steps done and in all.
Progress = Callable[[str, int, int], None]


class ClipSet(Dataset[tuple[Tensor, int]]):
    """Clips of a list of videos, T, C, H, W, uint8, and their labels: drawn at random, or the middle of each."""

    def __init__(self, videos: Videos, entry: Entry, frames: int, *, drawn: Training | None = None) -> None:
        self.videos, self.entry, self.frames, self.drawn = videos, entry, frames, drawn
        self.epoch = 0
        self._decoded: list[Array] | None = None

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        recipe, size, stride = self.drawn, self.entry.size, self.entry.stride
        if recipe is None:
            choose = partial(sampling.clip, count=self.frames, stride=stride)
            pictures = np.stack([views.cut(picture, size, 1, "mit")[0] for picture in self._pictures(index, choose)])
        else:
            rng = np.random.default_rng([recipe.seed, self.epoch, index])
            choose = partial(sampling.clip, count=self.frames, stride=stride, rng=rng)
            pictures = _crop(self._pictures(index, choose), size, recipe, rng)
        return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))), self.videos.videos[index].label

    def decode(self, progress: Progress) -> None:
        """Decode all videos into memory."""
        read = partial(_read, short_side=self.entry.short_side)
        # Spawned, not forked: torch holds threads. Processes, since threads would wait for Python's lock.
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            self._decoded = []
            for pictures in pool.map(read, self.videos.videos, chunksize=16):
                self._decoded.append(pictures)
                progress("decoding", len(self._decoded), len(self))

    def _pictures(self, index: int, choose: Callable[[int], list[int]]) -> Array:
        """Return frames of a video, T, H, W, 3, their short side as evaluation has it."""
        if self._decoded is None:
            return _read(self.videos.videos[index], choose, short_side=self.entry.short_side)
        pictures = self._decoded[index]
        return np.asarray(pictures[choose(len(pictures))])


def _read(
    listed: Video, choose: Callable[[int], Sequence[int]] = lambda total: range(total), *, short_side: int
) -> Array:
    """Return frames of a video, all without `choose`, T, H, W, 3, resized as MIT does."""
    indices: list[int] = []

    def wanted(total: int) -> list[int]:
        indices[:] = choose(total)
        return indices

    _, pictures = source.pick(listed, wanted)
    small = {index: views.resized(picture, short_side, "mit") for index, picture in pictures.items()}
    return np.stack([small[index] for index in indices])


def _crop(pictures: Array, size: int, recipe: Training, rng: np.random.Generator) -> Array:
    """Return one random square of all frames, T, H, W, 3, scaled to `size`, perhaps mirrored."""
    height, width = pictures.shape[1:3]
    side = round(min(height, width) * rng.choice(recipe.scales))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    square = pictures[:, top : top + side, left : left + side]
    if side != size:
        scaled = (Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR) for frame in square)
        square = np.stack([np.asarray(frame) for frame in scaled])
    return square[:, :, ::-1] if recipe.hflip and rng.random() < 0.5 else square
