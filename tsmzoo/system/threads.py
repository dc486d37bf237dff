"""Limit torch's threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Limit torch to `count` threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread() -> AbstractContextManager[None]:
    """Limit torch to one thread within the block.

    Its threads spin while they wait: beside another job on two cores, two of them took 4 s for a clip
    of ResNet-50 and 17 s for 16 steps of MobileNetV2, and one took 1.2 s and 0.7 s.
    """
    return threads(1)
