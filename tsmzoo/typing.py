"""Types that all packages share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
#: Reports progress: what is being done, steps done and steps in all.
Progress = Callable[[str, int, int], None]
#: Takes a line for the user that is no part of the result.
Notify = Callable[[str], None]


def silent(*_: object) -> None:
    """Report nothing: a Progress or a Notify."""
