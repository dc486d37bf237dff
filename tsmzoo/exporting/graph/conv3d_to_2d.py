"""Rewrite 3-D convolutions and pools as exact 2-D ones, for export.

Phones' runtimes run 2-D convolutions fast, 3-D ones slowly or not at all, and their GPUs take four axes. `conv3d_to_2d`
puts in the place of each module of `i3d.py` that sees volumes, N, C, T, H, W, one that sees the frames of one clip,
T, C, H, W: T takes the place of the batch.

- A kernel that reaches over k frames is k kernels of 2-D, each run over the frames that it meets: `SummedConv`.
- If the input has few channels beside the output's (a stem), it is one 2-D kernel over k frames side by side:
  `StackedConv`.
- A max over time is the maximum of slices, a mean their mean.

Measured in LiteRT, one thread: `SummedConv` takes 0.81-0.85 of the time of one 2-D convolution over T x H·W with kernel
k x 1 if T is 4, 1.0 if it is 8; the zero frames at either end of a clip cost nothing, no frame is copied.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsmzoo.models.i3d import AsVolume, HeadPool, MeanOfVolume, NonLocalVolume, Sizes, WeighVolume, pads, triple
from tsmzoo.models.movinet import SameAveragePool3d
from tsmzoo.models.resnet import NonLocal

#: From this ratio of output to input channels on, frames are cheaper to copy than results to add (measured in LiteRT:
#: 0.92 of the time for the stems' 21; at 3 and below both take the same, and `SummedConv` needs no copy).
_FEW_CHANNELS = 8


def conv3d_to_2d(model: nn.Module, *, channels_last: bool) -> nn.Module:
    """Return a copy of `model` that takes one clip and has no module of volumes; its batch norms are folded before.

    `channels_last` says that the file will have its axes so: where frames are copied, it saves transposes.
    """
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if (flat := _flat(module, channels_last)) is not None:
            model.set_submodule(name, flat)
    return model


def _flat(module: nn.Module, channels_last: bool) -> nn.Module | None:
    if isinstance(module, nn.Conv3d):
        few = module.out_channels >= _FEW_CHANNELS * module.in_channels
        return StackedConv(module, channels_last) if few else SummedConv(module)
    if isinstance(module, nn.MaxPool3d):
        return MaxPool(module)
    if isinstance(module, HeadPool):
        return AveragePool(module)
    if isinstance(module, NonLocalVolume):
        return Attention(module)
    if isinstance(module, WeighVolume):
        return Weigh()
    if isinstance(module, SameAveragePool3d):
        return module.frame
    if isinstance(module, AsVolume):
        return Frames()
    return Mean(channels_last) if isinstance(module, MeanOfVolume) else None


class SummedConv(nn.Module):
    """A 3-D convolution as a sum of 2-D ones, one for each frame of its reach."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        reach, stride = triple(conv.kernel_size), triple(conv.stride)
        ends, *sides = pads(conv, _sizes(x))
        x, padding = _pad(x, sides)
        middle = (reach[0] - 1) // 2

        def tap(index: int, frames: Tensor) -> Tensor:
            bias = conv.bias if index == middle else None
            return F.conv2d(frames, conv.weight[:, :, index], bias, stride[1:], padding, groups=conv.groups)

        return _over_time(x, reach[0], stride[0], ends, tap, torch.add)


class StackedConv(nn.Module):
    """A 3-D convolution as a 2-D one over the frames of its reach, their channels side by side."""

    def __init__(self, conv: nn.Conv3d, channels_last: bool) -> None:
        super().__init__()
        self.conv, self.channels_last = conv, channels_last
        #: Out, reach x in, kh, kw.
        self.weight = nn.Parameter(conv.weight.detach().transpose(1, 2).flatten(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        reach, stride = triple(self.conv.kernel_size), triple(self.conv.stride)
        (front, back), *sides = pads(self.conv, _sizes(x))
        length = _length(len(x), reach[0], stride[0], (front, back))
        x, padding = _pad(x, sides)
        if self.channels_last:  # else litert-torch brackets pad and cuts with transposes
            x = x.permute(0, 2, 3, 1)
        x = F.pad(x, (0, 0, 0, 0, 0, 0, front, back))
        x = torch.cat([_every(x, tap, length, stride[0]) for tap in range(reach[0])], 3 if self.channels_last else 1)
        if self.channels_last:
            x = x.permute(0, 3, 1, 2)
        return F.conv2d(x, self.weight, self.conv.bias, stride[1:], padding)


class MaxPool(nn.Module):
    """A 3-D max pool: 2-D over each frame, then the maximum of frames."""

    def __init__(self, pool: nn.MaxPool3d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        reach, stride = triple(self.pool.kernel_size), triple(self.pool.stride)
        ends, *sides = pads(self.pool, _sizes(x))
        if reach[0] == 1:  # first, since it leaves frames out
            x = _every(x, 0, _length(len(x), 1, stride[0], ends), stride[0])
        if (reach[1:], stride[1:]) != ((1, 1), (1, 1)):
            x, padding = _pad(x, sides)
            x = F.max_pool2d(x, reach[1:], stride[1:], padding)
        if reach[0] == 1:
            return x
        return _over_time(x, reach[0], stride[0], ends, lambda _, frames: frames, torch.maximum)


class AveragePool(nn.Module):
    """The head's average over a window that slides by one."""

    def __init__(self, pool: HeadPool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        reach, *window = self.pool.window(_sizes(x))
        x = F.avg_pool2d(x, window, 1)
        return _over_time(x, reach, 1, (0, 0), lambda _, frames: frames, torch.add) / reach


class Attention(nn.Module):
    """The non-local block on the frames of one clip."""

    def __init__(self, block: NonLocalVolume) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return NonLocal.forward(self.block, x, len(x))


class Frames(nn.Module):
    """Frames stay frames."""

    def forward(self, x: Tensor, frames: int) -> Tensor:  # noqa: ARG002 - as AsVolume takes it
        return x


class Weigh(nn.Module):
    """The product of T, C, H, W and 1, C, 1, 1."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return x * weights


class Mean(nn.Module):
    """T, C, H, W to 1, C."""

    def __init__(self, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        if not self.channels_last:
            return x.mean((2, 3)).mean(0, keepdim=True)
        # Frames as the rows of an image: phones' processors average those, not what stands in the batch's place.
        rows = x.mean((2, 3), keepdim=True).permute(0, 2, 3, 1).reshape(1, len(x), 1, x.shape[1])
        return rows.permute(0, 3, 1, 2).mean((2, 3))


def _sizes(x: Tensor) -> Sizes:
    return x.shape[0], x.shape[2], x.shape[3]


def _length(frames: int, reach: int, stride: int, ends: tuple[int, int]) -> int:
    """Return the number of frames that come out."""
    return (frames + sum(ends) - reach) // stride + 1


def _over_time(
    x: Tensor,
    reach: int,
    stride: int,
    ends: tuple[int, int],
    look: Callable[[int, Tensor], Tensor],
    join: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return for each place of a window of `reach` frames what its frames join to, each looked at in its turn.

    `ends` zero frames in front and behind are left out: they add nothing to a sum, and no maximum is negative.
    """
    front, _ = ends
    length = _length(len(x), reach, stride, ends)
    middle = (reach - 1) // 2
    out: Tensor | None = None
    for tap in sorted(range(reach), key=lambda tap: abs(tap - middle)):  # the middle one meets a frame at every place
        # Place t meets frame t * stride + tap - front, if there is one.
        first = max(-(-(front - tap) // stride), 0)
        end = min((len(x) - 1 + front - tap) // stride + 1, length)
        if first >= end:
            continue
        y = look(tap, _every(x, first * stride + tap - front, end - first, stride))
        if out is None:
            out = y
        elif (first, end) == (0, length):
            out = join(out, y)
        else:  # no zeros are added, which a file would hold: a twentieth of its size
            out = torch.cat([part for part in (out[:first], join(out[first:end], y), out[end:]) if len(part)])
    assert out is not None
    return out


def _every(x: Tensor, begin: int, count: int, stride: int) -> Tensor:
    """Return `count` frames, every `stride`-th from `begin` on."""
    end = begin + (count - 1) * stride + 1
    return x if (begin, end, stride) == (0, len(x), 1) else x[begin:end:stride]


def _pad(x: Tensor, sides: Sequence[tuple[int, int]]) -> tuple[Tensor, tuple[int, int]]:
    """Return `x` and the padding left to a convolution or pool: none where the sides differ, which is then done."""
    (top, bottom), (left, right) = sides
    if top == bottom and left == right:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom)), (0, 0)
