"""What training starts from, and the model that it leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from tsmzoo import models, registry
from tsmzoo.cli import app
from tsmzoo.weights import checkpoint, key_maps

ZOO = registry.load()


CLASSES = ("red", "blue")


Train = Callable[..., Result]


@pytest.fixture
def base(zoo: registry.Registry, tmp_path: Path) -> Path:
    """Give weights of the tiny model, as training leaves them."""
    path = tmp_path / "base.safetensors"
    checkpoint.save(models.build(zoo.find("tiny"), seed=77), zoo.find("tiny"), path)
    return path


#: Nothing moves but the statistics of the first norm: what is left is what training started from.
STILL = {"lr": 1e-30, "partial_bn": True, "weight_decay": 0.0, "frames": 2}


def kept(base: Path, out: Path) -> dict[str, bool]:
    """Say of each tensor but the first norm's statistics whether it is the one of `base`."""
    before, after = load_file(base), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    return {
        key: before[key].shape == tensor.shape and torch.allclose(before[key], tensor, rtol=0, atol=1e-20)
        for key, tensor in after.items()
        if not key.startswith("features.0.1.running")
    }


CLASSIFIER = {"classifier.1.weight", "classifier.1.bias"}


def test_the_same_classes_keep_the_classifier(
    train: Train, base: Path, tmp_path: Path, succeeded: Callable[..., Any]
) -> None:
    succeeded(train(weights=str(base), **STILL))
    assert all(kept(base, tmp_path / "out").values())


@pytest.mark.slow
@pytest.mark.parametrize("classes", [("yes", "café: №1", "c"), None], ids=["three", "none"])
def test_other_classes_replace_the_classifier_alone(
    train: Train,
    base: Path,
    tmp_path: Path,
    classes: tuple[str, ...] | None,
    record_colours: Callable[..., Any],
    succeeded: Callable[..., Any],
) -> None:
    folders = [str(record_colours(tmp_path / name, 9, seed, classes)) for seed, name in enumerate(("a", "b"))]
    for seed in (0, 1) if classes is None else (0,):
        out = tmp_path / f"seed {seed}"
        where = ("--data", folders[0], "--val", folders[1], "-o", str(out))
        succeeded(train(*where, weights=str(base), seed=seed, **STILL))
        assert {key for key, same in kept(base, out).items() if not same} >= {"classifier.1.weight"}
        assert {key for key, same in kept(base, out).items() if not same} <= CLASSIFIER
    new = load_file(tmp_path / "seed 0" / "model.safetensors")
    count = len(classes or CLASSES)
    assert new["classifier.1.weight"].shape == (count, 1280)
    assert new["classifier.1.weight"].std() == pytest.approx(0.01, rel=0.1)
    if classes is None:
        other = load_file(tmp_path / "seed 1" / "model.safetensors")
        assert not torch.equal(new["classifier.1.weight"], other["classifier.1.weight"])
    trained = registry.load(tmp_path / "seed 0" / "registry.yaml")
    assert trained.label_names(trained.find("mine")) == (classes or ("class 0", "class 1"))


@pytest.mark.parametrize(
    ("model", "frames"),
    [("tiny_online", 8), pytest.param("tiny", 2, marks=pytest.mark.slow)],
    ids=["online", "offline, other frames"],
)
def test_eval_gives_what_training_measured(
    train: Train,
    val: Path,
    tmp_path: Path,
    model: str,
    frames: int | None,
    entry_of: Callable[..., Any],
    metrics: Callable[..., Any],
    succeeded: Callable[..., Any],
) -> None:
    # So few steps that some answers are wrong, and most of them by a little.
    succeeded(train(model=model, frames=frames, lr=0.002, batch=24, epochs=2))
    last = metrics(tmp_path / "out")[-1]
    assert entry_of(tmp_path / "out").frames == (1 if model == "tiny_online" else frames or 4)
    options = ["--data", str(val), "--registry", str(tmp_path / "out" / "registry.yaml"), "--json"]
    measured = json.loads(succeeded(CliRunner().invoke(app, ["eval", "mine", *options])))
    assert measured["top1"] == last["val_top1"]
    assert measured["videos"] == 10
    digest = hashlib.sha256((tmp_path / "out" / "model.safetensors").read_bytes()).hexdigest()
    assert measured["weights_sha256"] == digest


def test_the_model_is_one_of_its_registry(
    train: Train, tmp_path: Path, entry_of: Callable[..., Any], succeeded: Callable[..., Any]
) -> None:
    said = succeeded(train(frames=2))
    out = tmp_path / "out"
    assert "mine" in said
    assert str(out / "registry.yaml") in said
    entry = entry_of(out)
    net = models.build(entry)
    weights = load_file(out / "model.safetensors")
    assert entry.params == sum(parameter.numel() for parameter in net.parameters())
    assert {key: tensor.shape for key, tensor in weights.items()} == {
        key: tensor.shape for key, tensor in net.state_dict().items() if not key_maps.is_counter(key)
    }
    options = ["--registry", str(out / "registry.yaml"), "--json"]
    card = json.loads(succeeded(CliRunner().invoke(app, ["info", "mine", *options])))
    assert card["labels"]["names"] == list(CLASSES)
    assert card["file"] == {"path": str(out / "model.safetensors"), "cached": True, "max_bytes": entry.max_bytes}
    assert card["sha256"] == hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    assert "mine" in [row["id"] for row in json.loads(succeeded(CliRunner().invoke(app, ["list", *options])))]
    cost = json.loads(succeeded(CliRunner().invoke(app, ["flops", "mine", *options])))
    assert cost["gmacs_per_clip"] == pytest.approx(entry.gmacs, rel=1e-3)


@pytest.mark.slow
def test_a_normalisation_of_the_users_own_goes_along(
    train: Train, zoo_file: Path, tmp_path: Path, entry_of: Callable[..., Any], succeeded: Callable[..., Any]
) -> None:
    content = yaml.safe_load(zoo_file.read_text(encoding="utf-8"))
    about = {"order": "RGB", "mean": [0.2, 0.2, 0.2], "std": [0.9, 0.9, 0.9], "about": "ours"}
    content["normalisations"] = {"ours": about}
    content["models"][0]["normalisation"] = "ours"
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(content), encoding="utf-8")
    succeeded(train("--registry", str(own), frames=1))
    assert entry_of(tmp_path / "out").normalisation == "ours"


@pytest.mark.slow
def test_the_files_of_the_base_are_not_those_of_the_model(
    train: Train, zoo_file: Path, tmp_path: Path, entry_of: Callable[..., Any], succeeded: Callable[..., Any]
) -> None:
    content = yaml.safe_load(zoo_file.read_text(encoding="utf-8"))
    del content["models"][0]["file"]
    published = {"urls": ["https://example.org/base.data"], "beside": ["base.index"], "git_blob_sha1": "0" * 40}
    content["models"][0] |= published
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(content), encoding="utf-8")
    succeeded(train("--registry", str(own), frames=1))
    entry = entry_of(tmp_path / "out")
    assert (entry.urls, entry.beside, entry.git_blob_sha1) == ((), (), None)
    assert entry.filename == "model.safetensors"


@pytest.mark.slow
def test_an_image_network_is_given_a_shift_and_a_classifier(
    train: Train, zoo: registry.Registry, tmp_path: Path, entry_of: Callable[..., Any], succeeded: Callable[..., Any]
) -> None:
    """Of no rate worth the name, training keeps what it starts from."""
    image = msgspec.structs.replace(zoo.find("tiny"), family="tsn", classes=1000)
    state = {key: tensor.clone() for key, tensor in models.build(image, seed=9).state_dict().items()}
    folder = tmp_path / "of mine"
    folder.mkdir()
    torch.save(state, folder / "image.pth")
    succeeded(train(weights=str(folder / "image.pth"), lr=1e-9, partial_bn=True))
    after = load_file(tmp_path / "out" / "model.safetensors")
    head = {"classifier.1.weight", "classifier.1.bias"}
    first = {key for key in after if key.startswith("features.0.1.")}  # its batch norm is not frozen
    for key in after.keys() - head - first:
        torch.testing.assert_close(after[key], state[key], rtol=0, atol=1e-6, msg=key)
    assert after["classifier.1.weight"].shape == (2, 1280)
    entry = entry_of(tmp_path / "out")
    assert (entry.shift, entry.pretrain) == ("bidirectional", "image.pth")
    assert entry.licence == "yours, on the weights in image.pth"
    assert "of mine" not in (tmp_path / "out" / "registry.yaml").read_text(encoding="utf-8")


def test_a_start_that_is_no_start_is_one_line(train: Train, tmp_path: Path, assert_fails: Callable[..., Any]) -> None:
    assert_fails(train(weights=str(tmp_path / "none.pth")), "none.pth", "does not exist")
    other = models.build(
        msgspec.structs.replace(ZOO.find("tsm_r50_k400_8f"), family="tsn", backbone="resnet18"), seed=0
    )
    torch.save(other.state_dict(), tmp_path / "resnet18.pth")
    assert_fails(train(weights=str(tmp_path / "resnet18.pth")), "resnet18", "mobilenet_v2")


@pytest.mark.parametrize("name", ["motion", "tsmzoo", "tsm_r50_jester"], ids=["labels", "source", "alias"])
@pytest.mark.slow
def test_a_name_that_means_something_else_already_is_refused_or_does_no_harm(
    train: Train, tmp_path: Path, name: str, assert_fails: Callable[..., Any]
) -> None:
    result = train(name=name, frames=1)
    if result.exit_code:
        assert_fails(result, name)
        assert not (tmp_path / "out" / "last.pt").exists(), "it was trained in vain"
        return
    left = registry.load(tmp_path / "out" / "registry.yaml")
    assert left.find(name).file == str(tmp_path / "out" / "model.safetensors")
    for entry in ZOO.models:
        assert left.find(entry.id) == entry
        assert left.sources[entry.source] == ZOO.sources[entry.source]
        assert left.labels[entry.labels] == ZOO.labels[entry.labels]
