"""Checkpoints that a training may start from: image networks, networks of frames, networks without a shift."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsmzoo import models, registry
from tsmzoo.errors import CheckpointError
from tsmzoo.models.i3d import VARIANTS
from tsmzoo.models.wrappers import ClipModel
from tsmzoo.weights import checkpoint, key_maps, pretrained

from .conftest import (
    IN_PLACE,
    MIT,
    MIT_BLOCK,
    MIT_BRANCH,
    MIT_WRAPPED,
    MMACTION,
    MODEL,
    TSN_,
    Edits,
    Published,
    State,
    assert_same,
    doubled,
    like,
    load,
    nan,
    no_counters,
    respelt,
)

ZOO = registry.load()


# --- what a training may start from ----------------------------------------------------------------------------------


@functools.cache
def _image(backbone: str, classes: int) -> State:
    return models.build(like(backbone, family="tsn", classes=classes), seed=11).state_dict()


def image(backbone: str, classes: int = 1000) -> State:
    """The weights of an image classifier, keyed as torchvision's, which must not be changed."""
    return dict(_image(backbone, classes))


def started(entry: registry.Entry, path: Path) -> tuple[State, State]:
    """What a network held, and what it holds once it was started from `path`."""
    net = models.build(entry, seed=3)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    assert pretrained.load_pretrained(net, entry, path)
    return before, net.state_dict()


def old_densenet(state: State) -> State:
    """DenseNet's first files have a dot in the names of a layer's parts."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): tensor for key, tensor in state.items()}


@pytest.mark.parametrize(
    ("backbone", "spelling"),
    [
        ("resnet18", no_counters),
        ("mobilenet_v2", doubled),
        pytest.param("densenet161", old_densenet, marks=pytest.mark.slow),
        pytest.param("resnet101", lambda state: state, marks=pytest.mark.slow),
        pytest.param("resnext101_32x4d", lambda state: state, marks=pytest.mark.slow),
        pytest.param("densenet161", lambda state: state, marks=pytest.mark.slow),
    ],
)
def test_an_image_network_starts_a_training_and_nothing_else(
    backbone: str, spelling: Callable[[State], State], tmp_path: Path
) -> None:
    state = image(backbone)
    torch.save(spelling(state), path := tmp_path / "image.pth")
    entry = like(backbone, family="tsn" if backbone == "densenet161" else "tsm", classes=9)
    before, after = started(entry, path)
    head = {key for key in state if key.startswith(("fc.", "classifier."))}
    assert len(head) == 2
    for key, tensor in after.items():
        wanted = before[key] if key in head else state[key]
        assert torch.equal(tensor, torch.zeros_like(tensor) if key_maps.is_counter(key) else wanted), key
    with pytest.raises(
        CheckpointError, match=r"image network: its classifier is not that of .*start a training from it"
    ):
        checkpoint.load(models.build(entry), entry, path)
    same = like(backbone, family="tsn", classes=1000)
    with pytest.raises(CheckpointError, match="image network"):
        checkpoint.load(models.build(same), same, path, weights_format="torchvision")


def inflated_by_hand(kernel: Tensor, reach: int) -> Tensor:
    out = torch.empty(*kernel.shape[:2], reach, *kernel.shape[2:])
    for frame in range(reach):
        out[:, :, frame] = kernel / reach
    return out


def mit_file(edits: Edits) -> State:
    state = image("resnet50", classes=400)
    for pattern, replacement in edits:
        state = {re.sub(pattern, replacement, key): tensor for key, tensor in state.items()}
    return state


I3D = [name for name in VARIANTS if name not in ("resnet50_i3d_heavy", "resnet50_i3d_8x8")]


@pytest.mark.parametrize("backbone", [I3D[0], *(pytest.param(name, marks=pytest.mark.slow) for name in I3D[1:])])
@torch.no_grad()
def test_an_inflated_network_starts_from_one_of_frames(backbone: str, tmp_path: Path) -> None:
    """A still clip, its ends repeated in the place of zeros, then has the features of its frame."""
    state = image("resnet50")
    torch.save(state if backbone == I3D[0] else mit_file(MIT_WRAPPED), path := tmp_path / "frames.pth")
    entry = like(backbone, family="i3d", classes=9)
    before, after = started(entry, path)
    for key, tensor in after.items():
        if key.startswith("fc."):
            assert torch.equal(tensor, before[key])
        elif tensor.dim() == 5:
            assert torch.equal(tensor, inflated_by_hand(state[key], tensor.shape[2]))
        elif not key_maps.is_counter(key):
            assert torch.equal(tensor, state[key])

    net = models.build(entry, seed=3)
    pretrained.load_pretrained(net, entry, path)
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            reach, (_, height, width) = module.padding[0], module.padding
            module.padding = (0, height, width)
            module.register_forward_pre_hook(
                lambda _, args, reach=reach: F.pad(args[0], (0, 0, 0, 0, reach, reach), mode="replicate")
            )
    flat = models.build(like("resnet50", family="tsn", classes=9))
    head = {key: tensor for key, tensor in net.state_dict().items() if key.startswith("fc.")}
    flat.load_state_dict(state | head, assign=True)
    frame = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    wanted = flat(frame, 1, lambda x, _: x)
    got = net(frame.expand(8, -1, -1, -1), 8, lambda x, _: x)
    assert got.shape == wanted.shape == (1, 9)
    assert (got - wanted).abs().max() <= 1e-4 * (wanted.max() - wanted.min())


@pytest.mark.parametrize("div", [4, pytest.param(None, marks=pytest.mark.slow)])
@torch.no_grad()
def test_a_shift_is_learned_on_from_where_it_was(div: int | None, tmp_path: Path) -> None:
    """TSM, § 5.4, I3D replace: the features of the TSM that it starts from, by a kernel in the shift's place."""
    tsm = like("resnet50", family="tsm", classes=9, shift_div=div or 8)
    flat = models.build(tsm, seed=11)
    if div:
        checkpoint.save(flat, tsm, path := tmp_path / "tsm.safetensors")
    else:
        torch.save(mit_file(MIT_BRANCH), path := tmp_path / "tsm.pth")
    entry = like("resnet50_i3d_replace", family="i3d", classes=9)
    net = models.build(entry, seed=3)
    assert pretrained.load_pretrained(net, entry, path)
    net.load_state_dict({key: t for key, t in flat.state_dict().items() if key.startswith("fc.")}, strict=False)
    clips = torch.randn(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ClipModel(net, 4)(clips), ClipModel(flat, 4)(clips), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "edits", "held"),
    [
        (I3D[0], MIT_BRANCH, "bidirectional"),
        ("resnet50_i3d_replace", MIT_BLOCK, "bidirectional"),
        ("resnet50_i3d_replace", None, "unidirectional"),
    ],
)
def test_a_shift_that_no_kernel_can_be_is_not_lost_silently(
    backbone: str, edits: Edits | None, held: str, tmp_path: Path
) -> None:
    if edits:
        torch.save(mit_file(edits), path := tmp_path / "tsm.pth")
    else:
        online = like("resnet50", mode="online")
        checkpoint.save(models.build(online, seed=1), online, path := tmp_path / "online.safetensors")
    entry = like(backbone, family="i3d", classes=9)
    with pytest.raises(CheckpointError, match=f"{held} shift, which .* cannot keep; start from a network without one"):
        pretrained.load_pretrained(models.build(entry, seed=3), entry, path)


@pytest.mark.slow
def test_trained_non_local_blocks_are_kept(tmp_path: Path) -> None:
    entry = like("resnet50", family="tsm", non_local="embedded_gaussian", classes=9)
    frames = msgspec.structs.replace(entry, family="tsn")
    given = models.build(frames, seed=11)
    checkpoint.save(given, frames, path := tmp_path / "tsn.safetensors")
    _, after = started(entry, path)
    blocks = {key: tensor for key, tensor in given.state_dict().items() if ".nl." in key}
    assert len(blocks) > 50
    for key, tensor in blocks.items():
        assert torch.equal(after[key], tensor), key
    other = msgspec.structs.replace(frames, non_local="gaussian")  # which has no theta
    checkpoint.save(models.build(other, seed=11), other, path)
    with pytest.raises(CheckpointError, match=r"missing: layer2\.0\.nl\.phi"):
        pretrained.load_pretrained(models.build(entry, seed=3), entry, path)


def test_a_bninception_that_was_not_wrapped_has_no_shift(tmp_path: Path) -> None:
    tsm, tsn = like("bninception", **IN_PLACE, classes=9), like("bninception", **TSN_, classes=9)
    given = models.build(tsn, seed=11).state_dict()
    torch.save(given, path := tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match="was trained with no shift"):
        checkpoint.load(models.build(tsm), tsm, path)
    before, after = started(tsm, path)
    for key, tensor in given.items():
        assert key_maps.is_counter(key) or torch.equal(after[key], before[key] if key.startswith("fc.") else tensor), (
            key
        )
    wrapped = {key: tensor for key, tensor in respelt(tsm, MIT_WRAPPED).items()}
    torch.save(wrapped, path)
    assert not pretrained.load_pretrained(models.build(tsm, seed=3), tsm, path), "the entry is trusted"


def test_a_network_without_a_shift_starts_one_with(tmp_path: Path) -> None:
    entry = like("mobilenet_v2", family="tsm", classes=9)
    frames = msgspec.structs.replace(entry, family="tsn", classes=4)
    net = models.build(frames, seed=11)
    checkpoint.save(net, frames, path := tmp_path / "tsn.safetensors")
    before, after = started(entry, path)
    given = net.state_dict()
    for key, tensor in after.items():
        wanted = before[key] if key.startswith("classifier.") else given[key]
        assert key_maps.is_counter(key) or torch.equal(tensor, wanted), key
    assert not pretrained.load_pretrained(models.build(frames, seed=3), frames, path), "its own network is left to load"


@pytest.mark.slow
def test_mits_network_without_a_shift_starts_one_with(published: Published) -> None:
    entry = like("resnet50", family="tsm", classes=9)
    _, after = started(entry, published("mit_tsn_r50_k400"))
    given, _ = load(published("mit_tsn_r50_k400"), "tsn_r50_k400_mit")
    for key, tensor in given.state_dict().items():
        assert key.startswith("fc.") or torch.equal(after[key], tensor)


@torch.no_grad()
@pytest.mark.slow
def test_non_local_blocks_start_as_nothing(tmp_path: Path) -> None:
    torch.save(image("resnet50"), path := tmp_path / "image.pth")
    entry = like("resnet50", family="tsm", non_local="embedded_gaussian", classes=9)
    net, plain = models.build(entry, seed=3), models.build(msgspec.structs.replace(entry, non_local=None), seed=3)
    assert pretrained.load_pretrained(net, entry, path)
    assert pretrained.load_pretrained(plain, entry, path)
    clip = torch.randn(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    plain.load_state_dict({key: tensor for key, tensor in net.state_dict().items() if ".nl." not in key})
    assert torch.equal(ClipModel(net, 2)(clip), ClipModel(plain, 2)(clip))


def test_a_model_of_videos_is_left_to_load(published: Published) -> None:
    """And so is what `load` has a word for."""
    for name, model in ((MIT, MODEL[MIT]), (MMACTION, MODEL[MMACTION]), (MIT, "tsm_r50_sthv2")):
        net = models.build(ZOO.find(model), seed=3)
        before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        assert not pretrained.load_pretrained(net, ZOO.find(model), published(name))
        assert_same(net, before)


@pytest.mark.parametrize(
    ("state", "entry", "words"),
    [
        (lambda: image("resnet18"), lambda: like("resnet50"), ("resnet18", "is resnet50")),
        (lambda: image("resnet18"), lambda: like("resnet50_i3d", family="i3d"), ("resnet18", "is resnet50_i3d")),
        (
            lambda: image("resnet18"),
            lambda: like("mobileone_s4", **IN_PLACE),
            ("holds resnet18", "is mobileone_s4", "fits"),
        ),
        (lambda: image("resnet18") | {"layer5.0.conv1.weight": torch.ones(1)}, lambda: like("resnet18"), ("layer5",)),
        (
            lambda: {key: tensor for key, tensor in image("resnet18").items() if not key.startswith("layer4.1.bn2")},
            lambda: like("resnet18"),
            ("missing: layer4.1.bn2",),
        ),
        (
            lambda: image("resnet18") | {"conv1.weight": nan(torch.ones(64, 3, 7, 7))},
            lambda: like("resnet18"),
            ("not finite",),
        ),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    state: Callable[[], State], entry: Callable[[], registry.Entry], words: tuple[str, ...], tmp_path: Path
) -> None:
    torch.save(state(), path := tmp_path / "image.pth")
    net = models.build(entry(), seed=3)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        pretrained.load_pretrained(net, entry(), path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert_same(net, before)
    with pytest.raises(CheckpointError, match="does not exist"):
        pretrained.load_pretrained(net, entry(), tmp_path / "none.pth")
