"""Callbacks that report to the user. Imports no numpy, so that `tsmzoo.list_models` need not wait for it."""

from __future__ import annotations

from collections.abc import Callable

#: Reports progress: what is being done, and how far: steps, or bytes of a download, of how many; 0 if that is unknown.
Progress = Callable[[str, int, int], None]
#: Takes a line for the user that is no part of the result.
Notify = Callable[[str], None]


def silent(*_: object) -> None:
    """Report nothing: a Progress or a Notify."""
