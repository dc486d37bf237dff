"""`--source`: a published file from where the user found it, held to the pin that a download is held to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tsmzoo
from tsmzoo.weights import cache, hub

from .conftest import CHECKPOINT, NAME, OTHER, PINS, Reply, Server, leftovers, sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

    from tsmzoo.registry import Entry

INDEX = "tsm_tiny.index"
# Not of os.urandom alone, which begins as text, one time in a hundred.
LIST = b"\0" + os.urandom(1000) + bytes.fromhex("57fb808b247547db")


@pytest.fixture
def found(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes], str]:
    """Give a function that puts content at a place of one kind, and returns what `--source` takes."""

    def put(kind: str, content: bytes) -> str:
        if kind == "address":
            return server.add("/elsewhere/renamed.bin", Reply(content))
        if kind == "hub":

            def from_hub(_: str, part: Path, __: int) -> str:
                part.write_bytes(content)
                return sha256(content)

            monkeypatch.setattr(hub, "fetch_from_hub", from_hub)
            return "hf://some/one/renamed.bin@v1"
        path = tmp_path / "renamed.bin"
        path.write_bytes(content)
        return str(path)

    return put


def refusal(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ")


@pytest.mark.parametrize("pin", PINS)
@pytest.mark.parametrize("kind", ["file", "address", "hub"])
def test_the_right_file_serves_as_if_downloaded(
    kind: str,
    pin: str,
    found: Callable[[str, bytes], str],
    server: Server,
    make_entry: Callable[..., Entry],
    invoke: Callable[..., Result],
) -> None:
    entry = make_entry(f"{server.url}/a/{NAME}", **PINS[pin])
    source = found(kind, CHECKPOINT)
    result = invoke([entry], "download", "tsm_tiny", "--source", source)
    path = cache.local_path(entry)
    assert (result.exit_code, result.stdout) == (0, f"tsm_tiny: {path}\n")
    assert path.read_bytes() == CHECKPOINT
    assert leftovers(entry) == ({".sha256"} if pin == "none" else set())
    assert server.paths() == (["/elsewhere/renamed.bin"] if kind == "address" else [])
    if kind == "file":
        assert Path(source).read_bytes() == CHECKPOINT
        assert not path.is_symlink()
        assert not path.samefile(source)
    (row,) = json.loads(invoke([entry], "list", "tsm_tiny", "--json").stdout)
    assert row["cached"]
    again = invoke([entry], "download", "tsm_tiny", "--source", "nowhere")
    assert again.stdout == result.stdout
    assert again.stderr == f"tsm_tiny: {NAME} is in the cache and verified; the source was not read\n"


@pytest.mark.parametrize("pin", PINS)
@pytest.mark.parametrize("kind", ["file", "address", "hub"])
def test_the_wrong_file_is_refused(
    kind: str,
    pin: str,
    found: Callable[[str, bytes], str],
    server: Server,
    make_entry: Callable[..., Entry],
    invoke: Callable[..., Result],
) -> None:
    entry = make_entry(server.add(f"/a/{NAME}", Reply(CHECKPOINT)), **PINS[pin])
    source = found(kind, OTHER)
    message = refusal(invoke([entry], "download", "tsm_tiny", "--source", source))
    assert message.startswith(f"tsm_tiny: {NAME} could not be fetched ({source}: it")
    assert "; use another with --weights FILE" in message
    assert not cache.is_cached(entry)
    assert f"/a/{NAME}" not in server.paths()  # only the source was asked for
    if kind == "file":  # the user has it already
        assert leftovers(entry) == set()
        assert Path(source).read_bytes() == OTHER


def test_the_record_of_a_first_download_holds(
    found: Callable[[str, bytes], str], server: Server, make_entry: Callable[..., Entry], invoke: Callable[..., Result]
) -> None:
    entry = make_entry(f"{server.url}/a/{NAME}", sha256=None)
    invoke([entry], "download", "tsm_tiny", "--source", found("file", CHECKPOINT))
    cache.local_path(entry).unlink()
    message = refusal(invoke([entry], "download", "tsm_tiny", "--source", found("file", CHECKPOINT + b" ")))
    assert f"on the first download it was {sha256(CHECKPOINT)}" in message


@pytest.mark.parametrize("kind", ["file", "address"])
def test_the_others_of_several_files_lie_beside_the_source(
    kind: str,
    tmp_path: Path,
    server: Server,
    make_entry: Callable[..., Entry],
    invoke: Callable[..., Result],
) -> None:
    entry = make_entry(f"{server.url}/a/{NAME}", beside=(INDEX,), **PINS["sha256"])
    folder = tmp_path / "found"
    folder.mkdir()
    if kind == "file":
        source = str(folder / "renamed.bin")
        (folder / "renamed.bin").write_bytes(CHECKPOINT)
    else:
        source = server.add("/found/renamed.bin?dl=1", Reply(CHECKPOINT))
    message = refusal(invoke([entry], "download", "tsm_tiny", "--source", source))
    assert f"{INDEX} could not be fetched ({source.rpartition('/')[0]}/{INDEX}: " in message
    (folder / INDEX).write_bytes(LIST)
    server.add(f"/found/{INDEX}", Reply(LIST))
    assert invoke([entry], "download", "tsm_tiny", "--source", source).exit_code == 0
    assert [path.read_bytes() for path in cache.local_paths(entry)] == [CHECKPOINT, LIST]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (f"http://1.2.3.4/{NAME}", "only https:// and hf:// addresses are used"),
        (f"file:///tmp/{NAME}", "only https:// and hf:// addresses are used"),
        ("hf://short", "an address on the hub is hf://owner/repo/path"),
        ("nowhere/w.pth", "cannot be read (No such file or directory)"),
        (".", "cannot be read (Is a directory)"),
        ("", "cannot be read (Is a directory)"),
        ("/dev/zero", "cannot be read (it is no regular file)"),
        ("large", "larger than 16,777,232 bytes"),
    ],
)
def test_a_source_that_is_none_is_one_line(
    source: str,
    why: str,
    server: Server,
    make_entry: Callable[..., Entry],
    invoke: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**40)
    for beside in ((), (INDEX,)):
        entry = make_entry(f"{server.url}/a/{NAME}", beside=beside)
        message = refusal(invoke([entry], "download", "tsm_tiny", "--source", source))
        assert why in message or beside
        assert not cache.is_cached(entry)


@pytest.mark.parametrize(
    "address",
    [
        *("http://me:hun@ter@127.0.0.1:1/x", "http://me:hun/ter@127.0.0.1:1/x", "http://me:hun?ter@127.0.0.1:1/x"),
        *("http://127.0.0.1:1/x?signature=hunter", "ftp://me:hunter@127.0.0.1/x", "hf://me:hun/ter@127.0.0.1/x"),
        "https://me:hunter@[bad/x",
    ],
)
def test_no_secret_of_an_address_is_told(
    address: str, make_entry: Callable[..., Entry], invoke: Callable[..., Result]
) -> None:
    message = refusal(invoke([make_entry("http://127.0.0.1:1/x")], "download", "tsm_tiny", "--source", address))
    assert not any(part in message for part in ("hun", "ter@", "me:"))


def test_a_signed_address_is_not_recorded(
    server: Server, make_entry: Callable[..., Entry], invoke: Callable[..., Result]
) -> None:
    """A download that stopped goes on where the address has been signed anew."""
    entry = make_entry("http://127.0.0.1:1/x", **PINS["sha256"])
    first = server.add("/f?signature=hunter", Reply(CHECKPOINT, cut=1000))
    second = server.add("/f?signature=another", Reply(CHECKPOINT))
    refusal(invoke([entry], "download", "tsm_tiny", "--source", first))
    (about,) = cache.local_paths(entry)[0].parent.glob("*.json")
    assert "hunter" not in about.read_text()
    assert invoke([entry], "download", "tsm_tiny", "--source", second).exit_code == 0
    assert server.ranges()[-1] == "bytes=4000-"


def test_a_local_file_needs_no_network(
    found: Callable[[str, bytes], str],
    server: Server,
    make_entry: Callable[..., Entry],
    invoke: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TSMZOO_OFFLINE", "1")
    entry = make_entry(f"{server.url}/a/{NAME}", **PINS["sha256"])
    address = found("address", CHECKPOINT)
    assert "TSMZOO_OFFLINE is set" in refusal(invoke([entry], "download", "tsm_tiny", "--source", address))
    assert server.requests == []
    assert invoke([entry], "download", "tsm_tiny", "--source", found("file", CHECKPOINT)).exit_code == 0


def test_a_source_is_of_one_published_model(
    server: Server, make_entry: Callable[..., Entry], invoke: Callable[..., Result]
) -> None:
    entry = make_entry(f"{server.url}/a/{NAME}")
    for models in (["tsm_tiny", "tsm_mbv2_motion"], ["--all"], ["tsm_tiny", "--all"]):
        result = invoke([entry], "download", *models, "--source", "w.pth")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--source" in result.stderr
    bundled = refusal(invoke([entry], "download", "tsm_mbv2_motion", "--source", "w.pth"))
    assert "are not downloaded; leave out the source" in bundled


def test_python_has_it_too(
    found: Callable[[str, bytes], str],
    server: Server,
    make_entry: Callable[..., Entry],
    invoke: Callable[..., Result],
    tmp_path: Path,
) -> None:
    entry = make_entry(f"{server.url}/a/{NAME}", **PINS["sha256"])
    invoke([entry], "list")  # writes the registry
    own, seen = tmp_path / "own.yaml", list[tuple[str, int, int]]()
    with pytest.raises(tsmzoo.DownloadError, match="HTTP 404"):
        tsmzoo.download("tsm_tiny", registry=own)
    done = tsmzoo.download("tsm_tiny", source=Path(found("file", CHECKPOINT)), registry=own)
    assert Path(done.path).read_bytes() == CHECKPOINT
    Path(done.path).unlink()
    address = found("address", CHECKPOINT)
    assert tsmzoo.download("tsm_tiny", source=address, registry=own, progress=lambda *at: seen.append(at)) == done
    assert seen[-1] == ("downloading tsm_tiny", len(CHECKPOINT), len(CHECKPOINT))


def test_all_models_are_not_some(make_entry: Callable[..., Entry], invoke: Callable[..., Result]) -> None:
    result = invoke([make_entry("https://nowhere.invalid/w.pth")], "download", "tsm_tiny", "--all")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--all takes every model" in result.stderr
