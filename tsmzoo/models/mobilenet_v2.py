"""MobileNetV2 for frames (Sandler et al., CVPR 2018), with torchvision's key names and a shift in each branch.

Every inverted residual with an expansion and a shortcut is shifted
(mit-han-lab/temporal-shift-module:archs/mobilenet_v2.py, online_demo/mobilenet_v2_tsm.py). With the shift in place,
which no publisher has for this network, the same blocks are shifted with their shortcut.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tsmzoo.models.shift import Place, Shift

#: Expansion, output channels, blocks, stride of the first block (Table 2 of the paper).
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, LAST = 32, 1280


def scaled(channels: int, width: float) -> int:
    """Return `channels` x `width` rounded to a multiple of 8, never more than 10 % lower."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def conv_bn_relu(in_width: int, out_width: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_width, out_width, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_width),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; with a shortcut if the shapes allow it."""

    def __init__(
        self,
        in_width: int,
        out_width: int,
        stride: int,
        expansion: int,
        shift_div: int | None,
        *,
        in_place: bool = False,
    ) -> None:
        super().__init__()
        self.in_place = in_place
        self.shortcut = stride == 1 and in_width == out_width
        self.fold = in_width // shift_div if shift_div and self.shortcut and expansion != 1 else 0
        inner = in_width * expansion
        self.conv = nn.Sequential(
            *([conv_bn_relu(in_width, inner, 1)] if expansion != 1 else []),
            conv_bn_relu(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, out_width, 1, bias=False),
            nn.BatchNorm2d(out_width),
        )

    def forward(self, x: Tensor, shift: Shift) -> Tensor:
        shifted = shift(x, self.fold) if self.fold else x
        y: Tensor = self.conv(shifted)
        if not self.shortcut:
            return y
        return (shifted if self.in_place else x) + y


class MobileNetV2(nn.Module):
    """Maps frames to logits of each frame.

    `shift_div` is 8 for TSM and None for TSN; `channels` 3 for RGB, 10 for stacked flow.
    """

    def __init__(
        self,
        classes: int,
        *,
        width: float = 1.0,
        channels: int = 3,
        shift_div: int | None = None,
        shift_place: Place = "residual",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        in_width = scaled(STEM, width)
        self.features = nn.ModuleList([conv_bn_relu(channels, in_width, 3, 2)])
        for expansion, out, blocks, first_stride in STAGES:
            out_width = scaled(out, width)
            for block in range(blocks):
                stride = first_stride if block == 0 else 1
                in_place = shift_place == "in-place"
                self.features.append(
                    InvertedResidual(in_width, out_width, stride, expansion, shift_div, in_place=in_place)
                )
                in_width = out_width
        last_width = scaled(LAST, max(1.0, width))
        self.features.append(conv_bn_relu(in_width, last_width, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last_width, classes))

    def forward(self, x: Tensor, frames: int, shift: Shift) -> Tensor:  # noqa: ARG002 - as ResNet takes them
        """Return the logits, N·T, classes, of normalized frames, N·T, C, H, W, with `frames` (T) per clip."""
        for block in self.features:
            x = block(x, shift) if isinstance(block, InvertedResidual) else block(x)
        logits: Tensor = self.classifier(torch.mean(x, (2, 3)))
        return logits
