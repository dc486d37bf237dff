"""Callbacks by which long work reports to its caller."""

from __future__ import annotations

from collections.abc import Callable

#: Called with a line for the user.
Notify = Callable[[str], None]


def ignore(*_: object) -> None:
    """Do nothing: the default of every callback."""
