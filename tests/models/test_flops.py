"""Multiply-accumulates and parameters: counted by fvcore, by torch, by hand, and as the registry has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

import msgspec
import pytest
import torch
from torch import Tensor, nn

from tsmzoo import models, registry
from tsmzoo.models.flops import count
from tsmzoo.registry import Entry
from tsmzoo.registry.schema import Backbone

ZOO = registry.load()

# --- by hand: the arithmetic of the papers' tables, of no module of ours ---------------------------------------------


def half(side: int) -> int:
    """Side after stride 2, padded as everywhere in these networks."""
    return (side + 1) // 2


def resnet_macs(entry: Entry, size: int, frames: int) -> int:
    """He et al., Table 1, stride on the 3x3 convolution; Wang et al., Non-local Neural Networks, § 3."""
    side = half(size)
    total = frames * side**2 * 64 * entry.channels * 7**2
    side, width_in = half(side), 64  # max pooling
    depths = (3, 4, 23, 3) if entry.backbone == "resnet101" else (3, 4, 6, 3)
    for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), depths, strict=True)):
        width_out = 4 * width
        for block in range(blocks):
            before, side = side, half(side) if stage and not block else side
            per_pixel = 9 * width * width + width * width_out + (0 if block else width_in * width_out)
            total += frames * (before**2 * width_in * width + side**2 * per_pixel)
            width_in = width_out
            if entry.non_local and block % 2 == 0 and stage in (1, 2):
                total += non_local_macs(entry.non_local, width_out, side, frames)
    return total + frames * 2048 * entry.classes


def non_local_macs(mode: str, width: int, side: int, frames: int) -> int:
    pixels, pooled, inner = frames * side**2, frames * (side // 2) ** 2, width // 2
    projections = 2 if mode == "gaussian" else 4  # g and out, theta and phi
    similarity = width if mode == "gaussian" else inner
    return projections * pixels * width * inner + pixels * pooled * (similarity + inner)


#: Channels of MobileNetV2 by its multiplier: multiples of 8, no more than a tenth too few (Sandler et al., § 3.3).
WIDTHS = {
    1: {channels: channels for channels in (16, 24, 32, 64, 96, 160, 320)},
    0.35: {16: 8, 24: 8, 32: 16, 64: 24, 96: 32, 160: 56, 320: 112},
}


def mobilenet_macs(entry: Entry, size: int, frames: int) -> int:
    """Sandler et al., Table 2; the last layer is never narrowed."""
    widths = WIDTHS[entry.width]
    side, width_in = half(size), widths[32]
    total = side**2 * width_in * entry.channels * 3**2
    for expansion, width, blocks, stride in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]:
        for block in range(blocks):
            inner = width_in * expansion
            total += side**2 * width_in * inner if expansion > 1 else 0
            side = half(side) if stride == 2 and not block else side
            total += side**2 * (inner * 3**2 + inner * widths[width])
            width_in = widths[width]
    return frames * (total + side**2 * width_in * 1280 + 1280 * entry.classes)


def basic_macs(entry: Entry, size: int, frames: int) -> int:
    """He et al., Table 1, 18 layers."""
    side = half(size)
    total = side**2 * 64 * entry.channels * 7**2
    side, width_in = half(side), 64
    for width in (64, 128, 256, 512):
        side = side if width == 64 else half(side)
        # Four 3x3, the first of the input's width; a 1x1 in the shortcut where that changes.
        total += side**2 * width * 9 * (width_in + 3 * width)
        total += side**2 * width * width_in if width_in != width else 0
        width_in = width
    return frames * (total + 512 * entry.classes)


def resnext_macs(entry: Entry, size: int, frames: int) -> int:
    """Xie et al., Table 1, with 101 layers: the inner width is twice ResNet's, a channel of the 3x3 sees 1/32 of it."""
    side = half(size)
    total = side**2 * 64 * entry.channels * 7**2
    side, width_in = half(side), 64
    for inner, blocks in ((128, 3), (256, 4), (512, 23), (1024, 3)):
        for block in range(blocks):
            before, side = side, half(side) if inner > 128 and not block else side
            total += before**2 * width_in * inner + side**2 * inner * (9 * inner // 32 + 2 * inner)
            total += 0 if block else side**2 * width_in * 2 * inner
            width_in = 2 * inner
    return frames * (total + 2048 * entry.classes)


def densenet_macs(entry: Entry, size: int, frames: int) -> int:
    """Huang et al., Table 1, 161 layers with k = 48."""
    side, width = half(size), 96
    total = side**2 * width * entry.channels * 7**2
    side = half(side)
    for block, layers in enumerate((6, 12, 36, 24)):
        if block:
            total += side**2 * width * width // 2
            side, width = side // 2, width // 2
        for _ in range(layers):
            total += side**2 * (width * 4 * 48 + 9 * 4 * 48 * 48)
            width += 48
    return frames * (total + width * entry.classes)


def mobileone_macs(entry: Entry, size: int, frames: int) -> int:
    """Vasu et al., Table 3, S4, as it is trained: a 1x1 beside each 3x3."""
    side, width_in = half(size), 64
    total = side**2 * width_in * entry.channels * (9 + 1)
    for width, pairs, gated in ((192, 2, 0), (448, 8, 0), (896, 10, 5), (2048, 1, 1)):
        for pair in range(pairs):
            side = side if pair else half(side)
            total += side**2 * (width_in * (9 + 1) + width_in * width)
            if pair >= pairs - gated:  # there and back, to a sixteenth
                total += 2 * width_in * width_in // 16 + 2 * width * width // 16
            width_in = width
    return frames * (total + width_in * entry.classes)


def bninception_macs(entry: Entry, size: int, frames: int) -> int:
    """Ioffe and Szegedy, Figure 5 (the paper's table of the network), of sizes that halve five times."""
    side = size // 2
    total = side**2 * 64 * entry.channels * 7**2
    side //= 2
    total += side**2 * 64 * (64 + 9 * 192)
    side, width = side // 2, 192
    for one, reduce, three, reduce2, double, pool in (
        *((64, 64, 64, 64, 96, 32), (64, 64, 96, 64, 96, 64), (0, 128, 160, 64, 96, 0)),
        *((224, 64, 96, 96, 128, 128), (192, 96, 128, 96, 128, 128), (160, 128, 160, 128, 160, 128)),
        *((96, 128, 192, 160, 192, 128), (0, 128, 192, 192, 256, 0)),
        *((352, 192, 320, 160, 224, 128), (352, 192, 320, 192, 224, 128)),
    ):
        after = side if one else side // 2
        total += side**2 * width * (one + reduce + reduce2 + pool)
        total += after**2 * 9 * (reduce * three + double * double) + side**2 * 9 * reduce2 * double
        side, width = after, one + three + double + (pool or width)
    return frames * (total + width * entry.classes)


#: Width of the head, and of each stage: its width, and of each block its inner width, reach in time and kernel.
MOVINETS: dict[str, tuple[int, list[tuple[int, str]]]] = {
    "a0": (
        480,
        [
            *((8, "24 1 5"), (32, "80, 80, 80"), (56, "184 5, 112, 184"), (56, "184 5, 184, 184, 184")),
            (104, "384 5, 280 1 5, 280 1 5, 344 1 5"),
        ],
    ),
    "a1": (
        600,
        [
            *((16, "40 1 5, 40"), (40, "96, 120, 96, 96"), (64, "216 5, 128, 216, 168, 216")),
            (64, "216 5, 216, 216, 128, 128 1 5, 216"),
            (136, "456 5, 360 1 5, 360 1 5, 360 1 5, 456 1 5, 456, 544 1 3"),
        ],
    ),
    "a2": (
        640,
        [
            *((16, "40 1 5, 40, 64"), (40, "96, 120, 96, 96, 120"), (72, "240 5, 160, 240, 192, 240")),
            (72, "240 5, 240, 240, 240, 144 1 5, 240"),
            (144, "480 5, 384 1 5, 384 1 5, 480 1 5, 480 1 5, 480, 576 1 3"),
        ],
    ),
}


def movinet_macs(entry: Entry, size: int, frames: int) -> int:
    """Kondratyuk et al., Tables 6 and 7, and § 3.2: a stream filters space, then time, and squeezes two means."""
    _, name, kind = entry.backbone.split("_")
    head, stages = MOVINETS[name]
    stream = kind == "stream"
    clips = frames if stream else 1  # a base network squeezes and answers once
    side, width_in = half(size), stages[0][0]
    total = frames * side**2 * width_in * entry.channels * 9
    for stage, (width, blocks) in enumerate(stages):
        for index, block in enumerate(blocks.split(", ")):
            inner, reach, kernel = (*map(int, block.split()), *(3, 3)[block.count(" ") :])[:3]
            before, side = side, half(side) if stage != 3 and index == 0 else side
            taps = kernel**2 + (reach if reach > 1 else 0) if stream else reach * kernel**2
            total += frames * (before**2 * width_in * inner + side**2 * inner * (taps + width))
            squeezed = 2 * inner if stream else inner
            hidden = max(8, (squeezed // 4 + 4) // 8 * 8)
            hidden += 8 if hidden < 0.9 * (squeezed // 4) else 0  # no more than a tenth too few
            total += clips * hidden * (squeezed + inner)
            total += frames * side**2 * width_in * width if before != side or width_in != width else 0
            width_in = width
    return total + frames * side**2 * width_in * head + clips * 2048 * (head + entry.classes)


FORMULAS = {
    "resnet18": basic_macs,
    "resnext101_32x4d": resnext_macs,
    "mobilenet_v2": mobilenet_macs,
    "mobileone_s4": mobileone_macs,
    "densenet161": densenet_macs,
    "bninception": bninception_macs,
}


#: Which blocks of ResNet-50 are inflated (Wang et al., Non-local Neural Networks, § 4.1: one kernel for two blocks).
SOME, ALL = ((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0)), ((1,) * 3, (1,) * 4, (1,) * 6, (1,) * 3)
#: Reach of the stem, whether it and its pool halve T, whether the second pool does, blocks, and which kernel reaches.
INFLATIONS = {
    "resnet50_i3d": (5, True, True, SOME, 1),
    "resnet50_i3d_heavy": (5, False, True, ALL, 1),
    "resnet50_i3d_8x8": (5, False, True, SOME, 1),
    "resnet50_i3d_3x3x3": (5, True, True, SOME, 3),
    "resnet50_i3d_replace": (1, False, False, ALL, 1),
}


def inflated_macs(entry: Entry, size: int, frames: int) -> int:
    """Wang et al., Table 1 and § 4.1; the publishers' configurations for the rest."""
    stem, fast, halved, inflated, kernel = INFLATIONS[entry.backbone]
    side, t = half(size), half(frames) if fast else frames
    total = t * side**2 * 64 * entry.channels * stem * 7**2
    side, t, width_in = half(side), half(t) if fast else t, 64
    for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), inflated, strict=True)):
        t = t // 2 if stage == 1 and halved else t
        for block, reaches in enumerate(blocks):
            before, side = side, half(side) if stage and not block else side
            first, second = (3 if reaches and kernel == k else 1 for k in (1, 3))
            per_pixel = second * 9 * width**2 + width * 4 * width + (0 if block else width_in * 4 * width)
            total += t * (before**2 * first * width_in * width + side**2 * per_pixel)
            width_in = 4 * width
            if entry.non_local and block % 2 and stage in (1, 2):
                total += non_local_macs(entry.non_local, width_in, side, t)
    return total + 2048 * entry.classes


def inception_macs(entry: Entry, size: int, frames: int) -> int:
    """Szegedy et al., Going Deeper with Convolutions, Table 1, every kernel as long as it is wide."""
    side, t = half(size), half(frames)
    total = t * side**2 * 64 * entry.channels * 7**3
    side = half(side)
    total += t * side**2 * 64 * (64 + 27 * 192)
    side, width = half(side), 192
    for index, (one, reduce, three, reduce2, five, pool) in enumerate(
        (
            *((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
            *((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64)),
            *((112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)),
            *((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
        )
    ):
        if index in (2, 7):  # 4b and 5b
            side, t = half(side), half(t)
        total += t * side**2 * (width * (one + reduce + reduce2 + pool) + 27 * (reduce * three + reduce2 * five))
        width = one + three + five + pool
    return total + width * entry.classes


#: By stage of X3D: blocks, inner width, width, hidden width of the squeeze.
X3D = ((3, 54, 24, 8), (5, 108, 48, 8), (11, 216, 96, 16), (7, 432, 192, 32))
X3D_L = tuple((blocks, *rest) for blocks, (_, *rest) in zip((5, 10, 25, 15), X3D, strict=True))
#: Side of the window of the head, of PyTorchVideo's networks.
X3D_WINDOWS = {"xs": 5, "s": 5, "m": 7, "l": 10}


def x3d_macs(entry: Entry, size: int, frames: int) -> int:
    """Feichtenhofer, Table 1, and the sides, rounded up; PyTorchVideo's head answers at each place of its window."""
    side, width_in = half(size), 24
    total = frames * side**2 * 24 * (entry.channels * 9 + 5)
    for blocks, inner, width, hidden in X3D_L if "x3d_l" in entry.backbone else X3D:
        for block in range(blocks):
            before, side = side, half(side) if block == 0 else side
            total += frames * (before**2 * width_in * inner + side**2 * inner * (27 + width))
            total += frames * side**2 * width_in * width if block == 0 else 0
            total += 2 * inner * hidden if block % 2 == 0 else 0
            width_in = width
    _, name, *windowed = entry.backbone.split("_") if "_windowed" in entry.backbone else ("x3d", "")
    places = (side - X3D_WINDOWS[name] + 1) ** 2 if windowed else 1
    return total + frames * side**2 * 192 * 432 + places * (432 * 2048 + 2048 * entry.classes)


#: Networks of whole clips, which cost otherwise than their frames alone.
VOLUMES = {"inception_v1_i3d": inception_macs} | dict.fromkeys(INFLATIONS, inflated_macs)
VOLUMES |= {f"movinet_{size}_{kind}": movinet_macs for size in MOVINETS for kind in ("base", "stream")}
VOLUMES |= dict.fromkeys([name for name in get_args(Backbone) if name.startswith("x3d")], x3d_macs)


def by_hand(entry: Entry, size: int | None = None, frames: int | None = None) -> int:
    formula = (FORMULAS | VOLUMES).get(entry.backbone, resnet_macs)
    return formula(entry, size or entry.size, frames or entry.frames)


def digits(entry: Entry) -> int:
    """Return to how many digits the registry has GMACs: to four, or to the last multiplication."""
    return max(4, len(repr(entry.gmacs).partition(".")[2]))


def at(name: str, size: int, frames: int) -> Entry:
    return msgspec.structs.replace(ZOO.find(name), size=size, frames=frames)


# --- counts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ZOO.models, ids=lambda entry: entry.id)
def test_registry_holds_the_sum_by_hand(entry: Entry) -> None:
    assert entry.gmacs == round(by_hand(entry) / 1e9, digits(entry))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("tsm_r101_sthv2", 64, marks=pytest.mark.slow),
        ("tsm_mbv2_k400", 90),
        ("tsm_mbv2_online", 64),
        ("tsm_r50_k400_flow", 64),
        ("tsm_r50_nl_k400", 90),
        pytest.param("tsm_r50_nl_gaussian_k400_8f", 64, marks=pytest.mark.slow),
    ],
)
def test_count_is_the_sum_by_hand(name: str, size: int) -> None:
    online = ZOO.find(name).mode == "online"
    entry = at(name, size, 1 if online else 3)
    counted = count(entry)
    assert counted.gmacs * 1e9 == pytest.approx(by_hand(entry), rel=1e-12)
    frame = (entry.channels, size, size)
    assert counted.input_shape == ((1, *frame) if online else (1, 3, *frame))


@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("densenet161", "resnext101_32x4d") else ())
        for name in FORMULAS
    ],
)
def test_count_of_each_backbone_is_the_sum_by_hand(backbone: str) -> None:
    entry = msgspec.structs.replace(at("tsn_r50_k400", 64, 3), backbone=backbone)
    assert count(entry).gmacs * 1e9 == pytest.approx(by_hand(entry), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "size", "frames"),
    [
        *(("i3d_r50_nl_gaussian_k400", 64, 9), ("i3d_inception_k400_rgb", 96, 7)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                *((name, 64, 9) for name in ("i3d_r50_k400", "i3d_r50_heavy_k400", "i3d_r50_3x3x3")),
                *(("i3d_r50_k400_8x8", 90, 4), ("i3d_r50_replace_8f", 64, 3), ("i3d_r50_nl_dot_product_k400", 90, 8)),
                ("i3d_inception_charades_flow", 64, 16),
            )
        ),
    ],
)
def test_count_of_a_volume_is_the_sum_by_hand(name: str, size: int, frames: int) -> None:
    entry = at(name, size, frames)
    assert count(entry).gmacs * 1e9 == pytest.approx(by_hand(entry), rel=1e-12)


@pytest.mark.parametrize("entry", [entry for entry in ZOO.models if entry.published_gmacs], ids=lambda entry: entry.id)
def test_published_cost_is_ours_or_explained(entry: Entry) -> None:
    """On its own basis, to a hundredth or its last digit; publishers count batch norm too, as small networks show."""
    published = entry.published_gmacs
    assert published is not None
    basis = re.search(r"(\d+) (?:frames|flow stacks) at (\d+)x\2", published.basis or "")
    assert basis
    frames, size = int(basis[1]), int(basis[2])
    ours = by_hand(entry, size, frames)
    if "attention matrix products not counted" in (published.basis or ""):
        assert entry.non_local
        ours -= sum(products(entry.non_local, size, frames // 8 if entry.family == "i3d" else frames))
    off = abs(ours / 1e9 - published.value)
    told = any("published GMACs" in line for line in (*entry.notes, *entry.doubt))
    rounded = published.value == round(published.value) and off <= 0.5
    assert rounded or (off / published.value <= 0.01) != told, f"{ours / 1e9:.3f} for {published.value}"


def products(mode: str, size: int, frames: int) -> Iterator[int]:
    """Yield the matrix products of mmaction2's five non-local blocks, at eighths and sixteenths of the size."""
    for width, side, blocks in ((512, size // 8, 2), (1024, size // 16, 3)):
        pixels, pooled = frames * side**2, frames * (side // 2) ** 2
        yield blocks * pixels * pooled * (width // 2 + (width if mode == "gaussian" else width // 2))


@pytest.mark.parametrize(
    ("name", "low", "high", "parameters"),
    [
        ("tsm_r50_k400_8f", 32.7, 32.9, 24_327_632),  # TSM, Table 1: 33 G, 24.3 M
        ("tsm_mbv2_k400", 2.35, 2.45, 2_736_272),
    ],
)
@pytest.mark.slow
def test_published_costs(name: str, low: float, high: float, parameters: int) -> None:
    entry = ZOO.find(name)
    counted = count(entry)
    assert low < counted.gmacs < high
    assert counted.gmacs * 1e9 == pytest.approx(by_hand(entry), rel=1e-12)
    assert round(counted.mparams * 1e6) == parameters


def test_sixteen_frames_cost_twice_eight() -> None:
    """TSM, Table 1: 65 G of 16 frames."""
    eight, sixteen = ZOO.find("tsm_r50_k400_8f"), ZOO.find("tsm_r50_k400_16f")
    assert 65 < sixteen.gmacs < 66
    assert sixteen.gmacs == pytest.approx(2 * eight.gmacs, abs=1e-3)


def network(entry: Entry) -> tuple[object, ...]:
    """Return all that a cost depends on."""
    key = (entry.backbone, entry.width, entry.shift, entry.non_local, entry.classes, entry.channels)
    return (*key, entry.frames, entry.size, entry.format if entry.non_local else None)


@pytest.mark.parametrize("entry", {entry.family: entry for entry in ZOO.models}.values(), ids=lambda entry: entry.id)
def test_torch_counts_each_family_as_the_registry_says(entry: Entry, torch_macs: Callable[..., int]) -> None:
    assert round(torch_macs(entry) / 1e9, digits(entry)) == entry.gmacs


@pytest.mark.slow
@pytest.mark.parametrize("entry", {network(entry): entry for entry in ZOO.models}.values(), ids=lambda entry: entry.id)
def test_every_network_counts_as_the_registry_says(entry: Entry, torch_macs: Callable[..., int]) -> None:
    counted = count(entry)
    assert round(counted.gmacs, digits(entry)) == entry.gmacs
    assert round(counted.gmacs * 1e9) == torch_macs(entry) == by_hand(entry, entry.size)
    assert round(counted.mparams * 1e6) == entry.params


def test_shift_is_free() -> None:
    tsn, tsm = (count(at(name, 32, 2)) for name in ("tsn_r50_k400", "tsm_r50_k400_8f"))
    assert (tsn.gmacs, tsn.mparams) == (tsm.gmacs, tsm.mparams)


def test_modules_add_up() -> None:
    counted = count(at("tsm_mbv2_online", 64, 1))
    leaves = {name for name in counted.modules if not any(other.startswith(f"{name}.") for other in counted.modules)}
    assert sum(counted.modules[name] for name in leaves) == pytest.approx(counted.gmacs)
    assert counted.modules["features.0"] * 1e9 == pytest.approx(32**2 * 32 * 3 * 9)
    assert counted.modules["classifier.1"] * 1e9 == pytest.approx(1280 * 27)


class Odd(nn.Module):
    """A backbone of one operation."""

    def __init__(self, operation: Any) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor, frames: int, shift: Any) -> Tensor:  # noqa: ARG002
        return self.operation(x.mean((2, 3)))


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda x: torch.cumsum(x, 1), id="cumsum"),
        pytest.param(lambda x: torch.fft.rfft(x).abs(), id="fft"),
        pytest.param(lambda x: torch.cdist(x[None], x[None])[0], id="cdist"),
    ],
)
def test_operation_without_a_rule_is_an_error(operation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "build", lambda *_, **__: Odd(operation))
    with pytest.raises(RuntimeError, match="no counting rule for aten::"):
        count(at("tsm_r50_sthv2", 32, 8))


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda x: x @ torch.ones(3, 5), id="matmul"),
        pytest.param(lambda x: torch.mm(x, torch.ones(3, 5)), id="mm"),
        pytest.param(lambda x: torch.addmm(torch.ones(5), x, torch.ones(3, 5)), id="addmm"),
        pytest.param(lambda x: torch.einsum("tc,cd->td", x, torch.ones(3, 5)), id="einsum"),
        pytest.param(lambda x: torch.bmm(x[None], torch.ones(1, 3, 5))[0], id="bmm"),
        pytest.param(lambda x: torch.baddbmm(torch.ones(1), x[None], torch.ones(1, 3, 5))[0], id="baddbmm"),
        pytest.param(lambda x: nn.functional.linear(x, torch.ones(5, 3)), id="linear"),
        pytest.param(lambda x: nn.functional.conv1d(x[:, :, None], torch.ones(5, 3, 1)), id="conv1d"),
    ],
)
def test_products_are_counted_or_refused(operation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a product of 8 x 3 and 3 x 5 is written, it never passes as free."""
    monkeypatch.setattr(models, "build", lambda *_, **__: Odd(operation))
    try:
        counted = count(at("tsm_r50_sthv2", 32, 8))
    except RuntimeError as error:
        assert "no counting rule for aten::" in str(error)  # noqa: PT017
    else:
        assert counted.gmacs * 1e9 == pytest.approx(8 * 3 * 5)
