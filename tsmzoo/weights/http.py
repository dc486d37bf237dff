"""One file over https: resumed, capped and hashed while it streams; it knows nothing of models or caches."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tsmzoo.system import files
from tsmzoo.text import of_error

if TYPE_CHECKING:
    import httpx2

#: Called with the bytes that are there so far, and the bytes of the whole file where the server says.
Progress = Callable[[int, int | None], None]

#: Seconds to wait for a connection, and for the next bytes of an answer.
CONNECT_TIMEOUT = 10.0
TIMEOUT = 30.0
#: An answer that brings less than this in TIMEOUT seconds counts as cut: drops alone would hold the user for days.
SLOWEST = 16 * 1024
#: Requests to one address, and seconds before the second of them; the pause doubles each time.
ATTEMPTS = 4
BACKOFF = 0.5

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Refused(Exception):
    """This address does not give the file; the next one may."""


class _Cut(Exception):
    """The transfer broke; the same address may give the rest."""


def fetch_to(address: str, part: Path, max_bytes: int, known: bool, progress: Progress | None) -> tuple[str, bool]:
    """Download to `part`, with what it already holds of this file.

    Return the digest of the whole, and whether it was put together of parts.
    `known`: there is a digest to compare with. Raises Refused.
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
        raise Refused(f"the proxy or certificate settings of the environment fail ({of_error(error)})") from None
    reason = ""
    with client:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(BACKOFF * 2 ** (attempt - 1))
            try:
                return _stream(client, address, part, max_bytes, known, progress)
            except (_Cut, httpx2.TransportError) as error:
                reason = of_error(error)
                # Who cannot be reached at all is not worth the wait; who answered once may come back.
                if attempt == 0 and isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
                    raise Refused(f"no connection ({reason})") from None
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise Refused(of_error(error)) from None
    raise Refused(f"gave up after {ATTEMPTS} attempts ({reason})")


def _check_scheme(request: httpx2.Request) -> None:
    url = request.url
    if url.scheme != "https" and not (url.scheme == "http" and url.host in _LOOPBACK):
        raise Refused(f"only https:// and hf:// addresses are used, not {shown(str(url))[:300]}")


def _stream(
    client: httpx2.Client, address: str, part: Path, max_bytes: int, known: bool, progress: Progress | None
) -> tuple[str, bool]:
    """Ask once, for what `part` lacks. Raises _Cut, Refused, httpx2.HTTPError."""
    digest = hashlib.sha256()
    size = 0
    validator = _validator_of(part, address)
    if validator and part.stat().st_size > max_bytes:
        discard(part)
        validator = None
    if validator:
        with files.opened(part) as file:  # what an earlier run left may be damaged: it counts into the digest, too
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
    # If-Range: the rest of the same file, or, where it has changed, the new one from its start.
    headers = {"Range": f"bytes={size}-", "If-Range": validator} if size and validator else {}
    with _answer(client, address, headers) as response:
        status = response.status_code
        if status == 416:
            discard(part)
            raise _Cut("HTTP 416: nothing there to continue with")
        if status >= 500 or status in (408, 429):
            raise _Cut(f"HTTP {status} {response.reason_phrase[:100]}")
        if status not in (200, 206):
            raise Refused(f"HTTP {status} {response.reason_phrase[:100]}")
        if not known and response.headers.get("Content-Type", "").startswith("text/html"):
            raise Refused("answered with a web page, not with a file")

        arriving = _validator_in(response)
        # Of a transfer in chunks, the chunks tell the length.
        total = None if "Transfer-Encoding" in response.headers else _number(response.headers.get("Content-Length"))
        if status == 206:
            # Some servers send a range whatever If-Range says: the bytes must be the next ones, and of the same file.
            span = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+|\*)", response.headers.get("Content-Range", ""))
            if not headers or span is None or _number(span[1]) != size or arriving not in (None, validator):
                discard(part)
                raise _Cut("answered with a part of the file that does not fit what is here")
            total = _number(span[2])
        else:
            digest, size = hashlib.sha256(), 0
        if total is not None and total > max_bytes:
            raise too_large(max_bytes)

        with _continued(part, size) if status == 206 else _begun(part) as file:
            if status == 200:  # only now that the old bytes are gone may their description change
                _describe(part, address, arriving)
            began, before = time.monotonic(), size
            for block in response.iter_raw():
                size += len(block)
                if size > max_bytes:
                    file.truncate(0)
                    raise too_large(max_bytes)
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
        if size > total:  # of another file, or damaged: there is nothing to continue
            discard(part)
        raise _Cut(f"ended after {size} of {total} bytes")
    return digest.hexdigest(), status == 206


@contextmanager
def _answer(client: httpx2.Client, address: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
    """Give the head of an answer, its body still to come."""
    try:
        response = client.send(client.build_request("GET", address, headers=headers), stream=True)
    except (
        UnicodeError
    ) as error:  # of a host, of this address or one that it leads to, that no resolver can be asked for
        raise Refused(f"leads to no address ({of_error(error)})") from None
    try:
        yield response
    finally:
        response.close()


# A partial file: `.part` holds the bytes, `.part.json` which version of which address they are of


def _validator_in(response: httpx2.Response) -> str | None:
    """Return what tells this version of the file from another: a strong ETag, else its date."""
    etag = response.headers.get("ETag", "")
    return _usable(response.headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag)


def _usable(validator: object) -> str | None:
    """Return a validator that can be sent back in a header; None of any other."""
    fits = isinstance(validator, str) and re.fullmatch(r"[!-~]([ -~]{0,998}[!-~])?", validator)
    return str(validator) if fits else None


def _validator_of(part: Path, address: str) -> str | None:
    """Return the validator of the bytes in `part`, or None where they cannot be continued from `address`."""
    try:
        about = json.loads(files.read(beside(part, ".json"), 1 << 16))
        return _usable(about["validator"]) if about["url"] == shown(address) and part.is_file() else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _describe(part: Path, address: str, validator: str | None) -> None:
    if validator is None:
        beside(part, ".json").unlink(missing_ok=True)
    else:
        files.write(beside(part, ".json"), json.dumps({"url": shown(address), "validator": validator}))


def vacate(path: Path) -> None:
    """Remove what lies at the place of a file of ours and would lead elsewhere: a link of either kind, a pipe.

    Raises OSError where a folder does.
    """
    try:
        about = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder is in the way", str(path))
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        path.unlink()


_ONLY_HERE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def _begun(part: Path) -> BinaryIO:
    """Open a new file: not one that is there, which may be another's by another name."""
    part.unlink(missing_ok=True)
    return open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _ONLY_HERE, 0o666), "wb")


def _continued(part: Path, size: int) -> BinaryIO:
    """Open `part` to append to it. Raises _Cut where it is no longer that file of `size` bytes."""
    descriptor = os.open(part, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0) | _ONLY_HERE)
    about = os.fstat(descriptor)
    if stat.S_ISREG(about.st_mode) and about.st_nlink == 1 and about.st_size == size:
        return open(descriptor, "ab")
    os.close(descriptor)
    discard(part)
    raise _Cut("the partial file was changed meanwhile")


def discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    beside(part, ".json").unlink(missing_ok=True)


# Small helpers


def too_large(max_bytes: int) -> Refused:
    return Refused(f"larger than {max_bytes} bytes, the most that this model could need")


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _number(text: str | None) -> int | None:
    """Return a length as servers give it; None where it is none, or beyond all files."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


def shown(address: str) -> str:
    """Return `address` without a user name or password, for messages and files."""
    return re.sub(r"//[^/@]*@", "//", address)
