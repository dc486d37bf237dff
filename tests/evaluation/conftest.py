"""Clips, commands and networks that the tests of `eval` share."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from tests.given import give
from tsmzoo import models, registry
from tsmzoo.artifact.contract import Contract
from tsmzoo.cli import app
from tsmzoo.data import decode, layouts, motion
from tsmzoo.data.dataset import Dataset
from tsmzoo.inference.describe import describe
from tsmzoo.typing import Array
from tsmzoo.weights.load import Network

ZOO = registry.load()


#: The smallest networks of the zoo.
TSN, TSM, ONLINE = "tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online"


MEAN, STD = np.reshape([0.485, 0.456, 0.406], (3, 1, 1)), np.reshape([0.229, 0.224, 0.225], (3, 1, 1))


#: Most tests are about one process.
HERE = ("--workers", "0")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> dict[str, Any]:
    """Return the document of an `eval` that succeeds."""
    result = invoke("eval", *arguments, *HERE, "--json")
    assert result.exit_code == 0, f"{result.output}{result.exception!r}"
    return json.loads(result.stdout)


def refusal(*arguments: object) -> str:
    """Return the one line of an `eval` that a user got wrong."""
    result = invoke("eval", *arguments, *HERE)
    assert isinstance(result.exception, SystemExit), f"a traceback: {result.exception!r}"
    assert result.exit_code == 1, result.output
    *notes, error = result.stderr.splitlines()
    assert all(note.startswith("warning: ") and "RANDOM" in note for note in notes), result.stderr
    assert error.startswith("error: ")
    assert result.stdout == ""
    return error


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@functools.cache
def network(model: str, seed: int = 3) -> Network:
    """Return a model of random weights."""
    entry = ZOO.find(model)
    return Network(entry, models.build(entry, seed=seed).eval(), "random", seed=seed)


@functools.cache
def contract(model: str) -> Contract:
    return describe(ZOO, network(model))


def listed(folder: Path, items: Sequence[tuple[str, int]], classes: Sequence[str] | None = motion.CLASSES) -> Path:
    """Write a list of videos, the first of which is there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / items[0][0]).touch()
    (folder / "annotations.txt").write_text("".join(f"{name} {label}\n" for name, label in items), encoding="utf-8")
    if classes is not None:
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    return folder


def own_registry(path: Path, names: Sequence[str] = motion.CLASSES, **changes: Any) -> Path:
    """Write a registry with `mine`, an entry as that of the offline model."""
    plain = {"id": "mine", "classes": len(names), "labels": "own", "results": [], "urls": []}
    entry = msgspec.to_builtins(ZOO.find(TSM)) | plain | changes
    labels = {"own": {"classes": len(names), "order": "here", "names": list(names)}}
    # JSON is YAML.
    path.write_text(json.dumps({"models": [entry], "labels": labels}), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give two clips of each of the 14 classes."""
    folder = tmp_path_factory.mktemp("evaluate") / "clips"
    motion.write(folder, 28, 5)
    return folder


@pytest.fixture(scope="session")
def few(clips: Path) -> Path:
    """Give a list of three of them."""
    path = clips.parent / "few.txt"
    path.write_text("".join((clips / "annotations.txt").read_text().splitlines(keepends=True)[:3]))
    return path


@pytest.fixture(scope="session")
def saved(clips: Path) -> Callable[..., Path]:
    """Give a function from a model and options to its predictions of the clips, computed once."""

    @functools.cache
    def predict(model: str, *options: str) -> Path:
        path = clips.parent / f"{len(list(clips.parent.iterdir()))}.jsonl"
        answer(model, "--data", clips, "--predictions", path, *options)
        return path

    return predict


def resized(image: Image.Image, side: int = 73) -> Array:
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def cut(image: Array, top: int, left: int) -> torch.Tensor:
    square = image[top : top + 64, left : left + 64].transpose(2, 0, 1)
    return torch.from_numpy((square / 255 - MEAN) / STD).float()


def clip(path: Path, frames: Sequence[int], top: int = 4, left: int = 4) -> torch.Tensor:
    """Return the frames of a square video as the network sees them: T, C, H, W."""
    images = [image for _, image in decode.decode(path)]
    return torch.stack([cut(resized(images[index]), top, left) for index in frames])


def close(got: object, wanted: torch.Tensor, tolerance: float = 1e-5) -> bool:
    assert np.shape(got) == tuple(wanted.shape)
    return float(np.abs(np.asarray(got) - wanted.numpy()).max()) <= tolerance * float(np.ptp(wanted.numpy()))


def read(folder: Path, *arguments: Any) -> Dataset:
    return layouts.read(listed(folder, *arguments))


def page(*arguments: object, at: Path) -> str:
    answer(*arguments, "--html", at)
    return at.read_text(encoding="utf-8")


give_invoke = give(invoke)
give_answer = give(answer)
give_refusal = give(refusal)
give_lines = give(lines)
give_network = give(network)
give_contract = give(contract)
give_listed = give(listed)
give_own_registry = give(own_registry)
give_resized = give(resized)
give_cut = give(cut)
give_clip = give(clip)
give_close = give(close)
give_read = give(read)
give_page = give(page)
