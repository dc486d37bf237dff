"""Servers that answer with nonsense: one line from `download.fetch`, or the right file; never a traceback."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tsmzoo import registry
from tsmzoo.errors import DownloadError
from tsmzoo.weights import cache, download

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KNOWN = registry.load().find("tsm_r50_sthv2")
BODY = b"\0" + os.urandom(49_999)
LENGTH = f"Content-Length: {len(BODY)}".encode()
Answer = bytes


class Server:
    """Sends bytes as they are, one answer a connection; the last one stays."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.answers: list[Answer] = []
        self.requests: list[bytes] = []

    def serve(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            with client:
                asked = b""
                while b"\r\n\r\n" not in asked and (more := client.recv(65536)):
                    asked += more
                self.requests.append(asked)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                try:
                    client.sendall(answer)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(65536):
                        pass
                except OSError:
                    pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    server.socket.shutdown(socket.SHUT_RDWR)
    server.socket.close()
    thread.join()


def entry_of(*urls: str, **changes: Any) -> registry.Entry:
    known = msgspec.structs.asdict(KNOWN)
    facts = {"id": "tiny", "urls": urls, "beside": (), "params": 1, "sha256": hashlib.sha256(BODY).hexdigest()}
    return registry.Entry(**(known | {"sha256_prefix": None, "git_blob_sha1": None} | facts | changes))


def answer(*headers: bytes, status: bytes = b"200 OK", body: bytes = BODY) -> Answer:
    return b"\r\n".join([b"HTTP/1.1 " + status, *headers, b"Connection: close", b"", body])


def refusal(entry: registry.Entry) -> str:
    with pytest.raises(DownloadError) as caught:
        download.fetch(entry, notify=lambda _: None)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 3000
    assert not cache.is_cached(entry)
    return message


RIGHT = answer(LENGTH)

#: What a server may begin with, before it answers rightly; true: the file comes all the same.
ODD: dict[str, tuple[Answer, bool]] = {
    "nothing": (b"", True),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01", True),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", True),
    "a status that is none": (b"HTTP/1.1 abc OK\r\n\r\n", True),
    "a status of many digits": (b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n", True),
    "a status beyond all": (answer(LENGTH, status=b"999 \xff\xfe"), True),
    "a reason without end": (answer(LENGTH, status=b"404 " + b"x" * 60_000), False),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", False),
    "a length that is none": (answer(b"Content-Length: abc"), True),
    "a negative length": (answer(b"Content-Length: -1"), True),
    "a length of many digits": (answer(b"Content-Length: " + b"9" * 5000), True),
    "a length in other digits": (answer("Content-Length: ٣".encode()), True),
    "two lengths": (answer(LENGTH, b"Content-Length: 7"), True),
    "the same length twice": (answer(LENGTH, LENGTH), True),
    "too long a length": (answer(b"Content-Length: 60000"), True),
    "too short a length": (answer(b"Content-Length: 10"), False),
    "an enormous length": (answer(b"Content-Length: 99999999999999999"), False),
    "chunks and a length": (
        answer(b"Transfer-Encoding: chunked", b"Content-Length: 7", body=b"c350\r\n" + BODY + b"\r\n0\r\n\r\n"),
        True,
    ),
    "chunks that are none": (answer(b"Transfer-Encoding: chunked"), True),
    "a chunk without end": (answer(b"Transfer-Encoding: chunked", body=b"f" * 5000 + b"\r\n"), True),
    "an unknown transfer": (answer(b"Transfer-Encoding: x"), True),
    "headers without end": (answer(*[b"X: " + b"x" * 1000] * 300, LENGTH), True),
    "a header without end": (answer(b"X: " + b"x" * 300_000, LENGTH), True),
    "a header of other bytes": (answer(b"X-\xff: \xfe", LENGTH), True),
    "a header without a colon": (answer(b"nonsense", LENGTH), True),
    "a NUL in a header": (answer(b"X: a\0b", LENGTH), True),
    "many cookies": (answer(*[b"Set-Cookie: a=b; expires=\xff; domain=;;;=="] * 50, LENGTH), True),
    "a type of other bytes": (answer(b"Content-Type: \xff\xfe", LENGTH), True),
    "a part that nobody asked for": (answer(LENGTH, b"Content-Range: bytes 0-9/10", status=b"206 Partial"), True),
    "many that come first": (b"HTTP/1.1 100 Continue\r\n\r\n" * 20 + RIGHT, True),
    "another protocol to switch to": (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", True),
    "a page that is new, too": (answer(b"Content-Length: 0", status=b"304 Not Modified", body=b""), False),
    "a proxy's question": (answer(b"Content-Length: 0", status=b"407 Proxy", body=b""), False),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_answer_is_one_line_or_the_file(name: str, server: Server) -> None:
    first, comes = ODD[name]
    server.answers = [first, RIGHT]
    entry = entry_of(f"{server.url}/w.pth")
    if comes:
        assert download.fetch(entry).read_bytes() == BODY
    else:
        refusal(entry)
        server.answers = [RIGHT]
        assert download.fetch(entry).read_bytes() == BODY


@pytest.mark.parametrize("name", ODD)
def test_a_server_that_stays_odd_gives_way_to_the_next(name: str, server: Server) -> None:
    server.answers = [ODD[name][0]]
    entry = entry_of(f"{server.url}/w.pth")
    if name not in ("the same length twice", "chunks and a length", "many that come first", "many cookies") and (
        not name.startswith(("a header of", "a type of", "a NUL in", "an unknown"))
    ):
        assert f"{server.url}/w.pth: " in refusal(entry)
    other = Server()
    other.answers = [RIGHT]
    thread = threading.Thread(target=other.serve)
    thread.start()
    try:
        both = entry_of(f"{server.url}/w.pth", f"{other.url}/w.pth")
        assert download.fetch(both, notify=lambda _: None).read_bytes() == BODY
    finally:
        other.socket.shutdown(socket.SHUT_RDWR)
        other.socket.close()
        thread.join()


LOCATIONS = [
    *(
        b"",
        b"http://",
        b"http://[",
        b"http://[::1",
        b"//",
        b"\xff\xfe",
        "http://ex\u00e4mple.\u2028/x".encode(),
        b"http://a b/",
    ),
    *(b"http://127.0.0.1:99999/", b"http://127.0.0.1:" + b"9" * 5000, b"http://127.0.0.1:-1/", b"javascript:alert(1)"),
    *(b"data:text/plain,x", b"file:///etc/passwd", b"http://" + b"a" * 5000 + b"/", b"http://xn--/", b"hf://a/b/c"),
    *(b"http://127.0.0.1:1/x", b"https://127.0.0.1:1/x", b"http://user:pass@\xff/", b"http://1.2.3.4/", b"ftp://x/"),
    *(b"http:///x", b"http://%00/", b"http://127.0.0.1:1\\@evil/", b"?" * 5000, b"/" + b"a" * 50_000),
]


@pytest.mark.parametrize("location", LOCATIONS, ids=lambda location: str(location)[:30])
def test_an_odd_redirect_is_one_line(location: bytes, server: Server) -> None:
    server.answers = [answer(b"Location: " + location, b"Content-Length: 0", status=b"302 Found", body=b"")]
    assert f"{server.url}/w.pth: " in refusal(entry_of(f"{server.url}/w.pth"))


@pytest.mark.parametrize("status", [b"300 Multiple", b"301 Moved", b"303 See", b"305 Use", b"306 x", b"308 Permanent"])
def test_a_redirect_to_nowhere_is_one_line(status: bytes, server: Server) -> None:
    server.answers = [answer(b"Content-Length: 0", status=status, body=b"")]
    assert "HTTP 30" in refusal(entry_of(f"{server.url}/w.pth"))


ADDRESSES = [
    *("http://127.0.0.1:1/x", "http://[::1]:1/x", "https://\u00e4\u2028\u00e4.invalid/x", "https://xn--.invalid/x"),
    *("https://" + "a" * 300 + ".invalid/x", "https://a..invalid/x", "https://%zz/x", "https://a\\b/x", "http://0/x"),
    *(
        "https://us\u00e9r:pa\u00dfw\u00f6rd@127.0.0.1:1/x",
        "https://127.0.0.1:1/\u00e9\U0001f600",
        "https://127.0.0.1:1/%",
    ),
    *("hf://a/b", "hf://a/b/c@", "hf://../../x", "hf://a/b/../../x"),
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_odd_address_is_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refusal(entry_of(address))
    assert message.startswith("tiny: ")
    assert "pa\u00df" not in message


@pytest.mark.parametrize(
    "mirror", ["nonsense", "::::", "http://[", "ftp://x", "https://x:99999", "/etc", "file:///etc"]
)
def test_an_odd_mirror_gives_way(mirror: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers = [RIGHT]
    monkeypatch.setenv("TSMZOO_MIRROR", mirror)
    assert download.fetch(entry_of(f"{server.url}/w.pth")).read_bytes() == BODY


# What an earlier answer left, and what continues it


@pytest.mark.parametrize(
    ("header", "resumed"),
    [
        (b'ETag: "v1"', True),
        (b'ETag: "\xff\xfe"', False),
        ('ETag: "\u00e9\u20ac"'.encode(), False),
        (b"ETag: " + b'"' + b"x" * 5000 + b'"', False),
        (b'ETag: W/"v1"', False),
        (b"Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT", True),
        (b"Last-Modified: \xff\xfe", False),
        ("Last-Modified: lundi 1\u1d49\u02b3 f\u00e9vrier".encode(), False),
        (b"ETag: \xff\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT", False),
        (b"ETag:\r\nLast-Modified: today", True),
    ],
)
def test_only_what_can_be_sent_back_continues_a_download(header: bytes, resumed: bool, server: Server) -> None:
    cut = answer(LENGTH, header, body=BODY[:20_000])
    rest = answer(
        b"Content-Length: 30000",
        header,
        b"Content-Range: bytes 20000-49999/50000",
        status=b"206 Partial",
        body=BODY[20_000:],
    )
    server.answers = [cut, rest if resumed else answer(LENGTH, header)]
    assert download.fetch(entry_of(f"{server.url}/w.pth")).read_bytes() == BODY
    assert [b"range: bytes=20000-" in asked.lower() for asked in server.requests] == [False, resumed]


@pytest.mark.parametrize(
    "span",
    [
        *(b"bytes " + b"9" * 5000 + b"-1/2", b"bytes 20000-" + b"9" * 5000 + b"/" + b"9" * 5000, b"bytes 20000-1/-1"),
        *(
            b"bytes -20000-49999/50000",
            b"bytes */50000",
            b"bytes 20000-49999/",
            b"\xff",
            b"",
            b"items 20000-49999/50000",
        ),
        *(b"bytes 19999-49999/50000", "bytes \u0662-3/4".encode(), b"bytes 20000-49999/50000, bytes 0-1/2"),
    ],
    ids=lambda span: str(span)[:24],
)
def test_an_odd_range_starts_over(span: bytes, server: Server) -> None:
    etag = b'ETag: "v1"'
    odd = answer(b"Content-Length: 30000", etag, b"Content-Range: " + span, status=b"206 Partial", body=BODY[20_000:])
    server.answers = [answer(LENGTH, etag, body=BODY[:20_000]), odd, RIGHT]
    assert download.fetch(entry_of(f"{server.url}/w.pth")).read_bytes() == BODY


@pytest.mark.parametrize(
    "about",
    [
        *("", "[" * 60_000, "{", "null", "[]", '"x"', "1" * 5000, "{}", '{"validator": 1, "url": "URL"}', "\0"),
        *(
            '{"validator": null, "url": "URL"}',
            '{"validator": "\\u00e9", "url": "URL"}',
            '{"validator": ["x"], "url": "URL"}',
        ),
        *(
            '{"validator": "a\\r\\nX: y", "url": "URL"}',
            '{"validator": "", "url": "URL"}',
            '{"validator": "v", "url": 7}',
        ),
        '{"validator": "' + "v" * 5000 + '", "url": "URL"}',
    ],
    ids=lambda about: about[:40],
)
def test_an_odd_note_of_a_part_starts_over(about: str, server: Server) -> None:
    server.answers = [RIGHT]
    entry = entry_of(f"{server.url}/w.pth")
    path = cache.local_path(entry)
    assert path is not None
    path.parent.mkdir(parents=True)
    path.with_name("w.pth.part").write_bytes(BODY[:10])
    path.with_name("w.pth.part.json").write_text(about.replace("URL", f"{server.url}/w.pth"))
    assert download.fetch(entry).read_bytes() == BODY
    assert b"range:" not in server.requests[0].lower()


def test_a_part_that_is_larger_than_the_file_can_be_starts_over(server: Server) -> None:
    server.answers = [RIGHT]
    entry = entry_of(f"{server.url}/w.pth")
    path = cache.local_path(entry)
    assert path is not None
    path.parent.mkdir(parents=True)
    with path.with_name("w.pth.part").open("wb") as part:
        part.truncate(2**40)
    path.with_name("w.pth.part.json").write_text(json.dumps({"validator": '"v"', "url": f"{server.url}/w.pth"}))
    assert download.fetch(entry).read_bytes() == BODY


def test_a_part_that_outgrew_the_file_is_not_continued(server: Server) -> None:
    etag = b'ETag: "v1"'
    span = b"Content-Range: bytes 20000-49999/30000"
    over = answer(b"Content-Length: 30000", etag, span, status=b"206 Partial", body=BODY[20_000:])
    server.answers = [answer(LENGTH, etag, body=BODY[:20_000]), over, RIGHT]
    assert download.fetch(entry_of(f"{server.url}/w.pth")).read_bytes() == BODY
    assert [b"range:" in asked.lower() for asked in server.requests] == [False, True, False]


# The hub

ASK = """
import sys, msgspec
from tsmzoo import registry
from tsmzoo.errors import DownloadError
from tsmzoo.weights import download
import huggingface_hub.utils._http as http
http.time.sleep = lambda _: None
try:
    download.fetch(msgspec.json.decode(sys.argv[1], type=registry.Entry))
except DownloadError as error:
    print(error)
"""


def test_the_hub_without_a_network_is_one_line(tmp_path: Path) -> None:
    entry = entry_of("hf://some/one/w.pth")
    result = subprocess.run(
        [sys.executable, "-c", ASK, msgspec.json.encode(entry).decode()],
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("tiny: w.pth could not be fetched (hf://some/one/w.pth: ")
    assert result.stdout.count("\n") == 1
