"""No pickle is executed: harmless names are left out of a checkpoint, others refuse it, and none is looked up."""

from __future__ import annotations

import argparse
import builtins
import collections
import contextlib
import datetime
import enum
import functools
import http
import inspect
import io
import ipaddress
import itertools
import json
import math
import operator
import os
import pathlib
import pickle
import random
import struct
import sys
import types
import zipfile
import zoneinfo
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tsmzoo.errors import CheckpointError
from tsmzoo.weights import checkpoint_file, unpickling

STATE = {"fc.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.tensor([0.5, -0.5])}


class Mode(enum.Enum):
    TRAIN = "train"


class Level(enum.IntFlag):
    A = 1
    B = 2


class Slotted:
    __slots__ = ("a",)

    def __init__(self) -> None:
        self.a = 1


class Buffer(collections.deque[float]):
    """Sets its state itself, as mmengine's HistoryBuffer does."""

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("nothing of a pickle may run")


class Dotted(dict[str, Any]):
    """addict's Dict, mmengine's ConfigDict."""

    def __setitem__(self, key: str, value: Any) -> None:
        if STARTED:
            raise AssertionError("nothing of a pickle may run")
        super().__setitem__(key, value)


STARTED: list[int] = []


def imitated(name: str, **members: Any) -> Any:
    """Return a class as a library that is not installed has it."""
    module, _, attribute = name.rpartition(".")
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    made = type(attribute, (), {"__module__": module, **members})
    setattr(sys.modules[module], attribute, made)
    return made


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    STARTED.clear()
    for name in [name for name in sys.modules if name.startswith(("mmengine", "omegaconf", "nowhere"))]:
        del sys.modules[name]


def saved(content: Any, path: Path, *, zipped: bool = True, protocol: int = 2) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def assert_state(path: Path) -> None:
    found = checkpoint_file.read(path).state
    assert found.keys() == STATE.keys()
    for key, tensor in STATE.items():
        assert type(found[key]) is Tensor
        assert torch.equal(found[key], tensor), key


HARMLESS: dict[str, Callable[[], Any]] = {
    "history buffer": lambda: imitated("mmengine.logging.history_buffer.HistoryBuffer", __setstate__=None)(),
    "omegaconf": lambda: imitated("omegaconf.dictconfig.DictConfig")(),
    "namespace": lambda: argparse.Namespace(lr=1, out=pathlib.Path("x")),
    "numpy scalar": lambda: np.float32(1.5),
    "numpy array": lambda: np.arange(12, dtype="int64").reshape(3, 4)[:, ::2],
    "numpy array of objects": lambda: np.array([None, "x"], dtype=object),
    "numpy dtype": lambda: np.dtype("float16"),
    "numpy random state": np.random.RandomState(3).get_state,
    "numpy generator": lambda: np.random.default_rng(3),
    "defaultdict": lambda: collections.defaultdict(list, a=[1]),
    "nested defaultdict": lambda: collections.defaultdict(dict, {"a": {"b": 1}}),
    "counter": lambda: collections.Counter("abca"),
    "ordered": lambda: collections.OrderedDict(a=1),
    "deque": lambda: collections.deque([1, 2], 5),
    "paths": lambda: [pathlib.PurePosixPath("a/b"), pathlib.PureWindowsPath("c:\\d"), pathlib.Path.cwd()],
    "enum": lambda: [Mode.TRAIN, Level.A | Level.B],
    "datetime": lambda: datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC) - datetime.timedelta(1),
    "decimal": lambda: Decimal("1.5"),
    "sets": lambda: {frozenset({1, 2}), frozenset()},
    "bytes": lambda: [b"abc", bytearray(b"def"), 1j, range(3), slice(1, 2)],
    "slots": Slotted,
    "own state": lambda: Buffer([1.0]),
    "config": lambda: Dotted(a=Dotted(b=1)),
    "types": lambda: {"cls": dict, int: float, "t": (Mode, torch.float16, torch.strided, torch.device("cuda:1"))},
    "odd keys": lambda: {(1, 2): 3, 2**80: 4, b"x": 5, None: 6, 1.5: 7},
    "version": lambda: torch.torch_version.TorchVersion("2.1"),
    "long": lambda: [2**200, -(2**90), "x" * 70000, [[[]]]],
    "cycle": lambda: (lambda one: one.append(one) or one)([]),
    "optimizer": lambda: torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]).state_dict(),
    "partials": lambda: {"scheduler": functools.partial(torch.optim.AdamW, lr=0.1), "x": functools.partial(Mode)},
    "singletons": lambda: [type(None), ..., NotImplemented, type(...), type(NotImplemented), inspect.Parameter.empty],
    "signature": lambda: inspect.signature(imitated),
    "user dicts": lambda: [collections.ChainMap({"a": 1}), collections.UserDict(a=1), collections.UserList([1])],
    "zone": lambda: datetime.datetime(2026, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")),
    "random": lambda: [random.Random(3), itertools.count(5), iter([1, 2]), enumerate("ab")],
    "getter": lambda: operator.itemgetter("loss"),
    "exceptions": lambda: [ValueError("x"), KeyError, StopIteration(), ExceptionGroup("x", [OSError(2, "y")])],
    "more exceptions": lambda: [json.JSONDecodeError("x", "y", 0), zipfile.BadZipFile, KeyboardInterrupt()],
    "functions": lambda: [torch.nn.functional.relu, np.mean, torch.load, math.sqrt, np.add, torch.relu, saved],
    "addresses": lambda: [ipaddress.ip_address("127.0.0.1"), http.HTTPStatus.OK, collections.abc.Mapping],
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", HARMLESS)
def test_what_harms_nobody_is_left_out(name: str, zipped: bool, protocol: int, tmp_path: Path) -> None:
    beside = HARMLESS[name]()
    path = saved(
        {"meta": beside, "state_dict": STATE, "epoch": beside}, tmp_path / "x.pth", zipped=zipped, protocol=protocol
    )
    STARTED.append(1)
    assert_state(path)


def test_classes_that_are_not_installed_are_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved({"state_dict": STATE, "x": imitated("nowhere.to.be.Found")()}, tmp_path / "x.pth")
    for name in ("nowhere", "nowhere.to", "nowhere.to.be"):
        del sys.modules[name]
    wanted = builtins.__import__

    def watched(name: str, *rest: Any, **options: Any) -> Any:
        assert not name.startswith("nowhere")
        return wanted(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", watched)
    assert_state(path)
    assert not any(name.startswith("nowhere") for name in sys.modules)


# --- what asks to run ------------------------------------------------------------------------------------------------


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.made = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.made


def touch(folder: str) -> Any:
    return Calls(os.system, f"touch {folder}/touched")


HOSTILE: dict[str, tuple[Callable[[str], Any], str]] = {
    "system": (touch, "system"),
    "eval": (lambda f: Calls(eval, f"open({f + '/touched'!r}, 'w')"), "builtins.eval"),
    "exec": (lambda f: Calls(exec, f"open({f + '/touched'!r}, 'w')"), "builtins.exec"),
    "open": (lambda f: Calls(open, f"{f}/touched", "w"), "io.open"),
    "import": (lambda _: Calls(__import__, "antigravity"), "builtins.__import__"),
    "getattr of a module": (lambda _: Calls(getattr, argparse.Namespace, "__init__"), "builtins.getattr"),
    "partial": (lambda f: functools.partial(os.system, f"touch {f}/touched"), "system"),
    "map": (lambda f: Calls(map, os.system, [f"touch {f}/touched"]), "builtins.map"),
    "touch": (lambda f: Calls(pathlib.Path.touch, pathlib.Path(f, "touched")), "builtins.getattr"),
    "nested in a stand-in's arguments": (lambda f: Calls(Mode, touch(f)), "system"),
    "nested in a namespace": (lambda f: argparse.Namespace(a=touch(f)), "system"),
    "nested in a default": (lambda f: collections.defaultdict(list, a=touch(f)), "system"),
    "as a state": (lambda f: Calls(Buffer, state={"a": touch(f)}), "system"),
    "as a key": (lambda f: [("a", touch(f))], "system"),
    "attribute getter": (lambda _: __import__("operator").attrgetter("system"), "operator.attrgetter"),
    "method caller": (lambda _: __import__("operator").methodcaller("system", "x"), "operator.methodcaller"),
    "getitem": (lambda _: Calls(__import__("operator").getitem, {}, "a"), "operator.getitem"),
    "popen": (lambda f: Calls(__import__("subprocess").Popen, ["touch", f"{f}/touched"]), "subprocess.Popen"),
    "runpy": (lambda _: Calls(__import__("runpy").run_path, "/dev/null"), "runpy.run_path"),
    "torch.load": (lambda f: Calls(torch.load, f), "torch.serialization.load"),
    "a called function in a partial": (lambda f: functools.partial(Mode, Calls(torch.load, f)), "torch.serialization."),
    "a class that is made": (lambda _: Calls(type, "A", (), {}), "builtins.type"),
    "a method that makes": (lambda _: Calls(getattr, zoneinfo.ZoneInfo, "from_file"), "builtins.getattr"),
    "a function of Python's that is named": (lambda _: {"a": os.system}, "system"),
    "another that is named": (lambda _: [exec], "builtins.exec"),
    "a third that is named": (lambda _: __import__("shutil").rmtree, "shutil.rmtree"),
    "hub": (lambda f: Calls(torch.hub.load, f), "torch.hub.load"),
    "a function of somebody's": (lambda f: Calls(touch, f), "touch"),
    "codec": (lambda _: Calls(__import__("codecs").lookup, "rot13"), "lookup"),
    "ctypes": (lambda _: Calls(__import__("ctypes").CDLL, "libc.so.6"), "ctypes.CDLL"),
    "pickle": (lambda f: Calls(pickle.loads, pickle.dumps(touch(f))), "loads"),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_asks_to_run_is_refused_by_name(name: str, zipped: bool, tmp_path: Path) -> None:
    make, asked = HOSTILE[name]
    path = tmp_path / "evil.pth"
    for content in ({"state_dict": STATE, "x": make(str(tmp_path))}, {**STATE, "x": make(str(tmp_path))}):
        saved(content, path, zipped=zipped)
        with pytest.raises(CheckpointError, match="refused") as caught:
            checkpoint_file.read(path)
        assert "asks to run" in str(caught.value)
        assert asked in str(caught.value)
        assert not (tmp_path / "touched").exists()


def program(*steps: bytes) -> bytes:
    return b"\x80\x02" + b"".join(steps) + b"."


def named(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((named("os system"), b"U\x02id", b"\x85R"), id="reduce"),
        pytest.param((b"(U\x02idios\nsystem\n",), id="inst"),
        pytest.param((b"(", named("os system"), b"U\x02ido"), id="obj"),
        pytest.param((named("argparse Namespace"), b")\x81", b")R"), id="calls an object"),
        pytest.param((named("argparse Namespace"), b")\x81", b")\x81"), id="makes an object of an object"),
        pytest.param((b"U\x09os.system", b")R"), id="calls a text"),
        pytest.param((named("argparse Namespace"), b"}b"), id="gives a class attributes"),
        pytest.param((named("argparse Namespace"), b"U\x01aU\x01bs"), id="sets an item of a class"),
        pytest.param(
            (named("torch._tensor _rebuild_from_type_v2"), b"(", named("os system"), b"NU\x02id\x85}tR"), id="v2"
        ),
        pytest.param((b"\x82\x01",), id="extension registry"),
        pytest.param((named("torch.nn os.system"), b")R"), id="a path to another module"),
        pytest.param((named("torch.nn subprocess.Popen"), b")R"), id="a path to a class of another module"),
        pytest.param((named("nowhere\x1b[2J Evil"), b")R"), id="escape sequence"),
        pytest.param((named("nowhere " + "E" * 1000), b")R"), id="endless name"),
        pytest.param((b"U\x02osU\x06system\x93)R",), id="stack global"),
        pytest.param((b"(inowhere\nfunction\n",), id="an instance of a function"),
        pytest.param((b"(", named("nowhere function"), b"o"), id="an object of a function"),
        pytest.param((named("nowhere function"), b")\x81"), id="a new object of a function"),
        pytest.param((named("torch.nn os.system"), b"0N"), id="a path to another module that is named"),
        pytest.param((named("argparse Namespace"), b"]R"), id="a list of arguments"),
        pytest.param((named("__builtin__ eval"), b"U\x011\x85R"), id="Python 2's name"),
        pytest.param((named("commands getoutput"), b"U\x02id\x85R"), id="Python 2's module"),
    ],
)
def test_a_pickle_by_hand_calls_nothing(
    steps: tuple[bytes, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("it ran"))
    with pytest.raises((CheckpointError, ValueError)):
        unpickling.load(io.BytesIO(program(*steps)))
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", program(*steps))
    with pytest.raises(CheckpointError) as caught:
        checkpoint_file.read(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((named("builtins bytearray"), b"\x8a\x06\x00\x00\x00\x00\x00\x10\x85R"), id="bytearray of 16 TB"),
        pytest.param(
            (b"]" + b"(" + b"]" * 50 + b"e" + b"q\x00" + b"".join(b"h\x00\x85" for _ in range(50)),), id="tuples"
        ),
        pytest.param((b"]" + b"\x85" * 100_000,), id="deep"),
        pytest.param((b"}" + b"]" + b"\x85" * 100_000 + b"Ns",), id="deep key"),
        pytest.param((b"U\x01aX\xff\xff\xff\xff",), id="text of 4 GB"),
        pytest.param((b"L" + b"9" * 10_000 + b"L\n",), id="number of 10,000 digits"),
    ],
)
def test_a_pickle_fills_no_memory_and_no_stack(steps: tuple[bytes, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", program(*steps))
    with pytest.raises(CheckpointError):
        checkpoint_file.read(path)


def counted(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


MANY = 10**6
WHOLE = b"(" + b"K\x01" * MANY + b"tq\x00"
STORAGE = b"(U\x07storage" + named("torch FloatStorage") + b"U\x010U\x03cpuK\x01tQ"
COSTLY = {
    "bytes as a key": (b"}", b"B" + counted(b"x" * 20 * MANY) + b"q\x00", b"h\x00Ns"),
    "equal texts as keys": (
        b"}",
        b"X" + counted(b"x" * 20 * MANY) + b"q\x000X" + counted(b"x" * 20 * MANY) + b"q\x02",
        b"h\x00Nsh\x02Ns",
    ),
    "arguments": (b"", WHOLE, named("collections OrderedDict") + b"h\x00R0"),
    "a list of arguments": (b"", b"](" + b"N" * MANY + b"eq\x00", named("argparse Namespace") + b"h\x00R0"),
    "a new object's": (b"", WHOLE, named("collections Counter") + b"h\x00\x810"),
    "parts of a sparse tensor": (b"", WHOLE, named("torch._utils _rebuild_sparse_tensor") + b"Nh\x00\x86R0"),
    "strides": (
        b"",
        WHOLE + b"0" + STORAGE + b"q\x03",
        named("torch._utils _rebuild_tensor_v2") + b"(h\x03K\x00)h\x00tR0",
    ),
    "a reference": (b"", b"(U\x07storage" + named("torch FloatStorage") + b"U\x010U\x03cpu" + WHOLE[1:], b"h\x00Q0"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_step_goes_through_nothing_that_lies_in_the_memo(
    name: str, of_processor: Callable[[int], AbstractContextManager[None]]
) -> None:
    """20,000 steps that each went through a megabyte or more would take minutes."""
    first, there, again = COSTLY[name]
    file = io.BytesIO(program(first, there, b"0" if name != "a reference" else b"", again * 20_000, b"N"))
    with of_processor(15), contextlib.suppress(CheckpointError, ValueError, IndexError):
        unpickling.load(file)


@pytest.mark.slow
def test_copies_of_copies_are_bounded() -> None:
    listed = b"](" + b"(U\x01aNt" * 1000 + b"eq\x00"
    again = (named("collections OrderedDict") + b"h\x00\x85R0") * 11_000
    with pytest.raises(ValueError, match="copies"):
        unpickling.load(io.BytesIO(program(listed, again)))


# --- tensors ----------------------------------------------------------------------------------------------------------


def tensor_of(storage: bytes, size: bytes, stride: bytes, offset: bytes = b"K\x00") -> bytes:
    pid = b"(U\x07storage" + named("torch FloatStorage") + b"U\x010U\x03cpu" + storage + b"tQ"
    return named("torch._utils _rebuild_tensor_v2") + b"(" + pid + offset + size + stride + b"\x89}tR"


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        (b"K\x05\x85", b"K\x01\x85", b"K\x00"),
        (b"K\x04\x85", b"K\x01\x85", b"K\x01"),
        (b"K\x02\x85", b"K\x04\x85", b"K\x00"),
        (b"K\x04\x85", b"J\xff\xff\xff\xff\x85", b"K\x03"),
        (b"J\xff\xff\xff\xff\x85", b"K\x01\x85", b"K\x00"),
        (b"K\x04K\x01\x86", b"K\x01\x85", b"K\x00"),
        (b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85", b"K\x00"),
        (b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x04\x86", b"K\x00K\x00\x86", b"K\x00"),
        (b"(" + b"K\x01" * 40 + b"t", b"(" + b"K\x01" * 40 + b"t", b"K\x00"),
        (b"N", b"N", b"K\x00"),
    ],
)
def test_a_tensor_reads_no_memory_but_its_storage(size: bytes, stride: bytes, offset: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"

    def write(tensor: bytes) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", program(b"}U\x01a" + tensor + b"s"))
            archive.writestr("x/data/0", struct.pack("<4f", 1, 2, 3, 4))

    write(tensor_of(b"K\x04", b"K\x04\x85", b"K\x01\x85"))
    assert checkpoint_file.read(path).state["a"].tolist() == [1, 2, 3, 4]
    write(tensor_of(b"K\x04", size, stride, offset))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint_file.read(path)


class Own(Tensor):
    pass


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_attributes_and_classes_of_tensors_are_left_out(zipped: bool, tmp_path: Path) -> None:
    state = {key: tensor.clone() for key, tensor in STATE.items()}
    for name in ("dim", "detach", "get", "shape_", "is_floating_point", "view"):
        setattr(state["fc.weight"], name, 5)
    state["fc.bias"] = torch.nn.Parameter(state["fc.bias"])
    state["fc.bias"].float = "x"  # type: ignore[assignment, method-assign]
    assert_state(saved({"state_dict": state}, tmp_path / "x.pth", zipped=zipped))
    own = {key: tensor.as_subclass(Own) for key, tensor in state.items()}
    assert_state(saved({"state_dict": own}, tmp_path / "x.pth", zipped=zipped))


ODD: dict[str, Callable[[], Tensor]] = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "meta": lambda: torch.empty(3, 3, device="meta"),
    "quantised": lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "conjugated": lambda: torch.tensor([2j]).conj(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ODD)
def test_odd_tensors_are_held_as_without_data(name: str, tmp_path: Path) -> None:
    path = saved({**STATE, "odd": ODD[name]()}, tmp_path / "x.pth")
    assert checkpoint_file.read(path).state["odd"].is_meta


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int16])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_type_and_view_reads_the_same(dtype: torch.dtype, zipped: bool, tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(4, 6).to(dtype)
    state = {"whole": whole, "part": whole[1:3, ::2], "turned": whole.T, "one": torch.tensor(3.0), "none": whole[:0]}
    found = checkpoint_file.read(saved(state, tmp_path / "x.pth", zipped=zipped)).state
    for key, tensor in state.items():
        assert found[key].dtype == tensor.dtype
        assert found[key].shape == tensor.shape
        assert torch.equal(found[key].double(), tensor.double()), key


def test_the_other_byte_order(tmp_path: Path) -> None:
    path = saved(STATE, tmp_path / "x.pth")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(big := tmp_path / "big.pth", "w") as new:
        for name in old.namelist():
            data = np.frombuffer(old.read(name), "<f4").byteswap().tobytes() if "/data/" in name else old.read(name)
            new.writestr(name, b"big" if name.endswith("byteorder") else data)
    assert_state(big)


@pytest.mark.parametrize("how", ["legacy", "big"])
def test_views_of_a_storage_that_must_be_copied_share_the_copy(how: str, tmp_path: Path) -> None:
    whole = torch.arange(250_000.0)
    path = saved(
        {f"w.{number}": whole[number : number + 3] for number in range(64)}, tmp_path / "x.pth", zipped=how == "big"
    )
    if how == "big":
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(big := tmp_path / "big.pth", "w") as new:
            for name in old.namelist():
                data = np.frombuffer(old.read(name), "<f4").byteswap().tobytes() if "/data/" in name else old.read(name)
                new.writestr(name, b"big" if name.endswith("byteorder") else data)
        path = big
    else:  # the numbers of a legacy file lie where its pickles end
        content, padded = path.read_bytes(), None
        for more in range(4):
            torch.save(
                {"p" * more: 0} | torch.load(io.BytesIO(content), weights_only=True),
                path,
                _use_new_zipfile_serialization=False,
            )
            if (path.stat().st_size - whole.nbytes) % 4:
                padded = more
                break
        assert padded is not None
    found = checkpoint_file.read(path).state
    for number in range(64):
        assert found[f"w.{number}"].tolist() == [number, number + 1, number + 2]
    assert len({tensor.untyped_storage().data_ptr() for tensor in found.values()}) == 1
