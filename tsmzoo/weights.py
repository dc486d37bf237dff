"""From an entry to a network with weights: published, a local file, or random; and the record of which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from tsmzoo import checkpoints, download, models
from tsmzoo.artifact import Checkpoint
from tsmzoo.registry import Entry
from tsmzoo.transfer import Progress


def silent(_: str) -> None:
    """Say nothing of what is going on."""


@dataclass(frozen=True)
class Network:
    """A backbone in evaluation mode and where its weights come from."""

    entry: Entry
    backbone: nn.Module
    weights: Literal["published", "local", "random"]
    checkpoint: Checkpoint | None = None
    seed: int | None = None


def obtain(
    entry: Entry,
    weights: str | None = None,
    *,
    seed: int = 0,
    weights_format: str | None = None,
    allow_shift_mismatch: bool = False,
    progress: Progress | None = None,
    notify: Callable[[str], None] = silent,
) -> Network:
    """Build the network of `entry`.

    `weights` is None for the published file, which is downloaded where the cache lacks it, "random",
    or the path of a checkpoint. Raises DownloadError or CheckpointError.
    """
    if weights == "random":
        return Network(entry, models.build(entry, seed=seed), "random", seed=seed)
    path = Path(weights) if weights else download.fetch(entry, progress=progress, notify=notify)
    backbone = models.build(entry)
    loaded = checkpoints.load(
        backbone, entry, path, weights_format=weights_format, allow_shift_mismatch=allow_shift_mismatch
    )
    checkpoint = Checkpoint(
        sha256=loaded.sha256, format=loaded.format, path=str(path.resolve()), shift_mismatch=loaded.shift_mismatch
    )
    return Network(entry, backbone, "local" if weights else "published", checkpoint)
