"""Published files, fetched from a mirror, the web or the Hugging Face hub, verified, and kept in the cache.

    <cache>/checkpoints/<id>/
        <file>                       under this name only once its digest was right
        <file>.sha256                digest of the first download that was a checkpoint, where the publisher gives none
        <file>.part, <file>.part.json    an interrupted download, and what it is a part of
        <file>.part.hub/             the same, from the hub
        <file>.<digest>.bad          arrived, but is not the published file
        <file>.lock                  held by the process that downloads

A link or a pipe in the place of one of these is removed, not followed. A checkpoint of several files has them side by
side there, each with such companions of its own.

Environment: `TSMZOO_CACHE`; `TSMZOO_MIRROR`, a folder address that is tried first, as `<mirror>/<id>/<file>` (so the
cache's own folder of checkpoints serves) and then as `<mirror>/<file>`; `TSMZOO_OFFLINE`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tsmzoo.errors import CheckpointError, DownloadError
from tsmzoo.system import files
from tsmzoo.text import of_error
from tsmzoo.weights.cache import local_paths
from tsmzoo.weights.http import Progress, Refused, beside, discard, fetch_to, shown, too_large, vacate

if TYPE_CHECKING:
    from tsmzoo.registry import Entry

#: Called with a line the user should see.
Notify = Callable[[str], None]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

#: In the smallest type that weights are kept in.
_BYTES_PER_PARAMETER = 2
#: What TensorFlow's index of a checkpoint ends with, as all tables of LevelDB.
_TABLE = bytes.fromhex("57fb808b247547db")
#: Endings of text, which may well begin as an error page does.
_TEXT = (".json", ".txt", ".xml", ".html", ".yaml", ".yml", ".md")


@dataclass(frozen=True)
class _File:
    """One file of a checkpoint: where it belongs, where it is published, and what tells it from another."""

    id: str
    path: Path
    addresses: list[str]
    max_bytes: int
    #: The model whose weights it holds; None of what lies beside them.
    entry: Entry | None = None
    #: Or its first digits.
    sha256: str | None = None
    git_blob_sha1: str | None = None


def fetch(entry: Entry, *, progress: Progress | None = None, notify: Notify = lambda _: None) -> Path:
    """Return the verified local file of `entry`, downloading what the cache does not have of it.

    Of a checkpoint of several files it is the one that `urls` names. Raises DownloadError, in one line, where no
    address gives a right file, the cache cannot hold it, or no weights were published.
    """
    if not entry.has_weights:
        raise DownloadError(
            f"{entry.id}: no weights were published for it; train it (`tsmzoo train`), or give --weights FILE or random"
        )
    path, *others = local_paths(entry)
    if entry.file is not None:
        return _beside_registry(entry, path)
    # First what lies beside the checkpoint: it is small, and where it cannot be had the rest need not come.
    for other in others:
        _obtain(_File(entry.id, other, _addresses(entry, other.name), entry.max_bytes), progress, notify)
    digests = (entry.sha256 or entry.sha256_prefix, entry.git_blob_sha1)
    _obtain(_File(entry.id, path, _addresses(entry, path.name), entry.max_bytes, entry, *digests), progress, notify)
    return path


def _obtain(file: _File, progress: Progress | None, notify: Notify) -> None:
    path = file.path
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder is in the way", str(path))
        wrong: str | None = "it is not in the cache"
        if path.is_file():
            digest = _sha256(path)
            wrong = _wrong(file, path, digest)
            if wrong is None:
                with suppress(OSError):  # a cache that can only be read serves as well
                    _remember(file, digest, notify)
                return
        if os.environ.get("TSMZOO_OFFLINE", "") not in ("", "0"):
            raise DownloadError(
                f"{file.id}: {path.name} is missing ({wrong}) and TSMZOO_OFFLINE is set; put the published file at "
                f"{path}, or give it to export or run with --weights FILE"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path, notify):
            _fetch_locked(file, progress, notify)
    except OSError as error:
        if error.errno in _NO_ROOM:
            what = f"no room left for {path.name} in {path.parent}; free some, or set TSMZOO_CACHE to a larger disk"
        else:
            what = (
                f"the cache {path.parent} fails ({of_error(error)}); set TSMZOO_CACHE to a folder that can be written"
            )
        raise DownloadError(f"{file.id}: {what}") from None


def _beside_registry(entry: Entry, path: Path) -> Path:
    try:
        digest = _sha256(path)
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


def _fetch_locked(file: _File, progress: Progress | None, notify: Notify) -> None:
    path = file.path
    if path.is_file():  # from another process while this one waited, or wrong
        bad = _settle(file, path, _sha256(path), notify)
        if bad is None:
            return
        notify(f"{file.id}: {path}: {bad}; fetching it again")
    part = beside(path, ".part")
    for place in (part, beside(part, ".json")):
        vacate(place)
    failures = []
    for address in file.addresses:
        try:
            if address.startswith("hf://"):
                digest = _from_hub(address, part, file.max_bytes)
            else:
                known = bool(_expected(file) or file.git_blob_sha1)
                digest, joined = fetch_to(address, part, file.max_bytes, known, progress)
                if joined and _wrong(file, part, digest):  # perhaps only what an earlier run left of it
                    discard(part)
                    digest, _ = fetch_to(address, part, file.max_bytes, known, progress)
            reason = _settle(file, part, digest, notify)
            if reason is None:
                return
        except Refused as error:
            reason = str(error)
        failures.append(f"{shown(address)}: {reason}")
    raise DownloadError(
        f"{file.id}: {path.name} could not be fetched ({'; '.join(failures)}); set TSMZOO_MIRROR to the address of "
        "a folder that has it (https), or give the file to export or run with --weights FILE"
    )


def _addresses(entry: Entry, name: str) -> list[str]:
    """Return where to look for one of the files of `entry`: first on the mirror."""
    mirrored = []
    if mirror := os.environ.get("TSMZOO_MIRROR", "").rstrip("/"):
        mirrored.append(f"{mirror}/{entry.id}/{name}")
        if not entry.beside:  # checkpoints of several files call these alike
            mirrored.append(f"{mirror}/{name}")
    return [*mirrored, *(url if name == entry.filename else _sibling(url, name) for url in entry.urls)]


def _sibling(url: str, name: str) -> str:
    """Return the address of another file in the same folder, on the hub at the same revision."""
    folder, _, last = url.rpartition("/")
    revision = last.partition("@")[2] if url.startswith("hf://") else ""
    return f"{folder}/{name}@{revision}" if revision else f"{folder}/{name}"


# Digests


def _expected(file: _File) -> str | None:
    """Return the sha256 that the file must have, or its first digits; None where neither publisher nor cache has it.

    Raises DownloadError where the cache has a record of something else.
    """
    if file.sha256:
        return file.sha256.lower()
    record = beside(file.path, ".sha256")
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


def _wrong(file: _File, arrived: Path, sha256: str) -> str | None:
    """Say why `arrived` is not the file; None where it is. Without anything to compare with, it must be readable."""
    expected = _expected(file)
    if expected is None and not file.git_blob_sha1:
        return _unreadable(file, arrived)
    if expected is not None and not sha256.startswith(expected):
        if file.sha256:
            return (
                f"its sha256 is {sha256}, the published one {'is' if len(expected) == 64 else 'begins with'} {expected}"
            )
        record = beside(file.path, ".sha256")
        return (
            f"its sha256 is {sha256}, on the first download it was {expected} (to accept the new file delete {record})"
        )
    if file.git_blob_sha1 and (found := _git_blob_sha1(arrived)) != file.git_blob_sha1:
        return f"its git_blob_sha1 is {found}, the published one is {file.git_blob_sha1}"
    return None


def _unreadable(file: _File, arrived: Path) -> str | None:
    """Say why `arrived` is nothing to be trusted from now on: an error page, a part of a file, no checkpoint."""
    name = file.path.name
    with files.opened(arrived) as content:
        start = content.read(512)
        size = content.seek(0, os.SEEK_END)
        content.seek(max(0, size - len(_TABLE)))
        end = content.read()
    if not start:
        return "it is empty"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not name.endswith(_TEXT):
        if text.startswith(b"<"):
            return "it is a web page, not a checkpoint"
        if text.startswith((b"{", b"[")):
            return "it is JSON, not a checkpoint"
        if start.startswith(b"\x1f\x8b"):
            return "it is compressed (gzip), not a checkpoint"
    from tsmzoo.weights import tensorflow

    if name.endswith(tensorflow.INDEX):
        return None if end == _TABLE else "it is no index of a TensorFlow checkpoint"
    if file.entry is None:  # nothing here reads it
        return None
    if size < file.entry.params * _BYTES_PER_PARAMETER:
        return f"it has {size} bytes, too few for the model's weights"
    if name.endswith(tensorflow.DATA):
        return None
    from tsmzoo.weights import checkpoint, reading

    try:
        checkpoint.check(file.entry, reading.read(arrived))
    except CheckpointError as error:
        return f"it {error}"
    return None


def _remember(file: _File, sha256: str, notify: Notify) -> None:
    """Trust on first use: what came first is enforced from then on."""
    if _expected(file) is None and not file.git_blob_sha1:
        record = beside(file.path, ".sha256")
        vacate(record)
        files.write(record, sha256 + "\n")
        notify(f"{file.id}: no digest is published; sha256 {sha256} recorded on first download in {record}")


def _settle(file: _File, arrived: Path, sha256: str, notify: Notify) -> str | None:
    """Give `arrived` its final name and return None; or put it aside and say why."""
    if wrong := _wrong(file, arrived, sha256):
        bad = beside(file.path, f".{sha256[:8]}.bad")
        os.replace(arrived, bad)
        return f"{wrong}; kept as {bad.name}"
    _remember(file, sha256, notify)
    if arrived != file.path:
        os.replace(arrived, file.path)
        beside(arrived, ".json").unlink(missing_ok=True)
    return None


def _sha256(path: Path) -> str:
    return files.sha256(path).hexdigest()


def _git_blob_sha1(path: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with files.opened(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# hf://


def _from_hub(address: str, part: Path, max_bytes: int) -> str:
    """Download `hf://owner/repo/path[@revision]` to `part` and return its digest. Raises Refused.

    The hub's library resumes, retries and shows its own progress.
    """
    where, _, revision = address.removeprefix("hf://").partition("@")
    pieces = where.split("/", 2)
    if len(pieces) < 3:
        raise Refused("an address on the hub is hf://owner/repo/path")
    owner, repo, name = pieces
    from huggingface_hub import hf_hub_download

    store = beside(part, ".hub")
    if _leads_elsewhere(store):
        files.remove(store)
    try:
        with _silent_hub():
            about = hf_hub_download(f"{owner}/{repo}", name, revision=revision or None, cache_dir=store, dry_run=True)
            if about.file_size is not None and about.file_size > max_bytes:
                raise too_large(max_bytes)
            found = Path(hf_hub_download(f"{owner}/{repo}", name, revision=revision or None, cache_dir=store)).resolve()
        if found.stat().st_size > max_bytes:
            raise too_large(max_bytes)
    except Exception as error:  # the library and its transfer back ends raise a dozen unrelated types
        if isinstance(error, Refused) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
            raise
        raise Refused(of_error(error)) from None
    discard(part)
    os.replace(found, part)  # the blob behind the link: moved, so that no second copy stays
    shutil.rmtree(store, ignore_errors=True)
    return _sha256(part)


def _leads_elsewhere(store: Path) -> bool:
    """Say whether what was left of a download is, or holds, a link that leads out of it; the library's own do not."""
    inside = (Path(folder, name) for folder, folders, names in os.walk(store) for name in (*folders, *names))
    return store.is_symlink() or any(
        path.is_symlink() and not path.resolve().is_relative_to(store.resolve()) for path in inside
    )


@contextmanager
def _silent_hub() -> Iterator[None]:
    """Keep the library from telling of each retry: the error that it ends with is what the user is told."""
    import logging

    from huggingface_hub.utils import logging as of_hub

    before = of_hub.get_verbosity()
    of_hub.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        of_hub.set_verbosity(before)


# Small helpers


@contextmanager
def _locked(path: Path, notify: Notify) -> Iterator[None]:
    from filelock import FileLock, Timeout

    vacate(beside(path, ".lock"))
    lock = FileLock(beside(path, ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notify(f"another process is downloading {path.name}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
