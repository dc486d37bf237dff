"""Batches of clips, as the network takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from tsmzoo.errors import TrainingError, VideoError
from tsmzoo.registry import Normalisation
from tsmzoo.training.clips import ClipSet


def batches(clips: ClipSet, batch: int, order: Sequence[int], workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the clips that `order` names, N, T, C, H, W, and their labels, `batch` at a time.

    Videos that cannot be read are noted in `clips.lost`. Raises TrainingError, in one line, if a worker fails: its
    errors come with their whole traceback.
    """
    # Spawned, not forked: torch holds threads.
    context = "spawn" if workers else None
    loader = DataLoader(
        _ClipsAndLost(clips),
        batch,
        sampler=order,
        num_workers=workers,
        multiprocessing_context=context,
        collate_fn=_collate,
    )
    try:
        for pixels, labels, lost in loader:
            clips.lost |= lost
            yield pixels, labels
    except VideoError as error:
        line = str(error).strip().splitlines()[-1].removeprefix("tsmzoo.errors.VideoError: ")
        raise TrainingError(f"--strict: {line}" if clips.strict else line) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError("a worker died, perhaps for want of memory; lower `workers` and run it again") from None


class _ClipsAndLost(Dataset[tuple[Tensor, int, dict[str, str]]]):
    """Clips, each with the videos that could not be read so far: a worker has no other way to report them."""

    def __init__(self, clips: ClipSet) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> tuple[Tensor, int, dict[str, str]]:
        return *self._clips[index], dict(self._clips.lost)


def _collate(clips: list[tuple[Tensor, int, dict[str, str]]]) -> tuple[Tensor, Tensor, dict[str, str]]:
    pixels, labels = default_collate([clip[:2] for clip in clips])
    return pixels, labels, {name: why for _, _, lost in clips for name, why in lost.items()}


class Normalize:
    """Turns frames in RGB, N, T, C, H, W, uint8, into the network's input, on its device."""

    def __init__(self, normalisation: Normalisation, device: torch.device) -> None:
        self._bgr = normalisation.order == "BGR"
        self._mean, self._std = (
            torch.tensor(values, device=device).view(-1, 1, 1) for values in (normalisation.mean, normalisation.std)
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self._mean.device)
        if self._bgr:
            pixels = pixels.flip(2)
        return (pixels.float() / 255 - self._mean) / self._std
