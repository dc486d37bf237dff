"""ResNets and ResNeXt for frames, with torchvision's key names, a shift in each block and non-local blocks.

The 3x3 convolution has the stride. The shift is placed as by MIT's `make_temporal_shift`
(mit-han-lab/temporal-shift-module:ops/temporal_shift.py), which mmaction2 follows for the shift in the branch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsmzoo.models.shift import Place, Shift

#: Blocks of each stage by depth: basic blocks up to 34 layers, else bottlenecks.
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
WIDTHS = (64, 128, 256, 512)
#: Output channels of a bottleneck as a multiple of the width of its stage.
EXPANSION = 4
_BASIC_UP_TO = 34
#: Random weight of the last batch norm of a block: at 1 each of 33 blocks would double the variance of the features.
RESIDUAL_SCALE = 0.3
#: With at least this many blocks in layer3, only every second branch of every stage is shifted.
_DEEP = 23
#: Blocks followed by a non-local block, by stage, in MIT's and mmaction2's TSM.
_NON_LOCAL_AFTER = {2: (0, 2), 3: (0, 2, 4)}

NonLocalMode = Literal["embedded_gaussian", "dot_product", "gaussian"]


class NonLocal(nn.Module):
    """Attention over all positions of a clip, added to its input (Wang et al., Non-local Neural Networks, § 3)."""

    def __init__(self, width: int, mode: NonLocalMode, *, out_bias: bool) -> None:
        super().__init__()
        inner = width // 2
        self.mode = mode
        self.g = nn.Conv2d(width, inner, 1)
        if mode != "gaussian":
            self.theta = nn.Conv2d(width, inner, 1)
            self.phi = nn.Conv2d(width, inner, 1)
        self.out = nn.Conv2d(inner, width, 1, bias=out_bias)
        self.bn = nn.BatchNorm2d(width)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start at nearly nothing, as training does (Wang et al., § 4.1).

        Else products of features explode, or saturate a softmax, where no two runtimes agree.
        """
        nn.init.constant_(self.bn.weight, 0.1)
        if self.mode != "gaussian":
            for conv in (self.theta, self.phi):
                conv.weight *= 0.1 if self.mode == "embedded_gaussian" else 0.01

    def forward(self, x: Tensor, frames: int) -> Tensor:
        def positions(y: Tensor) -> Tensor:
            """Map (N·T, C, H, W) to (N, T·H·W, C), by way of channels-last, where TFLite needs no transpose."""
            return y.permute(0, 2, 3, 1).reshape(-1, frames * y.shape[2] * y.shape[3], y.shape[1])

        def pool(y: Tensor) -> Tensor:
            return F.max_pool2d(y, 2, 2)

        g = positions(pool(self.g(x)))
        theta = positions(x if self.mode == "gaussian" else self.theta(x))
        phi = positions(pool(x if self.mode == "gaussian" else self.phi(x)))
        scores = theta @ phi.transpose(1, 2)  # N, P, P'
        weights = scores / scores.shape[2] if self.mode == "dot_product" else scores.softmax(2)
        y = (weights @ g).reshape(-1, *x.shape[2:], g.shape[2]).permute(0, 3, 1, 2)  # N·T, C/2, H, W
        attended: Tensor = self.bn(self.out(y))
        return x + attended


class BasicBlock(nn.Module):
    """3x3, 3x3 beside a shortcut."""

    expansion = 1

    def __init__(
        self, in_width: int, width: int, stride: int, fold: int, nl: NonLocal | None = None, *, in_place: bool = False
    ) -> None:
        super().__init__()
        self.fold, self.in_place = fold, in_place
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _downsample(in_width, width, stride)
        self.nl = nl

    def init_weights(self) -> None:
        nn.init.constant_(self.bn2.weight, RESIDUAL_SCALE)

    def forward(self, x: Tensor, frames: int, shift: Shift) -> Tensor:
        y, shortcut = _shifted(self, x, shift)
        y = F.relu(self.bn1(self.conv1(y)))
        y = F.relu(self.bn2(self.conv2(y)) + self.downsample(shortcut))
        return self.nl(y, frames) if self.nl is not None else y


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut; `inner` is the width of the 3x3 if it differs from the stage's (ResNeXt)."""

    expansion = EXPANSION

    def __init__(
        self,
        in_width: int,
        width: int,
        stride: int,
        fold: int,
        nl: NonLocal | None = None,
        *,
        in_place: bool = False,
        groups: int = 1,
        inner: int | None = None,
    ) -> None:
        super().__init__()
        out_width, inner = width * EXPANSION, inner or width
        self.fold, self.in_place = fold, in_place
        self.conv1 = nn.Conv2d(in_width, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_width)
        self.downsample = _downsample(in_width, out_width, stride)
        self.nl = nl

    def init_weights(self) -> None:
        nn.init.constant_(self.bn3.weight, RESIDUAL_SCALE)

    def forward(self, x: Tensor, frames: int, shift: Shift) -> Tensor:
        y, shortcut = _shifted(self, x, shift)
        y = F.relu(self.bn1(self.conv1(y)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = F.relu(self.bn3(self.conv3(y)) + self.downsample(shortcut))
        return self.nl(y, frames) if self.nl is not None else y


def _shifted(block: BasicBlock | Bottleneck, x: Tensor, shift: Shift) -> tuple[Tensor, Tensor]:
    """Return the inputs of branch and shortcut; the shortcut is shifted too if the block is `in_place`."""
    y = shift(x, block.fold) if block.fold else x
    return y, y if block.in_place else x


def _downsample(in_width: int, out_width: int, stride: int) -> nn.Module:
    if stride == 1 and in_width == out_width:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_width, out_width, 1, stride, bias=False), nn.BatchNorm2d(out_width))


class ResNet(nn.Module):
    """Maps frames to logits of each frame.

    `shift_div` is 8 for TSM and None for TSN; `channels` 3 for RGB, 10 for stacked flow. ResNeXt has `groups` in its
    3x3 convolutions, each of `group_width` channels in layer1.
    """

    def __init__(
        self,
        depth: int,
        classes: int,
        *,
        groups: int = 1,
        group_width: int = 64,
        channels: int = 3,
        shift_div: int | None = None,
        shift_place: Place = "residual",
        non_local: NonLocalMode | None = None,
        non_local_bias: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        in_place, basic = shift_place == "in-place", depth <= _BASIC_UP_TO
        every = 2 if BLOCKS[depth][2] >= _DEEP and not in_place else 1
        expansion = BasicBlock.expansion if basic else Bottleneck.expansion
        in_width = 64
        for stage, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS[depth], strict=True), start=1):
            layer = nn.ModuleList()
            for index in range(blocks):
                nl = None
                if non_local and index in _NON_LOCAL_AFTER.get(stage, ()):
                    nl = NonLocal(width * expansion, non_local, out_bias=non_local_bias)
                stride = 2 if stage > 1 and index == 0 else 1
                fold = in_width // shift_div if shift_div and index % every == 0 else 0
                block: BasicBlock | Bottleneck
                if basic:
                    block = BasicBlock(in_width, width, stride, fold, nl, in_place=in_place)
                else:
                    inner = width * group_width // 64 * groups
                    block = Bottleneck(in_width, width, stride, fold, nl, in_place=in_place, groups=groups, inner=inner)
                layer.append(block)
                in_width = width * expansion
            self.add_module(f"layer{stage}", layer)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_width, classes)

    def forward(self, x: Tensor, frames: int, shift: Shift) -> Tensor:
        """Return the logits, N·T, classes, of normalized frames, N·T, C, H, W, with `frames` (T) per clip."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, 2, 1)
        for stage in range(1, len(WIDTHS) + 1):
            for block in self.get_submodule(f"layer{stage}").children():
                x = block(x, frames, shift)
        logits: Tensor = self.fc(self.dropout(torch.mean(x, (2, 3))))
        return logits
