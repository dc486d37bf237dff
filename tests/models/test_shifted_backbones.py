"""Where each backbone is shifted, frames that shift among themselves, and the channel order of BGR networks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tsmzoo import models, registry
from tsmzoo.artifact.arrays import feed
from tsmzoo.catalog import info
from tsmzoo.errors import RegistryError, ZooError
from tsmzoo.exporting.graph.deploy import Deployed
from tsmzoo.inference.describe import describe
from tsmzoo.inference.torch_runner import torch_model
from tsmzoo.models.flops import count
from tsmzoo.models.mobilenet_v2 import InvertedResidual
from tsmzoo.models.mobileone import MobileOneBlock
from tsmzoo.models.resnet import BasicBlock, Bottleneck
from tsmzoo.models.shift import shift_channels_last, shift_clip, shift_clips, shift_clips_forward
from tsmzoo.models.wrappers import ClipModel, SingleClip, StreamStep, state_shapes
from tsmzoo.registry import Entry
from tsmzoo.training import batches
from tsmzoo.weights.load import Network

from .conftest import FACTS, ByHand, close, entry_of, lively, mobileone_block, random_clip

ZOO = registry.load()
#: Those that a TSM may have, and where the shift may stand.
SHIFTED: list[tuple[str, str]] = [
    (backbone, place) for backbone, places in registry.SHIFT_PLACES.items() for place in places
]
#: The same but for the deep ones, which are no other class.
SMALL = [(backbone, place) for backbone, place in SHIFTED if backbone not in ("resnet101", "resnext101_32x4d")]


def by_definition(x: Tensor, fold: int) -> Tensor:
    """TSM of one clip, T, C, H, W, frame by frame and channel by channel."""
    out = x.clone()
    for t in range(len(x)):
        for c in range(min(fold, x.shape[1])):
            out[t, c] = x[t + 1, c] if t + 1 < len(x) else 0
        for c in range(fold, min(2 * fold, x.shape[1])):
            out[t, c] = x[t - 1, c] if t > 0 else 0
    return out


# --- where the shift stands ------------------------------------------------------------------------------------------


def shifts_of(net: nn.Module) -> list[tuple[int, int]]:
    """Return width and fold of each shift."""
    calls: list[tuple[int, int]] = []

    def spy(x: Tensor, fold: int) -> Tensor:
        calls.append((x.shape[1], fold))
        return x

    with torch.no_grad():
        net(torch.empty(2, 3, 64, 64, device="meta"), 2, spy)
    return calls


RESNET50 = [64, 256, 256, 256, 512, 512, 512, 512, *[1024] * 6, 2048, 2048]
RESNET101 = [64, 256, 256, 256, *[512] * 4, *[1024] * 23, 2048, 2048]
#: Every second block of each layer of RESNET101.
EVERY_SECOND = [64, 256, 256, 512, *[512], *[1024] * 11, 1024, 2048]
WIDTHS = {
    ("resnet18", "residual"): [64, 64, 64, 128, 128, 256, 256, 512],
    ("resnet18", "in-place"): [64, 64, 64, 128, 128, 256, 256, 512],
    ("resnet50", "residual"): RESNET50,
    ("resnet50", "in-place"): RESNET50,
    ("resnet101", "residual"): EVERY_SECOND,
    # In place MIT's code leaves out none, however deep.
    ("resnet101", "in-place"): RESNET101,
    ("resnext101_32x4d", "residual"): EVERY_SECOND,
    ("resnext101_32x4d", "in-place"): RESNET101,
    ("mobilenet_v2", "residual"): [24, 32, 32, 64, 64, 64, 96, 96, 160, 160],
    ("mobilenet_v2", "in-place"): [24, 32, 32, 64, 64, 64, 96, 96, 160, 160],
    # 42 of 43: of the 3 channels of the first an eighth is none.
    ("mobileone_s4", "in-place"): [64, 64, *[192] * 2, *[192] * 2, *[448] * 14, *[448] * 2, *[896] * 18, 896, 896],
    # The first of 12 units is never shifted.
    ("bninception", "in-place"): [64, 192, 256, 320, 576, 576, 576, 608, 608, 1056, 1024],
}


def test_every_place_is_listed() -> None:
    assert set(WIDTHS) == set(SHIFTED)
    assert set(FACTS) - {backbone for backbone, _ in SHIFTED} == {"densenet161"}


@pytest.mark.parametrize(
    ("backbone", "place", "div"),
    [*((*where, 8) for where in SHIFTED), *((*where, div) for where in SMALL for div in (3, 100))],
)
def test_blocks_that_are_shifted(backbone: str, place: str, div: int) -> None:
    net = models.build(entry_of(backbone, shift_place=place, shift_div=div))
    calls = shifts_of(net)
    assert all(fold == width // div > 0 for width, fold in calls)
    widths = WIDTHS[backbone, place]
    if backbone == "mobileone_s4" and div <= 3:
        widths = [3, *widths]  # the image itself
    assert [width for width, _ in calls] == [width for width in widths if width // div]


@pytest.mark.parametrize("backbone", FACTS)
def test_tsn_shifts_nothing(backbone: str) -> None:
    assert not shifts_of(models.build(entry_of(backbone, family="tsn")))


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck, InvertedResidual])
@torch.no_grad()
def test_in_place_is_the_block_on_shifted_input(kind: type[nn.Module]) -> None:
    """The shortcut lacks the present frame, which a shift in the branch leaves it."""

    def block(shifted: bool, in_place: bool) -> nn.Module:
        torch.manual_seed(0)
        fold = 2 if shifted else 0
        if kind is InvertedResidual:
            made: nn.Module = InvertedResidual(8, 8, 1, 6, 8 // fold if fold else None, in_place=in_place)
        else:
            made = kind(8, 8 if kind is BasicBlock else 2, 1, fold, in_place=in_place)
        return made.eval()

    def run(module: nn.Module, x: Tensor) -> Tensor:
        frames = () if kind is InvertedResidual else (4,)
        return module(x, *frames, shift_clip)

    x = random_clip(4, 8, 3, 3)
    wanted = run(block(False, False), by_definition(x, 2))
    assert torch.equal(run(block(True, True), x), wanted)
    assert not close(run(block(True, False), x), wanted, 1e-2)


@torch.no_grad()
def test_in_place_is_a_resnets_block_with_its_downsampling() -> None:
    torch.manual_seed(0)
    shifted = Bottleneck(8, 4, 2, 1, in_place=True).eval()
    x = random_clip(4, 8, 6, 6)
    y = shifted(x, 4, shift_clip)
    shifted.fold = 0
    assert torch.equal(y, shifted(by_definition(x, 1), 4, shift_clip))


@torch.no_grad()
def test_mobileone_shifts_the_input_of_all_branches() -> None:
    block = lively(MobileOneBlock(16, 16, 3, 1, 16, 2, gated=True).eval())
    x = random_clip(4, 16, 5, 5)
    y = block(x, shift_clip)
    assert close(y, mobileone_block(ByHand(block), "", by_definition(x, 2), 1, True))
    block.fuse()
    assert close(block(x, shift_clip), y)


@pytest.mark.parametrize(("backbone", "place"), dict(SMALL).items())
@torch.no_grad()
def test_forms_agree(backbone: str, place: str) -> None:
    net = lively(models.build(entry_of(backbone, shift_place=place, shift_div=4, classes=9), seed=5))
    clips = random_clip(2, 3, 3, 32, 32)
    together = ClipModel(net, 3)(clips)
    assert close(torch.cat([SingleClip(net, 3)(clip) for clip in clips]), together)
    assert not close(ClipModel(net, 3)(clips[:, [1, 0, 2]]), together, 1e-3), "the order of frames must count"


@pytest.mark.parametrize(("backbone", "place"), SMALL)
@pytest.mark.parametrize("div", [3, pytest.param(8, marks=pytest.mark.slow)])
@torch.no_grad()
def test_a_stream_is_the_forward_shift_with_states_of_the_same_fold(backbone: str, place: str, div: int) -> None:
    net = lively(models.build(entry_of(backbone, shift_place=place, shift_div=div, classes=9), seed=5))
    shapes = state_shapes(net, 3, 32)
    widths = [width for width in WIDTHS[backbone, place] if width // div]
    if backbone == "mobileone_s4" and div <= 3:
        widths = [3, *widths]
    assert [shape[1] for shape in shapes] == [width // div for width in widths]
    clip = random_clip(3, 3, 32, 32)
    step, states = StreamStep(net), [torch.zeros(shape) for shape in shapes]
    for frame, wanted in zip(clip.split(1), net(clip, 3, shift_clips_forward(3)).split(1), strict=True):
        logits, *states = step(frame, *states)
        assert close(logits, wanted)


# --- frames that shift among themselves ------------------------------------------------------------------------------


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(2, 12), st.integers(1, 3), st.integers(1, 3)
)
@settings(max_examples=80, deadline=None)
def test_groups_shift_by_definition(groups: int, group: int, c: int, div: int, h: int, w: int) -> None:
    """Any group and any `shift_div`, however many channels there are."""
    x = torch.arange(1.0, groups * group * c * h * w + 1).view(groups * group, c, h, w)
    wanted = torch.cat([by_definition(part, c // div) for part in x.split(group)])
    assert torch.equal(shift_clip(x, c // div, group), wanted)
    assert torch.equal(shift_channels_last(x, c // div, group), wanted)
    assert torch.equal(shift_clips(group)(x, c // div), wanted)


@torch.no_grad()
def test_a_clip_in_groups_is_the_mean_of_its_groups(grouped: tuple[Entry, nn.Module]) -> None:
    _, net = grouped
    clips = random_clip(2, 6, 3, 32, 32)
    alone = ClipModel(net, 2)(clips.reshape(6, 2, 3, 32, 32)).reshape(2, 3, -1).mean(1)
    assert close(ClipModel(net, 6, 2)(clips), alone)
    assert close(torch.cat([SingleClip(net, 6, 2)(clip) for clip in clips]), alone)
    assert not close(ClipModel(net, 6)(clips), alone, 1e-3)


def test_a_clip_that_is_no_whole_groups_is_refused(grouped: tuple[Entry, nn.Module]) -> None:
    for form in (ClipModel, SingleClip):
        for frames in (5, 1):
            with pytest.raises(ZooError, match=f"^{frames} frames do not divide into the 2"):
                form(grouped[1], frames, 2)


@torch.no_grad()
def test_a_model_runs_in_its_groups(grouped: tuple[Entry, nn.Module]) -> None:
    """In torch, as it is evaluated and as files are compared with."""
    entry, net = grouped
    network = Network(entry, net, "random")
    model = torch_model(ZOO, network)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 6, 3, 32, 32), dtype=np.uint8)
    got = torch.from_numpy(model.run_clips(pixels)["logits"])
    clips = torch.from_numpy(feed(pixels, model.contract))
    assert close(got, ClipModel(net, 6, 2)(clips))
    assert not close(got, ClipModel(net, 6)(clips), 1e-3)


def test_a_group_costs_no_more(grouped: tuple[Entry, nn.Module]) -> None:
    entry, _ = grouped
    assert count(entry).gmacs == count(msgspec.structs.replace(entry, shift_frames=None)).gmacs


# --- BGR -----------------------------------------------------------------------------------------------------------

#: Of different values in each channel, so that none can stand for another.
BGR = registry.Normalisation(order="BGR", mean=(0.4, 0.45, 0.5), std=(0.1, 0.2, 0.3), about="Caffe")


@pytest.fixture(scope="module")
def bgr() -> tuple[registry.Registry, Network]:
    zoo = msgspec.structs.replace(ZOO, normalisations=ZOO.normalisations | {"bgr": BGR})
    entry = msgspec.structs.replace(ZOO.find("tsm_mbv2_motion"), frames=2, size=32, width=0.25, normalisation="bgr")
    return zoo, Network(entry, lively(models.build(entry, seed=1)), "random")


PIXELS = np.random.default_rng(3).integers(0, 256, (1, 2, 3, 32, 32), dtype=np.uint8)


def normalised_by_hand() -> Tensor:
    red, green, blue = (PIXELS[:, :, channel].astype("float64") / 255 for channel in range(3))
    planes = [(plane - m) / s for plane, m, s in zip((blue, green, red), BGR.mean, BGR.std, strict=True)]
    return torch.from_numpy(np.stack(planes, 2).astype("float32"))


def test_what_a_network_of_bgr_is_fed(bgr: tuple[registry.Registry, Network]) -> None:
    contract = describe(*bgr)
    assert contract.channel_order == "BGR"
    assert "BGR" in contract.main_input.meaning
    np.testing.assert_allclose(feed(PIXELS, contract), normalised_by_hand().numpy(), rtol=1e-6, atol=1e-6)
    assert np.array_equal(PIXELS, PIXELS.copy()), "what the caller gave stays"


def test_training_feeds_bgr_too() -> None:
    got = batches.Normalize(BGR, torch.device("cpu"))(torch.from_numpy(PIXELS))
    torch.testing.assert_close(got, normalised_by_hand())
    rgb = msgspec.structs.replace(BGR, order="RGB", mean=BGR.mean[::-1], std=BGR.std[::-1])
    torch.testing.assert_close(batches.Normalize(rgb, torch.device("cpu"))(torch.from_numpy(PIXELS)), got.flip(2))


@pytest.mark.parametrize("last", [True, False], ids=["channels last", "channels first"])
@torch.no_grad()
def test_a_file_that_normalises_takes_rgb(bgr: tuple[registry.Registry, Network], last: bool) -> None:
    zoo, network = bgr
    contract = describe(zoo, network, preprocess="embedded")
    assert "RGB" in contract.main_input.meaning
    assert "BGR" not in contract.main_input.meaning
    assert np.array_equal(feed(PIXELS, contract), PIXELS)
    wanted = ClipModel(network.backbone, 2)(normalised_by_hand())
    form = SingleClip(network.backbone, 2)
    embedded = Deployed(form, BGR.mean, BGR.std, channels_last=last, bgr=True)
    clip = torch.from_numpy(PIXELS)
    (got,) = embedded(clip[0].permute(0, 2, 3, 1) if last else clip)
    assert close(got, wanted, 1e-4)
    (wrong,) = Deployed(form, BGR.mean, BGR.std, channels_last=False)(clip)
    assert not close(wrong, wanted, 1e-3)


# --- the registry ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": "densenet161"}, ("densenet161 has no shift", "mobileone_s4")),
        ({"backbone": "resnet50_i3d"}, ("resnet50_i3d is not for family tsm",)),
        ({"backbone": "mobileone_s4"}, ("mobileone_s4 is shifted in-place alone",)),
        ({"backbone": "bninception"}, ("bninception is shifted in-place alone",)),
        ({"shift_frames": 3}, ("shift_frames 3 does not divide", "8")),
        ({"shift_frames": 16}, ("shift_frames 16 does not divide",)),
        ({"family": "tsn", "shift_div": 4}, ("for family tsm",)),
        ({"family": "tsn", "shift_place": "in-place"}, ("for family tsm",)),
        ({"family": "tsn", "shift_frames": 4}, ("for family tsm",)),
        ({"format": "torchvision"}, ("torchvision", "image network")),
        ({"shift_place": "somewhere"}, ("shift_place",)),
        ({"shift_div": 1}, ("shift_div", ">= 2")),
    ],
)
def test_wrong_options_are_one_line(changes: dict[str, Any], words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    entry = msgspec.to_builtins(msgspec.structs.replace(ZOO.find("tsm_r50_k400_8f"), id="own", results=())) | changes
    path.write_text(yaml.safe_dump({"models": [entry]}), encoding="utf-8")
    with pytest.raises(RegistryError) as caught:
        registry.load(path)
    message = str(caught.value)
    assert "'own'" in message
    assert "\n" not in message
    for word in words:
        assert re.search(re.escape(word), message), message


@pytest.mark.parametrize(
    "changes",
    [
        {"shift_div": 2, "shift_place": "in-place", "shift_frames": 4},
        {"backbone": "mobileone_s4", "shift_place": "in-place"},
        {"backbone": "resnext101_32x4d"},
        {"backbone": "bninception", "family": "tsn"},
        {"backbone": "densenet161", "family": "tsn"},
    ],
)
def test_right_options_are_taken(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    entry = msgspec.to_builtins(msgspec.structs.replace(ZOO.find("tsm_r50_k400_8f"), id="own", results=())) | changes
    path.write_text(yaml.safe_dump({"models": [entry]}), encoding="utf-8")
    found = registry.load(path).find("own")
    assert {key: getattr(found, key) for key in changes} == changes
    models.build(found)


def test_a_card_tells_the_options() -> None:
    shown = info.text(
        info.info(
            ZOO,
            msgspec.structs.replace(ZOO.find("tsm_r50_k400_8f"), shift_div=4, shift_place="in-place", shift_frames=2),
        )
    )
    assert "bidirectional shift of 1/4 in place among 2 frames" in shown
