"""`tsmzoo.weights.download` against a server that cuts, lies, redirects and stalls."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import huggingface_hub
import msgspec
import pytest
import torch
from typer.testing import CliRunner, Result

from tsmzoo import registry
from tsmzoo.cli import app
from tsmzoo.errors import DownloadError
from tsmzoo.registry import Entry
from tsmzoo.system import files as system_files
from tsmzoo.weights import cache, download, http

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BODY = os.urandom(300_000)
OTHER = os.urandom(300_000)
with io.BytesIO() as _stream:
    # What tells a ResNet-50 of mit-han-lab's with a shift.
    _state = {"base_model.layer1.0.conv1.net.weight": torch.arange(1000.0), "layer3.5.conv3.weight": torch.ones(1)}
    torch.save(_state, _stream)
    CHECKPOINT = _stream.getvalue()
NAME = "tsm_tiny.pth"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Reply:
    """How the server answers one request."""

    body: bytes = BODY
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = '"v1"'
    #: Honours Range where If-Range fits: "yes"; ignores Range: "no"; sends a range whatever If-Range says: "always".
    ranges: str = "yes"
    #: Close the connection after this many bytes of the body.
    cut: int | None = None
    #: Called after `cut` bytes, or before the body.
    hold: Callable[[], object] = lambda: None
    #: Seconds between single bytes.
    trickle: float = 0


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        #: Path to its answers, one a request; the last one stays.
        self.replies: dict[str, list[Reply]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []

    def add(self, path: str, *replies: Reply) -> str:
        self.replies[path] = list(replies)
        return self.url + path

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has hung up is part of these tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        replies = self.server.replies.get(self.path, [Reply(b"", 404)])
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        body, status = reply.body, reply.status
        headers = {"Content-Length": str(len(body))} | ({"ETag": reply.etag} if reply.etag else {})
        if status == 200 and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            fits = self.headers["If-Range"] == (reply.etag or reply.headers.get("Last-Modified"))
            if reply.ranges == "always" or (reply.ranges == "yes" and fits):
                body, status = body[start:], 206
                headers["Content-Length"] = str(len(body))
                headers["Content-Range"] = f"bytes {start}-{len(reply.body) - 1}/{len(reply.body)}"
        self.send_response(status)
        for name, value in (headers | reply.headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: reply.cut or 0])
        self.wfile.flush()
        reply.hold()
        if reply.trickle:
            for number in range(len(body)):
                self.wfile.write(body[number : number + 1])
                self.wfile.flush()
                time.sleep(reply.trickle)
        elif reply.cut is None:
            self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TSMZOO_MIRROR", "TSMZOO_OFFLINE", *(f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO"))):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(http, "BACKOFF", 0.001)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))  # no certificates: reading them takes longer than a test


@pytest.fixture
def make_entry() -> Callable[..., Entry]:
    def make(*urls: str, **changes: Any) -> Entry:
        facts: dict[str, Any] = {
            "id": "tsm_tiny",
            "family": "tsm",
            "mode": "offline",
            "backbone": "resnet50",
            "dataset": "tiny",
            "classes": 2,
            "modality": "rgb",
            "frames": 8,
            "sampling": "uniform",
            "normalisation": "imagenet",
            "labels": "tiny",
            "format": "mit-tsm",
            "source": "tiny",
            "urls": urls,
            "sha256": sha256(BODY),
            "licence": "MIT",
            "params": 1,
            "gmacs": 0.1,
        }
        return Entry(**(facts | changes))

    return make


@pytest.fixture
def entry(server: Server, make_entry: Callable[..., Entry]) -> Entry:
    """One address, whose answers the test sets with `server.add("/a/" + NAME, ...)`."""
    return make_entry(f"{server.url}/a/{NAME}")


@pytest.fixture
def second(server: Server, make_entry: Callable[..., Entry]) -> Entry:
    """Two addresses, of which the second is well."""
    server.add(f"/b/{NAME}", Reply())
    return make_entry(f"{server.url}/a/{NAME}", f"{server.url}/b/{NAME}")


def refusal(entry: Entry) -> str:
    """Return the one line that `fetch` ends in, having checked that it is one, and that no file came of it."""
    with pytest.raises(DownloadError) as caught:
        download.fetch(entry, notify=lambda _: None)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(entry.id)
    assert not cache.is_cached(entry)
    return message


def leftovers(entry: Entry) -> set[str]:
    """What lies beside the file, less the lock."""
    return {path.name.removeprefix(NAME) for path in cache.local_path(entry).parent.iterdir()} - {"", ".lock"}


# The plain way


def test_a_file_is_downloaded_once_and_reported(server: Server, entry: Entry, tmp_path: Path) -> None:
    server.add(f"/a/{NAME}", Reply())
    seen: list[tuple[int, int | None]] = []
    assert not cache.is_cached(entry)
    path = download.fetch(entry, progress=lambda size, total: seen.append((size, total)))
    assert path == tmp_path / "cache" / "checkpoints" / "tsm_tiny" / NAME == cache.local_path(entry)
    assert path.read_bytes() == BODY
    assert cache.is_cached(entry)
    assert leftovers(entry) == set()
    assert seen[-1] == (len(BODY), len(BODY))
    assert [size for size, _ in seen] == sorted({size for size, _ in seen})
    assert server.requests[0][1]["Accept-Encoding"] == "identity"

    assert download.fetch(entry) == path
    assert len(server.requests) == 1


def test_the_prefix_of_a_digest_is_enough(server: Server, entry: Entry) -> None:
    server.add(f"/a/{NAME}", Reply())
    entry = msgspec.structs.replace(entry, sha256=None, sha256_prefix=sha256(BODY)[:8].upper())
    assert download.fetch(entry).read_bytes() == BODY
    assert leftovers(entry) == set()


def test_a_length_that_is_not_given_is_not_needed(server: Server, entry: Entry) -> None:
    server.add(f"/a/{NAME}", Reply(headers={"Content-Length": ""}))
    seen: list[int | None] = []
    assert download.fetch(entry, progress=lambda _, total: seen.append(total)).read_bytes() == BODY
    assert set(seen) == {None}


def test_nothing_heavy_is_imported_to_look_into_the_cache() -> None:
    heavy = {"httpx2", "rich", "filelock", "huggingface_hub", "torch"}
    code = f"import sys, tsmzoo.weights.download; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Cut, continued, started over


@pytest.mark.parametrize("validator", [{"etag": '"v1"'}, {"etag": None, "headers": {"Last-Modified": "Mon, 01 Jan"}}])
def test_a_cut_download_is_continued(server: Server, entry: Entry, validator: dict[str, Any]) -> None:
    server.add(f"/a/{NAME}", Reply(cut=100_000, **validator), Reply(cut=50_000, **validator), Reply(**validator))
    seen: list[int] = []
    path = download.fetch(entry, progress=lambda size, _: seen.append(size))
    assert path.read_bytes() == BODY
    assert server.ranges() == [None, "bytes=100000-", "bytes=150000-"]
    assert server.requests[1][1]["If-Range"] == (validator["etag"] or "Mon, 01 Jan")
    assert seen == sorted(seen)
    assert seen[-1] == len(BODY)
    assert leftovers(entry) == set()


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_without_a_strong_validator_nothing_is_continued(server: Server, entry: Entry, etag: str | None) -> None:
    server.add(f"/a/{NAME}", Reply(cut=100_000, etag=etag), Reply(etag=etag))
    assert download.fetch(entry).read_bytes() == BODY
    assert server.ranges() == [None, None]


def test_a_server_that_ignores_range_starts_over(server: Server, entry: Entry) -> None:
    server.add(f"/a/{NAME}", Reply(cut=100_000, ranges="no"), Reply(ranges="no"))
    assert download.fetch(entry).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=100000-"]


@pytest.mark.parametrize("ranges", ["yes", "always"])
def test_a_file_that_changed_is_not_spliced(server: Server, entry: Entry, ranges: str) -> None:
    # "always" sends the new file's tail although If-Range names the old one
    server.add(f"/a/{NAME}", Reply(OTHER, cut=100_000), Reply(etag='"v2"', ranges=ranges))
    assert download.fetch(entry).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=100000-", None][: 2 if ranges == "yes" else 3]


def test_a_wrong_range_starts_over(server: Server, entry: Entry) -> None:
    wrong = Reply(BODY[5:], 206, headers={"Content-Range": f"bytes 5-299999/{len(BODY)}"})
    server.add(f"/a/{NAME}", Reply(cut=100_000), wrong, Reply())
    assert download.fetch(entry).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=100000-", None]


def test_a_range_that_ends_early_is_continued(server: Server, entry: Entry) -> None:
    early = Reply(BODY[100_000:150_000], 206, headers={"Content-Range": f"bytes 100000-149999/{len(BODY)}"})
    server.add(f"/a/{NAME}", Reply(cut=100_000), early, Reply())
    assert download.fetch(entry).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=100000-", "bytes=150000-"]


def test_a_range_that_cannot_be_had_starts_over(server: Server, entry: Entry) -> None:
    server.add(f"/a/{NAME}", Reply(cut=100_000), Reply(b"", 416), Reply())
    assert download.fetch(entry).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=100000-", None]


def test_an_overloaded_server_is_asked_again(server: Server, entry: Entry) -> None:
    server.add(f"/a/{NAME}", Reply(b"", 503), Reply(b"", 429), Reply())
    assert download.fetch(entry).read_bytes() == BODY


def test_a_part_is_not_continued_from_another_address(server: Server, second: Entry) -> None:
    server.add(f"/a/{NAME}", Reply(OTHER, cut=100_000, ranges="no"))
    assert download.fetch(second).read_bytes() == BODY
    assert server.ranges()[-1] is None


RUN = """
import os, sys, msgspec
from tsmzoo import download, registry, terminal
entry = msgspec.json.decode(sys.argv[1], type=registry.Entry)
print(download.fetch(entry, progress=lambda size, total: print(size, flush=True), notify=terminal.note))
"""


@pytest.fixture
def start() -> Iterator[Callable[[Entry], subprocess.Popen[str]]]:
    """Start `fetch` in a process of its own."""
    running: list[subprocess.Popen[str]] = []

    def start(entry: Entry) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUN, msgspec.json.encode(entry).decode()]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_is_continued_by_the_next(
    server: Server, entry: Entry, start: Callable[[Entry], subprocess.Popen[str]], end: signal.Signals
) -> None:
    held = threading.Event()
    server.add(f"/a/{NAME}", Reply(cut=200_000, hold=lambda: held.wait(10)), Reply())
    process = start(entry)
    assert process.stdout is not None
    while int(process.stdout.readline()) < 200_000:
        pass
    process.send_signal(end)
    process.communicate(timeout=10)
    held.set()
    assert not cache.is_cached(entry)
    assert leftovers(entry) == {".part", ".part.json"}
    left = cache.local_path(entry).with_name(f"{NAME}.part").stat().st_size
    assert left == 200_000 or (end == signal.SIGKILL and left > 100_000)

    assert download.fetch(entry).read_bytes() == BODY
    assert server.ranges() == [None, f"bytes={left}-"]
    assert leftovers(entry) == set()


def test_two_processes_download_once(
    server: Server, entry: Entry, start: Callable[[Entry], subprocess.Popen[str]]
) -> None:
    asked, release = threading.Event(), threading.Event()

    def hold() -> None:
        asked.set()
        release.wait(10)

    server.add(f"/a/{NAME}", Reply(hold=hold))
    first = start(entry)
    assert asked.wait(10)
    waiting = start(entry)
    assert waiting.stderr is not None
    assert "another process is downloading" in waiting.stderr.readline()
    release.set()
    path = str(cache.local_path(entry))
    assert first.communicate(timeout=10)[0].splitlines()[-1] == path
    assert waiting.communicate(timeout=10)[0] == path + "\n"
    assert len(server.requests) == 1
    assert Path(path).read_bytes() == BODY


# What is not the published file


def test_a_wrong_file_is_put_aside_and_the_next_address_tried(server: Server, second: Entry) -> None:
    server.add(f"/a/{NAME}", Reply(OTHER))
    path = download.fetch(second)
    assert path.read_bytes() == BODY
    bad = f".{sha256(OTHER)[:8]}.bad"
    assert leftovers(second) == {bad}
    assert path.with_name(NAME + bad).read_bytes() == OTHER


@pytest.mark.parametrize("known", [{}, {"sha256": None, "sha256_prefix": sha256(BODY)[:8]}])
def test_a_wrong_file_is_named(server: Server, entry: Entry, known: dict[str, Any]) -> None:
    server.add(f"/a/{NAME}", Reply(OTHER))
    message = refusal(msgspec.structs.replace(entry, **known))
    assert f"its sha256 is {sha256(OTHER)}, the published one" in message
    assert sha256(BODY)[:8] in message
    assert f"kept as {NAME}.{sha256(OTHER)[:8]}.bad" in message


@pytest.mark.parametrize("body", [BODY, OTHER])
def test_a_damaged_part_does_not_pass_and_is_fetched_from_its_start(body: bytes, server: Server, entry: Entry) -> None:
    server.add(f"/a/{NAME}", Reply(cut=100_000), Reply(b"", 404))
    assert "HTTP 404" in refusal(entry)
    part = cache.local_path(entry).with_name(f"{NAME}.part")
    part.write_bytes(bytes(part.stat().st_size))
    before = len(server.requests)
    server.add(f"/a/{NAME}", Reply(body))
    if body == BODY:
        assert download.fetch(entry).read_bytes() == BODY
        assert leftovers(entry) == set()
    else:
        assert f"kept as {NAME}.{sha256(OTHER)[:8]}.bad" in refusal(entry)
    assert server.ranges()[before:] == ["bytes=100000-", None]


def test_a_damaged_file_in_the_cache_is_fetched_again(server: Server, entry: Entry) -> None:
    server.add(f"/a/{NAME}", Reply())
    download.fetch(entry).write_bytes(OTHER)
    notes: list[str] = []
    assert download.fetch(entry, notify=notes.append).read_bytes() == BODY
    assert leftovers(entry) == {f".{sha256(OTHER)[:8]}.bad"}
    assert len(notes) == 1
    assert f"kept as {NAME}.{sha256(OTHER)[:8]}.bad; fetching it again" in notes[0]


def test_the_first_download_is_trusted_and_enforced(server: Server, entry: Entry) -> None:
    entry = msgspec.structs.replace(entry, sha256=None)
    server.add(f"/a/{NAME}", Reply(CHECKPOINT), Reply(OTHER))
    notes: list[str] = []
    path = download.fetch(entry, notify=notes.append)
    record = path.with_name(f"{NAME}.sha256")
    assert record.read_text() == sha256(CHECKPOINT) + "\n"
    assert len(notes) == 1
    assert f"sha256 {sha256(CHECKPOINT)} recorded on first download" in notes[0]
    download.fetch(entry, notify=notes.append)
    assert len(notes) == 1

    path.unlink()
    message = refusal(entry)
    assert f"on the first download it was {sha256(CHECKPOINT)} (to accept the new file delete {record})" in message

    server.add(f"/a/{NAME}", Reply(CHECKPOINT))
    path.write_bytes(OTHER)  # changed on disk
    assert download.fetch(entry, notify=notes.append).read_bytes() == CHECKPOINT


def test_a_web_page_is_not_trusted_on_first_use(server: Server, entry: Entry) -> None:
    server.add(f"/a/{NAME}", Reply(b"<html>", headers={"Content-Type": "text/html; charset=utf-8"}))
    assert "a web page" in refusal(msgspec.structs.replace(entry, sha256=None))
    assert leftovers(entry) == set()
    assert "kept as" in refusal(entry)  # the digest tells it as well


@pytest.mark.parametrize("length", [str(2**40), ""])
def test_a_file_that_is_too_large_is_refused_at_once(server: Server, entry: Entry, length: str) -> None:
    body = bytes(16 * 2**20 + 20) if not length else BODY
    server.add(f"/a/{NAME}", Reply(body, headers={"Content-Length": length}))
    assert "larger than 16777232 bytes" in refusal(entry)
    assert len(server.requests) == 1
    part = cache.local_path(entry).with_name(f"{NAME}.part")
    assert not part.exists() or part.stat().st_size == 0


# Addresses


def test_a_redirect_is_followed(server: Server, entry: Entry) -> None:
    server.add(f"/a/{NAME}", Reply(b"", 302, {"Location": f"{server.url}/b"}))
    server.add("/b", Reply(cut=100_000), Reply())
    assert download.fetch(entry).read_bytes() == BODY
    assert server.ranges() == [None, None, "bytes=100000-", "bytes=100000-"]


def test_a_redirect_loop_ends(server: Server, entry: Entry) -> None:
    server.add(f"/a/{NAME}", Reply(b"", 302, {"Location": f"/a/{NAME}"}))
    assert "redirects" in refusal(entry)


@pytest.mark.parametrize("address", [f"{where}/{NAME}" for where in ("http://1.2.3.4", "ftp://1.2.3.4", "file:///etc")])
def test_only_encrypted_addresses_are_used(server: Server, make_entry: Callable[..., Entry], address: str) -> None:
    refused = "only https:// and hf:// addresses are used"
    assert f"{address}: {refused}" in refusal(make_entry(address))
    redirected = make_entry(server.add(f"/a/{NAME}", Reply(b"", 302, headers={"Location": address})))
    assert refused in refusal(redirected)
    assert len(server.requests) == 1


def test_a_server_that_is_down_gives_way_to_the_next(server: Server, make_entry: Callable[..., Entry]) -> None:
    server.add(f"/b/{NAME}", Reply())
    entry = make_entry(f"http://127.0.0.1:1/{NAME}", f"{server.url}/b/{NAME}")
    assert download.fetch(entry).read_bytes() == BODY


def test_when_all_fail_each_is_named(server: Server, make_entry: Callable[..., Entry]) -> None:
    server.add(f"/cut/{NAME}", Reply(cut=10, etag=None))
    server.add(f"/busy/{NAME}", Reply(b"", 503))
    cut, busy, gone = (f"{server.url}/{where}/{NAME}" for where in ("cut", "busy", "gone"))
    down, secret = f"http://127.0.0.1:1/{NAME}", f"http://user:pass@127.0.0.1:1/x/{NAME}"
    message = refusal(make_entry(gone, cut, busy, down, secret))
    assert f"{gone}: HTTP 404 Not Found;" in message
    assert f"{cut}: gave up after 4 attempts (" in message
    assert f"{busy}: gave up after 4 attempts (HTTP 503 Service Unavailable);" in message
    assert f"{down}: no connection (" in message
    assert f"http://127.0.0.1:1/x/{NAME}: no connection" in message
    assert "pass" not in message
    assert "TSMZOO_MIRROR" in message
    assert "--weights FILE" in message
    assert len(server.requests) == 1 + 4 + 4


def test_a_mirror_comes_first(server: Server, second: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add(f"/mirror/{NAME}", Reply())
    monkeypatch.setenv("TSMZOO_MIRROR", f"{server.url}/mirror/")
    assert download.fetch(second).read_bytes() == BODY
    assert server.paths() == [f"/mirror/tsm_tiny/{NAME}", f"/mirror/{NAME}"]

    server.requests.clear()
    server.add(f"/mirror/tsm_tiny/{NAME}", Reply())  # laid out as the cache is
    cache.local_path(second).unlink()
    assert download.fetch(second).read_bytes() == BODY
    assert server.paths() == [f"/mirror/tsm_tiny/{NAME}"]

    server.requests.clear()
    cache.local_path(second).unlink()
    monkeypatch.setenv("TSMZOO_MIRROR", f"{server.url}/nowhere")
    assert download.fetch(second).read_bytes() == BODY
    assert server.paths() == [f"/nowhere/tsm_tiny/{NAME}", f"/nowhere/{NAME}", f"/a/{NAME}", f"/b/{NAME}"]


def test_a_proxy_is_taken_from_the_environment(
    server: Server, make_entry: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies[f"http://localhost:9/{NAME}"] = [Reply()]
    entry = make_entry(f"http://localhost:9/{NAME}")
    monkeypatch.setenv("HTTP_PROXY", server.url)
    assert download.fetch(entry).read_bytes() == BODY

    cache.local_path(entry).unlink()
    monkeypatch.setenv("HTTP_PROXY", "nonsense://127.0.0.1")
    assert "proxy" in refusal(entry)


def test_a_server_that_stalls_is_left(server: Server, second: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 0.1)
    server.add(f"/a/{NAME}", Reply(cut=1000, hold=lambda: time.sleep(0.3)))
    assert download.fetch(second).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-", None]


def test_a_server_that_only_drips_is_left(server: Server, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 0.1)
    server.add(f"/a/{NAME}", Reply(trickle=0.02))
    assert "too slow" in refusal(entry)


def test_the_hub_is_asked_through_its_library(
    make_entry: Callable[..., Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str, str | None]] = []

    def hub(repo: str, name: str, *, revision: str | None, cache_dir: Path, dry_run: bool = False) -> Any:
        assert cache_dir.is_relative_to(tmp_path / "cache")
        if repo == "nobody/nothing":
            raise huggingface_hub.errors.LocalEntryNotFoundError("no such\n\nrepository")
        size = 2**40 if repo == "some/giant" else len(BODY)
        if dry_run:
            return SimpleNamespace(file_size=size)
        calls.append((repo, name, revision))
        (cache_dir / "blobs").mkdir(parents=True)
        (cache_dir / "blobs" / "blob").write_bytes(OTHER if repo == "some/stranger" else BODY)
        (cache_dir / NAME).symlink_to(cache_dir / "blobs" / "blob")
        return str(cache_dir / NAME)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    places = ("nobody/nothing", "some/giant", "some/stranger")
    entry = make_entry(*(f"hf://{place}/weights/{NAME}" for place in places), "hf://short")
    message = refusal(entry)
    assert f"hf://nobody/nothing/weights/{NAME}: no such repository;" in message
    assert f"hf://some/giant/weights/{NAME}: larger than" in message
    assert f"hf://some/stranger/weights/{NAME}: its sha256 is {sha256(OTHER)}" in message
    assert "hf://short: an address on the hub is hf://owner/repo/path" in message

    entry = msgspec.structs.replace(entry, urls=(*entry.urls, f"hf://some/one/weights/{NAME}@abc"))
    path = download.fetch(entry)
    assert path.read_bytes() == BODY
    assert not path.is_symlink()
    assert calls[-1] == ("some/one", f"weights/{NAME}", "abc")
    assert leftovers(entry) == {f".{sha256(OTHER)[:8]}.bad"}


# The cache


def test_offline_takes_what_is_there(server: Server, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add(f"/a/{NAME}", Reply())
    monkeypatch.setenv("TSMZOO_OFFLINE", "1")
    path = cache.local_path(entry)
    message = refusal(entry)
    assert f"{NAME} is missing (it is not in the cache) and TSMZOO_OFFLINE is set" in message
    assert f"put the published file at {path}, or give it to export or run with --weights FILE" in message
    assert not path.parent.exists()

    path.parent.mkdir(parents=True)
    path.write_bytes(OTHER)
    with pytest.raises(DownloadError, match=f"its sha256 is {sha256(OTHER)}"):
        download.fetch(entry)
    path.write_bytes(BODY)
    assert download.fetch(entry) == path
    assert server.requests == []

    path.unlink()
    monkeypatch.setenv("TSMZOO_OFFLINE", "0")
    assert download.fetch(entry) == path


def test_a_cache_that_can_only_be_read_serves(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(system_files, "write", forbidden)
    path = cache.local_path(entry)
    path.parent.mkdir(parents=True)
    path.write_bytes(CHECKPOINT)
    assert download.fetch(msgspec.structs.replace(entry, sha256=sha256(CHECKPOINT))) == path
    assert download.fetch(msgspec.structs.replace(entry, sha256=None)) == path
    assert list(path.parent.iterdir()) == [path]  # not even a lock


def test_a_cache_that_cannot_be_written_is_named(entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    message = refusal(entry)
    assert str(tmp_path / "cache") in message
    assert "TSMZOO_CACHE" in message


def test_a_full_disk_is_named(server: Server, second: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def full(descriptor: int) -> None:
        if os.fstat(descriptor).st_size > 10_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    server.add(f"/a/{NAME}", Reply())
    monkeypatch.setattr(os, "fsync", full)
    assert "no room left" in refusal(second)
    assert len(server.requests) == 1  # the next address would fill the same disk
    assert leftovers(second) == {".part", ".part.json"}


# Published in a repository: known by what git calls it

#: What `git hash-object` says of a file that holds b"tsmzoo\n".
GIT = (b"tsmzoo\n", "92454f32f046467408d6238a6dbd715a23f80108")


def test_gits_name_of_a_file_is_gits() -> None:
    assert git_blob_sha1(GIT[0]) == GIT[1]


def git_blob_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob " + str(len(data)).encode() + b"\0" + data).hexdigest()


@pytest.fixture
def in_git(second: Entry) -> Entry:
    """Two addresses, of which the second is well, and no sha256."""
    return msgspec.structs.replace(second, sha256=None, git_blob_sha1=git_blob_sha1(BODY))


def test_gits_name_is_enough(server: Server, in_git: Entry) -> None:
    server.add(f"/a/{NAME}", Reply(cut=100_000), Reply(OTHER, etag='"v2"'))
    notes: list[str] = []
    path = download.fetch(in_git, notify=notes.append)
    assert path.read_bytes() == BODY
    assert leftovers(in_git) == {f".{sha256(OTHER)[:8]}.bad"}  # and no record: the publisher's word is enough
    assert notes == []
    assert download.fetch(in_git) == path
    assert len(server.requests) == 3

    path.write_bytes(OTHER)
    server.add(f"/a/{NAME}", Reply())
    assert download.fetch(in_git, notify=notes.append).read_bytes() == BODY
    assert f"its git_blob_sha1 is {git_blob_sha1(OTHER)}, the published one is {git_blob_sha1(BODY)}" in notes[0]


def test_a_file_of_another_name_in_git_is_named(server: Server, in_git: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    for where in "ab":
        server.add(f"/{where}/{NAME}", Reply(OTHER))
    wrong = f"its git_blob_sha1 is {git_blob_sha1(OTHER)}, the published one is {git_blob_sha1(BODY)}; kept as {NAME}."
    assert refusal(in_git).count(wrong) == 2
    monkeypatch.setenv("TSMZOO_OFFLINE", "1")
    cache.local_path(in_git).write_bytes(OTHER)
    with pytest.raises(DownloadError, match="its git_blob_sha1 is"):
        download.fetch(in_git)


def test_all_digests_that_are_known_must_fit(server: Server, in_git: Entry) -> None:
    server.add(f"/a/{NAME}", Reply())
    assert "its git_blob_sha1 is" in refusal(
        msgspec.structs.replace(in_git, sha256=sha256(BODY), git_blob_sha1=git_blob_sha1(OTHER))
    )
    assert "its sha256 is" in refusal(msgspec.structs.replace(in_git, sha256_prefix=sha256(OTHER)[:8]))
    both = msgspec.structs.replace(in_git, sha256_prefix=sha256(BODY)[:8])
    assert download.fetch(both).read_bytes() == BODY


# A checkpoint of several files

INDEX = "tsm_tiny.index"
LIST = os.urandom(1000) + bytes.fromhex("57fb808b247547db")


@pytest.fixture
def pair(server: Server, make_entry: Callable[..., Entry]) -> Entry:
    """A checkpoint and its index, both well at the second of two addresses."""
    server.add(f"/b/{NAME}", Reply())
    server.add(f"/b/{INDEX}", Reply(LIST))
    return make_entry(f"{server.url}/a/{NAME}", f"{server.url}/b/{NAME}", beside=(INDEX,))


def test_several_files_lie_side_by_side(server: Server, pair: Entry, tmp_path: Path) -> None:
    notes: list[str] = []
    path = download.fetch(pair, notify=notes.append)
    folder = tmp_path / "cache" / "checkpoints" / "tsm_tiny"
    assert path == folder / NAME == cache.local_path(pair)
    assert cache.local_paths(pair) == [path, folder / INDEX]
    assert (path.read_bytes(), (folder / INDEX).read_bytes()) == (BODY, LIST)
    assert server.paths() == [f"/a/{INDEX}", f"/b/{INDEX}", f"/a/{NAME}", f"/b/{NAME}"]
    files = {file.name for file in folder.iterdir()} - {f"{NAME}.lock", f"{INDEX}.lock"}
    assert files == {NAME, INDEX, f"{INDEX}.sha256"}
    assert notes == [
        f"tsm_tiny: no digest is published; sha256 {sha256(LIST)} recorded on first download in {folder / INDEX}.sha256"
    ]
    assert download.fetch(pair, notify=notes.append) == path
    assert (len(server.requests), len(notes)) == (4, 1)


@pytest.mark.parametrize("name", [NAME, INDEX])
def test_only_all_of_it_counts_as_cached(
    server: Server, pair: Entry, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = download.fetch(pair)
    assert cache.is_cached(pair)
    path.with_name(name).unlink()
    server.requests.clear()
    monkeypatch.setenv("TSMZOO_OFFLINE", "1")
    message = refusal(pair)
    assert f"{name} is missing (it is not in the cache) and TSMZOO_OFFLINE is set" in message
    assert str(path.with_name(name)) in message
    monkeypatch.delenv("TSMZOO_OFFLINE")
    assert download.fetch(pair) == path
    assert cache.is_cached(pair)
    assert server.paths() == [f"/a/{name}", f"/b/{name}"]


def test_without_its_small_files_the_large_one_does_not_come(server: Server, pair: Entry) -> None:
    server.add(f"/b/{INDEX}", Reply(b"", 404))
    message = refusal(pair)
    assert f"{INDEX} could not be fetched" in message
    assert f"{server.url}/b/{INDEX}: HTTP 404" in message
    assert server.paths() == [f"/a/{INDEX}", f"/b/{INDEX}"]


def test_each_of_several_files_is_resumed_and_verified(server: Server, pair: Entry) -> None:
    server.add(f"/b/{NAME}", Reply(cut=100_000), Reply(b"", 404))
    assert f"{NAME} could not be fetched" in refusal(pair)
    server.requests.clear()
    server.add(f"/b/{NAME}", Reply())
    path = download.fetch(pair)
    assert server.paths() == [f"/a/{NAME}", f"/b/{NAME}"]
    assert server.ranges()[-1] == "bytes=100000-"

    path.with_name(INDEX).write_bytes(b"changed")  # since the first download
    server.add(f"/b/{INDEX}", Reply(b"another"))
    with pytest.raises(DownloadError, match=f"{INDEX}.sha256"):
        download.fetch(pair, notify=lambda _: None)
    assert not cache.is_cached(pair)
    server.add(f"/b/{INDEX}", Reply(LIST))
    assert download.fetch(pair).with_name(INDEX).read_bytes() == LIST
    bad = {file.name for file in path.parent.glob("*.bad")}
    assert bad == {f"{INDEX}.{sha256(data)[:8]}.bad" for data in (b"changed", b"another")}


def test_two_processes_download_several_files_once(
    server: Server, pair: Entry, start: Callable[[Entry], subprocess.Popen[str]]
) -> None:
    asked, release = threading.Event(), threading.Event()

    def hold() -> None:
        asked.set()
        release.wait(10)

    server.add(f"/a/{INDEX}", Reply(LIST, hold=hold))
    first = start(pair)
    assert asked.wait(10)
    waiting = start(pair)
    assert waiting.stderr is not None
    assert f"another process is downloading {INDEX}" in waiting.stderr.readline()
    release.set()
    for process in (first, waiting):
        assert process.communicate(timeout=10)[0].splitlines()[-1] == str(cache.local_path(pair))
    assert server.paths() == [f"/a/{INDEX}", f"/a/{NAME}", f"/b/{NAME}"]


def test_several_files_have_a_folder_each_on_a_mirror(
    server: Server, pair: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two published checkpoints have files of the same names: in one folder only one could lie."""
    server.add(f"/mirror/{NAME}", Reply(OTHER))
    server.add(f"/mirror/{INDEX}", Reply(OTHER))
    server.add(f"/mirror/tsm_tiny/{NAME}", Reply())
    server.add(f"/mirror/tsm_tiny/{INDEX}", Reply(LIST))
    monkeypatch.setenv("TSMZOO_MIRROR", f"{server.url}/mirror")
    assert download.fetch(pair).read_bytes() == BODY
    assert server.paths() == [f"/mirror/tsm_tiny/{INDEX}", f"/mirror/tsm_tiny/{NAME}"]

    for path in cache.local_paths(pair):
        path.unlink()
    server.requests.clear()
    del server.replies[f"/mirror/tsm_tiny/{INDEX}"]
    assert download.fetch(pair).with_name(INDEX).read_bytes() == LIST
    assert server.paths() == [f"/mirror/tsm_tiny/{INDEX}", f"/a/{INDEX}", f"/b/{INDEX}", f"/mirror/tsm_tiny/{NAME}"]


def test_several_files_on_the_hub(make_entry: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def from_hub(address: str, part: Path, _: int) -> str:
        asked.append(address)
        part.write_bytes(LIST if INDEX in address else BODY)
        return sha256(part.read_bytes())

    monkeypatch.setattr(download, "_from_hub", from_hub)
    for revision in ("", "@v1"):
        entry = make_entry(f"hf://some/one/weights/{NAME}{revision}", beside=(INDEX,), id=f"tsm{revision[1:]}")
        assert download.fetch(entry, notify=lambda _: None).read_bytes() == BODY
        assert asked[-2:] == [f"hf://some/one/weights/{name}{revision}" for name in (INDEX, NAME)]


# The commands


@pytest.fixture
def invoke(tmp_path: Path) -> Callable[..., Result]:
    """Give a function that runs a command with a registry on top that holds some entries."""

    def invoke(entries: list[Entry], *arguments: str) -> Result:
        known = {"labels": "jester_sorted", "classes": 27, "source": "mit"}
        own = tmp_path / "own.yaml"
        own.write_text(json.dumps({"models": [msgspec.to_builtins(entry) | known for entry in entries]}))
        return CliRunner().invoke(app, [*arguments, "--registry", str(own)])

    return invoke


def test_the_commands_know_several_files(pair: Entry, invoke: Callable[..., Result]) -> None:
    path = cache.local_path(pair)
    result = invoke([pair], "download", "tsm_tiny", "--json")
    assert json.loads(result.stdout) == [
        {
            "id": "tsm_tiny",
            "path": str(path),
            "files": [str(path), str(path.with_name(INDEX))],
            "bytes": len(BODY) + len(LIST),
        }
    ]
    assert invoke([pair], "download", "tsm_tiny").stdout == f"tsm_tiny: {path}\n"
    for complete in (True, False):
        (row,) = json.loads(invoke([pair], "list", "tsm_tiny", "--json").stdout)
        about = json.loads(invoke([pair], "info", "tsm_tiny", "--json").stdout)
        assert row["cached"] == about["file"]["cached"] == complete
        assert about["beside"] == [INDEX]
        text = invoke([pair], "info", "tsm_tiny").stdout
        assert f"beside it  {INDEX}\n" in text
        assert (f"cached     {path}\n" in text) == complete
        path.with_name(INDEX).unlink(missing_ok=True)


def test_info_tells_gits_name(in_git: Entry, invoke: Callable[..., Result]) -> None:
    text = invoke([in_git], "info", "tsm_tiny").stdout
    assert f"git blob   {git_blob_sha1(BODY)}\n" in text
    assert "sha256" not in text
    both = msgspec.structs.replace(in_git, sha256=sha256(BODY))
    assert f"sha256     {sha256(BODY)}\n" in invoke([both], "info", "tsm_tiny").stdout


# Architectures without weights


@pytest.fixture
def without(make_entry: Callable[..., Entry]) -> Entry:
    return make_entry(format="tsmzoo", sha256=None)


def test_what_was_never_published_cannot_be_fetched(
    without: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for offline in ("0", "1"):
        monkeypatch.setenv("TSMZOO_OFFLINE", offline)
        assert refusal(without) == (
            "tsm_tiny: no weights were published for it; train it (`tsmzoo train`), or give --weights FILE or random"
        )
    assert cache.local_path(without) is None
    assert cache.local_paths(without) == []
    assert not (tmp_path / "cache").exists()


def test_the_commands_know_models_without_weights(
    without: Entry, second: Entry, invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = json.loads(invoke([without], "list", "tsm_tiny", "--json").stdout)
    assert (row["cached"], row["megabytes"]) == (False, None)
    header, _, line, *_ = invoke([without], "list", "tsm_tiny").stdout.splitlines()
    assert line[header.index("MB") + 1] == line[header.index("cached")] == "–"
    text = invoke([without], "info", "tsm_tiny").stdout
    assert "file       none: no weights were published" in text
    assert "sha256" not in text
    about = json.loads(invoke([without], "info", "tsm_tiny", "--json").stdout)["file"]
    assert (about["path"], about["cached"]) == (None, False)

    (tmp_path / "video.mp4").write_bytes(b"")
    data = tmp_path / "data"
    data.mkdir()
    (data / "annotations.txt").write_text("a.mp4 0\n")
    (data / "a.mp4").write_bytes(b"")
    for arguments in (
        ("download", "tsm_tiny"),
        ("export", "tsm_tiny", "--to", "onnx", "-o", str(tmp_path / "m.onnx")),
        ("run", "tsm_tiny", str(tmp_path / "video.mp4")),
        ("eval", "tsm_tiny", "--data", str(data), "--protocol", "efficient"),
    ):
        result = invoke([without], *arguments)
        assert (result.exit_code, result.stdout) == (1, ""), arguments
        assert result.stderr.startswith("error: tsm_tiny: no weights were published for it; train it")
        assert result.stderr.count("\n") == 1

    server_side = msgspec.structs.replace(second, id="tsm_other")
    only = registry.Registry(models=(without, server_side))
    monkeypatch.setattr(registry, "load", lambda *_: only)
    result = invoke([], "download", "--all", "--json")
    assert result.exit_code == 0
    assert [done["id"] for done in json.loads(result.stdout)] == ["tsm_other"]
    assert result.stderr == "skipped, since no weights were published: tsm_tiny\n"


# A file beside the registry, which needs no download


@pytest.fixture
def beside(make_entry: Callable[..., Entry], tmp_path: Path) -> Entry:
    path = tmp_path / "own" / "mine.safetensors"
    path.parent.mkdir()
    path.write_bytes(BODY)
    return make_entry(file=str(path), format="tsmzoo")


def test_a_file_beside_the_registry_is_taken_where_it_lies(
    server: Server, beside: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSMZOO_MIRROR", server.url)
    path, said = tmp_path / "own" / "mine.safetensors", []
    assert cache.is_cached(beside)
    for offline in ("0", "1"):
        monkeypatch.setenv("TSMZOO_OFFLINE", offline)
        assert download.fetch(beside, progress=lambda *steps: said.append(steps), notify=said.append) == path
    assert path.read_bytes() == BODY
    assert list(path.parent.iterdir()) == [path]  # neither a lock nor a record
    assert not (tmp_path / "cache").exists()
    assert server.requests == said == []


def test_a_file_beside_the_registry_that_was_changed_is_refused(beside: Entry) -> None:
    path, changed = cache.local_path(beside), bytearray(BODY)
    changed[1000] ^= 1
    path.write_bytes(changed)
    with pytest.raises(DownloadError) as caught:
        download.fetch(beside)
    message = str(caught.value)
    assert message.startswith(f"tsm_tiny: {path} was changed")
    assert sha256(BODY) in message
    assert sha256(changed) in message
    assert "\n" not in message
    assert list(path.parent.iterdir()) == [path]  # the user's own: not put aside
    assert path.read_bytes() == changed


@pytest.mark.parametrize("instead", ["nothing", "folder"])
def test_a_file_beside_the_registry_that_is_not_there_is_named(beside: Entry, instead: str) -> None:
    path = cache.local_path(beside)
    path.unlink()
    if instead == "folder":
        path.mkdir()
    message = refusal(beside)
    assert f"{path} cannot be read ({'No such file' if instead == 'nothing' else 'Is a directory'}" in message
    assert "put it back" in message


def test_the_commands_know_a_file_beside_the_registry(beside: Entry) -> None:
    path = cache.local_path(beside)
    own = path.parent / "own.yaml"
    entry = msgspec.to_builtins(beside) | {"file": path.name, "labels": "jester_sorted", "classes": 27, "source": "mit"}
    own.write_text(json.dumps({"models": [entry]}))  # JSON is YAML

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--registry", str(own)])

    def cached() -> bool:
        (row,) = json.loads(invoke("list", "tsm_tiny", "--json").stdout)
        assert json.loads(invoke("info", "tsm_tiny", "--json").stdout)["file"]["cached"] == row["cached"]
        return row["cached"]

    assert cached()
    assert json.loads(invoke("download", "tsm_tiny", "--json").stdout) == [
        {"id": "tsm_tiny", "path": str(path), "files": [str(path)], "bytes": len(BODY)}
    ]
    assert invoke("download", "tsm_tiny").stdout == f"tsm_tiny: {path}\n"
    text = invoke("info", "tsm_tiny").stdout
    assert str(path) in text
    assert sha256(BODY) in text

    path.write_bytes(OTHER)
    result = invoke("download", "tsm_tiny")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: tsm_tiny: {path} was changed")
    assert result.stderr.count("\n") == 1

    path.unlink()
    assert not cached()
    result = invoke("download", "tsm_tiny")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: tsm_tiny: {path} cannot be read")
    assert result.stderr.count("\n") == 1
