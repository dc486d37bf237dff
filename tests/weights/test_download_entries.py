"""Entries of several files, without weights, or with a file beside the registry: downloads, and what commands print."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from typer.testing import CliRunner, Result

from tsmzoo import registry
from tsmzoo.cli import app
from tsmzoo.errors import DownloadError
from tsmzoo.registry import Entry
from tsmzoo.weights import cache, download, hub

from .conftest import BODY, NAME, OTHER, Reply, Server, git_blob_sha1, refusal, sha256

if TYPE_CHECKING:
    from collections.abc import Callable


# A checkpoint of several files

INDEX = "tsm_tiny.index"
LIST = b"\0" + os.urandom(1000) + bytes.fromhex("57fb808b247547db")


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

    monkeypatch.setattr(hub, "fetch_from_hub", from_hub)
    for revision in ("", "@v1"):
        entry = make_entry(f"hf://some/one/weights/{NAME}{revision}", beside=(INDEX,), id=f"tsm{revision[1:]}")
        assert download.fetch(entry, notify=lambda _: None).read_bytes() == BODY
        assert asked[-2:] == [f"hf://some/one/weights/{name}{revision}" for name in (INDEX, NAME)]


# The commands


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
