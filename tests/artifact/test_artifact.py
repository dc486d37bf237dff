"""The contract beside a file: written, found, read and refused; layouts, digests, what a file is fed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.artifact.contracts import toy_contract
from tsmzoo.artifact import arrays, store
from tsmzoo.artifact.contract import Case, Checkpoint, Contract, Layout, Tensor, Verification, contract_path
from tsmzoo.errors import ArtifactError

side = st.integers(1, 5)


def numbered(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype="float32").reshape(shape)


def contract(**changes: Any) -> Contract:
    """The contract of a file of local weights that was verified."""
    facts: dict[str, Any] = {
        "labels": ("one", "zwei – ½"),
        "weights": "local",
        "seed": None,
        "checkpoint": Checkpoint(sha256="c" * 64, format="mit-tsm", file="w.pth"),
        "artifact": "m.onnx",
        "sha256": "a" * 64,
        "bytes": 3,
        "verification": Verification(
            status="passed", runtime="r", tolerance=1e-4, cases=(Case(name="n", steps=2, max_rel_error=1e-7),)
        ),
    }
    return toy_contract(**(facts | changes))


# Layouts


@given(st.tuples(side, side, side, side))
def test_nhwc_is_undone(shape: tuple[int, int, int, int]) -> None:
    array = numbered(*shape)
    n, c, h, w = shape
    last = arrays.to_layout(array, "NHWC")
    assert last.shape == (n, h, w, c)
    assert last.flags.c_contiguous
    assert last[n - 1, h - 1, 0, c - 1] == array[n - 1, c - 1, h - 1, 0]
    assert np.array_equal(arrays.from_layout(last, "NHWC"), array)


@given(st.tuples(side, side, side, side))
def test_thwc_is_undone(shape: tuple[int, int, int, int]) -> None:
    array = numbered(1, *shape)
    t, c, h, w = shape
    last = arrays.to_layout(array, "THWC")
    assert last.shape == (t, h, w, c)
    assert last[t - 1, 0, w - 1, c - 1] == array[0, t - 1, c - 1, 0, w - 1]
    assert np.array_equal(arrays.from_layout(last, "THWC"), array)


@given(st.lists(side, min_size=2, max_size=5), st.sampled_from(["NCHW", "NTCHW", "NC"]))
def test_other_layouts_are_as_they_are(shape: list[int], layout: Layout) -> None:
    array = numbered(*shape)
    assert np.array_equal(arrays.to_layout(array, layout), array)
    assert np.array_equal(arrays.from_layout(array, layout), array)


def test_views_become_contiguous() -> None:
    """Runtimes read the memory."""
    assert arrays.to_layout(numbered(1, 4, 3, 2, 2)[:, ::-1], "NTCHW").flags.c_contiguous


# Digests


def package(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


FILES = {"Manifest.json": b"{}", "Data/model": b"0123", "Data/weights/weight.bin": b"abcdef"}


def test_digest_of_a_file_is_that_of_sha256sum(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"abc")
    assert store.digest(path) == ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3)


def test_digest_of_a_package_is_that_of_its_files_wherever_it_lies(tmp_path: Path) -> None:
    one = package(tmp_path / "a.mlpackage", FILES)
    other = package(tmp_path / "elsewhere" / "b.mlpackage", dict(reversed(FILES.items())))
    os.utime(other / "Manifest.json", (1, 1))
    assert store.digest(one) == store.digest(other)
    total = hashlib.sha256()
    for name in ("Data/model", "Data/weights/weight.bin", "Manifest.json"):
        total.update(name.encode() + b"\0" + hashlib.sha256(FILES[name]).digest())
    assert store.digest(one) == (total.hexdigest(), 12)


@pytest.mark.parametrize(
    "files",
    [
        FILES | {"Data/model": b"0124"},
        FILES | {"Data/model": b"012"},
        FILES | {"Data/more": b""},
        {name: content for name, content in FILES.items() if name != "Manifest.json"},
        {name.replace("weight.bin", "weights.bin"): content for name, content in FILES.items()},
        {name.replace("Data/weights/", "Data/"): content for name, content in FILES.items()},
        FILES | {"Manifest.json": b"0123", "Data/model": b"{}"},
        FILES | {"Data/model": b"0123a", "Data/weights/weight.bin": b"bcdef"},
    ],
    ids=["flipped", "cut", "added", "missing", "renamed", "moved", "swapped", "one byte moved over"],
)
def test_any_change_of_a_package_changes_its_digest(files: dict[str, bytes], tmp_path: Path) -> None:
    assert store.digest(package(tmp_path / "a", FILES))[0] != store.digest(package(tmp_path / "b", files))[0]


# The JSON


def test_contract_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    store.write_contract(contract(), path)
    (tmp_path / "m.onnx").touch()
    assert store.read_contract(tmp_path / "m.onnx") == contract()
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "zwei – ½" in text
    document = json.loads(text)
    assert document["inputs"][1] == {
        "name": "state_0",
        "shape": [1, 2, 4, 4],
        "dtype": "float32",
        "layout": "NCHW",
        "meaning": "zeros at first",
        "type": "tensor",
        "kind": None,
        "bounded": None,
    }
    assert document["states"] == [{"input": "state_0", "output": "next_state_0", "initial": "zeros"}]


def test_any_length_comes_back_as_a_name(tmp_path: Path) -> None:
    free = msgspec.structs.replace(contract().main_input, shape=("N", 3, 8, 8))
    made = contract(inputs=(free,))
    store.write_contract(made, tmp_path / "m.json")
    (tmp_path / "m.onnx").touch()
    assert store.read_contract(tmp_path / "m.onnx") == made


def test_states_start_at_zero() -> None:
    (name, value), *more = contract().initial_states().items()
    assert (name, value.shape, value.dtype, value.any(), more) == ("state_0", (1, 2, 4, 4), np.float32, False, [])
    free = contract(inputs=(contract().inputs[0], msgspec.structs.replace(contract().inputs[1], shape=("N", 2, 4, 4))))
    assert free.initial_states(3)["state_0"].shape == (3, 2, 4, 4)


def test_what_stands_inside_the_file_holds_no_digest_of_itself() -> None:
    inside = contract().embedded()
    document = json.loads(inside)
    for key in ("artifact", "sha256", "bytes", "verification"):
        assert document[key] is None
    assert document["checkpoint"]["sha256"] == "c" * 64
    assert document["labels"] == ["one", "zwei – ½"]
    bare = msgspec.json.decode(inside, type=Contract)
    assert bare.inputs == contract().inputs
    json.loads(contract(checkpoint=None).embedded())


def refusal(path: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        store.read_contract(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path.parent))
    return message


def altered(change: Callable[[dict[str, Any]], Any]) -> bytes:
    document = msgspec.to_builtins(contract())
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"{}",
        b'{\n "name": "left-pad"\n}',
        altered(lambda d: d.pop("inputs")),
        altered(lambda d: d.update(mode="sideways")),
        altered(lambda d: d.update(size="224")),
        altered(lambda d: d.update(of_a_later_version=1)),
        altered(lambda d: d.update(schema=4)),
        altered(lambda d: d.update(schema=0)),
    ],
    ids=lambda content: content[:12],
)
def test_json_that_is_no_contract_of_this_version_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    (tmp_path / "m.json").write_bytes(content)
    message = refusal(tmp_path / "m.onnx")
    assert "m.json" in message
    assert "export again" in message


def test_missing_json_and_missing_file_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assert "does not exist" in refusal(path)
    path.touch()
    assert "m.json is not beside it" in refusal(path)
    (tmp_path / "m.json").mkdir()
    assert "m.json is not beside it" in refusal(path)


def test_json_of_another_format_alone_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").touch()
    store.write_contract(contract(), tmp_path / "m.json")
    assert "is not beside it" in refusal(tmp_path / "m.tflite")


# Several formats of one NAME


ENDINGS = {"onnx": ".onnx", "tflite": ".tflite", "coreml": ".mlpackage"}


def publish(folder: Path, format_: str, size: int = 8) -> Path:
    """Put a file and its contract in place, as `export` does; `size` tells contracts apart."""
    path = folder / f"m{ENDINGS[format_]}"
    if format_ == "coreml":
        path.mkdir(exist_ok=True)
    else:
        path.touch()
    store.make_way(path)
    store.write_contract(contract(format=format_, artifact=path.name, size=size), contract_path(path))
    return path


@pytest.mark.parametrize(
    "order",
    [
        ["onnx", "tflite"],
        ["coreml", "tflite", "onnx"],
        ["onnx", "tflite", "onnx"],
        ["onnx", "onnx", "tflite", "coreml", "tflite", "tflite", "onnx"],
    ],
    ids="-".join,
)
def test_each_file_of_one_name_keeps_its_own_latest_contract(order: list[str], tmp_path: Path) -> None:
    latest: dict[str, int] = {}
    for number, format_ in enumerate(order, 8):
        publish(tmp_path, format_, number)
        latest[format_] = number
        for known, size in latest.items():
            found = store.read_contract(tmp_path / f"m{ENDINGS[known]}")
            assert (found.format, found.size) == (known, size)
    assert len(list(tmp_path.glob("*.json"))) == len(latest)
    assert store.read_contract(publish(tmp_path, order[-1])).format == order[-1]


def test_the_newest_file_has_the_plain_name(tmp_path: Path) -> None:
    publish(tmp_path, "onnx")
    publish(tmp_path, "tflite")
    assert json.loads((tmp_path / "m.json").read_bytes())["format"] == "tflite"
    assert json.loads((tmp_path / "m.onnx.json").read_bytes())["format"] == "onnx"


def test_the_contract_of_a_file_that_is_gone_makes_no_way(tmp_path: Path) -> None:
    publish(tmp_path, "onnx").unlink()
    publish(tmp_path, "tflite")
    assert [path.name for path in tmp_path.glob("*.json")] == ["m.json"]


@pytest.mark.parametrize("content", [b'{"name": "left-pad"}', b"", b"[1]"])
def test_json_that_is_not_ours_is_not_overwritten(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(content)
    for step in (store.check_way, store.make_way):
        with pytest.raises(ArtifactError, match=r"m\.json: is in the way") as caught:
            step(tmp_path / "m.onnx")
        assert "\n" not in str(caught.value)
    assert (tmp_path / "m.json").read_bytes() == content


def test_json_of_ours_is_overwritten(tmp_path: Path) -> None:
    store.check_way(tmp_path / "m.onnx")
    publish(tmp_path, "onnx", 8)
    store.check_way(tmp_path / "m.onnx")
    assert store.read_contract(publish(tmp_path, "onnx", 9)).size == 9


def test_the_copy_inside_a_file_must_be_the_one_beside_it() -> None:
    path = Path("m.onnx")
    contract().check_copy(path, contract().embedded())
    contract(sha256="b" * 64, bytes=4, verification=None, artifact="n.onnx").check_copy(path, contract().embedded())
    for text in (None, "", "{}", contract(mean=(0.5, 0.5, 0.5)).embedded(), contract().embedded()[:-1]):
        with pytest.raises(ArtifactError, match="contract inside it"):
            contract().check_copy(path, text)


@pytest.mark.parametrize("name", ["../other.onnx", "a/b.onnx", "", ".", "/etc/hostname", "m\0.onnx"])
def test_a_contract_that_names_another_place_moves_nothing_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").touch()
    folder = tmp_path / "in"
    folder.mkdir()
    store.write_contract(contract(artifact=name), folder / "m.json")
    store.make_way(folder / "m.tflite")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "other.onnx"}


# What a file is fed


def wanted(pixels: np.ndarray) -> np.ndarray:
    mean, std = np.reshape([0.485, 0.456, 0.406], (3, 1, 1)), np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
    return (pixels.astype("float64") / 255 - mean) / std


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8), dtype="uint8")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_external_preprocessing_is_done_before(pixels: np.ndarray, layout: Layout) -> None:
    made = contract(inputs=(msgspec.structs.replace(contract().main_input, layout=layout),))
    fed = arrays.feed(pixels, made)
    assert fed.dtype == np.float32
    assert np.allclose(arrays.from_layout(fed, layout), wanted(pixels), atol=1e-6)


def test_embedded_preprocessing_is_not_done_twice(pixels: np.ndarray) -> None:
    camera = msgspec.structs.replace(contract().main_input, dtype="uint8", layout="NHWC")
    fed = arrays.feed(pixels, contract(preprocess="embedded", inputs=(camera,)))
    assert fed.dtype == np.uint8
    assert np.array_equal(fed, pixels.transpose(0, 2, 3, 1))


def test_embedded_preprocessing_of_floats_takes_camera_values(pixels: np.ndarray) -> None:
    """Core ML's clips hold no bytes."""
    fed = arrays.feed(pixels, contract(preprocess="embedded"))
    assert fed.dtype == np.float32
    assert np.array_equal(fed, pixels)


def test_clips_are_normalised_by_channel_not_by_frame(pixels: np.ndarray) -> None:
    clip = np.stack([pixels, 255 - pixels, pixels // 2], 1)  # N, T, C, H, W
    last = Tensor(name="clip", shape=(3, 8, 8, 3), dtype="float32", layout="THWC", meaning="")
    fed = arrays.feed(clip, contract(mode="offline", inputs=(last,), frames=3))
    assert fed.shape == (3, 8, 8, 3)
    assert np.allclose(fed.transpose(0, 3, 1, 2), wanted(clip[0]), atol=1e-6)


def test_a_contract_of_the_version_before_is_read(tmp_path: Path) -> None:
    """It says nothing of the shift that the weights were trained with; what is written counts up."""
    (tmp_path / "m.onnx").touch()
    document = msgspec.to_builtins(contract())
    assert document["schema"] == 3
    document["schema"] = 1
    document["checkpoint"] = {"sha256": "0", "format": "tsmzoo", "file": "w.pth", "url": None, "shift_mismatch": False}
    (tmp_path / "m.json").write_text(json.dumps(document))
    found = store.read_contract(tmp_path / "m.onnx")
    assert (found.schema, found.checkpoint) == (1, Checkpoint(sha256="0", format="tsmzoo", file="w.pth"))
    found.check_copy(tmp_path / "m.onnx", found.embedded())
