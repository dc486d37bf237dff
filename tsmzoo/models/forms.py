"""The forms of a model: a batch of clips, one clip in rank 4, one step of a stream.

All are thin modules around one backbone; `fold_batch_norm` prepares it for export.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tsmzoo.errors import ZooError
from tsmzoo.models.mobileone import MobileOneBlock
from tsmzoo.models.shift import OnlineShift, ZeroShift, shift_clips, shift_clips_forward, shift_one_clip


class Clips(nn.Module):
    """Clips, N, T, C, H, W, to logits, N, classes: the mean over the T frames (TSN's consensus).

    I3D gives one row of logits a clip, whose mean it is itself.
    The form for training and for batches of any size; T is fixed, N is not. An `online` model shifts forward
    only: frame by frame, `Step` gives the same logits, which are averaged here. `group` frames shift among
    themselves, all T without.
    """

    def __init__(self, backbone: nn.Module, frames: int, group: int | None = None, *, online: bool = False) -> None:
        super().__init__()
        _check_frames(backbone, frames, group)
        self.backbone, self.frames = backbone, frames
        self._shift = (shift_clips_forward if online else shift_clips)(group or frames)

    def forward(self, clip: Tensor) -> Tensor:
        logits: Tensor = self.backbone(clip.flatten(0, 1), self.frames, self._shift)
        return logits.reshape(clip.shape[0], -1, logits.shape[1]).mean(1)


class OneClip(nn.Module):
    """One clip, (1,) T, C, H, W, to logits, 1, classes; but for the input no tensor exceeds rank 4.

    `channels_last` says that the file will have its axes so, which decides how the shift is written.
    """

    def __init__(
        self, backbone: nn.Module, frames: int, group: int | None = None, *, channels_last: bool = False
    ) -> None:
        super().__init__()
        _check_frames(backbone, frames, group)
        self.backbone, self.frames = backbone, frames
        self._shift = shift_one_clip(group if group != frames else None, channels_last=channels_last)

    def forward(self, clip: Tensor) -> Tensor:
        logits: Tensor = self.backbone(clip.flatten(0, -4), self.frames, self._shift)
        return logits.mean(0, keepdim=True)


def _check_frames(backbone: nn.Module, frames: int, group: int | None) -> None:
    """Raise ZooError where a clip is too short for the network, whose pools over time (I3D) would find nothing.

    And where it does not divide into the groups that shift: frames would cross from clip to clip.
    """
    if frames < (fewest := getattr(backbone, "fewest_frames", 1)):
        raise ZooError(f"this model needs clips of {fewest} frames at least, not of {frames}; give as many")
    if group and frames % group:
        raise ZooError(f"{frames} frames do not divide into the {group} that this model shifts; give a multiple")


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
    `bgr`: the network takes BGR, as do `mean` and `std`, but camera values are RGB. With `activation` the first
    output are probabilities.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        form: nn.Module,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        *,
        channels_last: bool,
        bgr: bool = False,
        activation: Literal["softmax", "sigmoid"] | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.form, self.channels_last, self.embedded, self.bgr = form, channels_last, mean is not None, bgr
        if mean is not None and std is not None:
            mean_, std_ = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
            self.register_buffer("centre", (255 * mean_).float().view(-1, 1, 1))
            self.register_buffer("scale", (1 / (255 * std_)).float().view(-1, 1, 1))
            #: Scale and offset of each channel, for rows.
            self._factors: tuple[list[float], list[float]] = (
                (1 / (255 * std_)).float().tolist(),
                (-mean_ / std_).float().tolist(),
            )

    def forward(self, pixels: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        if isinstance(self.form, OneClip):
            pixels = pixels.flatten(0, -4)  # before anything is computed in more axes than phones' processors like
        x = self._normalised(pixels) if self.embedded else pixels
        if self.channels_last:
            x, states = x.permute(0, 3, 1, 2), tuple(state.permute(0, 3, 1, 2) for state in states)
        out = self.form(x, *states)
        answer, *next_states = out if isinstance(out, tuple) else (out,)
        if self.activation:
            answer = answer.softmax(1) if self.activation == "softmax" else answer.sigmoid()
        if self.channels_last:
            next_states = [state.permute(0, 2, 3, 1) for state in next_states]
        return answer, *next_states

    def _normalised(self, pixels: Tensor) -> Tensor:
        x = pixels.float()
        if self.bgr:
            axis = -1 if self.channels_last else -3
            # Not `flip`, for which phones' GPUs have no operator.
            x = torch.cat([x.narrow(axis, channel, 1) for channel in (2, 1, 0)], axis)
        if not self.channels_last:
            # Not a product and a sum, which coremltools takes for a batch norm: its epsilon is an error of 1e-4.
            return (x - self.centre) * self.scale
        # Row by row: runtimes take three numbers at a time where three stand in the last axis.
        scale, offset = (torch.tensor(values * x.shape[-2]) for values in self._factors)
        return (x.flatten(-2) * scale + offset).reshape(x.shape)


class Packed(nn.Module):
    """A deployed step whose states, of `shapes` without the batch, lie one after another in one tensor, N, S."""

    def __init__(self, step: Deployed, shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.step, self.shapes = step, [list(shape) for shape in shapes]

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        # Cut in four axes: phones' GPUs cut no tensor of two.
        line = state.reshape(-1, 1, 1, state.shape[1])
        pieces = torch.split(line, [prod(shape) for shape in self.shapes], 3)
        states = (piece.reshape(-1, *shape) for piece, shape in zip(pieces, self.shapes, strict=True))
        answer, *next_states = self.step(frame, *states)
        return answer, torch.cat([state.flatten(1) for state in next_states], 1)


class Stateful(nn.Module):
    """A deployed step of one stream that keeps its states itself, in buffers called `state_0`, `state_1` and so on."""

    def __init__(self, step: Deployed, shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.step, self.count = step, len(shapes)
        for index, shape in enumerate(shapes):
            self.register_buffer(f"state_{index}", torch.zeros(1, *shape))

    def forward(self, frame: Tensor) -> Tensor:
        states = [self.get_buffer(f"state_{index}") for index in range(self.count)]
        answer, *next_states = self.step(frame, *states)
        for state, next_state in zip(states, next_states, strict=True):
            state.copy_(next_state)
        return cast("Tensor", answer)


def state_shapes(backbone: nn.Module, channels: int, size: int) -> list[tuple[int, ...]]:
    """Return the shapes, 1, fold, H, W, of the states of a stream of `size` pixels, in the order of the blocks."""
    shift = ZeroShift()
    # Where the network is, not on "meta": the first pass there loads torch's decompositions, a second.
    device = next(backbone.parameters()).device
    with torch.inference_mode():
        backbone(torch.zeros(1, channels, size, size, device=device), 1, shift)
    return shift.shapes


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Return a copy of `model` whose batch norms are folded into the convolutions they follow.

    Relies on the backbones' habit to register each batch norm right after its convolution. MobileOne's branches
    become one; DenseNet keeps the norms in front of its ReLUs, which no convolution can take.
    """
    model = copy.deepcopy(model).eval()
    for block in [module for module in model.modules() if isinstance(module, MobileOneBlock)]:
        block.fuse()
    for parent in model.modules():
        children = list(parent.named_children())
        for (name, conv), (bn_name, bn) in pairwise(children):
            if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(bn, nn.BatchNorm2d | nn.BatchNorm3d):
                setattr(parent, name, fuse_conv_bn_eval(conv, bn))
                setattr(parent, bn_name, nn.Identity())
    return model
