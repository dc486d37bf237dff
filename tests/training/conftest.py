"""Videos of two colours, tiny models and runs that the tests of training share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from tests.given import give
from tsmzoo import registry
from tsmzoo.cli import app
from tsmzoo.data import dataset, layouts
from tsmzoo.data.encode import encode
from tsmzoo.registry import Entry
from tsmzoo.registry.recipes import Training

ZOO = registry.load()


CLASSES = ("red", "blue")


#: An entry's, of a model that nobody published.
NO_FILE: dict[str, Any] = {
    **{"urls": (), "beside": (), "file": None, "format": "tsmzoo"},
    **{"sha256": None, "sha256_prefix": None, "git_blob_sha1": None},
}


def made(**changes: Any) -> Training:
    """Return a recipe for the tiny model; it learns in seconds."""
    plain = {
        **{"name": "mine", "model": "tiny", "weights": "random", "epochs": 1, "batch": 8, "lr": 0.05},
        **{"schedule": "cosine", "dropout": 0.0, "scales": (1.0,), "hflip": False},
    }
    return Training(**(plain | changes))


def written(path: Path, **changes: Any) -> str:
    """Write a recipe; what `changes` sets to None is left out."""
    content = {key: value for key, value in (msgspec.to_builtins(made()) | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def record_colours(folder: Path, videos: int, seed: int, classes: tuple[str, ...] | None = CLASSES) -> Path:
    """Write short noisy videos whose colour is their class, and their lists."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    count = len(classes or CLASSES)
    items = []
    for number in range(videos):
        label = number % count
        colour = np.full(3, 60.0)
        colour[2 * label % 3] = 180
        frames = colour + rng.normal(0, 30, (6, 40, 48, 3))
        encode(folder / f"{number} of {videos}.mp4", frames.clip(0, 255).astype(np.uint8), 8)
        items.append((f"{number} of {videos}.mp4", label))
    dataset.write(folder, items, classes or ())
    if classes is None:
        (folder / dataset.LABELS).unlink()
    return folder


@pytest.fixture(scope="session")
def zoo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a registry of tiny models, without weights."""
    changes: dict[str, Any] = {"size": 32, "width": 0.25, "classes": 2, "labels": "colours", "file": "no.safetensors"}
    offline = msgspec.structs.replace(ZOO.find("tsm_mbv2_motion"), **changes, id="tiny", frames=4, results=())
    online = msgspec.structs.replace(ZOO.find("tsm_mbv2_motion_online"), **changes, id="tiny_online", results=())
    changes = {"width": 1.0, "results": (), "sampling": "uniform", "stride": None, "frames": 5}
    small = {"size": 32, "classes": 2, "labels": "colours", **changes}
    volumes = [
        msgspec.structs.replace(ZOO.find(model), **small, id=name, **NO_FILE)
        for name, model in (
            ("tiny_i3d", "i3d_inception_k400_rgb"),
            ("tiny_i3d_r50", "i3d_r50_k400"),
            ("tiny_movinet_base", "movinet_a0_base"),
        )
    ]
    stream = msgspec.structs.replace(
        ZOO.find("movinet_a0_stream"),
        **{**small, "id": "tiny_movinet_stream", "frames": 1, "sampling": "stream", **NO_FILE},
    )
    several = msgspec.structs.replace(offline, id="tiny_several", multi_label=True)
    content = {
        "models": [
            {key: value for key, value in msgspec.to_builtins(entry).items() if value is not None}
            for entry in (offline, online, several, stream, *volumes)
        ],
        "labels": {"colours": {"classes": 2, "order": "here", "names": list(CLASSES)}},
    }
    path = tmp_path_factory.mktemp("zoo") / "zoo.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def zoo(zoo_file: Path) -> registry.Registry:
    return registry.load(zoo_file)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_colours(tmp_path_factory.mktemp("data") / "train", 24, 1)


@pytest.fixture(scope="session")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_colours(tmp_path_factory.mktemp("data") / "val", 10, 2)


Train = Callable[..., Result]


@pytest.fixture
def train(zoo_file: Path, data: Path, val: Path, tmp_path: Path) -> Train:
    """Give a function that runs `tsmzoo train` on the tiny model, into tmp_path/out."""

    def run(*more: str, recipe: str | None = None, **changes: Any) -> Result:
        recipe = recipe or written(tmp_path / "mine.yaml", **changes)
        # What comes later overrides.
        options = ["--data", str(data), "--val", str(val), "-o", str(tmp_path / "out"), "--registry", str(zoo_file)]
        return CliRunner().invoke(app, ["train", recipe, *options, *more], prog_name="tsmzoo")

    return run


def fit(zoo: registry.Registry, recipe: Training, data: Path, val: Path, out: Path, stop: int | None = None) -> None:
    """Train, and be interrupted as step `stop` begins."""

    def progress(_: str, done: int, total: int) -> None:
        if total and done == stop:
            raise KeyboardInterrupt

    from tsmzoo.training import train as training_train  # fvcore warns as it is imported

    training_train.train(zoo, recipe, layouts.read(data), layouts.read(val), out, progress=progress, notify=print)


def succeeded(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def assert_fails(result: Result, *words: str) -> None:
    """One line on stderr, `error: …`, nothing on stdout, exit 1."""
    assert isinstance(result.exception, SystemExit), f"a traceback: {result.exception!r}"
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def timeless(out: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in metrics(out)]


def entry_of(out: Path) -> Entry:
    """Return the trained model's entry from the registry it left, which must do without any other."""
    return registry.load(out / "registry.yaml").find("mine")


give_made = give(made)
give_written = give(written)
give_record_colours = give(record_colours)
give_fit = give(fit)
give_succeeded = give(succeeded)
give_assert_fails = give(assert_fails)
give_metrics = give(metrics)
give_timeless = give(timeless)
give_entry_of = give(entry_of)
