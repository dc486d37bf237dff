"""A server that cuts, lies, redirects and stalls; checkpoint files, published and our own; what is refused."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from tsmzoo import models, registry
from tsmzoo.cli import app
from tsmzoo.errors import CheckpointError, DownloadError
from tsmzoo.registry import Entry
from tsmzoo.weights import cache, checkpoint, download, http

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# Not of os.urandom alone, which begins as text, one time in a hundred.
BODY = b"\0" + os.urandom(299_999)
OTHER = b"\0" + os.urandom(299_999)
with io.BytesIO() as _stream:
    # What tells a ResNet-50 of mit-han-lab's with a shift.
    _state = {"base_model.layer1.0.conv1.net.weight": torch.arange(1000.0), "layer3.5.conv3.weight": torch.ones(1)}
    torch.save(_state, _stream)
    CHECKPOINT = _stream.getvalue()
NAME = "tsm_tiny.pth"
#: A certificate that expired on 2025-08-12, and its key.
EXPIRED = Path(__file__).with_name("expired.pem")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_blob_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob " + str(len(data)).encode() + b"\0" + data).hexdigest()


#: Kinds of pins of CHECKPOINT.
PINS: dict[str, dict[str, str | None]] = {
    "sha256": {"sha256": sha256(CHECKPOINT)},
    "prefix": {"sha256": None, "sha256_prefix": sha256(CHECKPOINT)[:8]},
    "git blob": {"sha256": None, "git_blob_sha1": git_blob_sha1(CHECKPOINT)},
    "none": {"sha256": None},
}


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
    #: Called after `cut` bytes, or before the body; before the answer to HEAD.
    hold: Callable[[], object] = lambda: None
    #: Seconds between single bytes.
    trickle: float = 0
    #: In place of all that: begin with these bytes, and go on with single ones until the client hangs up.
    endless: bytes = b""
    #: Status of the answer to HEAD, if it is another.
    head: int | None = None


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

    def _reply(self) -> Reply:
        self.server.requests.append((self.path, dict(self.headers)))
        replies = self.server.replies.get(self.path, [Reply(b"", 404)])
        return replies.pop(0) if len(replies) > 1 else replies[0]

    def _start(self, reply: Reply, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | ({"ETag": reply.etag} if reply.etag else {}) | reply.headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def do_HEAD(self) -> None:
        reply = self._reply()
        reply.hold()
        self._start(reply, reply.head or reply.status, {"Content-Length": str(len(reply.body))})

    def do_GET(self) -> None:
        reply = self._reply()
        body, status = reply.body, reply.status
        self.wfile.write(reply.endless)
        while reply.endless:
            time.sleep(0.02)
            self.wfile.write(b"0")
        headers = {"Content-Length": str(len(body))}
        if status == 200 and (wanted := self.headers.get("Range")):
            first, last = wanted.removeprefix("bytes=").split("-")
            start = int(first)
            fits = self.headers["If-Range"] == (reply.etag or reply.headers.get("Last-Modified"))
            if reply.ranges == "always" or (reply.ranges == "yes" and fits):
                end = int(last) + 1 if last else len(body)
                body, status = body[start:end], 206
                headers["Content-Length"] = str(len(body))
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(reply.body)}"
        self._start(reply, status, headers)
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


@pytest.fixture
def expired() -> Iterator[Server]:
    """A server whose certificate expired on 2025-08-12, and that has the file."""
    with Server() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(EXPIRED)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.add(f"/a/{NAME}", Reply(CHECKPOINT))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.fixture
def invoke(tmp_path: Path) -> Callable[..., Result]:
    """Give a function that runs a command with a registry on top that holds some entries."""

    def invoke(entries: list[Entry], *arguments: str) -> Result:
        known = {"labels": "jester_sorted", "classes": 27, "source": "mit"}
        own = tmp_path / "own.yaml"
        own.write_text(json.dumps({"models": [msgspec.to_builtins(entry) | known for entry in entries]}))
        return CliRunner().invoke(app, [*arguments, "--registry", str(own)])

    return invoke


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
    """What lies beside the file, less the lock and the reasons of quarantines."""
    beside = {path.name.removeprefix(NAME) for path in cache.local_path(entry).parent.iterdir()} - {"", ".lock"}
    return {name for name in beside if not name.endswith(".bad.txt")}


RUN = """
import os, sys, msgspec
from tsmzoo import registry
from tsmzoo.cli import _terminal as terminal
from tsmzoo.weights import download
entry = msgspec.json.decode(sys.argv[1], type=registry.Entry)
print(download.fetch(entry, progress=lambda what, size, total: print(size, flush=True), notify=terminal.note))
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


@pytest.fixture
def in_git(second: Entry) -> Entry:
    """Two addresses, of which the second is well, and no sha256."""
    return msgspec.structs.replace(second, sha256=None, git_blob_sha1=git_blob_sha1(BODY))


ZOO = registry.load()
#: Parity case to the model that its file belongs to.
MODEL = {
    "mit_tsn_r50_k400": "tsn_r50_k400_mit",
    "mit_tsm_r50_sthv2": "tsm_r50_sthv2_8f_mit",
    "mit_tsm_r50_nl_k400": "tsm_r50_nl_k400_8f_dense_mit",
    "mit_tsm_mbv2_k400": "tsm_mbv2_k400_dense_mit",
    "mit_tsm_mbv2_jester_online": "tsm_mbv2_online",
    "mmaction2_tsn_r50_k400": "tsn_r50_k400_8seg",
    "mmaction2_tsm_r50_sthv2": "tsm_r50_sthv2_8f_mmaction",
    "mmaction2_tsm_r50_nl_dot_k400": "tsm_r50_nl_dot_product_k400_8f",
    "mmaction2_tsm_mbv2_k400": "tsm_mbv2_k400_mmaction",
    "mmaction2_i3d_r50_k400": "i3d_r50_k400",
    "mmaction2_i3d_r50_heavy_k400": "i3d_r50_heavy_k400",
    "pytorchvideo_i3d_r50_k400": "i3d_r50_k400_8x8",
    "piergiaj_i3d_inception_k400": "i3d_inception_k400_rgb_piergiaj",
    "mmaction2_x3d_m_k400": "x3d_m_k400_16x5",
    "pytorchvideo_x3d_xs_k400": "x3d_xs_k400_4x12_ptv",
    "pytorchvideo_x3d_s_k400": "x3d_s_k400_13x6_ptv",
    "pytorchvideo_efficient_x3d_xs_k400": "x3d_xs_k400_4x12_mobile_ptv",
    **{f"movinet_{name}_k600": f"movinet_{name}_k600" for name in ("a0_base", "a0_stream", "a1_base", "a1_stream")},
}
MIT, ONLINE, MMACTION = "mit_tsm_mbv2_k400", "mit_tsm_mbv2_jester_online", "mmaction2_tsm_mbv2_k400"
State = dict[str, Tensor]
Case = Callable[[str], dict[str, Any]]
Published = Callable[[str], Path]


def load(path: Path, model: str, **options: Any) -> tuple[nn.Module, checkpoint.LoadedCheckpoint]:
    entry = ZOO.find(model)
    net = models.build(entry)
    return net, checkpoint.load(net, entry, path, **options)


@functools.cache
def unfilled(model: str) -> nn.Module:
    """Return the network of `model` on the meta device, built once: a refusal leaves it so."""
    return models.build(ZOO.find(model))


def assert_same(net: nn.Module, wanted: State) -> None:
    got = net.state_dict()
    assert got.keys() == wanted.keys()
    different = [key for key in wanted if not torch.equal(got[key], wanted[key])]
    assert not different


def hollow(case: dict[str, Any]) -> State:
    """A case's tensors by name and shape: zeros that take no room in memory or in a file."""
    kinds = {"float32": torch.float32, "int64": torch.int64}
    return {name: torch.zeros((), dtype=kinds[dtype]).expand(shape) for name, shape, dtype in case["tensors"]}


@pytest.fixture(scope="module")
def raw(published: Published) -> Callable[[str], State]:
    """Give a function from a parity case to the tensors of its file, keyed as there."""

    @functools.cache
    def read(name: str) -> State:
        content = torch.load(published(name), weights_only=True)
        return content.get("state_dict", content)

    return lambda name: dict(read(name))


def no_counters(state: State) -> State:
    kept = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    assert len(kept) < len(state)
    return kept


def doubled(state: State) -> State:
    return {f"module.{key}": tensor for key, tensor in state.items()}


def as_offline(state: State) -> State:
    """The online file's tensors, keyed as MIT's offline training saves them."""
    shifted = {f"features.{i}.conv.0." for i in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)}
    out = {}
    for key, tensor in state.items():
        for prefix in shifted:
            key = key.replace(prefix, f"{prefix}net.") if key.startswith(prefix) else key
        out[f"module.{key.replace('classifier', 'new_fc')}" if "classifier" in key else f"module.base_model.{key}"] = (
            tensor
        )
    return out


TSN, TSM, STREAM = "tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online"


def trained(model: str, seed: int = 3, **changes: Any) -> tuple[nn.Module, registry.Entry]:
    """Return a network whose every tensor is random, its batch norms too, as training leaves them."""
    entry = msgspec.structs.replace(ZOO.find(model), **changes)
    net, generator = models.build(entry, seed=seed), torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return net, entry


def assert_refused(path: Path, model: str, *words: str, net: nn.Module | None = None, **options: Any) -> str:
    """Nothing is loaded, and one line names the file and says `words`."""
    net = net or unfilled(model)
    before = {key: tensor if tensor.is_meta else tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(net, ZOO.find(model), path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 600
    for word in words:
        assert word in message
    for key, tensor in net.state_dict().items():
        if before[key].is_meta:
            assert tensor.is_meta
        else:
            assert torch.equal(tensor, before[key])
    return message


def nan(tensor: Tensor) -> Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] = torch.nan
    return tensor


Edits = tuple[tuple[str, str], ...]
MIT_WRAPPED: Edits = ((r"^(?!fc\.)", "module.base_model."), (r"^fc\.", "module.new_fc."))
MIT_BRANCH: Edits = ((r"^(layer\d\.\d+)\.conv1\.", r"\1.conv1.net."), *MIT_WRAPPED)
MIT_BLOCK: Edits = ((r"^(layer\d\.\d+)\.", r"\1.net."), *MIT_WRAPPED)
IN_PLACE: dict[str, Any] = {"family": "tsm", "shift_place": "in-place"}
TSN_: dict[str, Any] = {"family": "tsn"}


def like(backbone: str, **changes: Any) -> registry.Entry:
    return msgspec.structs.replace(ZOO.find("tsm_r50_k400_8f"), backbone=backbone, **changes)


def respelt(entry: registry.Entry, edits: Edits) -> State:
    """The hollow file of a network, as its publisher lays it out."""
    state = {}
    for key, tensor in models.build(entry).state_dict().items():
        for pattern, replacement in edits:
            key = re.sub(pattern, replacement, key)
        assert key not in state
        state[key] = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
    return state
