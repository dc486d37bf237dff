"""Downloads: complete, cut and continued, and the digests that tell a wrong file."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tsmzoo.errors import DownloadError
from tsmzoo.registry import Entry
from tsmzoo.weights import cache, download

from .conftest import BODY, CHECKPOINT, NAME, OTHER, Reply, Server, git_blob_sha1, leftovers, refusal, sha256

if TYPE_CHECKING:
    from collections.abc import Callable


# The plain way


def test_a_file_is_downloaded_once_and_reported(server: Server, entry: Entry, tmp_path: Path) -> None:
    server.add(f"/a/{NAME}", Reply())
    seen: list[tuple[str, int, int]] = []
    assert not cache.is_cached(entry)
    path = download.fetch(entry, progress=lambda *step: seen.append(step))
    assert path == tmp_path / "cache" / "checkpoints" / "tsm_tiny" / NAME == cache.local_path(entry)
    assert path.read_bytes() == BODY
    assert cache.is_cached(entry)
    assert leftovers(entry) == set()
    assert seen[-1] == ("downloading tsm_tiny", len(BODY), len(BODY))
    assert [size for _, size, _ in seen] == sorted({size for _, size, _ in seen})
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
    seen: list[int] = []
    assert download.fetch(entry, progress=lambda _what, _size, total: seen.append(total)).read_bytes() == BODY
    assert set(seen) == {0}


def test_nothing_heavy_is_imported_to_look_into_the_cache() -> None:
    heavy = {"httpx2", "rich", "filelock", "huggingface_hub", "torch"}
    code = f"import sys, tsmzoo.weights.download; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Cut, continued, started over


@pytest.mark.parametrize("validator", [{"etag": '"v1"'}, {"etag": None, "headers": {"Last-Modified": "Mon, 01 Jan"}}])
def test_a_cut_download_is_continued(server: Server, entry: Entry, validator: dict[str, Any]) -> None:
    server.add(f"/a/{NAME}", Reply(cut=100_000, **validator), Reply(cut=50_000, **validator), Reply(**validator))
    seen: list[int] = []
    path = download.fetch(entry, progress=lambda _what, size, _total: seen.append(size))
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
    process.communicate(timeout=60)
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
    for known in (None, entry.sha256):
        assert "a web page" in refusal(msgspec.structs.replace(entry, sha256=known))
        assert leftovers(entry) == set()


@pytest.mark.parametrize("length", [str(2**40), ""])
def test_a_file_that_is_too_large_is_refused_at_once(server: Server, entry: Entry, length: str) -> None:
    body = bytes(16 * 2**20 + 20) if not length else BODY
    server.add(f"/a/{NAME}", Reply(body, headers={"Content-Length": length}))
    assert "larger than 16,777,232 bytes" in refusal(entry)
    assert len(server.requests) == 1
    part = cache.local_path(entry).with_name(f"{NAME}.part")
    assert not part.exists() or part.stat().st_size == 0


# Published in a repository: known by what git calls it

#: What `git hash-object` says of a file that holds b"tsmzoo\n".
GIT = (b"tsmzoo\n", "92454f32f046467408d6238a6dbd715a23f80108")


def test_gits_name_of_a_file_is_gits() -> None:
    assert git_blob_sha1(GIT[0]) == GIT[1]


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
