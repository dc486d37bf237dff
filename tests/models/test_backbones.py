"""The 2-D backbones against second implementations by hand.

The figures are those of the publishers' networks, as counted on the publishers' own code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsmzoo import models, registry
from tsmzoo.exporting.graph.fold_batchnorm import fold_batch_norm
from tsmzoo.models.flops import count
from tsmzoo.models.mobileone import MobileOneBlock
from tsmzoo.models.wrappers import ClipModel, SingleClip, StreamStep, state_shapes
from tsmzoo.weights import checkpoint

from .conftest import FACTS, ByHand, close, entry_of, lively, mobileone_block, random_clip

ZOO = registry.load()


def slow_if_deep(backbones: Iterable[str]) -> list[Any]:
    """Return parameters of a test, of which those of more than a hundred layers are slow."""
    deep = {"resnet101", "resnext101_32x4d", "densenet161"}
    return [pytest.param(name, marks=pytest.mark.slow if name in deep else ()) for name in backbones]


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


@pytest.mark.parametrize("backbone", slow_if_deep(FACTS))
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


@pytest.mark.parametrize("backbone", slow_if_deep(FACTS))
@torch.no_grad()
def test_random_weights_give_sane_logits(backbone: str) -> None:
    logits = ClipModel(models.build(entry_of(backbone), seed=1), 4)(random_clip(2, 4, 3, 64, 64))
    assert logits.isfinite().all()
    assert 0.03 < float(logits.std()) < 30
    assert not close(logits[0], logits[1], 1e-2)


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


@pytest.mark.parametrize("backbone", slow_if_deep(FACTS))
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


# --- a backbone more -------------------------------------------------------------------------------------------------


class Tiny(nn.Module):
    """A backbone that no file of the package knows: one shifted convolution, whose weights start as it says."""

    def __init__(self, classes: int, *, channels: int = 3, shift_div: int = 8, shift_place: str = "residual") -> None:  # noqa: ARG002
        super().__init__()
        self.fold = 16 // shift_div
        self.conv1, self.bn1 = nn.Conv2d(channels, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, classes)

    def init_weights(self) -> None:
        nn.init.constant_(self.bn2.weight, 0.25)

    def forward(self, x: Tensor, frames: int, shift: Any) -> Tensor:  # noqa: ARG002 - as the others take it
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc((x + self.bn2(self.conv2(shift(x, self.fold)))).mean((2, 3)))


def test_a_backbone_needs_a_class_and_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Built, initialized, counted, saved, loaded, folded and run in each form with nothing else said about it."""
    monkeypatch.setitem(models.BACKBONES, "resnet18", Tiny)
    entry = entry_of("resnet18")
    net = models.build(entry, seed=0)
    assert net.bn2.weight.eq(0.25).all()
    assert net.bn1.weight.eq(1).all()
    side = entry.size // 2
    macs = entry.frames * (side**2 * 9 * (3 * 16 + 16 * 16) + 16 * entry.classes)
    assert count(entry).gmacs * 1e9 == pytest.approx(macs)
    checkpoint.save(net, entry, tmp_path / "tiny.safetensors")
    checkpoint.load(net := models.build(entry), entry, tmp_path / "tiny.safetensors")
    assert net.bn2.weight.eq(0.25).all()
    clip = random_clip(1, entry.frames, 3, entry.size, entry.size)
    with torch.no_grad():
        wanted = ClipModel(net, entry.frames)(clip)
        assert close(SingleClip(fold_batch_norm(net), entry.frames)(clip), wanted)
        states = [torch.zeros(shape) for shape in state_shapes(net, 3, entry.size)]
        logits, *states = StreamStep(net)(clip[:, 0], *states)
    assert (logits.shape, [state.shape for state in states]) == ((1, entry.classes), [(1, 2, side, side)])
