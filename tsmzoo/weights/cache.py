"""Paths of checkpoints in the user's cache, and what they are held to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tsmzoo.errors import DownloadError
from tsmzoo.registry.paths import cache_dir

if TYPE_CHECKING:
    from tsmzoo.registry import Entry

#: What a checkpoint is held to, the strongest first. `prefix`: the first digits of a sha256, mostly 32 bits, which
#: another file can be made to have. `recorded`: the sha256 of the first download on this machine.
Pin = Literal["sha256", "git_blob", "prefix", "recorded", "none"]


def local_path(entry: Entry) -> Path | None:
    """Return the path of the checkpoint of `entry`, downloaded or not; None if it has no weights.

    Raises DownloadError if there is no cache folder.
    """
    if entry.file is not None:
        return Path(entry.file)
    return None if entry.filename is None else cache_dir() / "checkpoints" / entry.id / entry.filename


def local_paths(entry: Entry) -> list[Path]:
    """Return the paths of all files of the checkpoint of `entry`, `local_path` first. Raises as `local_path` does."""
    path = local_path(entry)
    return [] if path is None else [path, *(path.with_name(name) for name in entry.beside)]


def pin(entry: Entry) -> Pin:
    """Return what the checkpoint of `entry` is held to; of several files, the one that `urls` names.

    >>> from tsmzoo import registry
    >>> pin(registry.load().find("tsn_r101_k400"))
    'prefix'
    """
    if entry.sha256 or len(entry.sha256_prefix or "") == 64:
        return "sha256"
    if entry.git_blob_sha1:
        return "git_blob"
    if entry.sha256_prefix:
        return "prefix"
    try:
        path = local_path(entry)
    except DownloadError:
        return "none"
    # download's record; os.path.isfile does not raise if a folder may not be entered.
    return "recorded" if path is not None and os.path.isfile(f"{path}.sha256") else "none"


def is_cached(entry: Entry) -> bool:
    """Say whether all files of the checkpoint of `entry` are on this machine; `download.fetch` verifies them."""
    try:
        # Path.is_file raises if a folder may not be entered.
        return entry.has_weights and all(os.path.isfile(path) for path in local_paths(entry))
    except DownloadError:
        return False
