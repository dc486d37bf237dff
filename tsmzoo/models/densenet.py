"""DenseNet-161 for frames (Huang et al., CVPR 2017), with torchvision's key names.

No ReLU follows the last batch norm, as in mmaction2's TSN, which takes torchvision's `features` alone
(open-mmlab/mmaction2:mmaction/models/recognizers/base.py); torchvision's own classifier has one. There is no TSM of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsmzoo.models.shift import Shift

#: Layers of each block (Table 1 of the paper, k = 48).
LAYERS = (6, 12, 36, 24)
GROWTH, STEM = 48, 96
#: Width of a layer's 1x1 convolution, as a multiple of the growth.
_INNER = 4


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1; norm, ReLU, 3x3; the result is concatenated to the input."""

    def __init__(self, in_width: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, _INNER * GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(_INNER * GROWTH)
        self.conv2 = nn.Conv2d(_INNER * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new: Tensor = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, new], 1)


class Transition(nn.Module):
    """Halves the channels and the side."""

    def __init__(self, in_width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_width)
        self.conv = nn.Conv2d(in_width, in_width // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    """Maps frames to logits of each frame; `channels` 3 for RGB, 10 for stacked flow."""

    def __init__(self, classes: int, *, channels: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(channels, STEM, 7, 2, 3, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(STEM))
        self.features.add_module("relu0", nn.ReLU())
        self.features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        width = STEM
        for number, layers in enumerate(LAYERS, start=1):
            if number > 1:
                self.features.add_module(f"transition{number - 1}", Transition(width))
                width //= 2
            block = nn.Sequential()
            for layer in range(1, layers + 1):
                block.add_module(f"denselayer{layer}", DenseLayer(width))
                width += GROWTH
            self.features.add_module(f"denseblock{number}", block)
        self.features.add_module("norm5", nn.BatchNorm2d(width))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor, frames: int, shift: Shift) -> Tensor:  # noqa: ARG002 - as ResNet takes them
        """Return the logits, N·T, classes, of normalized frames, N·T, C, H, W."""
        logits: Tensor = self.classifier(self.dropout(torch.mean(self.features(x), (2, 3))))
        return logits
