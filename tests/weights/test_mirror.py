"""`mirror`: a folder of one's own that a static server serves, from which models answer as from their publisher."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from typer.testing import CliRunner

import tsmzoo
from tests.artifact.hub import Repository, serving
from tests.weights.inception import DATA, INDEX, load_checkpoint, write
from tests.weights.test_tf_checkpoint import layout
from tsmzoo.cli import app

from .conftest import MIT, MODEL, Published, Reply, Server, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

MOTION = "tsm_mbv2_motion"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def static(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the files in `tmp_path`/mirror."""
    handler = functools.partial(_Quiet, directory=str(tmp_path / "mirror"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def registry_of_publisher(tmp_path: Path, server: Server, published: Published) -> Path:
    """A registry in which a publisher's file of torch.save is served on this machine, pinned to 32 bits."""
    content = published(MIT).read_bytes()
    url = server.add("/published/tsm.pth", Reply(content))
    entry = tsmzoo.model_info(MODEL[MIT])
    fields = {key: value for key, value in msgspec.to_builtins(entry.entry).items() if value not in (None, [], ())}
    fields |= {"urls": [url], "sha256_prefix": sha256(content)[:8]}
    fields.pop("sha256", None)
    fields.pop("git_blob_sha1", None)
    path = tmp_path / "publisher.yaml"
    path.write_text(json.dumps({"models": [fields]}))
    return path


def logits(registry: Path) -> np.ndarray:
    model = tsmzoo.load(MODEL[MIT], registry=registry)
    with torch.inference_mode():
        return model.module(torch.ones(1, 8, 3, 64, 64)).numpy()


def test_a_mirror_answers_as_its_publisher(
    registry_of_publisher: Path, static: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: Published
) -> None:
    made = CliRunner().invoke(
        app,
        [
            *("mirror", str(tmp_path / "mirror"), MODEL[MIT], "--url", static, "--json"),
            *("--registry", str(registry_of_publisher)),
        ],
    )
    assert made.exit_code == 0, made.stderr
    (one,) = json.loads(made.stdout)
    assert one["pin"] == "prefix"
    assert one["source_sha256"] == sha256(published(MIT).read_bytes())
    want = torch.load(published(MIT), weights_only=True)["state_dict"]
    got = safetensors.torch.load_file(one["path"])
    assert got.keys() == {name.removeprefix("module.") for name in want}
    assert all(torch.equal(got[name.removeprefix("module.")], tensor) for name, tensor in want.items())

    expected = logits(registry_of_publisher)
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "another"))
    mirrored = tmp_path / "mirror" / "registry.yaml"
    assert np.array_equal(logits(mirrored), expected)
    info = tsmzoo.model_info(MODEL[MIT], registry=mirrored)
    assert info.pin == "sha256"
    assert one["source_sha256"] in " ".join(info.entry.notes)
    assert one["licence"] in (tmp_path / "mirror" / "README.md").read_text()


def test_a_mirrors_changed_file_is_refused(
    registry_of_publisher: Path, static: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = tsmzoo.mirror(tmp_path / "mirror", MODEL[MIT], url=static, registry=registry_of_publisher)
    content = bytearray(Path(one.path).read_bytes())
    content[-1] ^= 1
    Path(one.path).write_bytes(content)
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "another"))
    with pytest.raises(tsmzoo.DownloadError, match="its sha256 is"):
        tsmzoo.download(MODEL[MIT], registry=tmp_path / "mirror" / "registry.yaml")


def test_published_bytes_serve_as_tsmzoo_mirror(
    registry_of_publisher: Path,
    static: str,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    published: Published,
) -> None:
    (one,) = tsmzoo.mirror(tmp_path / "mirror", MODEL[MIT], original=True, registry=registry_of_publisher)
    assert Path(one.path).read_bytes() == published(MIT).read_bytes()
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "another"))
    monkeypatch.setenv("TSMZOO_MIRROR", static)
    server.requests.clear()
    tsmzoo.download(MODEL[MIT], registry=registry_of_publisher)
    assert server.requests == []


def test_the_same_mirror_again_is_the_same_and_others_are_added(tmp_path: Path) -> None:
    (first,) = tsmzoo.mirror(tmp_path / "mirror", MOTION)
    names = ["registry.yaml", "README.md"]
    before = [(tmp_path / "mirror" / name).read_bytes() for name in names]
    assert tsmzoo.mirror(tmp_path / "mirror", MOTION) == [first]
    assert before == [(tmp_path / "mirror" / name).read_bytes() for name in names]
    tsmzoo.mirror(tmp_path / "mirror", "tsm_mbv2_motion_o*")
    registry = tmp_path / "mirror" / "registry.yaml"
    for name in (MOTION, "tsm_mbv2_motion_online"):
        assert tsmzoo.download(name, registry=registry).path.startswith(str(tmp_path / "mirror"))
        assert f"{name}/" in (tmp_path / "mirror" / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([MOTION, "--url", "ftp://example.org"], "ftp://example.org: is no address of a mirror"),
        ([MOTION, "--url", "hf://USER"], "hf://USER: is no address of a mirror"),
        ([MOTION, "--url", "ftp://me:hunter@example.org"], "error: ftp://example.org: is no address of a mirror"),
        ([MOTION, "--url", "https://me:hunter@example.org"], "error: the address of a mirror has a user name"),
        (["no_such_model"], "no model is called"),
        ([MOTION, "--url", "https://example.org", "--original"], "leave out one"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["mirror", str(tmp_path / "mirror"), *arguments])
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_readme_of_someone_else_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine\n")
    with pytest.raises(tsmzoo.ZooError, match="is in the way"):
        tsmzoo.mirror(tmp_path, MOTION)
    assert not (tmp_path / "registry.yaml").exists()


@pytest.mark.parametrize("original", [False, True])
def test_a_checkpoint_of_tensorflow_on_the_hub(
    original: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As safetensors it needs no TensorFlow any more; as published all its files are mirrored."""
    model, arrays, folder = "i3d_inception_k400_rgb_deepmind", layout("rgb")[2], tmp_path / "mirror"
    data, index = (write(tmp_path / "published", arrays) / name for name in (DATA, INDEX))
    urls = [server.add(f"/published/{path.name}", Reply(path.read_bytes())) for path in (data, index)]
    fields = {key: value for key, value in msgspec.to_builtins(tsmzoo.model_info(model).entry).items() if value}
    pin = {"sha256": sha256(data.read_bytes()), "bytes": 1, "beside": {INDEX: sha256(b"index")}}
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({"models": [fields | {"urls": urls[:1], "git_blob_sha1": None}], "pins": {model: pin}}))
    stand_in = SimpleNamespace(train=SimpleNamespace(load_checkpoint=load_checkpoint))
    with serving(monkeypatch, tmp_path) as hub:
        monkeypatch.setitem(sys.modules, "tensorflow", stand_in)
        tsmzoo.mirror(folder, model, original=original, url=None if original else "hf://me/mirror@v1", registry=own)
        monkeypatch.delitem(sys.modules, "tensorflow")
        content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
        hub.repositories["me/mirror"] = Repository(commits=[("v1", content), ("later", {})])
        monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "another"))
        server.requests.clear()
        if original:
            monkeypatch.setenv("TSMZOO_MIRROR", "hf://me/mirror@v1")
            assert [Path(path).name for path in tsmzoo.download(model, registry=own).files] == [DATA, INDEX]
        else:
            loaded = tsmzoo.load(model, registry=folder / "registry.yaml").module.state_dict()
            assert torch.equal(loaded["backbone.logits.weight"], layout("rgb")[1]["logits.weight"])
        assert server.requests == []


@pytest.mark.parametrize("model", [MOTION, MODEL[MIT]])
def test_a_full_disk_is_one_line_and_what_was_laid_out_is_complete(
    model: str, registry_of_publisher: Path, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    tsmzoo.download(model, registry=registry_of_publisher)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = tmp_path / "mirror"
    tsmzoo.mirror(folder, "tsm_mbv2_motion_online")
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, limits[1]))
    try:
        result = CliRunner().invoke(app, ["mirror", str(folder), model, "--registry", str(registry_of_publisher)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"error: {folder}: {model} could not be written there (File too large); make room, or choose another folder\n"
    )
    assert before == {path: path.read_bytes() for path in folder.rglob("*.*")}


def test_two_that_add_to_a_mirror_at_once(tmp_path: Path) -> None:
    names = [MOTION, "tsm_mbv2_motion_online", "tsn_mbv2_motion"]
    code = "import sys, tsmzoo; tsmzoo.mirror(sys.argv[1], sys.argv[2])"
    command = [sys.executable, "-c", code, str(tmp_path / "mirror")]
    running = [subprocess.Popen([*command, name]) for name in names]
    assert [process.wait() for process in running] == [0, 0, 0]
    document = yaml.safe_load((tmp_path / "mirror" / "registry.yaml").read_text(encoding="utf-8"))
    assert sorted(each["id"] for each in document["models"]) == sorted(names)
    assert all(f"| {name}/" in (tmp_path / "mirror" / "README.md").read_text() for name in names)


def test_a_name_of_two_lines_is_shown_on_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "ca\nche"))
    result = CliRunner().invoke(app, ["mirror", str(tmp_path / "mir\nror"), MOTION])
    assert result.stdout.count("\n") == 1
    assert r"mir\nror/tsm_mbv2_motion/" in result.stdout
    assert r"ca\nche" in CliRunner().invoke(app, ["cache", "list"]).stdout.splitlines()[-1]


def test_one_dead_host_keeps_no_other_model_out(tmp_path: Path, server: Server, registry_of_publisher: Path) -> None:
    document = json.loads(registry_of_publisher.read_text())
    document["models"].insert(0, document["models"][0] | {"id": "gone", "urls": [f"{server.url}/gone/gone.pth"]})
    registry_of_publisher.write_text(json.dumps(document))
    arguments = ["mirror", str(tmp_path / "mirror"), "gone", MODEL[MIT], "--registry", str(registry_of_publisher)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "error: 1 of 2 were not fetched: gone; run it again"
    assert "error: gone: " in result.stderr
    assert [each["id"] for each in yaml.safe_load((tmp_path / "mirror/registry.yaml").read_text())["models"]] == [
        MODEL[MIT]
    ]
