"""Outages as they happen to hosts of checkpoints: the next address takes over, or one line says what is wrong."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from tsmzoo.weights import cache, download, http

from .conftest import BODY, CHECKPOINT, EXPIRED, NAME, OTHER, PINS, Reply, Server, leftovers, refusal, sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from tsmzoo.registry import Entry

PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>" * 100
HTML = {"Content-Type": "text/html; charset=utf-8"}
PARKED = "a web page: the domain may be parked or ask for a log-in"


#: Outage to the answers of its address, and what is said of it.
ANSWERS: dict[str, tuple[Reply, str]] = {
    "parked": (Reply(PAGE, headers=HTML), f": answered with {PARKED}"),
    "parked, as a file": (Reply(PAGE), f": it is a web page, not a checkpoint: {PARKED.removeprefix('a web page: ')}"),
    "parked, elsewhere": (
        Reply(b"", 302, {"Location": "http://ww25.parked.invalid/"}),
        ": redirected elsewhere (only https:// and hf:// addresses are used, not http://ww25.parked.invalid/): "
        "the domain may be parked",
    ),
    "log-in": (Reply(b"", 302, {"Location": "/login?next=x"}), "/login: the domain may be parked or ask for a log-in"),
    "log-in on a host that is gone": (
        Reply(b"", 302, {"Location": "https://login.invalid/"}),
        ": no connection to login.invalid (its name does not resolve)",
    ),
    "a redirect that never ends": (
        Reply(bytes(10**6), 302, {"Location": "/login"}, trickle=0.01),
        "/login: the domain may be parked or ask for a log-in",
    ),
    "truncated at 1 MiB": (
        Reply(b"\0" + os.urandom(2**20 - 1)),
        ": it has exactly 1,048,576 bytes: perhaps a truncated upload; ",
    ),
    "trickle": (Reply(trickle=0.02), ": gave up after 4 attempts (too slow, "),
    "endless head": (
        Reply(endless=b"HTTP/1.1 200 OK\r\nX: "),
        "gave up after 4 attempts (no complete answer in 0.3 s)",
    ),
    "endless size of a chunk": (
        Reply(endless=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;"),
        "gave up after 4 attempts (too slow, no chunk in 0.3 s)",
    ),
    "another file of this size": (
        Reply(OTHER[: len(CHECKPOINT)]),
        f": its sha256 is {sha256(OTHER[: len(CHECKPOINT)])}, ",
    ),
    "forbidden": (Reply(PAGE, 403, HTML), ": HTTP 403 Forbidden"),
    "nothing": (Reply(b""), ": it is empty; its sha256 is "),
}
HOSTS = {
    "expired certificate": "no connection (its certificate expired on 2025-08-12)",
    "unknown certificate": "no connection (its certificate is refused: self-signed certificate)",
    "name": "no connection (its name does not resolve)",
}


@pytest.fixture
def broken(
    request: pytest.FixtureRequest, server: Server, expired: Server, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, str]:
    """The address of an outage, and what is said of it."""
    outage = request.param
    monkeypatch.setattr(http, "TIMEOUT", 0.1)
    if outage.startswith("endless"):
        monkeypatch.setattr(http, "COMPLETE", 0.3)
    if outage in ANSWERS:
        reply, said = ANSWERS[outage]
        server.add("/login", Reply(PAGE, headers=HTML))
        server.add("/login?next=x", Reply(PAGE, headers=HTML))
        return server.add(f"/a/{NAME}", reply), said
    if outage == "expired certificate":
        monkeypatch.setenv("SSL_CERT_FILE", str(EXPIRED))
    host = "https://checkpoints.invalid" if outage == "name" else expired.url.replace("http:", "https:")
    return f"{host}/a/{NAME}", f": {HOSTS[outage]}"


outages = pytest.mark.parametrize("broken", [*ANSWERS, *HOSTS], indirect=True)


@outages
@pytest.mark.parametrize("pin", PINS)
def test_the_next_address_takes_over(
    pin: str, broken: tuple[str, str], server: Server, make_entry: Callable[..., Entry]
) -> None:
    good = server.add(f"/b/{NAME}", Reply(CHECKPOINT))
    entry = make_entry(broken[0], good, **PINS[pin])
    assert download.fetch(entry, notify=lambda _: None).read_bytes() == CHECKPOINT
    assert not {ending for ending in leftovers(entry) if ".part" in ending}


@outages
def test_alone_it_is_one_line_that_says_why(broken: tuple[str, str], make_entry: Callable[..., Entry]) -> None:
    address, said = broken
    entry = make_entry(address, "http://127.0.0.1:1/x", **PINS["sha256"])
    message = refusal(entry)
    assert f"{address}: " in message
    assert said in message
    assert "; http://127.0.0.1:1/x: no connection (" in message
    assert message.endswith(
        "; if you have it from elsewhere: `tsmzoo download tsm_tiny --source URL|FILE`, or set TSMZOO_MIRROR to the "
        "https:// or hf:// address of a folder that has it"
    )
    unpinned = msgspec.structs.replace(entry, sha256=None, id="tsm_other")
    assert f"{address}: " in refusal(unpinned)
    assert not cache.local_path(unpinned).with_name(f"{NAME}.sha256").exists()


def test_an_expired_certificate_is_not_passed_over(
    expired: Server, make_entry: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a request is sent, whether the file would be the right one or not."""
    monkeypatch.setenv("SSL_CERT_FILE", str(EXPIRED))
    refusal(make_entry(f"{expired.url.replace('http:', 'https:')}/a/{NAME}", **PINS["sha256"]))
    assert expired.requests == []


def test_a_parked_domain_does_not_undo_half_a_download(server: Server, make_entry: Callable[..., Entry]) -> None:
    server.add(f"/a/{NAME}", Reply(b"", 404))
    server.add(f"/b/{NAME}", Reply(cut=100_000), Reply(b"", 404))
    entry = make_entry(f"{server.url}/a/{NAME}", f"{server.url}/b/{NAME}")
    refusal(entry)
    server.add(f"/a/{NAME}", Reply(PAGE, headers=HTML))
    server.add(f"/b/{NAME}", Reply())
    assert download.fetch(entry).read_bytes() == BODY
    assert server.ranges()[-1] == "bytes=100000-"
