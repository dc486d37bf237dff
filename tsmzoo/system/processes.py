"""The processes that `torchrun` started, as its environment variables tell; one of one without it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

from tsmzoo.errors import ZooError
from tsmzoo.text import of_error


def rank() -> int:
    """Return the number of this process, from 0."""
    return _number("RANK", 0, below=count())


def count() -> int:
    """Return how many there are."""
    return _number("WORLD_SIZE", 1, least=1)


def here() -> int:
    """Return how many there are on this machine."""
    return _number("LOCAL_WORLD_SIZE", count(), least=1)


def local_rank() -> int:
    """Return the number of this process on this machine, from 0."""
    return _number("LOCAL_RANK", 0, below=here())


def _number(variable: str, default: int, *, least: int = 0, below: int = 2**31) -> int:
    """Return what an environment variable says. Raises ZooError where that is no number from `least` to `below`."""
    text = os.environ.get(variable, str(default))
    try:
        number = int(text)
    except ValueError:  # also of more digits than Python reads
        number = least - 1
    if not least <= number < below:
        raise ZooError(
            f"{variable}={text[:40]!r} in the environment is no number from {least} to {below - 1}; "
            "unset it, or start with torchrun, which sets it"
        )
    return number


def follow_parent() -> None:
    """End with the process that started this one, even where it was killed: else it would wait for work for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def is_first() -> bool:
    """Say whether this is the process that writes and speaks."""
    return rank() == 0


def join(backend: str, timeout: timedelta | None = None) -> None:
    """Make one group of the processes, by torch's name of a `backend`. Raises ZooError where they cannot meet."""
    import torch
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        store, number, total = next(rendezvous("env://"))
        # torchrun's static rendezvous keeps its store over a restart, with the addresses of processes that are dead.
        attempt = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        torch.distributed.init_process_group(backend, store=attempt, rank=number, world_size=total, timeout=timeout)
    except (ValueError, torch.distributed.DistError) as error:
        raise ZooError(
            f"{count()} processes cannot find each other ({of_error(error)}); start them with torchrun"
        ) from None


def gather(value: Any) -> list[Any]:
    """Return the `value` of every process of the group, by rank."""
    if count() == 1:
        return [value]
    import torch

    values = [None] * count()
    torch.distributed.all_gather_object(values, value)
    return values


@contextmanager
def gathered() -> Iterator[None]:
    """Meet the other processes before the block, and wait for all of them behind it."""
    if count() == 1:
        yield
        return
    import torch

    join("gloo", timedelta(days=30))
    yield
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
