"""Published weights in the cache: the result of `download`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.registry import Entry
from tsmzoo.weights import cache, download


class Download(msgspec.Struct, frozen=True):
    """A downloaded model."""

    id: str
    #: The checkpoint.
    path: str
    #: All files of the checkpoint: some have several.
    files: list[str]
    #: Size of all files.
    bytes: int


def fetch(
    entry: Entry, *, source: str | Path | None = None, progress: Progress = silent, notify: Notify = silent
) -> Download:
    """Download what the cache does not have of the weights of `entry`, and verify it. Raises DownloadError.

    `source` is an address or a local file to take it from, in place of the published addresses.
    """
    path = download.fetch(entry, source=source, progress=progress, notify=notify)
    files = cache.local_paths(entry)
    return Download(entry.id, str(path), list(map(str, files)), sum(file.stat().st_size for file in files))
