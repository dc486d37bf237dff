"""Fixtures for all tests; what the files of one folder share is in its own conftest.py, imported relatively.

`data/parity/*.json` are published checkpoints by tensor names and shapes, and the logits of the publishers' own model
code with the tensors that `fill` below makes from their names.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
import zlib
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# torch's idle threads spin; on a busy machine that makes small networks ten times as slow.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Each of pytest-xdist's workers has a core: threads of theirs would only wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy as np
import torch
import yaml
from filelock import FileLock
from typer.testing import CliRunner

from tsmzoo import registry
from tsmzoo.cli import app
from tsmzoo.data import dataset
from tsmzoo.data.encode import encode
from tsmzoo.formats import Format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARITY = Path(__file__).parent / "data" / "parity"


def pytest_configure(config: pytest.Config) -> None:
    """Ignore the warnings of fvcore's import; all other warnings are errors."""
    for name in ("script", "trace"):
        config.addinivalue_line("filterwarnings", f"ignore:.torch.jit.{name}. is deprecated:DeprecationWarning")


def fill(name: str, shape: list[int], dtype: str) -> np.ndarray:
    """Return a stand-in for the tensor `name`; NumPy's frozen generator gives the same numbers for ever."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if dtype.startswith("int"):
        values = np.zeros(shape)
    elif name.endswith("running_var"):
        values = random.uniform(0.5, 1.5, shape)
    elif name.endswith(("running_mean", "bias")):
        values = 0.1 * random.standard_normal(shape)
    elif len(shape) == 1:  # a batch norm's scale
        values = random.uniform(0.6, 1.0, shape)
    else:
        values = random.standard_normal(shape) * np.sqrt(2.0 / int(np.prod(shape[1:])))
        if ".nl." in name or "non_local" in name:
            values = 0.1 * values  # else the attention saturates
    return np.asarray(values, dtype)


@functools.cache
def _case(name: str) -> dict[str, Any]:
    return json.loads((PARITY / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def parity() -> Callable[[str], dict[str, Any]]:
    """Give a function from the name of a parity case to the case, which must not be changed."""
    return _case


@pytest.fixture(scope="session")
def make_input() -> Callable[[tuple[int, ...], int], torch.Tensor]:
    """Give a function from shape and seed to the normalized input clip of a parity case."""

    def make(shape: tuple[int, ...], seed: int) -> torch.Tensor:
        random = np.random.RandomState(seed)
        return torch.from_numpy(random.standard_normal(tuple(shape)).astype("float32"))

    return make


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Give a function from the name of a parity case to its checkpoint file, as its publisher writes it."""
    folder = tmp_path_factory.mktemp("published")

    @functools.cache
    def write(name: str) -> Path:
        case = _case(name)
        state = {key: torch.from_numpy(fill(key, shape, dtype)) for key, shape, dtype in case["tensors"]}
        if case["format"] == "mmaction2":
            path = folder / f"{name}.pth"
            meta = {"mmaction_version": "0.8.0", "env_info": "sys.platform: linux", "epoch": 50, "iter": 939400}
            torch.save({"meta": meta, "state_dict": state}, path)
            return path
        if case["format"] in ("pytorchvideo", "piergiaj-i3d", "atze00-movinet"):
            path = folder / f"{name}.pt"
            torch.save({"model_state": state} if case["format"] == "pytorchvideo" else state, path)
            return path
        path = folder / f"{name}.pth.tar"
        content: dict[str, Any] = state
        if case["format"] == "mit-tsm":
            content = {"epoch": 50, "arch": case["backbone"], "state_dict": state, "best_prec1": 74.1}
        # MIT's files are of 2018 and 2019, before the zip layout.
        torch.save(content, path, _use_new_zipfile_serialization=False)
        return path

    yield write
    shutil.rmtree(folder)  # pytest would keep half a gigabyte of each of the last three runs


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Give a function from pip requirements to the Python of an environment that has them and nothing else."""
    folders = []

    def make(*requirements: str) -> Path:
        folder = tmp_path_factory.mktemp("environment") / "env"
        folders.append(folder)
        venv.create(folder)  # our pip installs into it: another pip and all bytecode would take half of the time
        python = folder / "bin" / "python"
        command = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-compile", *requirements]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            last = (result.stderr.strip().splitlines() or ["pip says nothing"])[-1]
            pytest.skip(f"{requirements[-1]} cannot be had here: {last}")
        return python

    yield make
    for folder in folders:  # gigabytes
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def bundled_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Path]:
    """Give a function from a bundled model, format and precision to its file, exported once for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bundled"

    def export(model: str, to: str, precision: str) -> Path:
        folder = shared / f"{model}-{to}-{precision}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"m{Format(to).suffix}"
        with FileLock(shared / f"{folder.name}.lock"):
            if not path.exists():
                command = [sys.executable, "-m", "tsmzoo", "export", model, "--to", to, "--precision", precision]
                done = subprocess.run([*command, "-o", str(path)], capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr
                assert done.stderr == "", "nothing of the libraries' chatter"
        return path

    return export


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep every test from the user's own cache."""
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def _zoo() -> registry.Registry:
    return registry.load()


# --- calls that change a disk, counted: one of them fails, or is the last ---------------------------------------------


class Ended(BaseException):
    """The process is no more: nothing changes on the disk from here on, not even by cleaning up."""


class Disk:
    """Calls of this process that change something in `folder`."""

    #: Of Python's audit events, those that change a disk; and opening a file to write.
    EVENTS = frozenset({"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"})

    def __init__(self, folder: Path) -> None:
        self.folder, self.on, self.calls = os.fsencode(folder), False, 0
        self.fail: int | None = None
        self.end: int | None = None
        #: Whether the system can exchange two folders.
        self.exchanges = True

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "ctypes.dlsym" and arguments[1] in ("renameat2", "renamex_np"):
            if not self.exchanges:
                raise AttributeError
            self.call()
        written = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in self.EVENTS or written) and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.fsencode(arguments[0])
            # Those that are not absolute are in a folder that is being removed.
            if path.startswith(self.folder) or not os.path.isabs(path):
                self.call()

    def call(self) -> None:
        number, self.calls = self.calls, self.calls + 1
        if self.end is not None and number >= self.end:
            raise Ended
        if number == self.fail:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def run(self, act: Callable[[], Any], *, fail: int | None = None, end: int | None = None) -> bool:
        """Call `act`, whose call number `fail` fails, or which ends before the call number `end`.

        Say whether it came so far.
        """
        self.fail, self.end, self.calls, self.on = fail, end, 0, True
        try:
            with suppress(Ended):
                act()
        finally:
            self.on = False
        return self.calls > (fail if fail is not None else end if end is not None else -1)


_disks: list[Disk] = []
sys.addaudithook(lambda event, arguments: _disks[-1].audit(event, arguments) if _disks else None)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Give what makes a call fail, or the last one, among those of this process that change `tmp_path`."""
    made = Disk(tmp_path)
    # What a process has written outlives it without; fsync is for power cuts, and slow.
    monkeypatch.setattr(os, "fsync", lambda _: made.call() if made.on else None)
    _disks.append(made)
    yield made
    _disks.pop()


# --- training on little ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_zoo(tmp_path_factory: pytest.TempPathFactory, _zoo: registry.Registry) -> Path:
    """Give a registry of one model, `tiny`, which tells two colors apart, has no weights and learns in seconds."""
    changes: dict[str, Any] = {"size": 32, "width": 0.25, "classes": 2, "labels": "colours", "file": "no.safetensors"}
    entry = msgspec.structs.replace(_zoo.find("tsm_mbv2_motion"), **changes, id="tiny", frames=4, results=())
    content = {
        "models": [{key: value for key, value in msgspec.to_builtins(entry).items() if value is not None}],
        "labels": {"colours": {"classes": 2, "order": "here", "names": ["red", "blue"]}},
    }
    path = tmp_path_factory.mktemp("tiny") / "zoo.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def record() -> Callable[[Path, int, int], Path]:
    """Give a function that writes so many videos, alternately red and blue, and their lists to a folder, by a seed."""

    def make(folder: Path, videos: int, seed: int) -> Path:
        rng = np.random.default_rng(seed)
        folder.mkdir(parents=True)
        for number in range(videos):
            colour = np.full(3, 60.0)
            colour[2 * (number % 2)] = 180
            frames = colour + rng.normal(0, 30, (6, 40, 48, 3))
            encode(folder / f"{number}.mp4", frames.clip(0, 255).astype(np.uint8), 8)
        dataset.write(folder, [(f"{number}.mp4", number % 2) for number in range(videos)], ("red", "blue"))
        return folder

    return make


@pytest.fixture
def train_tiny(tiny_zoo: Path, tmp_path: Path) -> Callable[..., Any]:
    """Give a function that runs `tsmzoo train` on the model `tiny`, from `data` and `val` into `out` of tmp_path."""

    def run(*more: str, **changes: Any) -> Any:
        recipe = tmp_path / "mine.yaml"
        plain = {"name": "mine", "model": "tiny", "weights": "random", "epochs": 1, "batch": 4, "lr": 0.05, "frames": 1}
        plain |= {"schedule": "cosine", "dropout": 0.0, "scales": [1.0], "hflip": False}
        recipe.write_text(yaml.safe_dump(plain | changes), encoding="utf-8")
        options = ["--data", str(tmp_path / "data"), "--val", str(tmp_path / "val"), "-o", str(tmp_path / "out")]
        arguments = ["train", str(recipe), *options, "--registry", str(tiny_zoo), *more]
        return CliRunner().invoke(app, arguments, prog_name="tsmzoo")

    return run


@pytest.fixture
def of_processor() -> Callable[[int], AbstractContextManager[None]]:
    """Give a block that fails if it takes more than so many seconds of processor time, however busy the machine is."""

    @contextmanager
    def block(seconds: int) -> Iterator[None]:
        def stop(*_: object) -> None:
            pytest.fail(f"it takes the processor more than {seconds} seconds")

        before = signal.signal(signal.SIGPROF, stop)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    return block
