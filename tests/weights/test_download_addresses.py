"""The addresses that a file is fetched from, in which order; and what is said where the cache fails."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import huggingface_hub
import msgspec
import pytest

from tsmzoo.errors import DownloadError
from tsmzoo.registry import Entry
from tsmzoo.system import files as system_files
from tsmzoo.weights import cache, download, http

from .conftest import BODY, CHECKPOINT, NAME, OTHER, Reply, Server, leftovers, refusal, sha256

if TYPE_CHECKING:
    from collections.abc import Callable


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
    assert "`tsmzoo download tsm_tiny --source URL|FILE`" in message
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
