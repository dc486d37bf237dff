"""What a checkpoint is held to, and the mirrors that it is fetched from: what the commands say of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from tsmzoo.cli import app
from tsmzoo.registry import Entry
from tsmzoo.weights import cache, download

from .conftest import BODY, CHECKPOINT, NAME, OTHER, Reply, Server, git_blob_sha1, sha256

BLOB, FULL = git_blob_sha1(BODY), sha256(BODY)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """Give a function that runs a command with a registry on top that holds an entry and mirrors."""

    def run(entry: Entry, *arguments: str, mirrors: Any = ()) -> Result:
        known = {"labels": "jester_sorted", "classes": 27, "source": "mit"}
        own = tmp_path / "own.yaml"
        own.write_text(json.dumps({"models": [msgspec.to_builtins(entry) | known], "mirrors": mirrors}))
        return CliRunner().invoke(app, [*arguments, "--registry", str(own)])

    return run


@pytest.mark.parametrize(
    ("digests", "grade"),
    [
        ({"sha256": FULL, "sha256_prefix": FULL[:8], "git_blob_sha1": BLOB}, "sha256"),
        ({"sha256_prefix": FULL}, "sha256"),
        ({"sha256_prefix": FULL[:8], "git_blob_sha1": BLOB}, "git_blob"),
        ({"sha256_prefix": FULL[:8]}, "prefix"),
        ({}, "none"),
    ],
)
def test_the_grade_of_a_pin(digests: dict[str, str], grade: str, entry: Entry, run: Callable[..., Result]) -> None:
    entry = msgspec.structs.replace(entry, **{"sha256": None} | digests)
    assert cache.pin(entry) == grade
    (row,) = json.loads(run(entry, "list", entry.id, "--json").stdout)
    assert row["pin"] == json.loads(run(entry, "info", entry.id, "--json").stdout)["pin"] == grade
    assert f"pin        {grade}: " in run(entry, "info", entry.id).stdout


def test_the_first_download_is_a_pin(server: Server, entry: Entry) -> None:
    entry = msgspec.structs.replace(entry, sha256=None)
    server.add(f"/a/{NAME}", Reply(CHECKPOINT))
    assert cache.pin(entry) == "none"
    path = download.fetch(entry)
    assert cache.pin(entry) == "recorded"
    path.unlink()  # the next download is held to it all the same
    assert cache.pin(entry) == "recorded"


def test_a_model_without_weights_has_no_pin(make_entry: Callable[..., Entry]) -> None:
    assert cache.pin(make_entry(format="tsmzoo", sha256=None)) == "none"


def test_a_download_says_once_that_its_pin_is_weak(server: Server, entry: Entry, run: Callable[..., Result]) -> None:
    server.add(f"/a/{NAME}", Reply())
    weak = msgspec.structs.replace(entry, sha256=None, sha256_prefix=FULL[:8])
    assert run(weak, "download", weak.id).stderr == (
        f"tsm_tiny: weakly pinned: of its sha256 only the first 32 bits ({FULL[:8]}) are published; all of it is "
        f"{FULL}\n"
    )
    assert run(weak, "download", weak.id).stderr == ""  # it is in the cache
    path = cache.local_path(weak)
    for strong in (entry, msgspec.structs.replace(weak, git_blob_sha1=BLOB)):
        path.unlink()
        assert run(strong, "download", strong.id).stderr == ""
        assert path.read_bytes() == BODY


def test_a_mirror_serves_what_the_publisher_does_not(server: Server, entry: Entry, run: Callable[..., Result]) -> None:
    """And is held to the same pin: the first of two mirrors has another file."""
    server.add(f"/wrong/{NAME}", Reply(OTHER))
    server.add(f"/right/{NAME}", Reply())
    folders = [f"{server.url}/{name}/" for name in ("wrong", "right")]
    mirrors = [{"from": f"{server.url}/a/", "to": folders, "tested": False, "note": "a friend's"}]
    result = run(entry, "download", entry.id, mirrors=mirrors)
    assert result.exit_code == 0, result.stderr
    assert cache.local_path(entry).read_bytes() == BODY
    assert server.paths() == [f"/{name}/{NAME}" for name in ("a", "wrong", "right")]
    text = run(entry, "info", entry.id, mirrors=mirrors).stdout
    assert f"  file       {entry.urls[0]}\n" in text
    for folder in folders:
        assert f"  file       {folder}{NAME} (untested; a friend's)\n" in text
    document = json.loads(run(entry, "info", entry.id, "--json", mirrors=mirrors).stdout)
    assert document["addresses"][1:] == [
        {"url": f"{folder}{NAME}", "tested": False, "note": "a friend's"} for folder in folders
    ]
    assert document["urls"] == [address["url"] for address in document["addresses"]]
