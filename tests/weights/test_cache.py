"""`cache list`, `verify` and `prune`, of a cache that downloads have laid out."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

import tsmzoo
from tsmzoo.cli import app
from tsmzoo.errors import DownloadError
from tsmzoo.registry import Entry
from tsmzoo.weights import cache, download

from .conftest import BODY, CHECKPOINT, NAME, OTHER, Reply, Server, leftovers, sha256

Invoke = Callable[..., Result]
BAD = f"{NAME}.{sha256(OTHER)[:8]}.bad"


@pytest.fixture
def models(server: Server, make_entry: Callable[..., Entry]) -> dict[str, Entry]:
    """Four models of one server: right, cut off for ever, another file, and without a published digest."""
    server.add(f"/whole/{NAME}", Reply())
    server.add(f"/partial/{NAME}", Reply(cut=1000))
    server.add(f"/wrong/{NAME}", Reply(OTHER))
    server.add(f"/unpinned/{NAME}", Reply(CHECKPOINT))
    entries = {id: make_entry(f"{server.url}/{id}/{NAME}", id=id) for id in ("whole", "partial", "wrong", "unpinned")}
    entries["unpinned"] = msgspec.structs.replace(entries["unpinned"], sha256=None)
    return entries


@pytest.fixture
def zoo(models: dict[str, Entry], invoke: Invoke) -> Callable[..., Result]:
    """Give a function that runs a command with the models, whose downloads were tried once."""
    result = invoke(list(models.values()), "download", *models)
    assert result.exit_code == 1
    assert "partial, wrong" in result.stderr

    return lambda *arguments: invoke(list(models.values()), *arguments)


def rows(result: Result) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return [row for row in rows if row["id"] is not None]


def states(result: Result) -> set[tuple[str, str, str]]:
    return {(row["id"], Path(row["path"]).name, row["state"]) for row in rows(result)}


ALL = {
    ("whole", NAME, "whole"),
    ("unpinned", NAME, "whole"),
    ("partial", f"{NAME}.part", "partial"),
    ("partial", f"{NAME}.part.json", "partial"),
    ("wrong", BAD, "quarantined"),
}


def tree() -> set[Path]:
    return set(Path(os.environ["TSMZOO_CACHE"]).rglob("*"))


def test_list(zoo: Invoke, models: dict[str, Entry]) -> None:
    result = zoo("cache", "list", "--json")
    assert states(result) == ALL
    found = {row["state"]: row for row in rows(result) if row["id"] != "unpinned"}
    assert found["whole"]["bytes"] == len(BODY)
    assert found["quarantined"]["why"] == f"its sha256 is {sha256(OTHER)}, the published one is {sha256(BODY)}"
    path = cache.local_path(models["whole"])
    assert found["whole"]["path"] == str(path)
    assert found["whole"]["modified"].endswith("Z")
    text = zoo("cache", "list").stdout
    assert f"files, {sum(row['bytes'] for row in json.loads(result.stdout)) / 1e6:.1f} MB in " in text
    assert "its sha256 is" in text
    assert states(zoo("cache", "list", "who*", "--json")) == {("whole", NAME, "whole")}


def test_a_file_of_no_model_is_an_orphan(zoo: Invoke) -> None:
    path = cache.cache_dir() / "checkpoints" / "forgotten" / "model.pth"
    path.parent.mkdir()
    path.write_bytes(b"1234")
    other = path.with_name("notes")
    other.mkdir()
    notes = path.parent.with_name("whole") / "notes.txt"
    notes.write_text("mine")
    mine = cache.cache_dir() / "compiled" / "mine.json"
    mine.write_text("{}")
    orphans = {("forgotten", "model.pth", "orphan"), ("forgotten", "notes", "orphan"), ("whole", "notes.txt", "orphan")}
    assert states(zoo("cache", "list", "--json")) == ALL | orphans
    assert "no model of the registry is called so" in zoo("cache", "list", "forgotten").stdout
    # It may be of a registry that was not given: only its name removes it.
    zoo("cache", "prune")
    zoo("cache", "prune", "--all")
    assert path.exists()
    assert notes.exists()
    assert states(zoo("cache", "prune", "forgotten", "--json")) == {row for row in orphans if row[0] == "forgotten"}
    assert not path.exists()
    assert not other.exists()
    assert states(zoo("cache", "prune", "whole", "--json")) == {("whole", "notes.txt", "orphan")}
    assert mine.exists()  # whatever else somebody keeps in this folder


def test_a_name_that_nothing_has(zoo: Invoke) -> None:
    for command in ("list", "verify", "prune"):
        result = zoo("cache", command, "wohle")
        assert result.exit_code == 1
        assert "did you mean whole" in result.stderr


def test_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "new"))
    for command in ("list", "verify", "prune"):
        result = CliRunner().invoke(app, ["cache", command])
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.splitlines()[-1].startswith(("0 files, 0.0 MB", "1 file, "))


def test_verify(zoo: Invoke, models: dict[str, Entry]) -> None:
    result = zoo("cache", "verify")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:2] == [
        f"unpinned: {NAME}: verified (recorded)",
        f"whole: {NAME}: verified (sha256)",
    ]
    record = cache.local_path(models["unpinned"]).with_name(f"{NAME}.sha256")
    digest = record.read_text()
    record.unlink()
    said = f"unpinned: {NAME}: a checkpoint, held to no digest yet; `tsmzoo download unpinned` records it\n"
    assert said in zoo("cache", "verify").stdout
    record.write_text(digest)
    for id in ("whole", "unpinned"):
        path = cache.local_path(models[id])
        content = path.read_bytes()
        path.write_bytes(b"x" + content[1:])
        result = zoo("cache", "verify", "--json")
        assert result.exit_code == 1
        assert f"1 of 2 files are not what was published: {id}; " in result.stderr
        (wrong,) = (row for row in rows(result) if row["state"] == "wrong")
        assert wrong["sha256"] == sha256(b"x" + content[1:])
        assert sha256(content) in wrong["why"]
        assert path.read_bytes()[:1] == b"x"  # nothing is removed
        assert "wrong: " in zoo("cache", "verify", id).stdout
        path.write_bytes(content)


def test_a_record_that_is_none(zoo: Invoke, models: dict[str, Entry]) -> None:
    path = cache.local_path(models["unpinned"])
    path.with_name(f"{NAME}.sha256").write_text("nonsense")
    result = zoo("cache", "verify", "unpinned", "--json")
    assert result.exit_code == 1
    assert "it holds no sha256" in rows(result)[0]["why"]


def test_prune_removes_what_nobody_misses(zoo: Invoke, models: dict[str, Entry]) -> None:
    before = tree()
    useless = {row for row in ALL if row[2] != "whole"}
    assert states(zoo("cache", "prune", "--dry-run", "--json")) == useless
    assert "would be removed" in zoo("cache", "prune", "--dry-run").stdout
    assert tree() == before
    assert "0.3 MB removed" in zoo("cache", "prune").stdout
    assert leftovers(models["whole"]) == leftovers(models["partial"]) == leftovers(models["wrong"]) == set()
    assert {path.name for path in before - tree()} == {name for _, name, _ in useless} | {f"{BAD}.txt"}
    assert zoo("cache", "verify").exit_code == 0
    assert states(zoo("cache", "prune", "--json")) == set()


def test_prune_removes_models_that_are_named(zoo: Invoke, models: dict[str, Entry], server: Server) -> None:
    assert states(zoo("cache", "prune", "unp*", "--json")) == {("unpinned", NAME, "whole")}
    assert not cache.is_cached(models["unpinned"])
    assert cache.is_cached(models["whole"])
    # The next download is held to the first one's digest.
    server.add(f"/unpinned/{NAME}", Reply(CHECKPOINT + b"x"))
    with pytest.raises(DownloadError, match="on the first download it was"):
        download.fetch(models["unpinned"])
    zoo("cache", "prune", "--all")
    assert states(zoo("cache", "list", "--json")) == set()
    assert zoo("cache", "prune", "whole", "--all").exit_code == 2


def test_prune_leaves_a_download_in_progress(server: Server, entry: Entry, invoke: Invoke) -> None:
    begun, go = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go.wait(30)

    server.add(f"/a/{NAME}", Reply(cut=1000, hold=hold), Reply())
    thread = threading.Thread(target=download.fetch, args=(entry,), kwargs={"notify": lambda _: None})
    thread.start()
    assert begun.wait(30)
    result = invoke([entry], "cache", "prune", "--all", "--json")
    assert rows(result) == []
    assert "a download is in progress" in result.stderr
    go.set()
    thread.join()
    assert cache.local_path(entry).read_bytes() == BODY


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_prune_locks_what_a_download_has_locked_alone(
    make: Callable[[Path], None], zoo: Invoke, models: dict[str, Entry]
) -> None:
    """A folder that is called like a lock does not keep the whole cache from being pruned."""
    lock = Path(f"{cache.local_path(models['partial'])}.lock")
    lock.unlink()
    make(lock)
    assert zoo("cache", "prune").exit_code == 0
    assert states(zoo("cache", "list", "--json")) == {("whole", NAME, "whole"), ("unpinned", NAME, "whole")}


def test_prune_does_not_follow_links(zoo: Invoke, models: dict[str, Entry], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / NAME).write_bytes(BODY)
    (outside / f"{NAME}.part").write_bytes(b"1")
    path = cache.local_path(models["whole"])
    path.unlink()
    path.symlink_to(outside / NAME)  # as somebody may do who has little room
    assert zoo("cache", "verify", "whole").exit_code == 0
    store = path.with_name(f"{NAME}.part.hub")
    store.symlink_to(outside)
    folder = cache.local_path(models["partial"]).parent
    folder.rename(tmp_path / "aside")
    folder.symlink_to(outside)
    result = zoo("cache", "prune", "--all")
    assert "is a link to another folder" in result.stderr
    assert not path.is_symlink()
    assert not store.is_symlink()
    assert {each.name for each in outside.iterdir()} == {NAME, f"{NAME}.part"}


def test_prune_removes_outdated_copies_of_registries(tmp_path: Path, zoo: Invoke) -> None:
    (copy,) = (each for each in (cache.cache_dir() / "compiled").glob("registry-*"))
    old = copy.with_name("registry-00000000.json")
    content = json.loads(copy.read_bytes())
    content["sources"][0][0] = str(tmp_path / "removed" / "registry.yaml")
    old.write_text(json.dumps(content))
    found = {row["path"]: row["state"] for row in json.loads(zoo("cache", "list", "--json").stdout)}
    assert (found[str(copy)], found[str(old)]) == ("copy", "stale")
    zoo("cache", "prune")
    assert copy.exists()
    assert not old.exists()


def test_bundled_models_are_not_in_the_cache() -> None:
    assert tsmzoo.prune_cache("tsm_mbv2_motion") == []
    assert tsmzoo.download("tsm_mbv2_motion").bytes > 0


def test_a_cache_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").write_text("no folder")
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path))
    for command in ("list", "verify", "prune"):
        result = CliRunner().invoke(app, ["cache", command])
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"error: the cache {tmp_path} cannot be read (Not a directory)")


def test_the_files_of_one_checkpoint(server: Server, make_entry: Callable[..., Entry], invoke: Invoke) -> None:
    """The one that `urls` names has the published digest, the other that of the first download."""
    entry = make_entry(f"{server.url}/a/{NAME}", beside=("tsm_tiny.index",))
    server.add(f"/a/{NAME}", Reply())
    server.add("/a/tsm_tiny.index", Reply(b"\x80" * 100 + bytes.fromhex("57fb808b247547db")))
    assert invoke([entry], "download", entry.id).exit_code == 0
    checked = rows(invoke([entry], "cache", "verify", "--json"))
    assert [(row["state"], row["pin"]) for row in checked] == [("whole", "recorded"), ("whole", "sha256")]
    cache.local_path(entry).with_name("tsm_tiny.index").write_bytes(b"x")
    result = invoke([entry], "cache", "verify", "--json")
    assert result.exit_code == 1
    assert [row["state"] for row in rows(result)] == ["wrong", "whole"]
