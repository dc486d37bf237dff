"""Fold the factors of MoViNet's blocks into its convolutions, for export, and write its steps channels last.

The gate of a stream, clip(0.2 y + 0.5, 0, 1), is relu6(1.2 y + 3) / 6: 1.2 and 3 go into the convolution in front,
which takes RELU6 with it, 1/6 and ReZero's scalar into the projection behind. Nothing is left of either, and phones'
GPUs know RELU6, but no clip to 1.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsmzoo.models.memory import Memory
from tsmzoo.models.movinet import Bottleneck, CausalConv, FrameMean, StreamSqueeze


def fold_gates(model: nn.Module, *, channels_last: bool) -> nn.Module:
    """Return a copy of `model` whose MoViNet blocks have no factors of their own; its batch norms are folded before.

    `channels_last` says that the file will have its axes so: litert-torch puts transposes around convolutions over
    time, means and states that are not written in that order.
    """
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, Bottleneck):
            model.set_submodule(name, FoldedBottleneck(module))
    for name, module in list(model.named_modules()) if channels_last else ():
        if isinstance(module, CausalConv):
            model.set_submodule(name, TapsChannelsLast(module))
        elif isinstance(module, FrameMean):
            model.set_submodule(name, WindowMean())
    return model


class FoldedBottleneck(nn.Module):
    """A block whose projection holds ReZero's scalar, and the factor of the gate."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.expand, self.deep, self.project = block.expand, block.deep, block.project
        self.pool, self.shortcut = block.pool, block.shortcut
        conv, scale = cast("nn.Conv2d", block.project.conv), block.alpha.detach()
        assert conv.bias is not None
        conv.bias.data *= scale
        self.se: nn.Module = block.se
        if isinstance(block.se, StreamSqueeze):
            self.se = FoldedSqueeze(block.se)
            scale = scale / 6
        conv.weight.data *= scale

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        y = self.se(self.deep(self.expand(x), memory), memory)
        out: Tensor = self.project(y) + self.shortcut(self.pool(x))
        return out


class FoldedSqueeze(nn.Module):
    """Weigh the channels by six times the gate."""

    def __init__(self, squeeze: StreamSqueeze) -> None:
        super().__init__()
        self.mean, self.fc1, self.fc2 = squeeze.mean, squeeze.fc1, squeeze.fc2
        assert self.fc2.bias is not None
        self.fc2.weight.data *= 1.2
        self.fc2.bias.data = 1.2 * self.fc2.bias.data + 3

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        mean = self.mean(x)
        return x * F.relu6(self.fc2(F.hardswish(self.fc1(torch.cat([memory.mean(mean), mean], 1)))))


class TapsChannelsLast(nn.Module):
    """`CausalConv` in the order N, H, W, C: the frames before by one convolution, the present one by a product.

    In memory a buffer is N, H·W, frames, C as well, so that it needs no cuts: a convolution over frames takes it whole.
    """

    def __init__(self, conv: CausalConv) -> None:
        super().__init__()
        channels, frames = conv.in_channels, conv.kernel_size[0] - 1
        weight = conv.weight.detach()
        self.past = nn.Conv2d(channels, channels, (1, frames), groups=channels)
        self.past.weight.data = weight[:, :, :-1].transpose(2, 3).contiguous()
        assert conv.bias is not None
        self.past.bias = conv.bias
        self.now = nn.Parameter(weight[:, 0, -1, 0].clone())

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        frames = self.past.kernel_size[1]
        past = memory.past(x, frames).permute(0, 2, 3, 1)
        n, h, w, _ = past.shape
        past = past.reshape(n, h * w, frames, x.shape[1]).permute(0, 3, 1, 2)
        past = self.past(past).permute(0, 2, 3, 1).reshape(n, h, w, x.shape[1])
        out: Tensor = x.permute(0, 2, 3, 1) * self.now + past
        return out.permute(0, 3, 1, 2)


class WindowMean(nn.Module):
    """`FrameMean` as a pool: litert-torch would drop the axes that are left, and put them back by a reshape."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, list(x.shape[2:]))
