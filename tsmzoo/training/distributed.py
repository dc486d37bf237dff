"""The processes of a training under `torchrun`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from tsmzoo.errors import TrainingError
from tsmzoo.system import processes


@dataclass(frozen=True)
class World:
    """All processes of a training, seen from one of them; without `torchrun` a single one, of rank 0."""

    rank: int
    size: int
    device: torch.device

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of `value` over all processes."""
        if self.size > 1:
            torch.distributed.all_reduce(value)
        return value / self.size

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Copy `tensors` of rank 0 to all processes."""
        if self.size > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that `torchrun` started. Raises TrainingError if this one has no GPU where others have."""
    size, local = processes.count(), processes.local_rank()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        if local >= torch.cuda.device_count():
            raise TrainingError(
                f"process {local} of this machine finds {torch.cuda.device_count()} GPUs alone; "
                "lower --nproc-per-node of torchrun"
            )
        torch.cuda.set_device(device)
    if size > 1:
        processes.join("nccl" if cuda else "gloo")
    try:
        yield World(processes.rank(), size, device)
    finally:
        if size > 1:
            torch.distributed.destroy_process_group()
