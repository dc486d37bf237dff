"""Runs whose state is odd, and runs in which a call that writes fails, or after which the process is no more."""

from __future__ import annotations

import builtins
import errno
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tsmzoo import registry
from tsmzoo.data import layouts
from tsmzoo.registry import recipes
from tsmzoo.training import loop
from tsmzoo.training import train as training_train

Record = Callable[[Path, int, int], Path]
NAMES = {"last.pt", "metrics.jsonl", "model.safetensors", "registry.yaml"}


@pytest.fixture(scope="module")
def lists(record: Record, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    record(folder / "data", 4, 1)
    record(folder / "val", 2, 2)
    return folder


@pytest.fixture
def train(train_tiny: Any, lists: Path, tmp_path: Path) -> Callable[..., Any]:
    for name in ("data", "val"):
        (tmp_path / name).symlink_to(lists / name)
    return train_tiny


def fit(lists: Path, zoo: Path, out: Path, seed: int = 0) -> None:
    """Train one step."""
    plain: dict[str, Any] = {"name": "mine", "model": "tiny", "weights": "random", "epochs": 1, "batch": 4, "lr": 0.05}
    how = recipes.Training(**plain, schedule="cosine", dropout=0.0, scales=(1.0,), hflip=False, frames=1, seed=seed)
    read = layouts.read(lists / "data"), layouts.read(lists / "val")
    training_train.train(registry.load(zoo), how, *read, out, progress=lambda *_: None, notify=lambda _: None)


@pytest.fixture(scope="module")
def finished(lists: Path, tiny_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Give the files of a finished run."""
    out = tmp_path_factory.mktemp("finished")
    fit(lists, tiny_zoo, out)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def put(out: Path, content: dict[str, bytes]) -> None:
    out.mkdir(exist_ok=True)
    for name, text in content.items():
        (out / name).write_bytes(text)


def one_line(result: Any, *words: str) -> None:
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


# --- a state that is odd ---------------------------------------------------------------------------------------------


def shadowed() -> torch.Tensor:
    tensor = torch.zeros(2)
    tensor.shape_ = 1
    return tensor


def bias(kept: dict[str, Any], value: Any) -> dict[str, Any]:
    return kept | {"net": OrderedDict(kept["net"]) | {"classifier.1.bias": value}}


def state(kept: dict[str, Any], value: Any) -> dict[str, Any]:
    return kept | {"optimizer": kept["optimizer"] | {"state": value}}


def groups(kept: dict[str, Any], value: Any) -> dict[str, Any]:
    return kept | {"optimizer": kept["optimizer"] | {"param_groups": value}}


ODD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a tensor": lambda _: torch.zeros(3),
    "nothing": lambda _: None,
    "no names": lambda kept: {number: value for number, value in enumerate(kept.values())},
    **{
        f"{key} is {value!r}": lambda kept, key=key, value=value: kept | {key: value}
        for key, values in {
            "of": (None, torch.zeros(2)),
            "epochs": (True, 1.5, -1, 2**70, torch.ones(())),
            "seconds": (float("nan"), -1.0, 2**70),
            "net": (None, [1], {}),
            "optimizer": (True, [1], {}),
            "skipped": (None, torch.zeros(2), {"a": 1}, {"training": torch.zeros(2)}),
            "lost": ([], {"training": {"x": 1}}),
        }.items()
        for value in values
    },
    "more epochs than the recipe": lambda kept: kept | {"epochs": 5},
    "a tensor of another type": lambda kept: bias(kept, torch.zeros(2, dtype=torch.int64)),
    "a tensor of another shape": lambda kept: bias(kept, torch.zeros(3)),
    "a sparse tensor": lambda kept: bias(kept, torch.zeros(2).to_sparse()),
    "a tensor without data": lambda kept: bias(kept, torch.zeros(2, device="meta")),
    "nested tensors": lambda kept: bias(kept, torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)])),
    "a tensor with attributes": lambda kept: bias(kept, shadowed()),
    "a parameter": lambda kept: bias(kept, torch.nn.Parameter(torch.zeros(2))),
    "text for a tensor": lambda kept: bias(kept, "weights"),
    "a tensor more": lambda kept: kept | {"net": kept["net"] | {"more": torch.zeros(1)}},
    "groups: none": lambda kept: groups(kept, []),
    "groups: text": lambda kept: groups(kept, "params"),
    "groups: of tensors": lambda kept: groups(kept, [{"params": torch.zeros(3)}] * 4),
    "groups: others": lambda kept: groups(kept, kept["optimizer"]["param_groups"][::-1]),
    "momenta: a list": lambda kept: state(kept, [1]),
    "momenta: text": lambda kept: state(kept, {0: {"momentum_buffer": "x"}}),
    "momenta: lists": lambda kept: state(kept, {0: [1]}),
    "momenta: another shape": lambda kept: state(kept, {0: {"momentum_buffer": torch.zeros(1)}}),
    "momenta: of no parameter": lambda kept: state(kept, {10_000: {"momentum_buffer": torch.zeros(1)}}),
    "momenta: keys of text": lambda kept: state(kept, {"0": {}}),
}


#: One of each kind: of the whole, of a number, of a table, of a tensor, of the optimizer.
SOME = (
    "a tensor",
    "no names",
    "epochs is True",
    "seconds is nan",
    "skipped is {'a': 1}",
    "more epochs than the recipe",
)
SOME += ("a tensor of another shape", "a tensor more", "groups: others", "momenta: another shape")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("names", [SOME, pytest.param(tuple(ODD), marks=pytest.mark.slow)], ids=["some", "all"])
def test_an_odd_state_is_one_line_and_stays(
    train: Any, finished: dict[str, bytes], tmp_path: Path, names: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    put(out, finished)
    kept = torch.load(out / "last.pt", weights_only=True)
    assert train().exit_code == 0, "what is not odd is resumed"
    for text in names:
        torch.save(ODD[text](dict(kept)), out / "last.pt")
        before = (out / "last.pt").read_bytes()
        result = train()
        print(text, result.stderr)
        one_line(result, str(out), "last.pt" if "recipe" not in result.stderr else "recipe")
        assert (out / "last.pt").read_bytes() == before


def test_a_state_with_a_flipped_byte_is_one_line(train: Any, finished: dict[str, bytes], tmp_path: Path) -> None:
    whole = finished["last.pt"]
    for share in (0.1, 0.5, 0.9):
        place = int(len(whole) * share)
        put(tmp_path / "out", finished | {"last.pt": whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]})
        one_line(train(), "last.pt", "delete them")


@pytest.mark.parametrize(
    "text",
    [
        b"[]\n",
        b'{"epoch": 1.0}\n',
        b'{"epoch": "1", "lr": 0, "loss": 0, "top1": 0, "val_top1": 1, "seconds": 1}\n',
        b'{"epoch": 1.0, "lr": 0, "loss": 0, "top1": 0, "val_top1": "x", "seconds": 1}\n',
        b'{"epoch": 1.0, "lr": 0, "loss": 0, "top1": 0, "val_top1": NaN, "seconds": 1}\n',
        b'{"epoch": 1.0, "lr": 0, "loss": 0, "top1": 0, "val_top1": 1e9, "seconds": 1}\n',
        b'{"epoch": 1.0, "lr": 0, "loss": 0, "top1": 0, "seconds": 1}\n',
        b'{"epoch": 0.5, "lr": 0, "loss": 0, "top1": 0, "val_top1": 1, "seconds": 1}\n',
        b"[" * 100_000,
        b"{",
        b"\xff\n",
        b"",
        None,
    ],
    ids=lambda text: str(text)[:70],
)
def test_odd_metrics_are_one_line(train: Any, finished: dict[str, bytes], tmp_path: Path, text: bytes | None) -> None:
    put(tmp_path / "out", finished | {"metrics.jsonl": text or b""})
    if text is None:
        (tmp_path / "out" / "metrics.jsonl").unlink()
    one_line(train(), "metrics.jsonl", "delete")


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("what", ["a folder", "a pipe", "a device", "a link to a folder"])
def test_what_lies_in_the_place_of_a_file_is_one_line(train: Any, tmp_path: Path, name: str, what: str) -> None:
    place = tmp_path / "out" / name
    place.parent.mkdir()
    {
        "a folder": place.mkdir,
        "a pipe": lambda: os.mkfifo(place),
        "a device": lambda: place.symlink_to("/dev/zero"),
        "a link to a folder": lambda: place.symlink_to(tmp_path),
    }[what]()
    one_line(train(), str(place), "move it away")
    assert {path.name for path in place.parent.iterdir()} == {name}


# --- a call that fails, and a process that ends --------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the end of the process: nothing that it would do afterwards reaches the disk."""


class Disk:
    """Counts the calls that write to a folder; one fails (ENOSPC), or all from one on never happen (a kill)."""

    def __init__(self, folder: Path, at: int, *, kill: bool) -> None:
        self._folder, self._at, self._kill, self.calls = str(folder), at, kill, 0

    def _count(self, path: Any) -> None:
        if not str(path).startswith(self._folder):
            return
        self.calls += 1
        if self._kill and self.calls >= self._at:
            raise Killed
        if self.calls == self._at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    @contextmanager
    def faulty(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Count the opening for writing, writing, syncing, renaming and removing of files in the folder."""
        plain_open, fsync, os_replace, unlink = builtins.open, os.fsync, os.replace, os.unlink

        def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if not set(mode) & set("wxa"):
                return plain_open(file, mode, *rest, **more)
            self._count(file)
            handle = plain_open(file, mode, *rest, **more)
            if not isinstance(file, int) and str(file).startswith(self._folder):
                handle = Torn(handle, partial_count)
            return handle

        def partial_count(handle: Any, content: Any) -> None:
            try:
                self._count(self._folder)
            except BaseException:
                handle.write(content[: len(content) // 2])  # half of it is there
                handle.flush()
                raise

        def synced(descriptor: int) -> None:
            self._count(os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        def replaced(source: Any, target: Any) -> None:
            self._count(target)
            os_replace(source, target)

        def removed(path: Any, **more: Any) -> None:
            if self._kill and os.path.lexists(path):
                self._count(path)
            unlink(path, **more)

        with monkeypatch.context() as patch:
            patch.setattr(builtins, "open", opened)
            patch.setattr(os, "fsync", synced)
            patch.setattr(os, "replace", replaced)
            patch.setattr(os, "unlink", removed)
            yield


class Torn:
    """A file of which a write may fail half-way."""

    def __init__(self, handle: Any, before: Callable[[Any, Any], None]) -> None:
        self._handle, self._before = handle, before

    def __enter__(self) -> Torn:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def write(self, content: Any) -> int:
        self._before(self._handle, content)
        return int(self._handle.write(content))


def whole(out: Path) -> None:
    """Check that each file is absent or whole, and that the registry names the weights that lie there."""
    if (out / "last.pt").exists():
        torch.load(out / "last.pt", weights_only=True)
    if (out / "metrics.jsonl").exists():
        assert [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    if (out / "model.safetensors").exists():
        load_file(out / "model.safetensors")
    if (out / "registry.yaml").exists():
        [model] = yaml.safe_load((out / "registry.yaml").read_text())["models"]
        assert hashlib.sha256((out / model["file"]).read_bytes()).hexdigest() == model["sha256"]
        registry.load(out / "registry.yaml").find("mine")


def settled(out: Path) -> dict[str, bytes]:
    """Return what a run left but for its times, each file by name."""
    content = {path.name: path.read_bytes() for path in out.iterdir()}
    assert content.keys() == NAMES
    return {name: content[name] for name in ("model.safetensors", "registry.yaml")}


@pytest.mark.slow
@pytest.mark.parametrize("kill", [False, True], ids=["fails", "ends"])
def test_every_write_of_a_run_may_fail_or_be_the_last(
    lists: Path, tiny_zoo: Path, finished: dict[str, bytes], tmp_path: Path, monkeypatch: Any, kill: bool
) -> None:
    at = 1
    while True:
        out = tmp_path / str(at)
        disk = Disk(out, at, kill=kill)
        try:
            with disk.faulty(monkeypatch):
                fit(lists, tiny_zoo, out)
            break
        except Killed:
            assert kill
        except training_train.TrainingError as error:
            said = str(error)
            assert said.startswith(str(out))
            assert os.strerror(errno.ENOSPC) in said
            assert {path.name for path in out.iterdir()} <= NAMES, "nothing half-written stays"
        if out.exists():
            whole(out)
        fit(lists, tiny_zoo, out)
        assert settled(out) == {name: finished[name] for name in ("model.safetensors", "registry.yaml")}
        at += 1
    assert at > 16, "four files are opened, written, synced with their folder, and renamed"


@pytest.mark.slow
@pytest.mark.parametrize("kill", [False, True], ids=["fails", "ends"])
def test_a_registry_of_before_never_names_weights_of_now(
    lists: Path, tiny_zoo: Path, finished: dict[str, bytes], tmp_path: Path, monkeypatch: Any, kill: bool
) -> None:
    fit(lists, tiny_zoo, tmp_path / "other", seed=1)
    other = {name: (tmp_path / "other" / name).read_bytes() for name in ("model.safetensors", "registry.yaml")}
    assert other["model.safetensors"] != finished["model.safetensors"]
    at, named = 1, set()
    while True:
        out = tmp_path / "out"
        put(out, finished | other)
        disk = Disk(out, at, kill=kill)
        try:
            with disk.faulty(monkeypatch):
                fit(lists, tiny_zoo, out)
            break
        except Killed:
            assert kill
        except training_train.TrainingError as error:
            said = str(error)
            assert os.strerror(errno.ENOSPC) in said
        whole(out)
        named.add(yaml.safe_load((out / "registry.yaml").read_text())["models"][0]["sha256"])
        fit(lists, tiny_zoo, out)
        assert settled(out) == {name: finished[name] for name in ("model.safetensors", "registry.yaml")}
        at += 1
    assert at > 16
    assert named == {hashlib.sha256(one["model.safetensors"]).hexdigest() for one in (finished, other)}


def test_a_folder_that_cannot_be_written_in_is_one_line(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    one_line(train(), str(tmp_path / "out"), os.strerror(errno.EROFS), "-o")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 8")],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_one_line(train: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(loop.nn.utils, "clip_grad_norm_", fail)
    one_line(train(), "memory", "`batch`")
