"""Our own checkpoint format: saved and loaded to the bit, and refused where it does not fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.torch
import torch
from torch import nn

from tsmzoo import models, registry
from tsmzoo.weights import checkpoint, checkpoint_file, key_maps

from .conftest import STREAM, TSM, TSN, assert_refused, assert_same, load, trained, unfilled

ZOO = registry.load()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Give a function from a model, with changes to its entry, to a file of ours."""

    def save(model: str, **changes: Any) -> Path:
        checkpoint.save(*trained(model, **changes), path := tmp_path / f"{model}.safetensors")
        return path

    return save


@pytest.mark.parametrize("model", [TSN, TSM, STREAM])
def test_what_is_saved_is_loaded_to_the_bit(model: str, tmp_path: Path) -> None:
    net, entry = trained(model)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    checkpoint.save(net, entry, path := tmp_path / "mine.safetensors")
    assert_same(net, before)
    again, loaded = load(path, model)
    assert loaded == checkpoint.LoadedCheckpoint(hashlib.sha256(path.read_bytes()).hexdigest(), "tsmzoo", False)
    assert_same(again, before)
    assert checkpoint_file.read(path).metadata == {"model": model, "shift": entry.shift}
    assert load(path, model, weights_format="tsmzoo")[1] == loaded


def test_a_file_of_ours_holds_no_counters_and_needs_none(tmp_path: Path) -> None:
    net, entry = trained(TSM)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.fill_(7)  # as after training
    checkpoint.save(net, entry, path := tmp_path / "mine.safetensors")
    assert not any(key_maps.is_counter(key) for key in safetensors.torch.load_file(path))
    again = load(path, TSM)[0].state_dict()
    assert all(int(tensor) == 0 for key, tensor in again.items() if key_maps.is_counter(key))
    assert all(torch.equal(again[key], t) for key, t in net.state_dict().items() if not key_maps.is_counter(key))


@pytest.mark.parametrize("model", [TSM, STREAM])
def test_the_same_weights_are_the_same_bytes(model: str, tmp_path: Path) -> None:
    digests, mine = set(), trained(model)
    for number in range(12):  # by chance some would be alike, never all
        checkpoint.save(*mine, path := tmp_path / f"{number}.safetensors")
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_other_weights_or_another_shift_are_other_bytes(tmp_path: Path) -> None:
    files = []
    for net, entry in (trained(TSN), trained(TSM), trained(STREAM), trained(TSM, seed=4)):
        checkpoint.save(net, entry, path := tmp_path / "mine.safetensors")
        files.append(path.read_bytes())
    assert len(set(files)) == 4


SHIFT = {TSN: "no", TSM: "bidirectional", STREAM: "unidirectional"}


@pytest.mark.parametrize("held", SHIFT)
@pytest.mark.parametrize("model", SHIFT)
def test_a_file_of_another_shift_is_refused_naming_both(held: str, model: str, saved: Callable[..., Path]) -> None:
    path = saved(held)
    if held == model:
        load(path, model)
        return
    wanted = {"no": "has none"}.get(SHIFT[model], SHIFT[model])
    message = assert_refused(path, model, SHIFT[held], wanted, model)
    assert ("--allow-shift-mismatch" in message) == (held == TSM and model == STREAM)


def test_a_file_of_ours_in_an_online_model_on_the_users_word(saved: Callable[..., Path]) -> None:
    path = saved(TSM)
    net, loaded = load(path, STREAM, allow_shift_mismatch=True)
    assert (loaded.format, loaded.shift_mismatch) == ("tsmzoo", True)
    assert_same(net, trained(TSM)[0].state_dict())
    assert_refused(saved(TSN), STREAM, "no shift", allow_shift_mismatch=True)
    assert_refused(saved(STREAM), TSM, "unidirectional", allow_shift_mismatch=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"width": 1.0}, ("features.0.0.weight (32, 3, 3, 3) instead of (16, 3, 3, 3)", "more"), id="width"
        ),
        pytest.param({"classes": 15}, ("classifier.1.weight (15, 1280) instead of (14, 1280)",), id="classes"),
        pytest.param({"modality": "flow"}, ("features.0.0.weight (16, 10, 3, 3) instead of (16, 3, 3, 3)",), id="flow"),
    ],
)
def test_a_file_of_other_shapes_is_refused_listing_them(
    changes: dict[str, Any], words: tuple[str, ...], saved: Callable[..., Path]
) -> None:
    assert_refused(saved(TSM, **changes), TSM, "of another shape: ", *words)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}], ids=["none", "empty", "of Hugging Face"])
@pytest.mark.parametrize("model", [TSN, TSM, STREAM])
def test_an_image_networks_file_is_not_taken_for_ours(
    model: str, metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    """torchvision's MobileNetV2 has our keys; only the metadata says that a file is ours, and of which shift."""
    state = {key: tensor.clone() for key, tensor in trained(model)[0].state_dict().items()}
    path = tmp_path / "mobilenet_v2.safetensors"
    safetensors.torch.save_file(state, path, metadata)
    assert_refused(path, model, "image network", "start a training")
    torch.save(state, path := tmp_path / "mobilenet_v2.pth")
    assert_refused(path, model, "image network", "start a training")


def test_an_image_resnets_keys_are_ours_with_our_metadata_alone() -> None:
    state = unfilled("tsm_r50_sthv2").state_dict()
    assert key_maps.detect_format(state, {"model": "mine", "shift": None}) == "tsmzoo"
    assert key_maps.detect_format(state, {}) == "torchvision"


def test_a_shift_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    net, entry = trained(TSM)
    state = {key: tensor for key, tensor in net.state_dict().items() if not key_maps.is_counter(key)}
    path = tmp_path / "mine.safetensors"
    safetensors.torch.save_file(state, path, {"tsmzoo": json.dumps({"model": entry.id, "shift": "sideways"})})
    for model in (TSN, TSM, STREAM):
        assert_refused(path, model, "sideways")


@pytest.mark.parametrize("part", [1e-7, 1e-4, 0.01, 0.5, 0.999999])
def test_a_file_of_ours_that_was_cut_is_one_line(part: float, saved: Callable[..., Path]) -> None:
    path = saved(TSM)
    data = path.read_bytes()
    path.write_bytes(data[: 1 + int(part * (len(data) - 2))])
    assert_refused(path, TSM, "safetensors")


def test_a_file_of_ours_under_another_ending_is_the_same(saved: Callable[..., Path], tmp_path: Path) -> None:
    saved(TSM).rename(path := tmp_path / "mine.pth")
    net, loaded = load(path, TSM)
    assert loaded.format == "tsmzoo"
    assert_same(net, trained(TSM)[0].state_dict())


def test_a_network_of_other_classes_is_a_model_of_its_own(tmp_path: Path) -> None:
    """As training leaves it: a new classifier, random from the seed, on features that stay."""
    net, entry = trained(TSM)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    models.replace_classifier(net, 5, seed=1)
    after, mine = net.state_dict(), msgspec.structs.replace(entry, classes=5)
    assert after.keys() == before.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}
    assert after["classifier.1.weight"].shape == (5, 1280)
    checkpoint.save(net, mine, path := tmp_path / "mine.safetensors")
    again = models.build(mine)
    checkpoint.load(again, mine, path)
    assert_same(again, after)
    rows = []
    for seed in (1, 1, 2):
        models.replace_classifier(net, 5, seed=seed)
        rows.append(net.state_dict()["classifier.1.weight"].clone())
    assert torch.equal(rows[0], after["classifier.1.weight"])
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
