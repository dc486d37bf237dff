"""Fetch published files from a mirror, the web or the Hugging Face hub, verify them and keep them in the cache.

    <cache>/checkpoints/<id>/
        <file>                       has this name only once its digest was verified
        <file>.sha256                digest of the first download that was a checkpoint, if the publisher gives none
        <file>.part, <file>.part.json    an interrupted download, and its address and version
        <file>.part.hub/             the same, from the hub
        <file>.<digest>.bad          was downloaded, but is not the published file
        <file>.<digest>.bad.txt      why, in one line
        <file>.lock                  held by the process that downloads

A link or a pipe in the place of one of these is removed, not followed. The files of a checkpoint of several files lie
side by side, each with its own companions.

Environment: `TSMZOO_CACHE`; `TSMZOO_OFFLINE`; `TSMZOO_MIRROR`, the address of a folder that is tried first, as
`<mirror>/<id>/<file>` (a copy of the cache's checkpoints will do) and then as `<mirror>/<file>`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.errors import CheckpointError, DownloadError
from tsmzoo.system import files
from tsmzoo.text import of_error, one_line
from tsmzoo.weights import hub
from tsmzoo.weights.cache import local_paths, pin
from tsmzoo.weights.http import (
    BLANK,
    NO_ROOM,
    PARKED,
    Refused,
    companion,
    discard,
    fetch_to,
    is_offline,
    remove_unless_regular,
    too_large,
    without_credentials,
)

if TYPE_CHECKING:
    from tsmzoo.registry import Entry

#: Uploads that break off, or meet a limit, end at a multiple of so many bytes.
_UPLOADED_BLOCK = 2**20
#: The last bytes of the index of a TensorFlow checkpoint, as of all LevelDB tables.
_INDEX_MAGIC = bytes.fromhex("57fb808b247547db")
#: Suffixes of text files, which may begin like an error page.
_TEXT_SUFFIXES = (".json", ".txt", ".xml", ".html", ".yaml", ".yml", ".md")


@dataclass(frozen=True)
class _PublishedFile:
    """One file of a checkpoint: its place in the cache, its addresses and its digests."""

    id: str
    path: Path
    #: Addresses, or the user's own copy.
    addresses: list[str] | list[Path]
    max_bytes: int
    #: The model whose weights it holds; None for files beside the weights.
    entry: Entry | None = None
    #: All or the first digits.
    sha256: str | None = None
    git_blob_sha1: str | None = None
    #: Whether the user said where it is.
    given: bool = False


def fetch(
    entry: Entry,
    *,
    source: str | Path | None = None,
    progress: Progress = silent,
    notify: Notify = silent,
) -> Path:
    """Return the verified local file of `entry`, downloading what the cache does not have of it.

    `source` is an address or a local file to take it from, in place of the published addresses. For a checkpoint of
    several files return the one that `urls` names; the others lie beside it, at `source` too. Raises DownloadError, in
    one line, if no address has the right file, the cache cannot hold it, or no weights were published.
    """
    if not entry.has_weights:
        raise DownloadError(
            f"{entry.id}: no weights were published for it; train it (`tsmzoo train`), or give --weights FILE or random"
        )
    path, *others = local_paths(entry)
    if entry.file is not None:
        if source is not None:
            raise DownloadError(f"{entry.id}: its weights lie at {path} and are not downloaded; leave out the source")
        return _verify_beside_registry(entry, path)
    # Small files beside the checkpoint come first: without them the large one is useless.
    for each in (*others, path):
        _fetch_file(_published(entry, each, source), progress, notify)
    return path


def mismatch(entry: Entry, path: Path, sha256: str) -> str | None:
    """Return why `path`, a file in the cache with this sha256, is not the published file of `entry`; None if it is.

    Raises DownloadError if the record of its first download cannot be used, OSError if `path` cannot be read.
    """
    return _mismatch(_published(entry, path), path, sha256)


def _published(entry: Entry, path: Path, source: str | Path | None = None) -> _PublishedFile:
    """Return the file of `entry` that has its place in the cache at `path`."""
    addresses, given = _addresses(entry, path.name, source), source is not None
    if path.name != entry.filename:
        digest = entry.pinned.beside.get(path.name) if entry.pinned else None
        return _PublishedFile(entry.id, path, addresses, entry.max_bytes, sha256=digest, given=given)
    digests = (entry.sha256 or entry.sha256_prefix, entry.git_blob_sha1)
    return _PublishedFile(entry.id, path, addresses, entry.max_bytes, entry, *digests, given=given)


def _fetch_file(file: _PublishedFile, progress: Progress, notify: Notify) -> None:
    path = file.path
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder is in the way", str(path))
        wrong: str | None = "it is not in the cache"
        if path.is_file():
            digest = files.sha256(path).hexdigest()
            wrong = _mismatch(file, path, digest)
            if wrong is None:
                with suppress(OSError):  # a cache that can only be read serves as well
                    _record_digest(file, digest, notify)
                if file.given:
                    notify(f"{file.id}: {path.name} is in the cache and verified; the source was not read")
                return
        local = isinstance(file.addresses[0], Path)
        if is_offline() and not local:
            raise DownloadError(
                f"{file.id}: {path.name} is missing ({wrong}) and TSMZOO_OFFLINE is set; unset it, put the published "
                f"file at {path}, or give it to export or run with --weights FILE"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path, notify):
            _fetch_locked(file, progress, notify)
    except OSError as error:
        if error.errno in NO_ROOM:
            what = f"no room left for {path.name} in {path.parent}; free some, or set TSMZOO_CACHE to a larger disk"
        else:
            what = (
                f"the cache {path.parent} fails ({of_error(error)}); set TSMZOO_CACHE to a folder that can be written"
            )
        raise DownloadError(f"{file.id}: {what}") from None


def _verify_beside_registry(entry: Entry, path: Path) -> Path:
    try:
        digest = files.sha256(path).hexdigest()
    except OSError as error:
        raise DownloadError(
            f"{entry.id}: {path} cannot be read ({error.strerror}); put it back, or install tsmzoo again"
        ) from None
    if digest != entry.sha256:
        raise DownloadError(
            f"{entry.id}: {path} was changed: its sha256 is {digest}, the registry's {entry.sha256}; put the right "
            "file there, or install tsmzoo again"
        )
    return path


def _fetch_locked(file: _PublishedFile, progress: Progress, notify: Notify) -> None:
    path = file.path
    if path.is_file():  # downloaded by another process while this one waited, or wrong
        bad = _accept(file, path, files.sha256(path).hexdigest(), notify)
        if bad is None:
            return
        notify(f"{file.id}: {path}: {bad}; fetching it again")
    part = companion(path, ".part")
    for place in (part, companion(part, ".json")):
        remove_unless_regular(place)
    report = partial(progress, f"downloading {file.id}")
    failures = []
    for address in file.addresses:
        try:
            if isinstance(address, Path):
                digest = _copy(address, part, file)
            elif address.startswith("hf://"):
                digest = hub.fetch_from_hub(address, part, file.max_bytes)
            else:
                digest, joined = fetch_to(address, part, file.max_bytes, report)
                if joined and _mismatch(file, part, digest):  # perhaps only what an earlier run left of it
                    discard(part)
                    digest, _ = fetch_to(address, part, file.max_bytes, report)
            reason = _accept(file, part, digest, notify)
            if reason is None:
                return
        except Refused as error:
            reason = str(error)
        failures.append(f"{one_line(without_credentials(str(address)))}: {reason}")
    if file.given:
        what = "the source must be the published file; use another with --weights FILE, of run, eval and export"
    else:
        what = (
            f"if you have it from elsewhere: `tsmzoo download {file.id} --source URL|FILE`, or set TSMZOO_MIRROR to "
            "the https:// or hf:// address of a folder that has it"
        )
    raise DownloadError(f"{file.id}: {path.name} could not be fetched ({'; '.join(failures)}); {what}")


def _copy(given: Path, part: Path, file: _PublishedFile) -> str:
    """Copy the user's own `given` to `part`, if it is the right file, and return its sha256. Raises Refused."""
    try:
        if given.stat().st_size > file.max_bytes:
            raise too_large(file.max_bytes)
        wrong = _mismatch(file, given, files.sha256(given).hexdigest())
    except OSError as error:
        raise Refused(f"cannot be read ({files.reason(error)})") from None
    if wrong is not None:
        raise Refused(wrong)
    discard(part)
    shutil.copyfile(given, part)
    files.sync(part)
    return files.sha256(part).hexdigest()


def _addresses(entry: Entry, name: str, source: str | Path | None) -> list[str] | list[Path]:
    """Return where to look for one of the files of `entry`: at `source`, else the mirror first."""
    if source is not None and "://" not in str(source):
        return [Path(source) if name == entry.filename else Path(source).parent / name]
    if source is not None:
        return [str(source) if name == entry.filename else _sibling(str(source), name)]
    mirrored = []
    if mirror := os.environ.get("TSMZOO_MIRROR", ""):
        mirrored.append(below(mirror, f"{entry.id}/{name}"))
        if not entry.beside:  # files of such checkpoints have the same names
            mirrored.append(below(mirror, name))
    return [*mirrored, *(url if name == entry.filename else _sibling(url, name) for url in entry.urls)]


def below(folder: str, where: str) -> str:
    """Return the address of a file in a folder; on the hub `hf://USER/REPO@REVISION` names a revision."""
    folder, revision = _revision(folder)
    return f"{folder.rstrip('/')}/{where}{revision}"


def _sibling(url: str, name: str) -> str:
    """Return the address of another file in the same folder, on the hub in the same revision."""
    url, revision = _revision(url)
    return f"{url.rpartition('/')[0]}/{name}{revision}"


def _revision(address: str) -> tuple[str, str]:
    """Return an address without what it names a revision by on the hub, and that, such as @main."""
    place, at, revision = address.partition("@") if address.startswith("hf://") else (address, "", "")
    return place, at and f"@{revision}"


# Digests


def _expected_sha256(file: _PublishedFile) -> str | None:
    """Return the sha256 that the file must have, or its first digits; None if neither publisher nor cache has it.

    Raises DownloadError if the record in the cache is not a sha256.
    """
    if file.sha256:
        return file.sha256.lower()
    record = companion(file.path, ".sha256")
    try:
        digest = files.read(record, 1000).decode("ascii", errors="replace").strip().lower()
        why = None if re.fullmatch("[0-9a-f]{64}", digest) else "it holds no sha256"
    except FileNotFoundError:
        return None
    except OSError as error:
        why = str(error.strerror)
    if why:
        raise DownloadError(
            f"{file.id}: {record}: {why}, so that nothing tells whether {file.path.name} is still the file of the "
            "first download; delete it to trust the file that lies there or comes next"
        )
    return digest


def _mismatch(file: _PublishedFile, arrived: Path, sha256: str) -> str | None:
    """Return why `arrived` is not the file, or None if it is. Without a digest it must be a readable checkpoint."""
    expected = _expected_sha256(file)
    if expected is None and not file.git_blob_sha1:
        return _why_no_checkpoint(file, arrived)
    if expected is not None and not sha256.startswith(expected):
        if file.sha256:
            begins = "is" if len(expected) == 64 else "begins with"
            wrong = f"its sha256 is {sha256}, the published one {begins} {expected}"
        else:
            wrong = (
                f"its sha256 is {sha256}, on the first download it was {expected} (to accept the new file delete "
                f"{companion(file.path, '.sha256')})"
            )
    elif file.git_blob_sha1 and (found := _git_blob_sha1(arrived)) != file.git_blob_sha1:
        wrong = f"its git_blob_sha1 is {found}, the published one is {file.git_blob_sha1}"
    else:
        return None
    seen = _why_no_checkpoint_at_sight(file, arrived)
    size = arrived.stat().st_size
    if seen is None and size % _UPLOADED_BLOCK == 0:
        seen = f"it has exactly {size:,} bytes: perhaps a truncated upload"
    return f"{seen}; {wrong}" if seen else wrong


def _why_no_checkpoint(file: _PublishedFile, arrived: Path) -> str | None:
    """Return why `arrived` is not a checkpoint to be trusted: an error page, a part of a file; None if it is one."""
    if wrong := _why_no_checkpoint_at_sight(file, arrived):
        return wrong
    from tsmzoo.weights import tensorflow

    name = file.path.name
    if name.endswith(tensorflow.INDEX):
        with files.opened(arrived) as content:
            content.seek(-min(len(_INDEX_MAGIC), arrived.stat().st_size), os.SEEK_END)
            return None if content.read() == _INDEX_MAGIC else "it is no index of a TensorFlow checkpoint"
    unread = file.entry is not None and file.entry.format == "tf-movinet" and find_spec("tensorflow") is None
    if file.entry is None or name.endswith(tensorflow.DATA) or unread:  # nothing here reads it
        return None
    from tsmzoo.weights import checkpoint, checkpoint_file

    try:
        checkpoint.check(file.entry, checkpoint_file.read(arrived))
    except CheckpointError as error:
        return f"it {error}"
    return None


def _why_no_checkpoint_at_sight(file: _PublishedFile, arrived: Path) -> str | None:
    """Return why the size or the first bytes of `arrived` cannot be a checkpoint's; None if they may be."""
    size = arrived.stat().st_size
    with files.opened(arrived) as content:
        start = content.read(512)
    if not start:
        return "it is empty"
    if not file.path.name.endswith(_TEXT_SUFFIXES):
        text = start.lstrip(BLANK)
        if text.startswith(b"<"):
            return f"it is a web page, not a checkpoint: {PARKED}"
        if text.startswith((b"{", b"[")):
            return "it is JSON, not a checkpoint"
        if start.startswith(b"\x1f\x8b"):
            return "it is compressed (gzip), not a checkpoint"
    if file.entry is not None and size < file.entry.min_bytes:
        cut = ": a truncated upload" if size % _UPLOADED_BLOCK == 0 else ""
        return f"it has {size:,} bytes, too few for the model's weights{cut}"
    return None


def _record_digest(file: _PublishedFile, sha256: str, notify: Notify) -> None:
    """Trust on first use: record the first file's digest, which is enforced from then on."""
    if _expected_sha256(file) is None and not file.git_blob_sha1:
        record = companion(file.path, ".sha256")
        remove_unless_regular(record)
        files.write(record, sha256 + "\n")
        notify(f"{file.id}: no digest is published; sha256 {sha256} recorded on first download in {record}")


def _accept(file: _PublishedFile, arrived: Path, sha256: str, notify: Notify) -> str | None:
    """Give `arrived` its final name and return None; or set it aside and return why."""
    if wrong := _mismatch(file, arrived, sha256):
        bad = companion(file.path, f".{sha256[:8]}.bad")
        os.replace(arrived, bad)
        if arrived != file.path:
            companion(arrived, ".json").unlink(missing_ok=True)
        with suppress(OSError):  # without it, `cache list` cannot say why
            why = companion(bad, ".txt")
            remove_unless_regular(why)
            files.write(why, one_line(wrong) + "\n")
        return f"{wrong}; kept as {bad.name}"
    _record_digest(file, sha256, notify)
    if arrived != file.path:
        os.replace(arrived, file.path)
        companion(arrived, ".json").unlink(missing_ok=True)
        if file.entry is not None and pin(file.entry) == "prefix":
            digits = str(file.sha256)
            notify(
                f"{file.id}: weakly pinned: of its sha256 only the first {4 * len(digits)} bits ({digits}) are "
                f"published; all of it is {sha256}"
            )
    return None


def _git_blob_sha1(path: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with files.opened(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _locked(path: Path, notify: Notify) -> Iterator[None]:
    from filelock import FileLock, Timeout

    remove_unless_regular(companion(path, ".lock"))
    lock = FileLock(companion(path, ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notify(f"another process is downloading {path.name}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
