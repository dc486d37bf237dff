"""Recipes, lists and folders that a run cannot take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from tsmzoo import registry

Train = Callable[..., Result]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 0.1}, ("mine.yaml", "learning_rate")),
        ({"lr": None}, ("mine.yaml", "lr")),
        ({"lr": "fast"}, ("mine.yaml", "lr")),
        ({"lr": 0}, ("mine.yaml", "lr")),
        ({"scales": []}, ("mine.yaml", "scales")),
        ({"scales": [1.5]}, ("mine.yaml", "scales")),
        ({"name": "../mine"}, ("mine.yaml", "name")),
        ({"model": "tinny"}, ("tinny", "tiny")),
        ({"model": "tsm_r50_k400_flow"}, ("tsm_r50_k400_flow", "flow")),
        ({"model": "tiny_online"}, ("tiny_online", "frames")),
        ({"batch": 25}, ("24 videos", "25", "batch")),
        ({"weights": "nowhere.pth"}, ("nowhere.pth",)),
        ({"lr": 1e30}, ("loss", "lr")),
    ],
    ids=lambda value: ",".join(f"{key}={word}" for key, word in value.items()) if isinstance(value, dict) else "",
)
def test_a_recipe_that_is_not_possible_is_one_line(
    train: Train, tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...], assert_fails: Callable[..., Any]
) -> None:
    assert_fails(train(**changes), *words)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_recipe_or_list_that_is_missing_is_one_line(
    train: Train, tmp_path: Path, assert_fails: Callable[..., Any]
) -> None:
    assert_fails(train(recipe="no_such_recipe"), "no_such_recipe")
    for option in ("--data", "--val"):
        assert_fails(train(option, str(tmp_path / "nowhere")), "nowhere", "no folder")
    for option in ("--list", "--val-list"):
        assert_fails(train(option, str(tmp_path / "no.txt")), "no.txt")
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    assert_fails(train("--list", str(tmp_path / "empty.txt")), "empty.txt", "no video")


def test_the_classes_of_both_lists_must_be_the_same(
    train: Train, tmp_path: Path, assert_fails: Callable[..., Any], record_colours: Callable[..., Any]
) -> None:
    assert_fails(train("--val", str(record_colours(tmp_path / "other", 2, 5, ("blue", "red")))), "classes")


def test_a_list_in_place_of_the_folders_own_is_the_one_trained_on(
    train: Train, data: Path, tmp_path: Path, assert_fails: Callable[..., Any]
) -> None:
    short = tmp_path / "short.txt"
    lines = (data / "annotations.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    short.write_text("".join(lines[:6]), encoding="utf-8")
    assert_fails(train("--list", str(short)), "6 videos")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"in_memory": True}, marks=pytest.mark.slow),
        {"workers": 1},
    ],
    ids=str,
)
def test_a_video_that_is_missing_is_one_line(
    train: Train, data: Path, tmp_path: Path, changes: dict[str, Any], assert_fails: Callable[..., Any]
) -> None:
    lines = (data / "annotations.txt").read_text(encoding="utf-8") + "gone.mp4 0\n"
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8")
    assert_fails(train("--list", str(tmp_path / "list.txt"), batch=25, frames=1, **changes), "gone.mp4")


def test_a_folder_that_cannot_be_made_is_one_line(
    train: Train, tmp_path: Path, assert_fails: Callable[..., Any]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert_fails(train("-o", str(tmp_path / "file" / "out")), "file/out", "-o")
    assert_fails(train("-o", str(tmp_path / "file")), "-o")


@pytest.fixture(scope="module")
def finished(
    zoo: registry.Registry,
    data: Path,
    val: Path,
    tmp_path_factory: pytest.TempPathFactory,
    fit: Callable[..., Any],
    made: Callable[..., Any],
) -> dict[str, bytes]:
    """Give the files of a finished run."""
    out = tmp_path_factory.mktemp("finished")
    fit(zoo, made(frames=1), data, val, out)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def put(out: Path, files: dict[str, bytes]) -> None:
    out.mkdir(exist_ok=True)
    for name, content in files.items():
        (out / name).write_bytes(content)


@pytest.mark.slow
def test_a_run_of_another_recipe_or_list_is_left_alone(
    train: Train,
    finished: dict[str, bytes],
    data: Path,
    tmp_path: Path,
    assert_fails: Callable[..., Any],
    succeeded: Callable[..., Any],
) -> None:
    out = tmp_path / "out"
    put(out, finished)
    shuffled = tmp_path / "shuffled.txt"
    lines = (data / "annotations.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    shuffled.write_text("".join(reversed(lines)), encoding="utf-8")
    assert_fails(train(frames=1, seed=1), str(out), "another recipe")
    assert_fails(train(frames=1, epochs=2), str(out), "another recipe")
    assert_fails(train("--list", str(shuffled), frames=1), str(out), "list")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == finished
    succeeded(train(frames=1))


def saved(content: Any, path: Path) -> bytes:
    torch.save(content, path)
    return path.read_bytes()


@pytest.mark.parametrize(
    "how",
    ["empty", "text", "cut", "other keys", "other tensors"],
)
def test_a_damaged_state_is_one_line(
    train: Train, finished: dict[str, bytes], tmp_path: Path, how: str, assert_fails: Callable[..., Any]
) -> None:
    whole, scratch = finished["last.pt"], tmp_path / "scratch.pt"
    if how == "other tensors":
        put(tmp_path, {"scratch.pt": whole})
        content = torch.load(scratch, weights_only=True)
        content["net"] = {"classifier.1.bias": torch.zeros(3)}
    damaged = {
        "empty": lambda: b"",
        "text": lambda: b"not a state\n",
        "cut": lambda: whole[: len(whole) // 2],
        "other keys": lambda: saved({"epoch": 1}, scratch),
        "other tensors": lambda: saved(content, scratch),
    }[how]()
    put(tmp_path / "out", finished | {"last.pt": damaged})
    assert_fails(train(frames=1), str(tmp_path / "out"), "last.pt")
