"""X3D: networks expanded from a small one along several axes (Feichtenhofer, CVPR 2020, § 3).

XS, S and M are one network, `x3d`, fed with clips of 4, 13 and 16 frames; L is deeper. They consist of modules of
volumes, as I3D does (`i3d.py`). Sources: facebookresearch/SlowFast:slowfast/models/video_model_builder.py (X3D),
open-mmlab/mmaction2:mmaction/models/backbones/x3d.py and, under the name `…_windowed`,
facebookresearch/pytorchvideo:pytorchvideo/models/x3d.py, whose head slides a window as large as the volumes of training
and whose first shortcut has no batch norm; its form for phones (models/accelerator/mobile_cpu) is as the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from tsmzoo.models.i3d import AsVolume, HeadPool, MeanOfVolume, Sizes, SqueezeVolume
from tsmzoo.models.resnet import RESIDUAL_SCALE
from tsmzoo.models.shift import Shift

_STEM, _HEAD, _HIDDEN = 24, 432, 2048
#: Widths of the stages, of their depthwise convolutions, and of the squeeze between.
_STAGES = ((24, 54, 8), (48, 108, 8), (96, 216, 16), (192, 432, 32))
_BLOCKS = (3, 5, 11, 7)
_BLOCKS_L = (5, 10, 25, 15)
_WHOLE = (256, 64, 64)


@dataclass(frozen=True)
class Variant:
    """The differences among published networks."""

    blocks: tuple[int, ...] = _BLOCKS
    #: Window of the average in the head; default: the whole volume.
    window: Sizes = _WHOLE
    #: The shortcut of the first stage has a batch norm.
    first_norm: bool = True


VARIANTS = {
    "x3d": Variant(),
    "x3d_l": Variant(_BLOCKS_L),
    "x3d_xs_windowed": Variant(window=(4, 5, 5), first_norm=False),
    "x3d_s_windowed": Variant(window=(13, 5, 5), first_norm=False),
    "x3d_m_windowed": Variant(window=(16, 7, 7), first_norm=False),
    "x3d_l_windowed": Variant(_BLOCKS_L, (16, 10, 10), first_norm=False),
}


class Bottleneck(nn.Module):
    """Expand, filter over space and time, weigh the channels (every second block), project; beside a shortcut."""

    def __init__(self, in_width: int, width: int, inner: int, squeeze: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        strides = 1 if isinstance(shortcut, nn.Identity) else (1, 2, 2)
        self.conv1 = nn.Conv3d(in_width, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = nn.Conv3d(inner, inner, 3, strides, 1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm3d(inner)
        self.se = squeeze
        self.conv3 = nn.Conv3d(inner, width, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(width)
        self.downsample = shortcut

    def init_weights(self) -> None:
        nn.init.constant_(self.bn3.weight, RESIDUAL_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.silu(self.se(self.bn2(self.conv2(y))))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class X3D(nn.Module):
    """Maps clips to one row of logits each; `channels` 3 for RGB."""

    def __init__(self, variant: str, classes: int, *, channels: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        config = VARIANTS[variant]
        self.volume = AsVolume()
        self.conv1_s = nn.Conv3d(channels, _STEM, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        self.conv1_t = nn.Conv3d(_STEM, _STEM, (5, 1, 1), padding=(2, 0, 0), groups=_STEM, bias=False)
        self.bn1 = nn.BatchNorm3d(_STEM)
        in_width = _STEM
        for stage, ((width, inner, hidden), blocks) in enumerate(zip(_STAGES, config.blocks, strict=True), start=1):
            layer = nn.Sequential()
            for block in range(blocks):
                shortcut: nn.Module = nn.Identity()
                if block == 0:
                    shortcut = nn.Sequential(nn.Conv3d(in_width, width, 1, (1, 2, 2), bias=False))
                    if stage > 1 or config.first_norm:
                        shortcut.append(nn.BatchNorm3d(width))
                squeeze = SqueezeVolume(inner, hidden, F.relu) if block % 2 == 0 else nn.Identity()
                layer.append(Bottleneck(in_width, width, inner, squeeze, shortcut))
                in_width = width
            self.add_module(f"layer{stage}", layer)
        self.conv5 = nn.Conv3d(in_width, _HEAD, 1, bias=False)
        self.bn5 = nn.BatchNorm3d(_HEAD)
        self.pool = HeadPool(config.window)
        self.lin5 = nn.Conv3d(_HEAD, _HIDDEN, 1, bias=False)
        self.mean = MeanOfVolume()
        self.dropout = nn.Dropout(dropout)
        #: At each place of the window in the publisher's code, which commutes with the mean over them.
        self.fc = nn.Linear(_HIDDEN, classes)

    def forward(self, x: Tensor, frames: int, shift: Shift) -> Tensor:  # noqa: ARG002 - as the others take it
        """Return the logits, N, classes, of normalized frames, N·T, C, H, W, with `frames` (T) per clip."""
        x = self.conv1_s(self.volume(x, frames))
        x = F.relu(self.bn1(self.conv1_t(x)))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        x = F.relu(self.bn5(self.conv5(x)))
        x = F.relu(self.lin5(self.pool(x)))  # before the mean over the window's places
        logits: Tensor = self.fc(self.dropout(self.mean(x)))
        return logits
