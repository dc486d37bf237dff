"""I3D: networks inflated to 3-D, whose kernels reach over time (Carreira and Zisserman, CVPR 2017, § 2.4).

`I3DResNet` is the ResNet-50 of Non-local Neural Networks (Wang et al., CVPR 2018, § 4) with torchvision's key names
(open-mmlab/mmaction2:mmaction/models/backbones/resnet3d.py, facebookresearch/pytorchvideo:models/resnet.py);
`InceptionI3D` the original (google-deepmind/kinetics-i3d:i3d.py, piergiaj/pytorch-i3d:pytorch_i3d.py).
Both consist of modules of volumes, (N, C, T, H, W), combined in `forward` by ReLU, sums and concatenations of channels
alone: so the export can put modules of frames in their place, one for one (`export/graph/conv3d_to_2d.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsmzoo.models.resnet import BLOCKS, EXPANSION, RESIDUAL_SCALE, WIDTHS, NonLocal, NonLocalMode
from tsmzoo.models.shift import Shift

#: Numbers along T, H and W.
Sizes = tuple[int, int, int]
#: Zeros before and after, along T, H and W.
Pads = tuple[tuple[int, int], ...]


# --- modules of volumes --------------------------------------------------------------------------------------------


class AsVolume(nn.Module):
    """Maps frames, (N·T, C, H, W), to volumes, (N, C, T, H, W)."""

    def forward(self, x: Tensor, frames: int) -> Tensor:
        return x.reshape(-1, frames, *x.shape[1:]).transpose(1, 2)


class MeanOfVolume(nn.Module):
    """Maps (N, C, T, H, W) to (N, C): the mean over all positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3, 4))


class HeadPool(nn.AvgPool3d):
    """Average pool with stride 1, whose window is no larger than the volume."""

    def __init__(self, window: Sizes) -> None:
        super().__init__(window, stride=1)

    def window(self, sizes: Sizes) -> Sizes:
        t, h, w = (min(pair) for pair in zip(cast("Sizes", self.kernel_size), sizes, strict=True))
        return t, h, w

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = x.shape[2:]
        return F.avg_pool3d(x, self.window((t, h, w)), 1)


class SameConv3d(nn.Conv3d):
    """A convolution padded like TensorFlow's SAME: by the size of its input, an odd zero at the end."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(padded(x, self))
        return out


class SameMaxPool3d(nn.MaxPool3d):
    """A max pool padded with zeros like TensorFlow's SAME; its input is never negative."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(padded(x, self))
        return out


def padded(x: Tensor, module: SameConv3d | SameMaxPool3d) -> Tensor:
    """Return `x`, (N, C, T, H, W), with the zero padding of `module`."""
    t, h, w = x.shape[2:]
    front_to_back = pads(module, (t, h, w))
    return F.pad(x, [zeros for pair in reversed(front_to_back) for zeros in pair])


def triple(value: int | tuple[int, ...]) -> Sizes:
    """Return a kernel size, stride or padding along T, H and W."""
    return cast("Sizes", (value,) * 3 if isinstance(value, int) else tuple(value))


def pads(module: nn.Conv3d | nn.MaxPool3d, sizes: Sizes) -> Pads:
    """Return the padding of `module` at an input of `sizes`."""
    if isinstance(module, SameConv3d | SameMaxPool3d):
        kernel, stride = triple(module.kernel_size), triple(module.stride)
        return tuple(same_padding(*axis) for axis in zip(sizes, kernel, stride, strict=True))
    return tuple((zeros, zeros) for zeros in triple(cast("int | tuple[int, ...]", module.padding)))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after an axis of TensorFlow's SAME."""
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


class WeighVolume(nn.Module):
    """The product of a volume, N, C, T, H, W, and one number a channel, N, C, 1, 1."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return x * weights[:, :, None]


class SqueezeVolume(nn.Module):
    """Squeeze and excitation: weigh the channels of a volume by what its mean over the clip says (X3D, MoViNet)."""

    def __init__(self, width: int, hidden: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.mean = MeanOfVolume()
        self.fc1 = nn.Conv2d(width, hidden, 1)
        self.activation = activation
        self.fc2 = nn.Conv2d(hidden, width, 1)
        self.weigh = WeighVolume()

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean(x)[:, :, None, None]
        return cast("Tensor", self.weigh(x, self.fc2(self.activation(self.fc1(mean))).sigmoid()))


class NonLocalVolume(NonLocal):
    """The non-local block on volumes, N, C, T, H, W."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        frames = x.transpose(1, 2)
        attended = super().forward(frames.flatten(0, 1), x.shape[2])
        return attended.reshape(frames.shape).transpose(1, 2)


# --- ResNet-50 -----------------------------------------------------------------------------------------------------

#: Inflated blocks by stage: about every second one, and all.
_EVERY_SECOND = ((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0))
_ALL = tuple((1,) * blocks for blocks in BLOCKS[50])
#: Blocks followed by a non-local block, by stage (mmaction2's I3D).
_NON_LOCAL_AT = {2: (1, 3), 3: (1, 3, 5)}


@dataclass(frozen=True)
class Variant:
    """The differences among published inflations of ResNet-50."""

    #: Kernel size over time of the first convolution, its stride, and the stride of the max pool after it.
    stem: int = 5
    stem_stride: int = 2
    pool_stride: int = 2
    inflated: tuple[tuple[int, ...], ...] = _EVERY_SECOND
    #: Kernel sizes over time of the first (1x1) and the second (3x3) convolution of an inflated block.
    reach: tuple[int, int] = (3, 1)
    #: A max pool after layer1 halves T.
    halved: bool = True
    #: Window of the average pool in the head (default: the whole volume).
    head: Sizes | None = None

    @property
    def fewest_frames(self) -> int:
        """The smallest T: the pool after layer1 needs two frames."""
        return self.stem_stride * self.pool_stride + 1 if self.halved else 1


VARIANTS = {
    # open-mmlab/mmaction2:configs/_base_/models/i3d_r50.py
    "resnet50_i3d": Variant(),
    # `heavy` of mmaction 0.x: T is kept up to layer1
    "resnet50_i3d_heavy": Variant(stem_stride=1, pool_stride=1, inflated=_ALL),
    # facebookresearch/pytorchvideo: I3D_8x8_R50
    "resnet50_i3d_8x8": Variant(stem_stride=1, pool_stride=1, head=(4, 7, 7)),
    # Non-local Neural Networks, § 4.1: I3D 3x3x3
    "resnet50_i3d_3x3x3": Variant(reach=(1, 3)),
    # TSM, § 5.4: I3D replace, every shift of TSM ResNet-50 a 3x1x1 convolution
    "resnet50_i3d_replace": Variant(stem=1, stem_stride=1, pool_stride=1, inflated=_ALL, halved=False),
}


class Bottleneck3d(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut; the first or the second is a kernel over time."""

    def __init__(
        self, in_width: int, width: int, stride: int, reach: tuple[int, int], nl: NonLocalVolume | None
    ) -> None:
        super().__init__()
        out_width = width * EXPANSION
        (first, second), strides = reach, (1, stride, stride)
        self.conv1 = nn.Conv3d(in_width, width, (first, 1, 1), padding=(first // 2, 0, 0), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, (second, 3, 3), strides, (second // 2, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, out_width, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(out_width)
        self.downsample = (
            nn.Sequential(nn.Conv3d(in_width, out_width, 1, strides, bias=False), nn.BatchNorm3d(out_width))
            if stride != 1 or in_width != out_width
            else nn.Identity()
        )
        self.nl = nl

    def init_weights(self) -> None:
        nn.init.constant_(self.bn3.weight, RESIDUAL_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = F.relu(self.bn3(self.conv3(y)) + self.downsample(x))
        return self.nl(y) if self.nl is not None else y


class I3DResNet(nn.Module):
    """Maps clips to one row of logits each; `channels` 3 for RGB."""

    def __init__(
        self,
        variant: str,
        classes: int,
        *,
        channels: int = 3,
        non_local: NonLocalMode | None = None,
        non_local_bias: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        config = VARIANTS[variant]
        self.fewest_frames = config.fewest_frames
        self.volume = AsVolume()
        self.conv1 = nn.Conv3d(
            channels, 64, (config.stem, 7, 7), (config.stem_stride, 2, 2), (config.stem // 2, 3, 3), bias=False
        )
        self.bn1 = nn.BatchNorm3d(64)
        self.pool1 = nn.MaxPool3d((1, 3, 3), (config.pool_stride, 2, 2), (0, 1, 1))
        in_width = 64
        for stage, (width, inflated) in enumerate(zip(WIDTHS, config.inflated, strict=True), start=1):
            layer = nn.Sequential()
            for block, reaches in enumerate(inflated):
                nl = None
                if non_local and block in _NON_LOCAL_AT.get(stage, ()):
                    nl = NonLocalVolume(width * EXPANSION, non_local, out_bias=non_local_bias)
                stride = 2 if stage > 1 and block == 0 else 1
                layer.append(Bottleneck3d(in_width, width, stride, config.reach if reaches else (1, 1), nl))
                in_width = width * EXPANSION
            self.add_module(f"layer{stage}", layer)
        self.pool2 = nn.MaxPool3d((2, 1, 1)) if config.halved else nn.Identity()
        self.head = HeadPool(config.head) if config.head else nn.Identity()
        self.mean = MeanOfVolume()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_width, classes)

    def forward(self, x: Tensor, frames: int, shift: Shift) -> Tensor:  # noqa: ARG002 - as the others take it
        """Return the logits, N, classes, of normalized frames, N·T, C, H, W, with `frames` (T) per clip."""
        x = self.volume(x, frames)
        x = self.pool1(F.relu(self.bn1(self.conv1(x))))
        x = self.pool2(self.get_submodule("layer1")(x))
        for stage in (2, 3, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        logits: Tensor = self.fc(self.dropout(self.mean(self.head(x))))
        return logits


# --- Inception v1 --------------------------------------------------------------------------------------------------

#: Input, then the branches: 1x1; 1x1 and 3x3; 1x1 and 3x3; pool and 1x1 (GoogLeNet's table).
_MIXED = {
    "3b": (192, 64, 96, 128, 16, 32, 32),
    "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64),
    "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}


class Unit3d(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, in_width: int, out_width: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = SameConv3d(in_width, out_width, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(out_width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(x)))


class Mixed(nn.Module):
    """The inception block: four branches, their channels side by side."""

    def __init__(self, in_width: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int) -> None:
        super().__init__()
        self.b0 = Unit3d(in_width, b0)
        self.b1a, self.b1b = Unit3d(in_width, b1a), Unit3d(b1a, b1b, 3)
        self.b2a, self.b2b = Unit3d(in_width, b2a), Unit3d(b2a, b2b, 3)
        self.b3a, self.b3b = SameMaxPool3d(3, 1), Unit3d(in_width, b3b)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], 1)


class InceptionI3D(nn.Module):
    """Maps clips to one row of logits each; `channels` 3 for RGB, 2 for flow."""

    def __init__(self, classes: int, *, channels: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        self.volume = AsVolume()
        body: dict[str, nn.Module] = {
            "Conv3d_1a_7x7": Unit3d(channels, 64, 7, 2),
            "MaxPool3d_2a_3x3": SameMaxPool3d((1, 3, 3), (1, 2, 2)),
            "Conv3d_2b_1x1": Unit3d(64, 64),
            "Conv3d_2c_3x3": Unit3d(64, 192, 3),
            "MaxPool3d_3a_3x3": SameMaxPool3d((1, 3, 3), (1, 2, 2)),
        }
        for name, widths in _MIXED.items():
            if name == "4b":
                body["MaxPool3d_4a_3x3"] = SameMaxPool3d(3, 2)
            if name == "5b":
                body["MaxPool3d_5a_2x2"] = SameMaxPool3d(2, 2)
            body[f"Mixed_{name}"] = Mixed(*widths)
        self._body = tuple(body)
        for name, module in body.items():
            self.add_module(name, module)
        self.head = HeadPool((2, 7, 7))
        self.mean = MeanOfVolume()
        self.dropout = nn.Dropout(dropout)
        #: The publishers' 1x1x1 convolution, which commutes with the mean over positions.
        self.logits = nn.Linear(1024, classes)

    def forward(self, x: Tensor, frames: int, shift: Shift) -> Tensor:  # noqa: ARG002 - as the others take it
        """Return the logits, N, classes, of normalized frames, N·T, C, H, W, with `frames` (T) per clip."""
        x = self.volume(x, frames)
        for name in self._body:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.logits(self.dropout(self.mean(self.head(x))))
        return logits
