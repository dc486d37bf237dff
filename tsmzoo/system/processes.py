"""The process group of `torchrun`, by its environment variables; one process without it."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from threading import Thread
from types import ModuleType
from typing import Any

from tsmzoo.errors import ZooError
from tsmzoo.text import of_error


def rank() -> int:
    """Return the rank of this process, from 0."""
    return _number("RANK", 0, below=count())


def count() -> int:
    """Return the number of processes."""
    return _number("WORLD_SIZE", 1, least=1)


def here() -> int:
    """Return the number of processes on this machine."""
    return _number("LOCAL_WORLD_SIZE", count(), least=1)


def local_rank() -> int:
    """Return the rank of this process on this machine, from 0."""
    return _number("LOCAL_RANK", 0, below=here())


def _number(variable: str, default: int, *, least: int = 0, below: int = 2**31) -> int:
    """Return the number in an environment variable. Raises ZooError unless `least` <= number < `below`."""
    text = os.environ.get(variable, str(default))
    try:
        number = int(text)
    except ValueError:  # also for more digits than Python reads
        number = least - 1
    if not least <= number < below:
        raise ZooError(
            f"{variable}={text[:40]!r} in the environment is no number from {least} to {below - 1}; "
            "unset it, or start with torchrun, which sets it"
        )
    return number


def follow_parent() -> None:
    """End this process when its parent ends, even if that was killed: else it would wait for work for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def is_first() -> bool:
    """True on rank 0, which writes files and prints."""
    return rank() == 0


def join(backend: str, timeout: timedelta | None = None) -> None:
    """Initialize the process group with torch's `backend`. Raises ZooError if the processes cannot connect."""
    import torch
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        store, number, total = next(rendezvous("env://"))
        # torchrun's static rendezvous keeps its store over a restart, with addresses of dead processes.
        attempt = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        torch.distributed.init_process_group(backend, store=attempt, rank=number, world_size=total, timeout=timeout)
    except (ValueError, torch.distributed.DistError) as error:
        raise ZooError(
            f"{count()} processes cannot find each other ({of_error(error)}); start them with torchrun"
        ) from None


def gather(value: Any) -> list[Any]:
    """Return the `value` of every process, by rank."""
    if count() == 1:
        return [value]
    import torch

    values = [None] * count()
    torch.distributed.all_gather_object(values, value)
    return values


@contextmanager
def gathered() -> Iterator[None]:
    """Form a group with the other processes for the block, and wait for all of them at its end."""
    if count() == 1:
        yield
        return
    import torch

    join("gloo", timedelta(days=30))
    yield
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            return SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = main


class Spawn(SpawnContext):
    """Starts processes that do not run the caller's script again, which a script without a guard does not survive.

    They are not forked, since the caller may hold threads. What they call is tsmzoo's own.
    """

    Process = _Process
