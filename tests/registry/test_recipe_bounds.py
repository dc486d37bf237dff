"""Numbers of recipes and of the environment: what is meant is taken, what cannot be meant is one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tsmzoo.errors import RegistryError, ZooError
from tsmzoo.registry import recipes
from tsmzoo.system import processes

TRAINING: dict[str, Any] = {
    **{"name": "mine", "model": "tiny", "weights": "random", "epochs": 1, "batch": 4, "lr": 0.05},
    **{"schedule": "cosine", "scales": [1.0], "hflip": False},
}
INTEGERS = [-1, 10**12, 10**30, 2**63, 1.5, True, None, "many", [1]]
FLOATS = [-1.0, math.inf, -math.inf, math.nan, 10**399, True, "fast", [1.0]]


def refused(path: Path, content: dict[str, Any], read: Any, key: str) -> None:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(RegistryError) as raised:
        read(str(path))
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert f"$.{key}" in message
    assert "\n" not in message


@pytest.mark.parametrize("key", ["epochs", "batch", "frames", "workers", "seed", "steps[0]", "steps"])
def test_whole_numbers_of_training_have_bounds(tmp_path: Path, key: str) -> None:
    for value in INTEGERS:
        if value is None and key == "frames":  # the model's own
            continue
        if value == 10**12 and key == "seed":
            continue
        value = [value] if key == "steps[0]" else value
        if key == "steps" and value == [1]:
            value = [1] * 2000
        refused(tmp_path / "r.yaml", TRAINING | {key.removesuffix("[0]"): value}, recipes.training, key)


@pytest.mark.parametrize(
    "key", ["lr", "classifier_rate", "warmup", "momentum", "weight_decay", "clip_gradient", "dropout", "scales[0]"]
)
def test_rates_of_training_have_bounds(tmp_path: Path, key: str) -> None:
    zero = [] if key in ("warmup", "momentum", "weight_decay", "dropout") else [0, -0.0]
    for value in FLOATS + zero:
        value = [value] if key == "scales[0]" else value
        refused(tmp_path / "r.yaml", TRAINING | {key.removesuffix("[0]"): value}, recipes.training, key)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": "a\0b"},
        {"weights": ""},
        {"weights": "a\nb"},
        {"weights": "x" * 5000},
        {"name": "n" * 5000},
        {"scales": [1e-300]},
        {"scales": [1.0] * 5000},
    ],
    ids=lambda changes: f"{next(iter(changes))} {str(next(iter(changes.values())))[:8]!r}",
)
def test_texts_and_lists_of_training_have_bounds(tmp_path: Path, changes: dict[str, Any]) -> None:
    (key,) = changes
    refused(tmp_path / "r.yaml", TRAINING | changes, recipes.training, key)


def test_the_largest_that_is_meant_is_taken(tmp_path: Path) -> None:
    most = {"epochs": 1_000_000, "batch": 1_000_000, "frames": 256, "seed": 2**63 - 1, "lr": 1e30, "momentum": 0.999}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(TRAINING | most), encoding="utf-8")
    found = recipes.training(str(tmp_path / "r.yaml"))
    assert {key: getattr(found, key) for key in most} == most


def test_protocols_and_targets_have_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = msgspec.to_builtins(recipes.target("android"))
    for value in FLOATS:
        bars = {"int8": {"agreement": value, "cosine": 0.9, "lost": 1.0}}
        if value != -1.0:
            refused(tmp_path / "t.yaml", target | {"bars": bars}, recipes.target, "bars[...].agreement")
        refused(tmp_path / "t.yaml", target | {"tolerance": {"fp32": value}}, recipes.target, "tolerance[...]")
    for value in [0, 15, *INTEGERS]:
        refused(tmp_path / "t.yaml", target | {"steps": value}, recipes.target, "steps")
    plain = msgspec.to_builtins(recipes.protocol("uniform8_center_1clip"))
    monkeypatch.setattr(recipes, "RECIPES", tmp_path)
    (tmp_path / "eval").mkdir()
    for key in ("clips", "frames", "stride"):
        for value in [0, *INTEGERS]:
            if value is None and key != "clips":
                continue
            refused(tmp_path / "eval" / "p.yaml", plain | {key: value}, lambda _: recipes.protocol("p"), key)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"\xff", b"a: [", b"- " * 3000, b"{name: !!python/none x}"])
def test_what_is_no_recipe_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(RegistryError, match=r"r\.yaml") as raised:
        recipes.training(str(tmp_path / "r.yaml"))
    assert "\n" not in str(raised.value)


def test_a_recipe_is_a_regular_file(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "zero", "missing"):
        with pytest.raises(RegistryError, match=f"{name}.yaml: cannot be read"):
            recipes.training(str(tmp_path / f"{name}.yaml"))


# --- the processes that torchrun starts -------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_processes_are_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (processes.rank(), processes.count(), processes.here(), processes.local_rank()) == (0, 1, 1, 0)
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert (processes.rank(), processes.count(), processes.here(), processes.local_rank()) == (5, 8, 4, 1)
    assert not processes.is_first()


@pytest.mark.parametrize("value", ["x", "", "-1", "1.0", "1e3", "9" * 5000, "nan", "0x1", "2147483648"])
@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"])
def test_a_process_without_a_number_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ZooError, match=f"^{name}=") as raised:
        [tell() for tell in (processes.count, processes.rank, processes.here, processes.local_rank)]
    assert len(str(raised.value)) < 250
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("environment", [{"RANK": "1"}, {"RANK": "2", "WORLD_SIZE": "2"}, {"WORLD_SIZE": "0"}])
def test_a_process_beyond_the_last_is_one_line(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ZooError, match="torchrun"):
        processes.rank()


@pytest.mark.parametrize("port", ["x", "-5", "99999999", "9" * 400, ""])
def test_a_meeting_place_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port)):
        monkeypatch.setenv(name, value)
    with pytest.raises(ZooError, match="2 processes cannot find each other") as raised:
        processes.join("gloo")
    assert "\n" not in str(raised.value)
