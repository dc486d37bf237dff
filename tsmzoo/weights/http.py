"""Download one file over https: resumed, limited in size, and hashed while it streams; or ask only for its size."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar

from tsmzoo.system import files
from tsmzoo.text import CELL, ERROR, of_error, one_line

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

#: Seconds to wait for a connection, and for the next bytes of a response.
CONNECT_TIMEOUT = 10.0
TIMEOUT = 30.0
#: Seconds for the whole head of a response, redirects included, and for each chunk of its body: either may trickle in.
COMPLETE = 60.0
#: A response of fewer bytes than this in TIMEOUT seconds counts as interrupted: it would take days.
SLOWEST = 16 * 1024
#: Requests to one address, and seconds before the second; the pause doubles each time.
ATTEMPTS = 4
BACKOFF = 0.5
MAX_REDIRECTS = 20

#: Errors of a full disk.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: What a text may begin with: a byte order mark, space.
BLANK = b"\xef\xbb\xbf \t\r\n"
#: What httpx2 says of such an address names a part of it, perhaps of a password.
MALFORMED = "the address is not well formed; in a password, write signs such as / as %2F"
PARKED = "the domain may be parked or ask for a log-in"


def is_offline() -> bool:
    """Say whether TSMZOO_OFFLINE forbids to ask any server."""
    return os.environ.get("TSMZOO_OFFLINE", "") not in ("", "0")


class Refused(Exception):
    """This address does not have the file; the next one may."""


class Unreachable(Refused):
    """No connection to the server of this address; its other files cannot be had now either."""


class _Interrupted(Exception):
    """The transfer was interrupted; the same address may give the rest."""


class Head(NamedTuple):
    """What a server answers about a file without sending it."""

    #: None if there was no answer, or not over HTTP.
    status: int | None
    #: Bytes of the file; None if the server does not say, or has no such file.
    size: int | None
    #: Why the file is not there; None if it is.
    reason: str | None


def new_client(timeout: float, connect: float) -> httpx2.Client:
    """Return a client for downloads, which waits so many seconds for the next bytes, and for a connection.

    Raises Refused if the settings of the environment allow none.
    """
    import httpx2

    try:
        return httpx2.Client(
            timeout=httpx2.Timeout(timeout, connect=connect),
            # Ranges, lengths and digests are those of the file, not of a compressed transfer of it.
            headers={"Accept-Encoding": "identity"},
            event_hooks={"request": [_check_scheme]},
        )
    except (httpx2.InvalidURL, ValueError, ImportError, OSError) as error:
        why = MALFORMED if isinstance(error, httpx2.InvalidURL) else without_credentials(of_error(error))
        raise Refused(f"the proxy or certificate settings of the environment fail ({why})") from None


def fetch_to(address: str, part: Path, max_bytes: int, progress: Callable[[int, int], None]) -> tuple[str, bool]:
    """Download to `part`, continuing what it already holds; return the sha256, and whether it was continued.

    `max_bytes` limits the size. `progress` is called with the bytes so far, and those of the whole file, or 0 if the
    server does not say. Raises Refused.
    """
    import httpx2

    reason = ""
    with new_client(TIMEOUT, CONNECT_TIMEOUT) as client:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(BACKOFF * 2 ** (attempt - 1))
            try:
                return _stream(client, address, part, max_bytes, progress)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                refused = _no_connection(error, address)
                # A server that cannot be reached is not worth the wait; one that answered may come back.
                if attempt == 0:
                    raise refused from None
                reason = str(refused)
            except (_Interrupted, httpx2.TransportError) as error:
                reason = of_error(error)
            except httpx2.InvalidURL:
                raise Refused(MALFORMED) from None
            except httpx2.HTTPError as error:
                raise Refused(of_error(error)) from None
    raise Refused(f"gave up after {ATTEMPTS} attempts ({reason})")


def head(client: httpx2.Client, address: str) -> Head:
    """Ask for status and size of a file. Raises Refused if there is no answer, Unreachable if there is no connection.

    Unless it gives a size, a server is asked once more, for the first byte: many answer HEAD wrongly, or not at all.
    """
    import httpx2

    answer = None
    try:
        with suppress(httpx2.RemoteProtocolError, httpx2.ReadError):
            answer = _ask(client, address, "HEAD", {})
        if answer is None or not answer.size:
            answer = _ask(client, address, "GET", {"Range": "bytes=0-0"})
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise _no_connection(error, address) from None
    except httpx2.InvalidURL:
        raise Refused(MALFORMED) from None
    except httpx2.HTTPError as error:
        raise Refused(of_error(error)) from None
    return answer


def _ask(client: httpx2.Client, address: str, method: str, headers: dict[str, str]) -> Head:
    with _open_response(client, address, headers, method) as response:
        status = response.status_code
        if status not in (200, 206):
            return Head(status, None, f"HTTP {status} {response.reason_phrase[:100]}")
        if _is_html(response):
            return Head(status, None, _web_page(response, address))
        if status == 206:
            return Head(status, _number(response.headers.get("Content-Range", "").rpartition("/")[2]), None)
        return Head(status, _length(response), None)


def _no_connection(error: httpx2.TransportError, address: str) -> Refused:
    """Return what to say of an error on the way to the server of `address`, or to one that it redirects to."""
    import httpx2

    from tsmzoo.weights import unreachable

    url = error.request.url
    why = unreachable.reason(error, str(url))
    if url.host == httpx2.URL(address).host:
        return Unreachable(f"no connection ({why})")
    return Refused(f"no connection to {one_line(url.host, CELL)} ({why})")


def _check_scheme(request: httpx2.Request) -> None:
    url = request.url
    if url.scheme != "https" and not (url.scheme == "http" and url.host in _LOOPBACK):
        raise Refused("only https:// and hf:// addresses are used")


def _stream(
    client: httpx2.Client, address: str, part: Path, max_bytes: int, progress: Callable[[int, int], None]
) -> tuple[str, bool]:
    """Request once what `part` lacks. Raises _Interrupted, Refused, httpx2.HTTPError."""
    digest, size, validator = _kept(part, address, max_bytes)
    # If-Range: the rest of the same file, or, if it has changed, the new one from its start.
    headers = {"Range": f"bytes={size}-", "If-Range": validator} if size and validator else {}
    with _open_response(client, address, headers) as response:
        _check_status(response, part)
        blocks = _chunks(response) if "Transfer-Encoding" in response.headers else response.iter_raw()
        first = next(blocks, b"")
        if first.lstrip(BLANK).startswith(b"<") and _is_html(response):
            raise Refused(_web_page(response, address))

        arriving, joined = _response_validator(response), response.status_code == 206
        if joined:
            # Some servers send a range whatever If-Range says: the bytes must be the next ones, and of the same file.
            span = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+|\*)", response.headers.get("Content-Range", ""))
            if not headers or span is None or _number(span[1]) != size or arriving not in (None, validator):
                discard(part)
                raise _Interrupted("answered with a part of the file that does not fit what is here")
            total = _number(span[2])
        else:
            digest, size, total = hashlib.sha256(), 0, _length(response)
        if total is not None and total > max_bytes:
            raise too_large(max_bytes)

        with _append_to_part(part, size) if joined else _create_part(part) as file:
            if not joined:  # only now that the old bytes are gone may their description change
                _write_validator(part, address, arriving)
            for block in _steady(chain([first], blocks)):
                size += len(block)
                if size > max_bytes:
                    file.truncate(0)
                    raise too_large(max_bytes)
                file.write(block)
                digest.update(block)
                progress(size, total or 0)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and size != total:
        if size > total:  # of another file, or damaged: there is nothing to continue
            discard(part)
        raise _Interrupted(f"ended after {size} of {total} bytes")
    return digest.hexdigest(), joined


def _kept(part: Path, address: str, max_bytes: int) -> tuple[hashlib._Hash, int, str | None]:
    """Return the digest and the size of what `part` holds and can be continued from `address`, and its validator."""
    digest, size, validator = hashlib.sha256(), 0, _read_validator(part, address)
    if validator and part.stat().st_size > max_bytes:
        discard(part)
        validator = None
    if validator:
        with files.opened(part) as file:  # an earlier run's part may be damaged: it counts into the digest, too
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
    return digest, size, validator


def _check_status(response: httpx2.Response, part: Path) -> None:
    """Raise _Interrupted or Refused if `response` brings no bytes of the file."""
    status = response.status_code
    if status == 416:
        discard(part)
        raise _Interrupted("HTTP 416: nothing there to continue with")
    if status >= 500 or status in (408, 429):
        raise _Interrupted(f"HTTP {status} {response.reason_phrase[:100]}")
    if status not in (200, 206):
        raise Refused(f"HTTP {status} {response.reason_phrase[:100]}")


def _steady(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield `blocks`. Raises _Interrupted if they arrive slower than SLOWEST bytes in TIMEOUT seconds."""
    began, arrived = time.monotonic(), 0
    for block in blocks:
        yield block
        arrived += len(block)
        if time.monotonic() - began > TIMEOUT:
            if arrived < SLOWEST:
                raise _Interrupted(f"too slow, {arrived} bytes in {TIMEOUT:g} s")
            began, arrived = time.monotonic(), 0


@contextmanager
def _open_response(
    client: httpx2.Client, address: str, headers: dict[str, str], method: str = "GET"
) -> Iterator[httpx2.Response]:
    """Send the request, follow redirects and give the response, whose body is not read yet."""
    import httpx2

    try:
        response = within(COMPLETE, partial(_send, client, client.build_request(method, address, headers=headers)))
    except TimeoutError:
        raise httpx2.ReadTimeout(f"no complete answer in {COMPLETE:g} s") from None
    try:
        yield response
    finally:
        response.close()


def _send(client: httpx2.Client, request: httpx2.Request) -> httpx2.Response:
    for followed in range(MAX_REDIRECTS + 1):
        try:
            response = client.send(request, stream=True)
        except UnicodeError as error:  # of a host that no resolver can be asked for
            raise Refused(f"leads to no address ({of_error(error)})") from None
        except Refused as error:
            if not followed:
                raise
            where = without_credentials(str(request.url))[:300]
            raise Refused(f"redirected elsewhere ({error}, not {where}): {PARKED}") from None
        if response.next_request is None:
            return response
        # The client, asked to follow it, would first read the body of the redirect to its end.
        response.close()
        request = response.next_request
    raise Refused(f"more than {MAX_REDIRECTS} redirects")


def _chunks(response: httpx2.Response) -> Iterator[bytes]:
    """Give the body of a chunked transfer. Raises _Interrupted if a chunk is not complete in time.

    No block tells of one whose size trickles in; of other bodies any byte that arrives is a block.
    """
    blocks = response.iter_raw()
    try:
        while block := within(COMPLETE, partial(next, blocks, b"")):
            yield block
    except TimeoutError:
        raise _Interrupted(f"too slow, no chunk in {COMPLETE:g} s") from None


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what `call` returns. Raises what it raises, or TimeoutError if it takes longer; it then goes on.

    The timeouts of a connection are of each wait, which a byte ends: they do not bound the whole.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    # A daemon: a server that holds a connection open must not hold up the end of the program.
    Thread(target=run, daemon=True).start()
    return result.result(seconds)


def _is_html(response: httpx2.Response) -> bool:
    return bool(response.headers.get("Content-Type", "").startswith("text/html"))


def _web_page(response: httpx2.Response, address: str) -> str:
    """Return what to say of a web page where a file should be."""
    import httpx2

    url = response.url.copy_with(userinfo=b"", query=None, fragment=None)
    from_where = one_line(f" at {url}", ERROR) if response.url != httpx2.URL(address) else ""
    return f"answered with a web page{from_where}: {PARKED}"


def _length(response: httpx2.Response) -> int | None:
    """Return the bytes of the body; None if they are not known before: of a chunked transfer, the chunks give them."""
    return None if "Transfer-Encoding" in response.headers else _number(response.headers.get("Content-Length"))


# A partial file: `.part` holds the bytes, `.part.json` their address and version


def _response_validator(response: httpx2.Response) -> str | None:
    """Return what identifies this version of the file: a strong ETag, else its date."""
    etag = response.headers.get("ETag", "")
    return _usable_validator(response.headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag)


def _usable_validator(validator: object) -> str | None:
    """Return a validator if it can be sent back in a header, else None."""
    fits = isinstance(validator, str) and re.fullmatch(r"[!-~]([ -~]{0,998}[!-~])?", validator)
    return str(validator) if fits else None


def _read_validator(part: Path, address: str) -> str | None:
    """Return the validator of the bytes in `part`, or None if they cannot be continued from `address`."""
    try:
        about = json.loads(files.read(companion(part, ".json"), 1 << 16))
        return (
            _usable_validator(about["validator"])
            if about["url"] == without_credentials(address) and part.is_file()
            else None
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write_validator(part: Path, address: str, validator: str | None) -> None:
    if validator is None:
        companion(part, ".json").unlink(missing_ok=True)
    else:
        files.write(companion(part, ".json"), json.dumps({"url": without_credentials(address), "validator": validator}))


def remove_unless_regular(path: Path) -> None:
    """Remove a link or a pipe in the place of a file of ours. Raises OSError if a folder is in its place."""
    try:
        about = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder is in the way", str(path))
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        path.unlink()


_ONLY_HERE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def _create_part(part: Path) -> BinaryIO:
    """Open a new file: an existing one may be a link to another."""
    part.unlink(missing_ok=True)
    return open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _ONLY_HERE, 0o666), "wb")


def _append_to_part(part: Path, size: int) -> BinaryIO:
    """Open `part` to append to it. Raises _Interrupted if it is no longer a file of `size` bytes."""
    descriptor = os.open(part, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0) | _ONLY_HERE)
    about = os.fstat(descriptor)
    if stat.S_ISREG(about.st_mode) and about.st_nlink == 1 and about.st_size == size:
        return open(descriptor, "ab")
    os.close(descriptor)
    discard(part)
    raise _Interrupted("the partial file was changed meanwhile")


def discard(part: Path) -> None:
    """Remove a partial file and its description."""
    part.unlink(missing_ok=True)
    companion(part, ".json").unlink(missing_ok=True)


# Small helpers


def too_large(max_bytes: int) -> Refused:
    return Refused(f"larger than {max_bytes:,} bytes, the most that this model could need")


def companion(path: Path, suffix: str) -> Path:
    """Return the path of a file beside `path`, with `suffix` added to its name."""
    return path.with_name(path.name + suffix)


def _number(text: str | None) -> int | None:
    """Return the number in a header; None if it is not a number, or larger than any file."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


def without_credentials(address: str) -> str:
    """Return `address` without user name, password and query, which may be a signature: for messages and files."""
    # The first case: a password with a / or @ of its own.
    return re.sub(r"\?\S+", "?…", re.sub(r"(?s)//(?:[^/?#]*:.*@|[^/?#]*@)", "//", address))
