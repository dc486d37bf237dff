"""Published weights in the cache: the result of `download`."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from tsmzoo import registry
from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.errors import DownloadError, RegistryError
from tsmzoo.registry import Entry, Pinned, Registry
from tsmzoo.system import files
from tsmzoo.weights import cache, download

_HEADER = "# Whole digests of checkpoints, written by `tsmzoo download --record`; a registry, for --registry FILE.\n"


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
    entry: Entry,
    *,
    source: str | Path | None = None,
    record: Path | None = None,
    progress: Progress = silent,
    notify: Notify = silent,
) -> Download:
    """Download what the cache does not have of the weights of `entry`, and verify it. Raises DownloadError.

    `source` is an address or a local file to take it from, in place of the published addresses. `record` is a registry
    of pins, to which the digest is added; RegistryError if it holds anything else.
    """
    if record is not None:
        _pins(record)  # before gigabytes are downloaded
    path = download.fetch(entry, source=source, progress=progress, notify=notify)
    if record is not None and entry.file is None:  # what lies beside a registry is pinned there, and may be replaced
        _add_pin(record, entry, path)
    paths = cache.local_paths(entry)
    return Download(entry.id, str(path), list(map(str, paths)), sum(file.stat().st_size for file in paths))


def _pins(record: Path) -> dict[str, Pinned]:
    """Return the pins of a registry that holds nothing else; none if it does not exist, but its folder does."""
    if not os.path.lexists(record) and record.parent.is_dir():
        return {}
    document = registry.document(record)
    if document.pop("models") or document.keys() - {"pins"}:
        raise RegistryError(f"{record}: holds more than pins, which would be lost; record them in another file")
    try:
        return msgspec.convert(document, Registry).pins
    except msgspec.ValidationError as error:
        raise RegistryError(f"{record}: {error}; record pins in another file") from None


def _add_pin(record: Path, entry: Entry, path: Path) -> None:
    import yaml

    pinned = Pinned(
        sha256=files.sha256(path).hexdigest(),
        bytes=path.stat().st_size,
        beside={name: files.sha256(path.with_name(name)).hexdigest() for name in entry.beside},
    )
    try:
        with files.exclusive(record.parent):
            pins = msgspec.to_builtins(_pins(record) | {entry.id: pinned})
            text = yaml.safe_dump({"pins": pins}, default_flow_style=None, width=200)
            files.write(record, f"{_HEADER}{text}")
    except OSError as error:
        raise DownloadError(f"{record}: cannot be written ({files.reason(error)}); record pins elsewhere") from None
