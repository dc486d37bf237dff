"""Results of the commands that write files; those of the other commands are the library's."""

from __future__ import annotations

import msgspec


class Download(msgspec.Struct, frozen=True):
    """A downloaded model."""

    id: str
    #: The checkpoint.
    path: str
    #: All files of the checkpoint: some have several.
    files: list[str]
    #: Size of all files.
    bytes: int


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
