"""BNInception for frames (Ioffe and Szegedy, ICML 2015), with the key names of its Caffe original.

TSN's first backbone (mit-han-lab/temporal-shift-module:archs/bn_inception.py). It takes BGR. The publishers' code
shifts in place, the whole input of every module but the first (its `blockres` adds tensors of different channels, and
cannot run).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsmzoo.models.shift import Shift

#: Channels of a module's branches: 1x1; 3x3, reduced and in full; two 3x3, reduced and in full; pool and 1x1.
#: A module without the first and the last halves the side and passes the pool on unchanged.
MODULES = {
    "3a": (64, 64, 64, 64, 96, 32),
    "3b": (64, 64, 96, 64, 96, 64),
    "3c": (0, 128, 160, 64, 96, 0),
    "4a": (224, 64, 96, 96, 128, 128),
    "4b": (192, 96, 128, 96, 128, 128),
    "4c": (160, 128, 160, 128, 160, 128),
    "4d": (96, 128, 192, 160, 192, 128),
    "4e": (0, 128, 192, 192, 256, 0),
    "5a": (352, 192, 320, 160, 224, 128),
    "5b": (352, 192, 320, 192, 224, 128),
}
#: The module with a max pool; the others have average pools.
_MAXIMA = "5b"


class BNInception(nn.Module):
    """Maps frames to logits of each frame.

    `shift_div` is 8 for TSM and None for TSN; `channels` 3 for BGR, 10 for stacked flow.
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
        self.shift_div = shift_div
        self._add("conv1_7x7_s2", channels, 64, 7, 2)
        self._add("conv2_3x3_reduce", 64, 64, 1)
        self._add("conv2_3x3", 64, 192, 3)
        width = 192
        for module, (one, reduce, three, reduce2, double, pool) in MODULES.items():
            name, stride = f"inception_{module}_", 1 if one else 2
            if one:
                self._add(f"{name}1x1", width, one, 1)
            self._add(f"{name}3x3_reduce", width, reduce, 1)
            self._add(f"{name}3x3", reduce, three, 3, stride)
            self._add(f"{name}double_3x3_reduce", width, reduce2, 1)
            self._add(f"{name}double_3x3_1", reduce2, double, 3)
            self._add(f"{name}double_3x3_2", double, double, 3, stride)
            if one:
                self._add(f"{name}pool_proj", width, pool, 1)
            width = one + three + double + (pool or width)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, classes)

    def _add(self, name: str, in_width: int, out_width: int, kernel: int, stride: int = 1) -> None:
        self.add_module(name, nn.Conv2d(in_width, out_width, kernel, stride, kernel // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(out_width))

    def _unit(self, name: str, x: Tensor) -> Tensor:
        return F.relu(self.get_submodule(f"{name}_bn")(self.get_submodule(name)(x)))

    def forward(self, x: Tensor, frames: int, shift: Shift) -> Tensor:  # noqa: ARG002 - as ResNet takes them
        """Return the logits, N·T, classes, of normalized frames, N·T, C, H, W, with `frames` (T) per clip."""
        x = _halved(self._unit("conv1_7x7_s2", x))
        x = self._shifted(x, shift)
        x = _halved(self._unit("conv2_3x3", self._unit("conv2_3x3_reduce", x)))
        for module in MODULES:
            x = self._module(module, self._shifted(x, shift))
        logits: Tensor = self.fc(self.dropout(torch.mean(x, (2, 3))))
        return logits

    def _shifted(self, x: Tensor, shift: Shift) -> Tensor:
        fold = x.shape[1] // self.shift_div if self.shift_div else 0
        return shift(x, fold) if fold else x

    def _module(self, module: str, x: Tensor) -> Tensor:
        name = f"inception_{module}_"
        three = self._unit(f"{name}3x3", self._unit(f"{name}3x3_reduce", x))
        double = self._unit(f"{name}double_3x3_1", self._unit(f"{name}double_3x3_reduce", x))
        double = self._unit(f"{name}double_3x3_2", double)
        if not MODULES[module][0]:
            return torch.cat([three, double, _halved(x, odd=1)], 1)
        pooled = F.max_pool2d(x, 3, 1, 1) if module == _MAXIMA else F.avg_pool2d(x, 3, 1, 1)
        return torch.cat([self._unit(f"{name}1x1", x), three, double, self._unit(f"{name}pool_proj", pooled)], 1)


def _halved(x: Tensor, odd: int = 0) -> Tensor:
    """Max pool of 3x3 with stride 2, including every window that begins inside (Caffe's rule).

    An odd side is padded by `odd`: 1 gives the size of a padded convolution.
    """
    height, width = (odd if int(side) % 2 else 0 for side in x.shape[2:])
    return F.max_pool2d(x, 3, 2, (height, width), ceil_mode=True)
