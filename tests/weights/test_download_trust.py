"""What a download trusts, and where it writes: a first file must be a checkpoint, and no link is followed."""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import random
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import huggingface_hub
import msgspec
import pytest
import safetensors.torch
import torch

from tsmzoo import registry
from tsmzoo.errors import DownloadError
from tsmzoo.weights import cache, checkpoint_file, download

from .conftest import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KNOWN = registry.load().find("tsm_r50_sthv2")
#: What tells a ResNet-50 of mit-han-lab's with a shift.
STATE = {
    "base_model.layer1.0.conv1.net.weight": torch.arange(3000.0),
    "base_model.layer3.5.conv3.weight": torch.ones(2),
    "new_fc.weight": torch.ones(3),
}
OTHER = {"epoch": 7, "state_dict": {"hello": torch.ones(3000)}}
TABLE = bytes.fromhex("57fb808b247547db")


def saved(content: object, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


GOOD = {
    "w.pth": saved(STATE),
    "w.pth.tar": saved({"state_dict": STATE}, _use_new_zipfile_serialization=False),
    "w.safetensors": safetensors.torch.save(STATE),
    "w.data-00000-of-00001": bytes(5000),
}
PAGE = b"\n<!DOCTYPE html><html><title>Sign in</title></html>" * 100
BAD = {
    "nothing": b"",
    "a page": PAGE,
    "a page behind a mark": b"\xef\xbb\xbf" + PAGE,
    "XML": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "JSON": b'{"message": "Not Found"}' * 100,
    "text": b"Not found\n",
    "noughts": bytes(12_000),
    "ten bytes of a page": PAGE[:10],
    "ten bytes": GOOD["w.pth"][:10],
    "a file cut short": GOOD["w.pth"][:-500],
    "another cut short": GOOD["w.pth.tar"][:-500],
    "a third cut short": GOOD["w.safetensors"][:-500],
    "a gzip stream": gzip.compress(GOOD["w.pth"], mtime=0),
    "no tensors": saved({"epoch": 7, "x": "x" * 12_000}),
    "other tensors": saved(OTHER),
    "another network's": saved({**STATE, "layer3.22.conv1.weight": torch.ones(2)}),
    "another publisher's": saved({key.replace("base_model", "backbone"): tensor for key, tensor in STATE.items()}),
    "an image network's": saved({"conv1.weight": torch.ones(3000), "layer1.0.conv1.weight": torch.ones(3)}),
    "a few of its tensors": saved(
        {key: tensor[:2].clone() for key, tensor in STATE.items()}, _use_new_zipfile_serialization=False
    ),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(5000),
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which all of it is served, as a type that says nothing."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def guess_type(self, _: Any) -> str:
            return "application/octet-stream"

    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def entry_of(*urls: str, **changes: Any) -> registry.Entry:
    known = msgspec.structs.asdict(KNOWN)
    facts = {"id": "tiny", "urls": urls, "beside": (), "params": 1000}
    return registry.Entry(**(known | dict.fromkeys(("sha256", "sha256_prefix", "git_blob_sha1")) | facts | changes))


def refusal(entry: registry.Entry) -> str:
    with pytest.raises(DownloadError) as caught:
        download.fetch(entry, notify=lambda _: None)
    message = str(caught.value)
    assert "\n" not in message
    return message


def place(entry: registry.Entry, ending: str = "") -> Path:
    path = cache.local_path(entry)
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + ending)


# What is trusted


@pytest.mark.parametrize("name", GOOD)
def test_a_checkpoint_is_trusted_and_enforced(name: str, site: tuple[Path, str]) -> None:
    folder, url = site
    (folder / name).write_bytes(GOOD[name])
    entry, notes = entry_of(f"{url}/{name}"), list[str]()
    assert download.fetch(entry, notify=notes.append).read_bytes() == GOOD[name]
    assert place(entry, ".sha256").read_text() == sha256(GOOD[name]) + "\n"
    assert len(notes) == 1
    assert {path.name.removeprefix(name) for path in place(entry).parent.iterdir()} == {"", ".sha256", ".lock"}

    place(entry).unlink()
    (folder / name).write_bytes(GOOD[name] + b" ")
    assert f"on the first download it was {sha256(GOOD[name])}" in refusal(entry)


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_checkpoint_is_not_trusted(bad: str, site: tuple[Path, str]) -> None:
    folder, url = site
    for where in ("bad", "good"):
        (folder / where).mkdir()
    for name in ("w.pth", "w.safetensors"):
        (folder / "bad" / name).write_bytes(BAD[bad])
        (folder / "good" / name).write_bytes(GOOD[name])
        entry = entry_of(f"{url}/bad/{name}", id=f"tiny{len(name)}")
        assert f"{url}/bad/{name}: it " in refusal(entry)
        assert not place(entry, ".sha256").exists()
        assert not cache.is_cached(entry)
        both = msgspec.structs.replace(entry, urls=(*entry.urls, f"{url}/good/{name}"))
        assert download.fetch(both, notify=lambda _: None).read_bytes() == GOOD[name]
        assert place(entry, ".sha256").read_text() == sha256(GOOD[name]) + "\n"


@pytest.mark.parametrize("bad", ["nothing", "a page", "a file cut short"])
def test_what_lies_in_the_cache_is_trusted_no_sooner(
    bad: str, site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = site
    (folder / "w.pth").write_bytes(GOOD["w.pth"])
    entry = entry_of(f"{url}/w.pth")
    place(entry).write_bytes(BAD[bad])
    monkeypatch.setenv("TSMZOO_OFFLINE", "1")
    assert "w.pth is missing (it " in refusal(entry)
    assert place(entry).read_bytes() == BAD[bad]
    monkeypatch.delenv("TSMZOO_OFFLINE")
    assert download.fetch(entry, notify=lambda _: None).read_bytes() == GOOD["w.pth"]
    assert place(entry, f".{sha256(BAD[bad])[:8]}.bad").read_bytes() == BAD[bad]  # the user's own is not lost


def test_what_arrived_keeps_its_name_while_it_is_looked_at(
    site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed then leaves what the next one goes on with, and nothing else."""
    folder, url = site
    (folder / "w.safetensors").write_bytes(GOOD["w.safetensors"])
    entry, seen = entry_of(f"{url}/w.safetensors"), list[set[str]]()
    read = checkpoint_file.read

    def watching(path: Path) -> checkpoint_file.CheckpointFile:
        seen.append({each.name for each in path.parent.iterdir()})
        return read(path)

    monkeypatch.setattr(checkpoint_file, "read", watching)
    download.fetch(entry, notify=lambda _: None)
    assert seen == [{"w.safetensors.part", "w.safetensors.part.json", "w.safetensors.lock"}]


INDEX = b"\0" * 1000 + TABLE


@pytest.mark.parametrize("bad", [b"", PAGE, INDEX[:-1], INDEX + b"\0", gzip.compress(INDEX, mtime=0), b"\0" * 4])
def test_the_index_of_a_pair_must_be_one(bad: bytes, site: tuple[Path, str]) -> None:
    folder, url = site
    name = "w.data-00000-of-00001"
    (folder / name).write_bytes(GOOD[name])
    (folder / "w.index").write_bytes(bad)
    entry = entry_of(f"{url}/{name}", beside=("w.index",))
    assert "w.index could not be fetched" in refusal(entry)
    (folder / "w.index").write_bytes(INDEX)
    assert download.fetch(entry, notify=lambda _: None).with_name("w.index").read_bytes() == INDEX


@pytest.mark.parametrize("bad", [b"", PAGE, bytes(1999), gzip.compress(random.Random(0).randbytes(5000), mtime=0)])
def test_the_data_of_a_pair_must_hold_the_weights(bad: bytes, site: tuple[Path, str]) -> None:
    folder, url = site
    name = "w.data-00000-of-00001"
    (folder / name).write_bytes(bad)
    assert f"{url}/{name}: it " in refusal(entry_of(f"{url}/{name}"))


@pytest.mark.parametrize(
    "record",
    [b"", b"\n", b"\0" * 64, b"abc", b"0" * 63, b"0" * 65, b"\xff\xfe", b"x" * 10**6, b"0" * 64 + b" w.pth", None],
)
def test_a_record_that_is_none_is_named(record: bytes | None, site: tuple[Path, str]) -> None:
    folder, url = site
    (folder / "w.pth").write_bytes(GOOD["w.pth"])
    entry = entry_of(f"{url}/w.pth")
    path = place(entry, ".sha256")
    path.mkdir() if record is None else path.write_bytes(record)
    for there in (False, True):
        if there:
            place(entry).write_bytes(GOOD["w.pth"])
        message = refusal(entry)
        assert f"{path}: " in message
        assert "delete it" in message
    assert path.is_dir() if record is None else path.read_bytes() == record
    path.rmdir() if record is None else path.unlink()
    assert download.fetch(entry, notify=lambda _: None).read_bytes() == GOOD["w.pth"]


def test_a_record_in_capitals_counts(site: tuple[Path, str]) -> None:
    entry = entry_of(f"{site[1]}/w.pth")
    place(entry).write_bytes(b"whatever")
    place(entry, ".sha256").write_text(sha256(b"whatever").upper())
    assert download.fetch(entry) == place(entry)


# Where it is written

COMPANIONS = (".part", ".part.json", ".sha256", ".lock")
KINDS = ("link", "dangling link", "hard link", "pipe", "link to a device", "link to a pipe")


@pytest.mark.parametrize("known", [True, False], ids=["digest", "no digest"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", COMPANIONS)
@pytest.mark.parametrize("resumable", [True, False])
def test_nothing_outside_is_written(
    ending: str, kind: str, known: bool, resumable: bool, site: tuple[Path, str], tmp_path: Path
) -> None:
    folder, url = site
    (folder / "w.pth").write_bytes(GOOD["w.pth"])
    entry = entry_of(f"{url}/w.pth", sha256=sha256(GOOD["w.pth"]) if known else None)
    precious, path = tmp_path / "precious", place(entry, ending)
    if kind == "hard link":
        precious.write_bytes(b"precious")
        os.link(precious, path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        if kind == "link":
            precious.write_bytes(b"precious")
        elif kind == "link to a pipe":
            os.mkfifo(precious)
        path.symlink_to("/dev/zero" if kind == "link to a device" else precious)
    if resumable and ending != ".part.json":
        modified = SimpleHTTPRequestHandler.date_time_string(SimpleNamespace(), (folder / "w.pth").stat().st_mtime)  # type: ignore[arg-type]
        about = {"url": f"{url}/w.pth", "validator": modified}
        place(entry, ".part.json").write_text(json.dumps(about))

    if ending == ".sha256" and not known and kind != "dangling link":
        assert f"{path}: " in refusal(entry)  # what is there is no digest, and not ours to replace
    else:
        assert download.fetch(entry, notify=lambda _: None).read_bytes() == GOOD["w.pth"]
        assert not place(entry).is_symlink()
    if kind in ("link", "hard link"):
        assert precious.read_bytes() == b"precious"
    elif kind != "link to a pipe":
        assert not precious.exists()


@pytest.mark.parametrize("ending", [".part", ".part.json", ".lock", ""])
def test_a_folder_in_the_way_is_one_line(ending: str, site: tuple[Path, str]) -> None:
    folder, url = site
    (folder / "w.pth").write_bytes(GOOD["w.pth"])
    entry = entry_of(f"{url}/w.pth")
    path = place(entry, ending)
    path.mkdir()
    (path / "precious").write_text("precious")
    message = refusal(entry)
    assert str(path) in message
    assert "TSMZOO_CACHE" in message
    assert (path / "precious").read_text() == "precious"


@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
def test_what_is_no_file_in_the_files_place_is_replaced(kind: str, site: tuple[Path, str]) -> None:
    folder, url = site
    (folder / "w.pth").write_bytes(GOOD["w.pth"])
    entry = entry_of(f"{url}/w.pth", sha256=sha256(GOOD["w.pth"]))
    os.mkfifo(place(entry)) if kind == "pipe" else place(entry).symlink_to("/dev/zero")
    assert download.fetch(entry).read_bytes() == GOOD["w.pth"]
    assert not place(entry).is_symlink()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_beside_the_registry_is_named(kind: str, tmp_path: Path) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "mine.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    assert f"{path} cannot be read (" in refusal(entry_of(file=str(path), sha256="0" * 64))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def fetch(_: str, name: str, *, revision: str | None, cache_dir: Path, dry_run: bool = False) -> Any:
        assert revision is None
        if dry_run:
            return SimpleNamespace(file_size=None)
        blobs, links = cache_dir / "models" / "blobs", cache_dir / "models" / "snapshots"
        for folder in (blobs, links):
            folder.mkdir(parents=True, exist_ok=True)
        (blobs / "blob").write_bytes(GOOD["w.pth"])
        (links / name).unlink(missing_ok=True)
        (links / name).symlink_to("../blobs/blob")
        return str(links / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    return fetch


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("inside", ["", "models", "models/blobs", "models/blobs/blob"])
def test_the_hubs_folder_is_not_followed_outside(inside: str, tmp_path: Path) -> None:
    entry = entry_of("hf://some/one/w.pth")
    outside, link = tmp_path / "outside", place(entry, ".part.hub") / inside
    if inside.endswith("blob"):
        outside.write_bytes(b"precious")
    else:
        outside.mkdir()
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    assert download.fetch(entry, notify=lambda _: None).read_bytes() == GOOD["w.pth"]
    assert outside.read_bytes() == b"precious" if outside.is_file() else not list(outside.iterdir())


@pytest.mark.usefixtures("hub")
def test_what_the_hub_left_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own links lead from one of its folders to another, and are no reason to begin again."""
    entry = entry_of("hf://some/one/w.pth")
    store = place(entry, ".part.hub") / "models"
    (store / "blobs").mkdir(parents=True)
    (store / "snapshots").mkdir()
    (store / "blobs" / "left.incomplete").write_bytes(b"half")
    (store / "snapshots" / "other").symlink_to("../blobs/left.incomplete")
    seen = []
    real = huggingface_hub.hf_hub_download

    def watching(*arguments: Any, **options: Any) -> Any:
        seen.append((store / "blobs" / "left.incomplete").exists())
        return real(*arguments, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", watching)
    download.fetch(entry, notify=lambda _: None)
    assert seen == [True, True]
