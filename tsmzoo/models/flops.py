"""Count the multiply-accumulates and parameters of a model, by fvcore in one traced pass over zeros.

Convention: one multiply-accumulate (MAC) counts once. Convolutions, linear layers and matrix products count; batch
norm, pooling and activations do not; the shift has none. Published figures may differ in convention or input size,
so both stand beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from tsmzoo import models
from tsmzoo.errors import ZooError
from tsmzoo.models.movinet import CausalConv
from tsmzoo.models.wrappers import SingleClip, StreamStep, state_shapes
from tsmzoo.registry import Entry
from tsmzoo.system.threads import one_thread

CONVENTION = "multiply-accumulates of convolutions, linear layers and matrix products"
_COUNTED = ("conv", "linear", "addmm", "mm", "bmm", "matmul", "einsum")
#: Operations of negligible cost for which fvcore has no rule. No other operation is taken as free.
_FREE = {
    f"aten::{name}"
    for name in (
        "add",
        "avg_pool2d",
        "avg_pool3d",
        "clamp",
        "div",
        "hardswish",
        "hardtanh",
        "max_pool2d",
        "max_pool3d",
        "mean",
        "mul",
        "ones_like",
        "pad",
        "relu6",
        "rsub",
        "sigmoid",
        "silu",
        "softmax",
        "sub",
    )
}
#: What the figures of an entry depend on.
_NETWORK = (
    *("family", "mode", "backbone", "width", "shift_div", "shift_place", "non_local", "non_local_bias"),
    *("classes", "channels", "frames", "size"),
)


@dataclass(frozen=True)
class Count:
    """The cost of one forward pass: a clip of an offline model, or a frame of an online one."""

    gmacs: float
    mparams: float
    #: (N, T, C, H, W) of a clip, or (N, C, H, W) of a frame.
    input_shape: tuple[int, ...]
    #: Shapes of the states of an online model.
    states: tuple[tuple[int, ...], ...]
    #: GMACs by module name in the backbone, without zeros.
    modules: dict[str, float]


_counts: dict[tuple[object, ...], Count] = {}


def count(entry: Entry) -> Count:
    """Count one forward pass of `entry` at its own number of frames and size, once for all that are the same network.

    Raises ZooError if that needs more memory than there is, and RuntimeError for an operation without a rule.
    """
    network = tuple(getattr(entry, name) for name in _NETWORK)
    if network not in _counts:
        _counts[network] = _count(entry)
    return _counts[network]


def _count(entry: Entry) -> Count:
    # Attention and 3-D kernels see frames together; elsewhere a frame costs the same alone as in its clip.
    traced = entry.frames if entry.non_local or entry.is_3d else 1
    if why := msgspec.structs.replace(entry, frames=traced).too_large:
        raise ZooError(f"{entry.id}: {why}")
    net = models.build(entry)
    # fvcore's jit trace makes tensors of sizes, which fails on the meta device. (`to_empty` takes ten times as long.)
    zeros = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in net.state_dict().items()}
    net.load_state_dict(zeros, assign=True)
    for module in net.modules():
        if isinstance(module, CausalConv):
            module.forward = module.convolve  # type: ignore[method-assign]  # fvcore takes products as free
    states = state_shapes(net, entry.channels, entry.size) if entry.mode == "online" else []
    analysis = _analysis(net, entry, traced, states)
    with one_thread(), torch.no_grad():  # gradients would triple the memory of 3-D networks
        total = _counted(analysis.by_operator())
    if unknown := analysis.unsupported_ops().keys() - _FREE:
        raise RuntimeError(f"no counting rule for {', '.join(sorted(unknown))}; add it to tsmzoo/models/flops.py")
    scale = entry.frames / traced
    frame = (entry.channels, entry.size, entry.size)
    return Count(
        gmacs=total * scale,
        mparams=sum(parameter.numel() for parameter in net.parameters()) / 1e6,
        input_shape=(1, *frame) if entry.mode == "online" else (1, entry.frames, *frame),
        states=tuple(states),
        modules={
            name.removeprefix("backbone."): _counted(operators) * scale
            for name, operators in analysis.by_module_and_operator().items()
            if name.startswith("backbone.") and _counted(operators)
        },
    )


def _analysis(net: nn.Module, entry: Entry, frames: int, states: Sequence[tuple[int, ...]]) -> FlopCountAnalysis:
    form: nn.Module = StreamStep(net) if entry.mode == "online" else SingleClip(net, frames)
    inputs = [torch.zeros(shape) for shape in ((frames, entry.channels, entry.size, entry.size), *states)]
    return FlopCountAnalysis(form, tuple(inputs)).unsupported_ops_warnings(False).uncalled_modules_warnings(False)


def _counted(operators: Counter[str]) -> float:
    return sum(operators[name] for name in _COUNTED) / 1e9
