"""MoViNet A0-A2, base and stream (Kondratyuk et al., CVPR 2021, § 3), as their publishers have them.

A base network sees a clip as a volume, through depthwise 3-D convolutions. A stream sees frame by frame: a depthwise
2-D convolution, then one over time whose past is a buffer, and means over all frames so far.
Sources: tensorflow/models:official/projects/movinet/modeling/{movinet,movinet_layers}.py (BLOCK_SPECS), and
Atze00/MoViNet-pytorch:movinets/{config,models}.py, whose published weights go with Keras' hard_sigmoid of 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsmzoo.models.i3d import AsVolume, MeanOfVolume, SameConv3d, SqueezeVolume, same_padding
from tsmzoo.models.memory import Memory
from tsmzoo.models.mobilenet_v2 import scaled
from tsmzoo.models.resnet import RESIDUAL_SCALE
from tsmzoo.models.shift import Shift

_EPSILON = 1e-3
_HIDDEN = 2048
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Block:
    """An inverted bottleneck: widths, and kernel sizes over time and space."""

    expanded: int
    reach: int = 3
    kernel: int = 3


@dataclass(frozen=True)
class Config:
    """A size of MoViNet: width of the stem and of the head, and of each stage its width and blocks."""

    stem: int
    head: int
    stages: tuple[tuple[int, tuple[Block, ...]], ...]


#: Strides of the first blocks of the stages.
_STRIDES = (2, 2, 2, 1, 2)


def _stage(width: int, *blocks: int | tuple[int, int, int]) -> tuple[int, tuple[Block, ...]]:
    return width, tuple(Block(*block) if isinstance(block, tuple) else Block(block) for block in blocks)


SIZES = {
    "a0": Config(
        8,
        480,
        (
            _stage(8, (24, 1, 5)),
            _stage(32, 80, 80, 80),
            _stage(56, (184, 5, 3), 112, 184),
            _stage(56, (184, 5, 3), 184, 184, 184),
            _stage(104, (384, 5, 3), (280, 1, 5), (280, 1, 5), (344, 1, 5)),
        ),
    ),
    "a1": Config(
        16,
        600,
        (
            _stage(16, (40, 1, 5), 40),
            _stage(40, 96, 120, 96, 96),
            _stage(64, (216, 5, 3), 128, 216, 168, 216),
            _stage(64, (216, 5, 3), 216, 216, 128, (128, 1, 5), 216),
            _stage(136, (456, 5, 3), (360, 1, 5), (360, 1, 5), (360, 1, 5), (456, 1, 5), 456, (544, 1, 3)),
        ),
    ),
    "a2": Config(
        16,
        640,
        (
            _stage(16, (40, 1, 5), 40, 64),
            _stage(40, 96, 120, 96, 96, 120),
            _stage(72, (240, 5, 3), 160, 240, 192, 240),
            _stage(72, (240, 5, 3), 240, 240, 240, (144, 1, 5), 240),
            _stage(144, (480, 5, 3), (384, 1, 5), (384, 1, 5), (480, 1, 5), (480, 1, 5), 480, (576, 1, 3)),
        ),
    ),
}


# --- parts of both -------------------------------------------------------------------------------------------------


def _linear(x: Tensor) -> Tensor:
    return x


class SameConv2d(nn.Conv2d):
    """A convolution padded like TensorFlow's SAME: by the size of its input, an odd zero at the end."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(padded_2d(x, self.kernel_size[0], self.stride[0]))
        return out


def padded_2d(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Return `x`, (N, C, H, W), with the zeros of TensorFlow's SAME."""
    pads = [*same_padding(x.shape[3], kernel, stride), *same_padding(x.shape[2], kernel, stride)]
    return F.pad(x, pads) if any(pads) else x


class ConvNorm(nn.Module):
    """A convolution without bias, batch norm, activation; of frames, or of volumes if `conv` is 3-D."""

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, activation: Activation) -> None:
        super().__init__()
        self.conv = conv
        norm = nn.BatchNorm3d if isinstance(conv, nn.Conv3d) else nn.BatchNorm2d
        self.norm = norm(conv.out_channels, eps=_EPSILON)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class Bottleneck(nn.Module):
    """Expand, filter over space and time, weigh the channels, project; beside a shortcut, with no activation after."""

    def __init__(self, parts: type[StreamParts | BaseParts], width: int, block: Block, out: int, stride: int) -> None:
        super().__init__()
        self.expand = parts.conv(width, block.expanded, 1, activation=parts.activation)
        self.deep = parts.deep(block, stride)
        self.se = parts.squeeze(block.expanded)
        self.project = parts.conv(block.expanded, out, 1)
        #: The scalar of ReZero, which training starts at 0.
        self.alpha = nn.Parameter(torch.zeros(()))
        self.pool: nn.Module = parts.pool() if stride > 1 else nn.Identity()
        same = stride == 1 and width == out
        self.shortcut: nn.Module = nn.Identity() if same else parts.conv(width, out, 1)

    def init_weights(self) -> None:
        nn.init.constant_(self.alpha, RESIDUAL_SCALE)  # at 0 a network of random weights would have no blocks

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        y = self.se(self.deep(self.expand(x), memory), memory)
        out: Tensor = self.project(y) * self.alpha + self.shortcut(self.pool(x))
        return out


# --- the stream ----------------------------------------------------------------------------------------------------


class CausalConv(nn.Conv2d):
    """A depthwise convolution over time, as products with one number a channel; its weights are (C, 1, reach, 1)."""

    def __init__(self, channels: int, reach: int) -> None:
        super().__init__(channels, channels, (reach, 1), groups=channels, bias=False)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:  # type: ignore[override]
        past = memory.past(x, self.kernel_size[0] - 1)
        *before, now = (tap.view(1, -1, 1, 1) for tap in self.weight[:, 0].unbind(1))
        y = x * now
        for tap, frame in zip(before, torch.split(past, x.shape[1], 1), strict=True):
            y = y + frame * tap
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)

    def convolve(self, x: Tensor, memory: Memory) -> Tensor:
        """Return the same of one convolution, which is slower in most runtimes, but counted as what it is."""
        frames = torch.cat([memory.past(x, self.kernel_size[0] - 1), x], 1).reshape(len(x), -1, *x.shape[1:])
        out: Tensor = super().forward(frames.transpose(1, 2).flatten(3))
        return out.reshape(x.shape)


class StreamDeep(nn.Module):
    """Depthwise over space, then over time."""

    def __init__(self, block: Block, stride: int) -> None:
        super().__init__()
        width = block.expanded
        conv = SameConv2d(width, width, block.kernel, stride, groups=width, bias=False)
        self.space = ConvNorm(conv, F.hardswish)
        self.time: nn.Module | None = None
        if block.reach > 1:
            self.time = CausalConv(width, block.reach)
            self.norm = nn.BatchNorm2d(width, eps=_EPSILON)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        x = self.space(x)
        return x if self.time is None else F.hardswish(self.norm(self.time(x, memory)))


class StreamSqueeze(nn.Module):
    """Weigh the channels by the mean of all frames so far and that of this one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = scaled(2 * width // 4, 1)
        self.mean = FrameMean()
        self.fc1 = nn.Conv2d(2 * width, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        mean = self.mean(x)
        y = self.fc2(F.hardswish(self.fc1(torch.cat([memory.mean(mean), mean], 1))))
        # Keras' hard_sigmoid, clip(0.2 y + 0.5, 0, 1): the published weights go with it, not with relu6(y + 3) / 6,
        # which later releases of the publisher's code put in its place (tensorflow/models, issue 13559).
        return x * (F.relu6(1.2 * y + 3) / 6)


class FrameMean(nn.Module):
    """N, C, H, W to N, C, 1, 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class SameAveragePool2d(nn.Module):
    """The mean of 3x3 with stride 2, padded like TensorFlow's SAME; zeros of the padding do not count."""

    def forward(self, x: Tensor) -> Tensor:
        # The zero behind a side that is even is what the last window finds beyond it; odd ones have one in front, too.
        return F.avg_pool2d(x, 3, 2, (x.shape[2] % 2, x.shape[3] % 2), ceil_mode=True, count_include_pad=False)


class StreamParts:
    """What a stream is made of."""

    activation = staticmethod(F.hardswish)
    deep, squeeze, pool = StreamDeep, StreamSqueeze, SameAveragePool2d

    @staticmethod
    def conv(width: int, out: int, kernel: int, stride: int = 1, activation: Activation = _linear) -> ConvNorm:
        return ConvNorm(SameConv2d(width, out, kernel, stride, bias=False), activation)


# --- the base ------------------------------------------------------------------------------------------------------


class BaseDeep(ConvNorm):
    """Depthwise over space and time."""

    def __init__(self, block: Block, stride: int) -> None:
        width, kernel = block.expanded, (block.reach, block.kernel, block.kernel)
        super().__init__(SameConv3d(width, width, kernel, (1, stride, stride), groups=width, bias=False), F.silu)

    def forward(self, x: Tensor, memory: object) -> Tensor:  # type: ignore[override]  # noqa: ARG002 - as StreamDeep
        return super().forward(x)


class BaseSqueeze(SqueezeVolume):
    """Weigh the channels by their mean over the clip."""

    def __init__(self, width: int) -> None:
        super().__init__(width, scaled(width // 4, 1), F.silu)

    def forward(self, x: Tensor, memory: object) -> Tensor:  # type: ignore[override]  # noqa: ARG002 - as StreamSqueeze
        return super().forward(x)


class SameAveragePool3d(nn.Module):
    """`SameAveragePool2d` of every frame of a volume."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = SameAveragePool2d()

    def forward(self, x: Tensor) -> Tensor:
        frames = x.transpose(1, 2)
        pooled: Tensor = self.frame(frames.flatten(0, 1))
        return pooled.reshape(*frames.shape[:3], *pooled.shape[2:]).transpose(1, 2)


class BaseParts:
    """What a base network is made of."""

    activation = staticmethod(F.silu)
    deep, squeeze, pool = BaseDeep, BaseSqueeze, SameAveragePool3d

    @staticmethod
    def conv(width: int, out: int, kernel: int, stride: int = 1, activation: Activation = _linear) -> ConvNorm:
        conv = SameConv3d(width, out, (1, kernel, kernel), (1, stride, stride), bias=False)
        return ConvNorm(conv, activation)


# --- the networks --------------------------------------------------------------------------------------------------


class MoViNet(nn.Module):
    """Maps clips to one row of logits each, or, as a stream, frames to logits after each."""

    def __init__(
        self, size: str, parts: type[StreamParts | BaseParts], classes: int, *, channels: int = 3, dropout: float = 0.2
    ) -> None:
        super().__init__()
        config = SIZES[size]
        self.stem = parts.conv(channels, config.stem, 3, 2, parts.activation)
        self.blocks = nn.ModuleList()
        width = config.stem
        for (out, blocks), first_stride in zip(config.stages, _STRIDES, strict=True):
            for index, block in enumerate(blocks):
                self.blocks.append(Bottleneck(parts, width, block, out, first_stride if index == 0 else 1))
                width = out
        self.head = parts.conv(width, config.head, 1, activation=parts.activation)
        self.fc1 = nn.Linear(config.head, _HIDDEN)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(_HIDDEN, classes)

    def features(self, x: Tensor, memory: Memory) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, memory)
        return cast("Tensor", self.head(x))

    def classify(self, mean: Tensor) -> Tensor:
        logits: Tensor = self.fc2(self.dropout(F.silu(self.fc1(mean))))  # swish in the stream, too
        return logits


class MoViNetStream(MoViNet):
    """Maps frames to the logits after each; a state a temporal convolution, one a mean, and the count of frames."""

    def __init__(self, size: str, classes: int, *, channels: int = 3, dropout: float = 0.2) -> None:
        super().__init__(size, StreamParts, classes, channels=channels, dropout=dropout)
        self.mean = FrameMean()

    def forward(self, x: Tensor, frames: int, memory: Memory) -> Tensor:  # noqa: ARG002 - as the others take it
        """Return the logits, N·T, classes, of normalized frames, N·T, C, H, W."""
        mean = self.mean(self.features(x, memory))
        return self.classify(memory.mean(mean).flatten(1))


class MoViNetBase(MoViNet):
    """Maps clips to one row of logits each."""

    def __init__(self, size: str, classes: int, *, channels: int = 3, dropout: float = 0.2) -> None:
        super().__init__(size, BaseParts, classes, channels=channels, dropout=dropout)
        self.volume = AsVolume()
        self.mean = MeanOfVolume()

    def forward(self, x: Tensor, frames: int, shift: Shift) -> Tensor:
        """Return the logits, N, classes, of normalized frames, N·T, C, H, W, with `frames` (T) per clip."""
        return self.classify(self.mean(self.features(self.volume(x, frames), cast("Memory", shift))))
