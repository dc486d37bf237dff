"""Published files, fetched from a mirror, the web or the Hugging Face hub, verified, and kept in the cache.

    <cache>/checkpoints/<id>/
        <file>                       under this name only once its digest was right
        <file>.sha256                digest of the first download, where the publisher gives none
        <file>.part, <file>.part.json    an interrupted download, and what it is a part of
        <file>.part.hub/             the same, from the hub
        <file>.<digest>.bad          arrived, but is not the published file
        <file>.lock                  held by the process that downloads

Environment: `TSMZOO_CACHE`, `TSMZOO_MIRROR` (a folder address that is tried first), `TSMZOO_OFFLINE`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tsmzoo.cache import local_path
from tsmzoo.errors import DownloadError
from tsmzoo.transfer import Progress, Refused, beside, discard, fetch_to, one_line, shown, too_large, write

if TYPE_CHECKING:
    from tsmzoo.registry import Entry

#: Called with a line the user should see.
Notify = Callable[[str], None]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def _to_stderr(note: str) -> None:
    print(note, file=sys.stderr)


def fetch(entry: Entry, *, progress: Progress | None = None, notify: Notify = _to_stderr) -> Path:
    """Return the verified local file of `entry`, downloading it where the cache does not have it.

    Raises DownloadError, in one line, where no address gives the right file or the cache cannot hold it.
    """
    path = local_path(entry)
    if entry.file is not None:
        return _beside_registry(entry, path)
    try:
        wrong: str | None = "it is not in the cache"
        if path.is_file():
            digest = _sha256(path)
            wrong = _wrong(entry, path, digest)
            if wrong is None:
                with suppress(OSError):  # a cache that can only be read serves as well
                    _remember(entry, path, digest, notify)
                return path
        if os.environ.get("TSMZOO_OFFLINE", "") not in ("", "0"):
            raise DownloadError(
                f"{entry.id}: {path.name} is missing ({wrong}) and TSMZOO_OFFLINE is set; put the published file at "
                f"{path}, or give it to export or run with --weights FILE"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path, notify):
            return _fetch_locked(entry, path, progress, notify)
    except OSError as error:
        if error.errno in _NO_ROOM:
            what = f"no room left for {path.name} in {path.parent}; free some, or set TSMZOO_CACHE to a larger disk"
        else:
            what = (
                f"the cache {path.parent} fails ({one_line(error)}); set TSMZOO_CACHE to a folder that can be written"
            )
        raise DownloadError(f"{entry.id}: {what}") from None


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


def _fetch_locked(entry: Entry, path: Path, progress: Progress | None, notify: Notify) -> Path:
    if path.is_file():  # from another process while this one waited, or wrong
        bad = _settle(entry, path, path, _sha256(path), notify)
        if bad is None:
            return path
        notify(f"{entry.id}: {path}: {bad}; fetching it again")
    part = beside(path, ".part")
    failures = []
    for address in _addresses(entry):
        try:
            if address.startswith("hf://"):
                digest = _from_hub(address, part, entry.max_bytes)
            else:
                known = _expected(entry, path) is not None
                digest = fetch_to(address, part, entry.max_bytes, known, progress)
            reason = _settle(entry, path, part, digest, notify)
            if reason is None:
                return path
        except Refused as error:
            reason = str(error)
        failures.append(f"{shown(address)}: {reason}")
    raise DownloadError(
        f"{entry.id}: {path.name} could not be fetched ({'; '.join(failures)}); set TSMZOO_MIRROR to the address of "
        "a folder that has it (https), or give the file to export or run with --weights FILE"
    )


def _addresses(entry: Entry) -> list[str]:
    mirror = os.environ.get("TSMZOO_MIRROR")
    return [*([f"{mirror.rstrip('/')}/{entry.filename}"] if mirror else []), *entry.urls]


# Digests


def _expected(entry: Entry, path: Path) -> str | None:
    """Return the digest that the file must have, or its first digits; None before the first download."""
    if published := entry.sha256 or entry.sha256_prefix:
        return published.lower()
    try:
        return beside(path, ".sha256").read_text(encoding="ascii", errors="replace").strip() or None
    except FileNotFoundError:
        return None


def _wrong(entry: Entry, path: Path, digest: str) -> str | None:
    """Say why `digest` is not the file's; None where it is, or where there is nothing to compare with."""
    expected = _expected(entry, path)
    if expected is None or digest.startswith(expected):
        return None
    if entry.sha256 or entry.sha256_prefix:
        return f"its sha256 is {digest}, the published one {'is' if entry.sha256 else 'begins with'} {expected}"
    record = beside(path, ".sha256")
    return f"its sha256 is {digest}, on the first download it was {expected} (to accept the new file delete {record})"


def _remember(entry: Entry, path: Path, digest: str, notify: Notify) -> None:
    """Trust on first use: what came first is enforced from then on."""
    if _expected(entry, path) is None:
        record = beside(path, ".sha256")
        write(record, digest + "\n")
        notify(f"{entry.id}: no digest is published; sha256 {digest} recorded on first download in {record}")


def _settle(entry: Entry, path: Path, arrived: Path, digest: str, notify: Notify) -> str | None:
    """Give `arrived` its final name and return None; or put it aside and say why."""
    if wrong := _wrong(entry, path, digest):
        bad = beside(path, f".{digest[:8]}.bad")
        os.replace(arrived, bad)
        return f"{wrong}; kept as {bad.name}"
    _remember(entry, path, digest, notify)
    if arrived != path:
        os.replace(arrived, path)
        beside(arrived, ".json").unlink(missing_ok=True)
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    try:
        about = hf_hub_download(f"{owner}/{repo}", name, revision=revision or None, cache_dir=store, dry_run=True)
        if about.file_size is not None and about.file_size > max_bytes:
            raise too_large(max_bytes)
        found = Path(hf_hub_download(f"{owner}/{repo}", name, revision=revision or None, cache_dir=store))
    except Exception as error:  # the library and its transfer back ends raise a dozen unrelated types
        if isinstance(error, Refused) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
            raise
        raise Refused(one_line(error)) from None
    discard(part)
    os.replace(found.resolve(), part)  # the blob behind the link: moved, so that no second copy stays
    shutil.rmtree(store, ignore_errors=True)
    return _sha256(part)


# Small helpers


@contextmanager
def _locked(path: Path, notify: Notify) -> Iterator[None]:
    from filelock import FileLock, Timeout

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
