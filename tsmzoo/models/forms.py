"""The forms of a model: a batch of clips, one clip in rank 4, one step of a stream.

All are thin modules around one backbone; `fold_batch_norm` prepares it for export.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tsmzoo.models.shift import OnlineShift, ZeroShift, shift_clip, shift_clips, shift_clips_forward


class Clips(nn.Module):
    """Clips, N, T, C, H, W, to logits, N, classes: the mean over the T frames (TSN's consensus).

    The form for training and for batches of any size; T is fixed, N is not. An `online` model shifts forward
    only: frame by frame, `Step` gives the same logits, which are averaged here.
    """

    def __init__(self, backbone: nn.Module, frames: int, *, online: bool = False) -> None:
        super().__init__()
        self.backbone, self.frames = backbone, frames
        self._shift = (shift_clips_forward if online else shift_clips)(frames)

    def forward(self, clip: Tensor) -> Tensor:
        logits: Tensor = self.backbone(clip.flatten(0, 1), self.frames, self._shift)
        return logits.reshape(clip.shape[0], -1, logits.shape[1]).mean(1)


class OneClip(nn.Module):
    """One clip, (1,) T, C, H, W, to logits, 1, classes; but for the input no tensor exceeds rank 4."""

    def __init__(self, backbone: nn.Module, frames: int) -> None:
        super().__init__()
        self.backbone, self.frames = backbone, frames

    def forward(self, clip: Tensor) -> Tensor:
        logits: Tensor = self.backbone(clip.flatten(0, -4), self.frames, shift_clip)
        return logits.mean(0, keepdim=True)


class Step(nn.Module):
    """One frame, N, C, H, W, and the states, to logits, N, classes, and the next states: a pure function."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, frame: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        shift = OnlineShift(states)
        logits: Tensor = self.backbone(frame, 1, shift)
        return logits, *shift.next_states


class Deployed(nn.Module):
    """A form as it stands in a file: pixels normalised inside, axes in the order of the format.

    With `mean` and `std` (on the scale 0…1) the input holds camera values 0…255, else it is
    normalised already. `channels_last` moves the channels of input, states and next states to the end.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self, form: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None, *, channels_last: bool
    ) -> None:
        super().__init__()
        self.form, self.channels_last, self.embedded = form, channels_last, mean is not None
        if mean is not None and std is not None:
            mean_, std_ = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
            shape = (-1,) if channels_last else (-1, 1, 1)
            self.register_buffer("scale", (1 / (255 * std_)).float().view(shape))
            self.register_buffer("offset", (-mean_ / std_).float().view(shape))

    def forward(self, pixels: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        x = pixels.float() * self.scale + self.offset if self.embedded else pixels
        if not self.channels_last:
            out = self.form(x, *states)
            return out if isinstance(out, tuple) else (out,)
        out = self.form(x.permute(0, 3, 1, 2), *(state.permute(0, 3, 1, 2) for state in states))
        logits, *next_states = out if isinstance(out, tuple) else (out,)
        return logits, *(state.permute(0, 2, 3, 1) for state in next_states)


def state_shapes(backbone: nn.Module, channels: int, size: int) -> list[tuple[int, ...]]:
    """Return the shapes, 1, fold, H, W, of the states of a stream of `size` pixels, in the order of the blocks."""
    shift = ZeroShift()
    backbone = copy.deepcopy(backbone).to("meta")
    with torch.no_grad():
        backbone(torch.empty(1, channels, size, size, device="meta"), 1, shift)
    return shift.shapes


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Return a copy of `model` whose batch norms are folded into the convolutions they follow.

    Relies on the backbones' habit to register each batch norm right after its convolution.
    """
    model = copy.deepcopy(model).eval()
    for parent in model.modules():
        children = list(parent.named_children())
        for (name, conv), (bn_name, bn) in pairwise(children):
            if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(bn, nn.BatchNorm2d | nn.BatchNorm3d):
                setattr(parent, name, fuse_conv_bn_eval(conv, bn))
                setattr(parent, bn_name, nn.Identity())
    return model
