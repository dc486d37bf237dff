"""Ask every address of the registry whether the file is still there, without downloading it."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from tsmzoo.callbacks import Progress, silent
from tsmzoo.errors import DownloadError
from tsmzoo.registry import Entry, Registry
from tsmzoo.text import Column
from tsmzoo.weights import http, hub
from tsmzoo.weights.http import Head

if TYPE_CHECKING:
    import httpx2

#: Seconds that an address has to answer, and a part of it: to connect.
SECONDS = 10.0
_TO_CONNECT = 4.0
#: Seconds after which no more answers are waited for.
SECONDS_IN_ALL = 600.0
#: After so many addresses without an answer in time, the others of the same server are not asked.
_MOST_LATE = 2


class LinkCheck(msgspec.Struct, frozen=True, kw_only=True):
    """An address of a model's checkpoint, and whether the file is there."""

    #: Id of the model.
    model: str
    #: Whether the model is a recommended one.
    recommended: bool
    url: str
    #: Whether the registry knows that the file was there; false for an address that is only likely.
    tested: bool
    #: HTTP status after redirects; null without an answer, and for the Hugging Face hub.
    status: int | None
    #: Size of the file; null if it is unknown.
    bytes: int | None
    #: Whether a checkpoint of this model can have this size; null if the size is unknown.
    size_fits: bool | None
    #: Whether the file is there: an answer, no web page, of a size that fits or is unknown.
    alive: bool
    #: Why the file is not there; null if it is.
    reason: str | None


def check(zoo: Registry, entries: list[Entry], progress: Progress = silent) -> list[LinkCheck]:
    """Ask each address of `entries`, one at a time on each host, and return what is there.

    Of a checkpoint of several files only the one that `urls` names is asked for: the others lie in the same folder.
    Raises DownloadError if nothing can be asked.
    """
    if http.is_offline():
        raise DownloadError("TSMZOO_OFFLINE is set, and no server is asked; unset it")
    by_host: dict[str, list[str]] = {}
    for url in dict.fromkeys(address.url for entry in entries for address in zoo.addresses(entry)):
        host = "hub" if url.startswith("hf://") else urlsplit(url).netloc
        by_host.setdefault(host, []).append(url)
    answers = _ask_all(list(by_host.values()), progress) if by_host else {}
    return [
        _link(entry, address.url, address.tested, answers[address.url])
        for entry in entries
        for address in zoo.addresses(entry)
    ]


def dead(links: list[LinkCheck]) -> list[str]:
    """Return the ids of the recommended models of which no address has the file."""
    alive = {link.model for link in links if link.alive}
    return list(dict.fromkeys(link.model for link in links if link.recommended and link.model not in alive))


COLUMNS: list[Column[LinkCheck]] = [
    ("model", "left", lambda link: link.model),
    ("recommended", "left", lambda link: "yes" if link.recommended else "–"),
    ("address", "left", lambda link: http.without_credentials(link.url)),
    ("status", "right", lambda link: "–" if link.status is None else link.status),
    ("bytes", "right", lambda link: "–" if link.bytes is None else f"{link.bytes:,}"),
    ("size", "left", lambda link: {True: "fits", False: "wrong", None: "–"}[link.size_fits]),
    ("file", "left", lambda link: link.reason or "there"),
]


def _link(entry: Entry, url: str, tested: bool, answer: Head) -> LinkCheck:
    status, size, reason = answer
    if entry.pinned is not None:
        fits, wanted = size == entry.pinned.bytes, f"{entry.pinned.bytes:,}"
    else:
        fits, wanted = entry.min_bytes <= (size or 0) <= entry.max_bytes, f"{entry.min_bytes:,} to {entry.max_bytes:,}"
    if reason is None and size is not None and not fits:
        reason = f"not the size of this checkpoint: {wanted} bytes"
    return LinkCheck(
        model=entry.id,
        recommended=entry.recommended,
        url=url,
        tested=tested,
        status=status,
        bytes=size,
        size_fits=None if size is None else fits,
        alive=reason is None,
        reason=reason,
    )


def _ask_all(hosts: list[list[str]], progress: Progress) -> dict[str, Head]:
    """Return the answer of each address; those of one list are asked in turn, the lists at the same time."""
    try:
        client = http.new_client(SECONDS, _TO_CONNECT)
    except http.Refused as error:
        raise DownloadError(f"no server can be asked: {error}; mend or unset them") from None
    urls = [url for each in hosts for url in each]
    answers = dict.fromkeys(urls, Head(None, None, f"no answer in the {SECONDS_IN_ALL:g} s for all addresses"))
    arriving: SimpleQueue[tuple[str, Head] | Exception] = SimpleQueue()
    end = time.monotonic() + SECONDS_IN_ALL
    for each in hosts:
        # Daemons: a server that holds a connection open must not hold up the end of the program.
        Thread(target=_ask_host, args=(client, each, end, arriving), daemon=True).start()
    with suppress(Empty):
        for done in range(len(urls)):
            progress("asking for files", done, len(urls))
            arrived = arriving.get(timeout=max(0, end - time.monotonic()))
            if isinstance(arrived, Exception):
                raise arrived
            answers.update([arrived])
    return answers


def _ask_host(
    client: httpx2.Client, urls: list[str], end: float, arriving: SimpleQueue[tuple[str, Head] | Exception]
) -> None:
    """Ask the addresses of a host in turn till `end`; if it cannot be reached, that is the answer of the others too."""
    late = 0
    gone: Head | None = None
    for url in urls:
        if time.monotonic() > end:
            return
        answer = gone
        if answer is None:
            try:
                answer = http.within(SECONDS, partial(_ask, client, url))
            except TimeoutError:
                answer = Head(None, None, f"no answer in {SECONDS:g} s")
                late += 1
                gone = answer if late == _MOST_LATE else None
            except http.Refused as error:
                answer = Head(None, None, str(error))
                gone = answer if isinstance(error, http.Unreachable) else None
            except Exception as error:  # a bug: raised where it is seen
                arriving.put(error)
                return
        arriving.put((url, answer))


def _ask(client: httpx2.Client, url: str) -> Head:
    return Head(None, hub.size(url), None) if url.startswith("hf://") else http.head(client, url)
