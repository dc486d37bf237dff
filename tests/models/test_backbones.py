"""The 2-D backbones against second implementations by hand, the shift's options, and the channel order of BGR networks.

The figures are those of the publishers' networks, as counted on the publishers' own code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tsmzoo import models, registry
from tsmzoo.artifact.arrays import feed
from tsmzoo.catalog import info
from tsmzoo.errors import RegistryError, ZooError
from tsmzoo.exporting.graph.deploy import Deployed
from tsmzoo.exporting.graph.fold_batchnorm import fold_batch_norm
from tsmzoo.inference.describe import describe
from tsmzoo.inference.torch_runner import torch_model
from tsmzoo.models.flops import count
from tsmzoo.models.mobilenet_v2 import InvertedResidual
from tsmzoo.models.mobileone import MobileOneBlock
from tsmzoo.models.resnet import BasicBlock, Bottleneck
from tsmzoo.models.shift import shift_channels_last, shift_clip, shift_clips, shift_clips_forward
from tsmzoo.models.wrappers import ClipModel, SingleClip, StreamStep, state_shapes
from tsmzoo.registry import Entry
from tsmzoo.training import loop
from tsmzoo.weights.load import Network

ZOO = registry.load()


class Facts(NamedTuple):
    #: Without the classifier.
    params: int
    #: Of a checkpoint, with batch norms' counters and without.
    tensors: int
    without_counters: int
    features: int
    #: A frame of 224 pixels, in thousand millions; batch norms count, two for each of their numbers.
    gmacs: float
    #: Parameters of a published checkpoint, and its classes.
    published: tuple[int, int]


FACTS = {
    "resnet18": Facts(11_176_512, 122, 102, 512, 1.8188, (11_555_619, 739)),
    "resnet50": Facts(23_508_032, 320, 267, 2048, 4.1103, (24_327_632, 400)),
    "resnet101": Facts(42_500_160, 626, 522, 2048, 7.8327, (42_856_686, 174)),
    "resnext101_32x4d": Facts(42_128_704, 626, 522, 2048, 8.0113, (42_948_304, 400)),
    "mobilenet_v2": Facts(2_223_872, 314, 262, 1280, 0.3134, (2_736_272, 400)),
    "mobileone_s4": Facts(12_902_248, 610, 511, 2048, 3.0397, (13_721_848, 400)),
    "densenet161": Facts(26_472_000, 967, 806, 2208, 7.7855, (27_355_600, 400)),
    "bninception": Facts(10_270_240, 485, 416, 1024, 2.0395, (10_680_240, 400)),
}
#: Those that a TSM may have, and where the shift may stand.
SHIFTED: list[tuple[str, str]] = [
    (backbone, place) for backbone, places in registry.SHIFT_PLACES.items() for place in places
]
#: The same but for the deep ones, which are no other class.
SMALL = [(backbone, place) for backbone, place in SHIFTED if backbone not in ("resnet101", "resnext101_32x4d")]


def entry_of(backbone: str, **changes: Any) -> Entry:
    """A TSM of four frames, in the place that the backbone has first; a TSN where it has none."""
    places = registry.SHIFT_PLACES.get(backbone)
    plain: dict[str, Any] = {"backbone": backbone, "frames": 4, "size": 64, "family": "tsm" if places else "tsn"}
    if places:
        plain["shift_place"] = places[0]
    return msgspec.structs.replace(ZOO.find("tsm_r50_k400_8f"), **(plain | changes))


def lively(net: nn.Module) -> nn.Module:
    """Return `net`, its batch norms as if videos had gone through."""
    generator = torch.Generator().manual_seed(4)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            with torch.no_grad():
                module.bias.normal_(0, 0.1, generator=generator)
    return net


def random_clip(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(got: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((got - wanted).abs().max() <= tolerance * (wanted.max() - wanted.min()))


def by_definition(x: Tensor, fold: int) -> Tensor:
    """TSM of one clip, T, C, H, W, frame by frame and channel by channel."""
    out = x.clone()
    for t in range(len(x)):
        for c in range(min(fold, x.shape[1])):
            out[t, c] = x[t + 1, c] if t + 1 < len(x) else 0
        for c in range(fold, min(2 * fold, x.shape[1])):
            out[t, c] = x[t - 1, c] if t > 0 else 0
    return out


def still(x: Tensor, fold: int) -> Tensor:  # noqa: ARG001 - a shift that shifts nothing
    return x


# --- figures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", FACTS)
def test_parameters_and_tensors_are_the_publishers(backbone: str) -> None:
    facts = FACTS[backbone]
    parameters, classes = facts.published
    net = models.build(entry_of(backbone, classes=classes))
    _, head = models.classifier(net)
    assert head.weight.shape == (classes, facts.features)
    assert sum(p.numel() for p in net.parameters()) == parameters == facts.params + (facts.features + 1) * classes
    names = net.state_dict().keys()
    assert (len(names), sum(not name.endswith("num_batches_tracked") for name in names)) == facts[1:3]


@pytest.mark.parametrize("backbone", FACTS)
def test_multiplications_are_the_publishers(backbone: str) -> None:
    """But for batch norms, which we count as free and the figures do not."""
    entry, facts = entry_of(backbone, size=224, classes=400), FACTS[backbone]
    normed = 0

    def add(_: nn.Module, __: Any, out: Tensor) -> None:
        nonlocal normed
        normed += out.numel()

    net = models.build(entry)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(add)
    with torch.no_grad():
        net(torch.empty(1, 3, 224, 224, device="meta"), 1, still)
    counted = count(entry).gmacs / entry.frames
    assert counted < facts.gmacs
    # Their heads have other classes, some count the head's pool: less than half a thousandth.
    assert counted + 2 * normed / 1e9 == pytest.approx(facts.gmacs, rel=5e-4)


@pytest.mark.parametrize("backbone", FACTS)
@torch.no_grad()
def test_random_weights_give_sane_logits(backbone: str) -> None:
    logits = ClipModel(models.build(entry_of(backbone), seed=1), 4)(random_clip(2, 4, 3, 64, 64))
    assert logits.isfinite().all()
    assert 0.03 < float(logits.std()) < 30
    assert not close(logits[0], logits[1], 1e-2)


# --- second implementations, by hand ---------------------------------------------------------------------------------


class ByHand:
    """Layers by name from a state dict, as functions."""

    def __init__(self, net: nn.Module) -> None:
        self.state = net.state_dict()

    def conv(self, name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), stride, weight.shape[-1] // 2, 1, groups)

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            self.state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def head(self, name: str, x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def has(self, prefix: str) -> bool:
        return any(key.startswith(prefix) for key in self.state)


def resnet(hand: ByHand, x: Tensor, groups: int) -> Tensor:
    x = F.max_pool2d(hand.norm("bn1", hand.conv("conv1", x, 2)).relu(), 3, 2, 1)
    bottleneck = hand.has("layer1.0.conv3")
    for layer in (1, 2, 3, 4):
        block = 0
        while hand.has(name := f"layer{layer}.{block}."):
            stride = 2 if layer > 1 and block == 0 else 1
            strides, grouped = ((1, stride, 1), (1, groups, 1)) if bottleneck else ((stride, 1), (1, 1))
            y = x
            for index, (s, g) in enumerate(zip(strides, grouped, strict=True), start=1):
                y = hand.norm(f"{name}bn{index}", hand.conv(f"{name}conv{index}", y, s, g))
                y = y.relu() if index < len(strides) else y
            if hand.has(f"{name}downsample"):
                x = hand.norm(f"{name}downsample.1", hand.conv(f"{name}downsample.0", x, stride))
            x = (x + y).relu()
            block += 1
    return hand.head("fc", x)


def densenet(hand: ByHand, x: Tensor) -> Tensor:
    x = F.max_pool2d(hand.norm("features.norm0", hand.conv("features.conv0", x, 2)).relu(), 3, 2, 1)
    for block, layers in enumerate((6, 12, 36, 24), start=1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}."
            y = hand.conv(f"{name}conv1", hand.norm(f"{name}norm1", x).relu())
            x = torch.cat([x, hand.conv(f"{name}conv2", hand.norm(f"{name}norm2", y).relu())], 1)
        if block < 4:
            name = f"features.transition{block}."
            x = F.avg_pool2d(hand.conv(f"{name}conv", hand.norm(f"{name}norm", x).relu()), 2, 2)
    return hand.head("classifier", hand.norm("features.norm5", x))


def bninception(hand: ByHand, x: Tensor) -> Tensor:
    def unit(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return hand.norm(f"{name}_bn", hand.conv(name, x, stride)).relu()

    def halve(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    x = halve(unit("conv1_7x7_s2", x, 2))
    x = halve(unit("conv2_3x3", unit("conv2_3x3_reduce", x)))
    for module in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        name = f"inception_{module}_"
        stride = 2 if module in ("3c", "4e") else 1
        parts = [
            unit(f"{name}3x3", unit(f"{name}3x3_reduce", x), stride),
            unit(f"{name}double_3x3_2", unit(f"{name}double_3x3_1", unit(f"{name}double_3x3_reduce", x)), stride),
        ]
        if stride == 2:
            x = torch.cat([*parts, halve(x)], 1)
            continue
        pooled = F.max_pool2d(x, 3, 1, 1) if module == "5b" else F.avg_pool2d(x, 3, 1, 1, count_include_pad=True)
        x = torch.cat([unit(f"{name}1x1", x), *parts, unit(f"{name}pool_proj", pooled)], 1)
    return hand.head("fc", x)


def mobileone_block(hand: ByHand, name: str, x: Tensor, stride: int, depthwise: bool) -> Tensor:
    groups = x.shape[1] if depthwise else 1
    y = hand.norm(f"{name}conv_kxk.0.bn", hand.conv(f"{name}conv_kxk.0.conv", x, stride, groups))
    if hand.has(f"{name}conv_scale"):
        y = y + hand.norm(f"{name}conv_scale.bn", hand.conv(f"{name}conv_scale.conv", x, stride, groups))
    if hand.has(f"{name}identity"):
        y = y + hand.norm(f"{name}identity", x)
    if hand.has(f"{name}attn"):
        squeezed = hand.conv(f"{name}attn.fc1", y.mean((2, 3), keepdim=True)).relu()
        y = y * torch.sigmoid(hand.conv(f"{name}attn.fc2", squeezed))
    return y.relu()


def mobileone(hand: ByHand, x: Tensor) -> Tensor:
    x = mobileone_block(hand, "stem.", x, 2, False)
    for stage, blocks in enumerate((4, 16, 20, 2)):
        for block in range(blocks):
            x = mobileone_block(hand, f"stages.{stage}.{block}.", x, 1 if block else 2, block % 2 == 0)
    return hand.head("head.fc", x)


@pytest.mark.parametrize(
    ("backbone", "by_hand"),
    [
        ("resnet18", lambda hand, x: resnet(hand, x, 1)),
        ("resnext101_32x4d", lambda hand, x: resnet(hand, x, 32)),
        ("densenet161", densenet),
        ("bninception", bninception),
        ("mobileone_s4", mobileone),
    ],
)
@torch.no_grad()
def test_network_is_as_by_hand(backbone: str, by_hand: Callable[[ByHand, Tensor], Tensor]) -> None:
    net, x = lively(models.build(entry_of(backbone, family="tsn"), seed=2)), random_clip(2, 3, 96, 64)
    assert close(net(x, 1, still), by_hand(ByHand(net), x), 1e-4)


def test_gates_stand_where_the_publishers_have_them() -> None:
    net = models.build(entry_of("mobileone_s4"))
    gates = [name for name, block in net.named_modules() if isinstance(block, MobileOneBlock) and block.attn.children()]
    gates = [name for name in gates if any(True for _ in net.get_submodule(f"{name}.attn").parameters())]
    assert gates == [*(f"stages.2.{block}" for block in range(10, 20)), "stages.3.0", "stages.3.1"]


@pytest.mark.parametrize("size", [33, 100, 224, 250])
@torch.no_grad()
def test_bninception_takes_any_size(size: int) -> None:
    """Where the publishers' pools and convolutions of odd sides disagree, too."""
    net = models.build(entry_of("bninception", classes=4))
    assert net(torch.empty(1, 3, size, size, device="meta"), 1, still).shape == (1, 4)


# --- folding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", FACTS)
@torch.no_grad()
def test_folded_network_computes_the_same(backbone: str) -> None:
    net, clip = lively(models.build(entry_of(backbone), seed=3)), random_clip(1, 4, 3, 64, 64)
    folded = fold_batch_norm(net)
    left = [name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)]
    # DenseNet's norms stand in front of ReLUs: one of each layer, of each transition, and the last.
    assert len(left) == (78 + 3 + 1 if backbone == "densenet161" else 0)
    assert not any("norm0" in name or "norm2" in name for name in left)
    assert close(ClipModel(folded, 4)(clip), ClipModel(net, 4)(clip), 1e-5)


@pytest.mark.parametrize(
    ("widths", "kernel", "stride", "depthwise"),
    [
        ((12, 12), 3, 1, True),
        ((12, 12), 3, 2, True),
        ((12, 12), 1, 1, False),
        ((12, 20), 1, 1, False),
        ((3, 8), 3, 2, False),
    ],
)
@torch.no_grad()
def test_branches_of_a_block_become_one_convolution(
    widths: tuple[int, int], kernel: int, stride: int, depthwise: bool
) -> None:
    in_width, out_width = widths
    block = MobileOneBlock(in_width, out_width, kernel, stride, in_width if depthwise else 1, 0, gated=False)
    lively(block.eval())
    x = random_clip(2, in_width, 9, 8)
    hand = ByHand(block)
    wanted = block(x, still)
    assert close(wanted, mobileone_block(hand, "", x, stride, depthwise))
    block.fuse()
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.kernel_size for conv in convolutions] == [(kernel, kernel)]
    assert close(block(x, still), wanted, 1e-5)


def test_folded_mobileone_is_plain_convolutions() -> None:
    folded = fold_batch_norm(models.build(entry_of("mobileone_s4"), seed=0))
    parts = {type(module) for module in folded.modules() if not list(module.children())}
    assert parts == {nn.Conv2d, nn.Identity, nn.Linear, nn.Dropout, nn.ModuleList}
    # One a block, and two a gate.
    assert sum(isinstance(module, nn.Conv2d) for module in folded.modules()) == 43 + 2 * 12


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


@pytest.mark.parametrize(("backbone", "place"), SHIFTED)
@pytest.mark.parametrize("div", [8, 2, 3, 100])
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


@pytest.mark.parametrize(("backbone", "place"), SMALL)
@torch.no_grad()
def test_forms_agree(backbone: str, place: str) -> None:
    net = lively(models.build(entry_of(backbone, shift_place=place, shift_div=4, classes=9), seed=5))
    clips = random_clip(2, 3, 3, 32, 32)
    together = ClipModel(net, 3)(clips)
    assert close(torch.cat([SingleClip(net, 3)(clip) for clip in clips]), together)
    assert not close(ClipModel(net, 3)(clips[:, [1, 0, 2]]), together, 1e-3), "the order of frames must count"


@pytest.mark.parametrize(("backbone", "place"), SMALL)
@pytest.mark.parametrize("div", [8, 3])
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


@pytest.fixture(scope="module")
def grouped() -> tuple[Entry, nn.Module]:
    """A small network whose clips of 6 frames shift as three groups of 2."""
    entry = msgspec.structs.replace(ZOO.find("tsm_mbv2_motion"), frames=6, shift_frames=2, size=32, width=0.25)
    return entry, lively(models.build(entry, seed=1))


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
    got = loop._Normalise(BGR, torch.device("cpu"))(torch.from_numpy(PIXELS))
    torch.testing.assert_close(got, normalised_by_hand())
    rgb = msgspec.structs.replace(BGR, order="RGB", mean=BGR.mean[::-1], std=BGR.std[::-1])
    torch.testing.assert_close(loop._Normalise(rgb, torch.device("cpu"))(torch.from_numpy(PIXELS)), got.flip(2))


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
