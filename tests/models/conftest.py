"""Fixtures and helpers of the tests of networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tsmzoo import models, registry
from tsmzoo.models.movinet import CausalConv
from tsmzoo.models.wrappers import ClipModel
from tsmzoo.registry import Entry


@pytest.fixture(scope="session")
def torch_macs() -> Callable[..., int]:
    """Give a function from an entry to the multiply-accumulates that torch counts, for a clip or an online step.

    It is independent of fvcore, and computes nothing: shapes alone go through the network.
    """

    @cache
    def count(entry: Entry, size: int | None = None, frames: int | None = None) -> int:
        online = entry.mode == "online"
        shape = (1, 1 if online else frames or entry.frames, entry.channels, *[size or entry.size] * 2)
        form = ClipModel(models.build(entry), shape[1], online=online)
        for module in form.modules():
            if isinstance(module, CausalConv):
                module.forward = module.convolve  # type: ignore[method-assign]  # torch counts no other products
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            form(torch.empty(shape, device="meta"))
        return counter.get_total_flops() // 2

    return count


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


@pytest.fixture(scope="module")
def grouped() -> tuple[Entry, nn.Module]:
    """A small network whose clips of 6 frames shift as three groups of 2."""
    entry = msgspec.structs.replace(ZOO.find("tsm_mbv2_motion"), frames=6, shift_frames=2, size=32, width=0.25)
    return entry, lively(models.build(entry, seed=1))
