"""MobileOne-S4 for frames (Vasu et al., CVPR 2023), with timm's key names and a shift in front of each block.

A block is trained as several branches, which `fuse` merges into one convolution
(open-mmlab/mmpretrain:mmpretrain/models/backbones/mobileone.py). That needs a shift before all branches, so it stands
in place (open-mmlab/mmaction2:mmaction/models/backbones/mobileone_tsm.py).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tsmzoo.models.shift import Shift

STEM = 64
#: Output channels, pairs of a depthwise and a pointwise block, and how many of the last pairs have a gate
#: (Table 3 of the paper, S4).
STAGES = ((192, 2, 0), (448, 8, 0), (896, 10, 5), (2048, 1, 1))
#: Channels of a gate's hidden layer, as a share of the block's.
_SQUEEZE = 16


class ConvNorm(nn.Module):
    """One branch: convolution and batch norm."""

    def __init__(self, in_width: int, out_width: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_width, out_width, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        return y


class Gate(nn.Module):
    """Squeeze and excitation: scales each channel by a factor in 0…1 computed from the means of all channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // _SQUEEZE, 1)
        self.fc2 = nn.Conv2d(width // _SQUEEZE, width, 1)

    def init_weights(self) -> None:
        """Start nearly open: a dozen gates that are half open leave a thousandth of the features."""
        assert self.fc2.bias is not None
        nn.init.constant_(self.fc2.bias, 2)

    def forward(self, x: Tensor) -> Tensor:
        share: Tensor = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * share.sigmoid()


class MobileOneBlock(nn.Module):
    """Sums a convolution, a 1x1 convolution if that is larger, and a batch norm of the input if shapes allow it."""

    def __init__(
        self, in_width: int, out_width: int, kernel: int, stride: int, groups: int, fold: int, *, gated: bool
    ) -> None:
        super().__init__()
        self.fold = fold
        self.conv_kxk = nn.ModuleList([ConvNorm(in_width, out_width, kernel, stride, groups)])
        self.conv_scale = ConvNorm(in_width, out_width, 1, stride, groups) if kernel > 1 else None
        self.identity = nn.BatchNorm2d(in_width) if in_width == out_width and stride == 1 else None
        self.attn = Gate(out_width) if gated else nn.Identity()
        #: The merged branches, after `fuse`.
        self.fused: nn.Conv2d | None = None

    def init_weights(self) -> None:
        """Make the sum of the branches as large as one of them."""
        for norm in (module for module in self.modules() if isinstance(module, nn.BatchNorm2d)):
            nn.init.constant_(norm.weight, len(self.branches()) ** -0.5)

    def branches(self) -> list[nn.Module]:
        """Return the branches that are summed."""
        return [branch for branch in (*self.conv_kxk, self.conv_scale, self.identity) if branch is not None]

    def forward(self, x: Tensor, shift: Shift) -> Tensor:
        if self.fold:
            x = shift(x, self.fold)
        if self.fused is not None:
            y: Tensor = self.fused(x)
        else:
            first, *others = self.branches()
            y = first(x)
            for branch in others:
                y = y + branch(x)
        return F.relu(self.attn(y))

    @torch.no_grad()
    def fuse(self) -> None:
        """Replace the branches by one convolution: all are linear, and none is larger than the first."""
        main: ConvNorm = self.conv_kxk[0]  # type: ignore[assignment]
        fused = fuse_conv_bn_eval(main.conv, main.bn)
        assert fused.bias is not None
        middle = fused.kernel_size[0] // 2
        if self.conv_scale is not None:
            scale = fuse_conv_bn_eval(self.conv_scale.conv, self.conv_scale.bn)
            assert scale.bias is not None
            fused.weight[:, :, middle, middle] += scale.weight[:, :, 0, 0]
            fused.bias += scale.bias
        if self.identity is not None:
            norm = self.identity
            assert norm.running_mean is not None
            assert norm.running_var is not None
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            channel = torch.arange(len(gain))
            # An output channel sees the input channels of its group alone.
            fused.weight[channel, channel % fused.weight.shape[1], middle, middle] += gain
            fused.bias += norm.bias - norm.running_mean * gain
        self.fused = fused
        self.conv_kxk, self.conv_scale, self.identity = nn.ModuleList(), None, None


class MobileOne(nn.Module):
    """Maps frames to logits of each frame.

    `shift_div` is 8 for TSM and None for TSN; `channels` 3 for RGB, 10 for stacked flow.
    """

    def __init__(
        self,
        classes: int,
        *,
        channels: int = 3,
        shift_div: int | None = None,
        shift_place: Literal["in-place"] = "in-place",  # noqa: ARG002 - there is no other
        dropout: float = 0.5,
    ) -> None:
        super().__init__()

        def block(
            in_width: int, out_width: int, kernel: int, stride: int = 1, groups: int = 1, *, gated: bool = False
        ) -> MobileOneBlock:
            fold = in_width // shift_div if shift_div else 0
            return MobileOneBlock(in_width, out_width, kernel, stride, groups, fold, gated=gated)

        self.stem = block(channels, STEM, 3, 2)
        self.stages = nn.ModuleList()
        in_width = STEM
        for width, pairs, gates in STAGES:
            stage = nn.ModuleList()
            for pair in range(pairs):
                gated = pair >= pairs - gates
                stage.append(block(in_width, in_width, 3, 1 if pair else 2, in_width, gated=gated))
                stage.append(block(in_width, width, 1, gated=gated))
                in_width = width
            self.stages.append(stage)
        self.head = nn.Module()
        self.head.fc = nn.Linear(in_width, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, frames: int, shift: Shift) -> Tensor:  # noqa: ARG002 - as ResNet takes them
        """Return the logits, N·T, classes, of normalized frames, N·T, C, H, W, with `frames` (T) per clip."""
        for block in (self.stem, *(block for stage in self.stages for block in stage.children())):
            x = block(x, shift)
        logits: Tensor = self.head.fc(self.dropout(torch.mean(x, (2, 3))))  # type: ignore[operator]
        return logits
