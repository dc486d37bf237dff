"""Results of the commands that write files; those of the other commands are the library's."""

from __future__ import annotations

import msgspec


class Videos(msgspec.Struct, frozen=True):
    """Videos that `data` wrote."""

    task: str
    folder: str
    #: How many.
    videos: int
    seed: int


class Pictures(msgspec.Struct, frozen=True):
    """Pictures that `report` drew."""

    files: list[str]
