"""Multiply-accumulates and parameters of a model, counted by fvcore in one traced pass over zeros.

Convention: one multiply-accumulate (MAC) counts once; convolutions, linear layers and matrix products
count, batch norm, pooling and activations do not; the shift has none. Published figures that differ
do so by convention or by input size, which is why both stand beside them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from tsmzoo import models
from tsmzoo.models.forms import OneClip, Step, state_shapes
from tsmzoo.registry import Entry

CONVENTION = "multiply-accumulates of convolutions, linear layers and matrix products"
_COUNTED = ("conv", "linear", "matmul", "bmm")
#: Operations without products worth the name, which fvcore has no rule for; any other is not taken as free.
_FREE = {f"aten::{name}" for name in ("add", "div", "hardtanh", "max_pool2d", "mean", "mul", "pad", "softmax")}


@dataclass(frozen=True)
class Count:
    """The cost of one forward pass: a clip of an offline model, a frame of an online one."""

    gmacs: float
    mparams: float
    #: N, T, C, H, W of a clip; N, C, H, W of an online model's frame.
    input_shape: tuple[int, ...]
    #: GMACs of each module that has any, by its name in the backbone.
    modules: dict[str, float]


def count(entry: Entry, *, size: int | None = None, frames: int | None = None) -> Count:
    """Count `entry` at its own input, or at `size` pixels and `frames` segments."""
    size, frames = size or entry.size, frames or entry.frames
    net = models.build(entry, seed=0)
    analysis = _analysis(net, entry, size, frames)
    total = _counted(analysis.by_operator())
    if unknown := analysis.unsupported_ops().keys() - _FREE:
        raise RuntimeError(f"no counting rule for {', '.join(sorted(unknown))}; add it to tsmzoo/flops.py")
    modules = {
        name.removeprefix("backbone."): _counted(operators)
        for name, operators in analysis.by_module_and_operator().items()
        if name.startswith("backbone.") and _counted(operators)
    }
    shape = (1, entry.channels, size, size) if entry.mode == "online" else (1, frames, entry.channels, size, size)
    return Count(
        gmacs=total,
        mparams=sum(parameter.numel() for parameter in net.parameters()) / 1e6,
        input_shape=shape,
        modules=modules,
    )


def _analysis(net: nn.Module, entry: Entry, size: int, frames: int) -> FlopCountAnalysis:
    form: nn.Module
    inputs: tuple[torch.Tensor, ...]
    if entry.mode == "online":
        form = Step(net)
        shapes = [(1, entry.channels, size, size), *state_shapes(net, entry.channels, size)]
        inputs = tuple(torch.zeros(shape) for shape in shapes)
    else:
        form, inputs = OneClip(net, frames), (torch.zeros(frames, entry.channels, size, size),)
    return FlopCountAnalysis(form, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)


def _counted(operators: Counter[str]) -> float:
    return sum(operators[name] for name in _COUNTED) / 1e9
