"""Fixtures of the tests of networks."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tsmzoo import models
from tsmzoo.models.wrappers import ClipModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tsmzoo.registry import Entry


@pytest.fixture(scope="session")
def torch_macs() -> Callable[..., int]:
    """Give a function from an entry to the multiply-accumulates that torch counts, for a clip or an online step.

    It is independent of fvcore, and computes nothing: shapes alone go through the network.
    """

    @cache
    def count(entry: Entry, size: int | None = None, frames: int | None = None) -> int:
        online = entry.mode == "online"
        shape = (1, 1 if online else frames or entry.frames, entry.channels, *[size or entry.size] * 2)
        form = ClipModel(models.build(entry), shape[1], online=online)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            form(torch.empty(shape, device="meta"))
        return counter.get_total_flops() // 2

    return count
