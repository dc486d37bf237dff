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
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tsmzoo import paths
from tsmzoo.errors import DownloadError

if TYPE_CHECKING:
    import httpx2

    from tsmzoo.registry import Entry

#: Called with the bytes that are there so far, and the bytes of the whole file where the server says.
Progress = Callable[[int, int | None], None]
#: Called with a line the user should see.
Notify = Callable[[str], None]

#: Seconds to wait for a connection, and for the next bytes of an answer.
CONNECT_TIMEOUT = 10.0
TIMEOUT = 30.0
#: An answer that brings less than this in TIMEOUT seconds counts as cut: drops alone would hold the user for days.
SLOWEST = 16 * 1024
#: Requests to one address, and seconds before the second of them; the pause doubles each time.
ATTEMPTS = 4
BACKOFF = 0.5

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class _Refused(Exception):
    """This address does not give the file; the next one may."""


class _Cut(Exception):
    """The transfer broke; the same address may give the rest."""


def _to_stderr(note: str) -> None:
    print(note, file=sys.stderr)


def local_path(entry: Entry) -> Path:
    """Return where the verified file of `entry` lies, or would lie, in the cache."""
    return paths.cache_dir() / "checkpoints" / entry.id / entry.filename


def is_cached(entry: Entry) -> bool:
    """Say whether the file of `entry` is in the cache; `fetch` verifies it."""
    return os.path.isfile(local_path(entry))  # Path.is_file raises where a folder must not be entered


def fetch(entry: Entry, *, progress: Progress | None = None, notify: Notify = _to_stderr) -> Path:
    """Return the verified local file of `entry`, downloading it where the cache does not have it.

    Raises DownloadError, in one line, where no address gives the right file or the cache cannot hold it.
    """
    path = local_path(entry)
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
                f"{path}, or give it with --weights FILE"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path, notify):
            return _fetch_locked(entry, path, progress, notify)
    except OSError as error:
        if error.errno in _NO_ROOM:
            what = f"no room left for {path.name} in {path.parent}; free some, or set TSMZOO_CACHE to a larger disk"
        else:
            what = f"the cache {path.parent} fails ({_line(error)}); set TSMZOO_CACHE to a folder that can be written"
        raise DownloadError(f"{entry.id}: {what}") from None


def _fetch_locked(entry: Entry, path: Path, progress: Progress | None, notify: Notify) -> Path:
    if path.is_file():  # from another process while this one waited, or wrong
        bad = _settle(entry, path, path, _sha256(path), notify)
        if bad is None:
            return path
        notify(f"{entry.id}: {path}: {bad}; fetching it again")
    part = _beside(path, ".part")
    failures = []
    for address in _addresses(entry):
        try:
            if address.startswith("hf://"):
                digest = _from_hub(address, part, entry.max_bytes)
            else:
                known = _expected(entry, path) is not None
                digest = _from_web(address, part, entry.max_bytes, known, progress)
            reason = _settle(entry, path, part, digest, notify)
            if reason is None:
                return path
        except _Refused as error:
            reason = str(error)
        failures.append(f"{_shown(address)}: {reason}")
    raise DownloadError(
        f"{entry.id}: {path.name} could not be fetched ({'; '.join(failures)}); set TSMZOO_MIRROR to the address of "
        "a folder that has it, or give the file with --weights FILE"
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
        return _beside(path, ".sha256").read_text(encoding="ascii", errors="replace").strip() or None
    except FileNotFoundError:
        return None


def _wrong(entry: Entry, path: Path, digest: str) -> str | None:
    """Say why `digest` is not the file's; None where it is, or where there is nothing to compare with."""
    expected = _expected(entry, path)
    if expected is None or digest.startswith(expected):
        return None
    if entry.sha256 or entry.sha256_prefix:
        return f"its sha256 is {digest}, the published one {'is' if entry.sha256 else 'begins with'} {expected}"
    record = _beside(path, ".sha256")
    return f"its sha256 is {digest}, on the first download it was {expected} (to accept the new file delete {record})"


def _remember(entry: Entry, path: Path, digest: str, notify: Notify) -> None:
    """Trust on first use: what came first is enforced from then on."""
    if _expected(entry, path) is None:
        record = _beside(path, ".sha256")
        _write(record, digest + "\n")
        notify(f"{entry.id}: no digest is published; sha256 {digest} recorded on first download in {record}")


def _settle(entry: Entry, path: Path, arrived: Path, digest: str, notify: Notify) -> str | None:
    """Give `arrived` its final name and return None; or put it aside and say why."""
    if wrong := _wrong(entry, path, digest):
        bad = _beside(path, f".{digest[:8]}.bad")
        os.replace(arrived, bad)
        return f"{wrong}; kept as {bad.name}"
    _remember(entry, path, digest, notify)
    if arrived != path:
        os.replace(arrived, path)
        _beside(arrived, ".json").unlink(missing_ok=True)
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# https


def _from_web(address: str, part: Path, max_bytes: int, known: bool, progress: Progress | None) -> str:
    """Download to `part`, with what it already holds of this file, and return the digest of the whole.

    `known`: there is a digest to compare with. Raises _Refused.
    """
    import httpx2

    try:
        client = httpx2.Client(
            timeout=httpx2.Timeout(TIMEOUT, connect=CONNECT_TIMEOUT),
            follow_redirects=True,
            # Ranges, lengths and digests are those of the file, not of a compressed transfer of it.
            headers={"Accept-Encoding": "identity"},
            event_hooks={"request": [_check_scheme]},  # called for each redirect, too
        )
    except (httpx2.InvalidURL, ValueError, ImportError, OSError) as error:
        raise _Refused(f"the proxy or certificate settings of the environment fail ({_line(error)})") from None
    reason = ""
    with client:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(BACKOFF * 2 ** (attempt - 1))
            try:
                return _stream(client, address, part, max_bytes, known, progress)
            except (_Cut, httpx2.TransportError) as error:
                reason = _line(error)
                # Who cannot be reached at all is not worth the wait; who answered once may come back.
                if attempt == 0 and isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
                    raise _Refused(f"no connection ({reason})") from None
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise _Refused(_line(error)) from None
    raise _Refused(f"gave up after {ATTEMPTS} attempts ({reason})")


def _check_scheme(request: httpx2.Request) -> None:
    url = request.url
    if url.scheme != "https" and not (url.scheme == "http" and url.host in _LOOPBACK):
        raise _Refused(f"only https:// and hf:// addresses are used, not {_shown(str(url))}")


def _stream(
    client: httpx2.Client, address: str, part: Path, max_bytes: int, known: bool, progress: Progress | None
) -> str:
    """Ask once, for what `part` lacks. Raises _Cut, _Refused, httpx2.HTTPError."""
    digest = hashlib.sha256()
    size = 0
    validator = _validator_of(part, address)
    if validator:
        with part.open("rb") as file:  # what an earlier run left may be damaged: it counts into the digest, too
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
    # If-Range: the rest of the same file, or, where it has changed, the new one from its start.
    headers = {"Range": f"bytes={size}-", "If-Range": validator} if size and validator else {}
    with client.stream("GET", address, headers=headers) as response:
        status = response.status_code
        if status == 416:
            _discard(part)
            raise _Cut("HTTP 416: nothing there to continue with")
        if status >= 500 or status in (408, 429):
            raise _Cut(f"HTTP {status} {response.reason_phrase}")
        if status not in (200, 206):
            raise _Refused(f"HTTP {status} {response.reason_phrase}")
        if not known and response.headers.get("Content-Type", "").startswith("text/html"):
            raise _Refused("answered with a web page, not with a file")

        arriving = _validator_in(response)
        total = int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
        if status == 206:
            # Some servers send a range whatever If-Range says: the bytes must be the next ones, and of the same file.
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if not headers or span is None or int(span[1]) != size or arriving not in (None, validator):
                _discard(part)
                raise _Cut("answered with a part of the file that does not fit what is here")
            total = None if span[2] == "*" else int(span[2])
        else:
            digest, size = hashlib.sha256(), 0
        if total is not None and total > max_bytes:
            raise _too_large(max_bytes)

        with part.open("ab" if status == 206 else "wb") as file:
            if status == 200:  # only now that the old bytes are gone may their description change
                _describe(part, address, arriving)
            began, before = time.monotonic(), size
            for block in response.iter_raw():
                size += len(block)
                if size > max_bytes:
                    file.truncate(0)
                    raise _too_large(max_bytes)
                file.write(block)
                digest.update(block)
                if progress is not None:
                    progress(size, total)
                if time.monotonic() - began > TIMEOUT:
                    if size - before < SLOWEST:
                        raise _Cut(f"too slow, {size - before} bytes in {TIMEOUT:g} s")
                    began, before = time.monotonic(), size
            file.flush()
            os.fsync(file.fileno())
    if total is not None and size != total:
        raise _Cut(f"ended after {size} of {total} bytes")
    return digest.hexdigest()


# A partial file: `.part` holds the bytes, `.part.json` which version of which address they are of


def _validator_in(response: httpx2.Response) -> str | None:
    """Return what tells this version of the file from another: a strong ETag, else its date."""
    etag: str | None = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified")


def _validator_of(part: Path, address: str) -> str | None:
    """Return the validator of the bytes in `part`, or None where they cannot be continued from `address`."""
    try:
        about = json.loads(_beside(part, ".json").read_bytes())
        return str(about["validator"]) if about["url"] == _shown(address) and part.is_file() else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _describe(part: Path, address: str, validator: str | None) -> None:
    if validator is None:
        _beside(part, ".json").unlink(missing_ok=True)
    else:
        _write(_beside(part, ".json"), json.dumps({"url": _shown(address), "validator": validator}))


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _beside(part, ".json").unlink(missing_ok=True)


# hf://


def _from_hub(address: str, part: Path, max_bytes: int) -> str:
    """Download `hf://owner/repo/path[@revision]` to `part` and return its digest. Raises _Refused.

    The hub's library resumes, retries and shows its own progress.
    """
    where, _, revision = address.removeprefix("hf://").partition("@")
    pieces = where.split("/", 2)
    if len(pieces) < 3:
        raise _Refused("an address on the hub is hf://owner/repo/path")
    owner, repo, name = pieces
    from huggingface_hub import hf_hub_download

    store = _beside(part, ".hub")
    try:
        about = hf_hub_download(f"{owner}/{repo}", name, revision=revision or None, cache_dir=store, dry_run=True)
        if about.file_size is not None and about.file_size > max_bytes:
            raise _too_large(max_bytes)
        found = Path(hf_hub_download(f"{owner}/{repo}", name, revision=revision or None, cache_dir=store))
    except Exception as error:  # the library and its transfer back ends raise a dozen unrelated types
        if isinstance(error, _Refused) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
            raise
        raise _Refused(_line(error)) from None
    _discard(part)
    os.replace(found.resolve(), part)  # the blob behind the link: moved, so that no second copy stays
    shutil.rmtree(store, ignore_errors=True)
    return _sha256(part)


# Small helpers


@contextmanager
def _locked(path: Path, notify: Notify) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(_beside(path, ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notify(f"another process is downloading {path.name}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _too_large(max_bytes: int) -> _Refused:
    return _Refused(f"larger than {max_bytes} bytes, the most that this model could need")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _write(path: Path, text: str) -> None:
    """Write at once: a reader sees the old text or the new."""
    temporary = _beside(path, f".{os.getpid()}.tmp")
    temporary.write_text(text, encoding="ascii")
    os.replace(temporary, path)


def _shown(address: str) -> str:
    """Return `address` without a user name or password, for messages and files."""
    return re.sub(r"//[^/@]*@", "//", address)


def _line(error: Exception) -> str:
    """Return the error's text as one line that is not endless."""
    return " ".join(str(error).split())[:300] or type(error).__name__
