"""`download --record`: whole digests of what was fetched, as a registry of pins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

import tsmzoo
from tsmzoo import registry
from tsmzoo.cli import app
from tsmzoo.errors import RegistryError
from tsmzoo.weights import cache

from .conftest import BODY, NAME, OTHER, Reply, Server, sha256

if TYPE_CHECKING:
    from typer.testing import Result

    from tsmzoo.registry import Entry


@pytest.fixture
def weak(server: Server, entry: Entry) -> Entry:
    """A model of whose digest eight digits are published."""
    server.add(f"/a/{NAME}", Reply())
    return msgspec.structs.replace(entry, sha256=None, sha256_prefix=sha256(BODY)[:8])


def test_a_record_is_a_registry_of_pins(weak: Entry, invoke: Callable[..., Result], tmp_path: Path) -> None:
    own, record = tmp_path / "own.yaml", tmp_path / "pins.yaml"
    for _ in range(2):  # the second time it is in the cache
        assert invoke([weak], "download", weak.id, "--record", str(record)).exit_code == 0
        pins = {weak.id: {"sha256": sha256(BODY), "bytes": len(BODY)}}
        assert yaml.safe_load(record.read_text(encoding="utf-8")) == {"pins": pins}
    assert cache.pin(registry.load(own).find(weak.id)) == "prefix"
    assert cache.pin(registry.load(own, record).find(weak.id)) == "sha256"
    # The pins may stand in the registry of the entry itself.
    own.write_text(json.dumps(json.loads(own.read_text()) | {"pins": pins}))
    row = json.loads(CliRunner().invoke(app, ["list", weak.id, "--json", "--registry", str(own)]).stdout)
    assert row[0]["pin"] == "sha256"


def test_models_are_added_to_a_record(
    server: Server, entry: Entry, weak: Entry, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    """One that fails does not keep the others out."""
    record = tmp_path / "pins.yaml"
    server.add("/gone/other.pth", Reply(status=404))
    others = [
        msgspec.structs.replace(entry, id="gone", urls=(f"{server.url}/gone/other.pth",)),
        msgspec.structs.replace(entry, id="another"),
    ]
    names = ("gone", "another")
    assert invoke([weak, *others], "download", weak.id, "--record", str(record)).exit_code == 0
    assert invoke([weak, *others], "download", *names, "--record", str(record)).exit_code == 1
    assert set(yaml.safe_load(record.read_text(encoding="utf-8"))["pins"]) == {weak.id, "another"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("models: [{id: mine}]", "holds more than pins"),
        ("pins: {}\naliases: {a: b}", "holds more than pins"),
        ("pins: {x: {sha256: nonsense, bytes: 1}}", "sha256"),
        ("- a list", "a registry is a mapping"),
    ],
)
def test_a_file_of_something_else_is_kept(
    content: str, why: str, server: Server, weak: Entry, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    """And nothing is downloaded before that is said."""
    record = tmp_path / "pins.yaml"
    record.write_text(content)
    result = invoke([weak], "download", weak.id, "--record", str(record))
    assert result.exit_code == 1
    assert why in result.stderr
    assert record.read_text() == content
    assert server.paths() == []


def test_what_lies_beside_a_registry_is_not_recorded(tmp_path: Path) -> None:
    """A later version of the package may hold another file."""
    record = tmp_path / "pins.yaml"
    assert tsmzoo.download("tsm_mbv2_motion", record=record).bytes > 0
    assert not record.exists()


def test_a_record_that_cannot_be_written(
    server: Server, weak: Entry, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    """Nothing is downloaded before that is said."""
    for place in (tmp_path / "nowhere" / "pins.yaml", tmp_path):
        result = invoke([weak], "download", weak.id, "--record", str(place))
        assert result.exit_code == 1
        assert result.stderr.startswith(f"error: {place}: cannot be read")
        assert result.stderr.count("\n") == 1
    assert server.paths() == []


@pytest.mark.parametrize(
    ("id", "digest", "why"),
    [
        ("tsm_tiny", sha256(OTHER), "the published sha256 begins with"),
        ("tsm_tniy", sha256(BODY), "no registry has"),
    ],
    ids=["contradicts", "unknown"],  # the digests are others in each process of pytest
)
def test_pins_of_another_file_are_refused(
    id: str, digest: str, why: str, weak: Entry, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    invoke([weak], "list")  # writes the registry
    record = tmp_path / "pins.yaml"
    record.write_text(yaml.safe_dump({"pins": {id: {"sha256": digest, "bytes": 1}}}))
    with pytest.raises(RegistryError, match=why):
        registry.load(tmp_path / "own.yaml", record)


def test_an_architecture_has_no_file_to_pin(tmp_path: Path) -> None:
    without = next(entry.id for entry in registry.load().models if not entry.has_weights)
    record = tmp_path / "pins.yaml"
    record.write_text(yaml.safe_dump({"pins": {without: {"sha256": sha256(BODY), "bytes": 1}}}))
    with pytest.raises(RegistryError, match="no weights were published"):
        tsmzoo.list_models(registry=record)


def test_the_files_beside_a_checkpoint_are_pinned_too(
    server: Server, weak: Entry, invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, other = (content + bytes.fromhex("57fb808b247547db") for content in (b"\0one", b"\0two"))
    weak, record = msgspec.structs.replace(weak, beside=("tsm_tiny.index",)), tmp_path / "pins.yaml"
    server.add("/a/tsm_tiny.index", Reply(index))
    assert invoke([weak], "download", weak.id, "--record", str(record)).exit_code == 0
    pins = yaml.safe_load(record.read_text(encoding="utf-8"))["pins"]
    assert pins[weak.id]["beside"] == {"tsm_tiny.index": sha256(index)}
    invoke([weak], "list")
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps(json.loads(own.read_text()) | {"pins": pins}))
    assert [file.pin for file in tsmzoo.verify_cache(weak.id, registry=own)] == ["sha256", "sha256"]

    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "another"))
    server.add("/a/tsm_tiny.index", Reply(other))
    with pytest.raises(tsmzoo.DownloadError, match=f"its sha256 is {sha256(other)}, the published one is"):
        tsmzoo.download(weak.id, registry=own)
    pins[weak.id]["beside"]["other.index"] = sha256(other)
    own.write_text(json.dumps(json.loads(own.read_text()) | {"pins": pins}))
    with pytest.raises(RegistryError, match=r"pins 'other\.index' of 'tsm_tiny', which has no such file"):
        registry.load(own)


def test_links_expects_the_pinned_size(
    server: Server, weak: Entry, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    invoke([weak], "download", weak.id, "--record", str(tmp_path / "pins.yaml"))
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps(json.loads(own.read_text()) | yaml.safe_load((tmp_path / "pins.yaml").read_text())))
    (link,) = tsmzoo.check_links(weak.id, registry=own)
    assert link.alive
    server.add(f"/a/{NAME}", Reply(BODY + b"more"))
    (link,) = tsmzoo.check_links(weak.id, registry=own)
    assert link.reason == f"not the size of this checkpoint: {len(BODY):,} bytes"
