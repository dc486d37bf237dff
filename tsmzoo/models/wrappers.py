"""A backbone as it is run: a batch of clips, one clip in rank 4, one step of a stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tsmzoo.errors import ZooError
from tsmzoo.models.shift import OnlineShift, ZeroShift, shift_clips, shift_clips_forward, shift_one_clip


class ClipModel(nn.Module):
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


class SingleClip(nn.Module):
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


class StreamStep(nn.Module):
    """One frame, N, C, H, W, and the states, to logits, N, classes, and the next states: a pure function."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, frame: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        shift = OnlineShift(states)
        logits: Tensor = self.backbone(frame, 1, shift)
        return logits, *shift.next_states


def state_shapes(backbone: nn.Module, channels: int, size: int) -> list[tuple[int, ...]]:
    """Return the shapes, 1, fold, H, W, of the states of a stream of `size` pixels, in the order of the blocks."""
    shift = ZeroShift()
    # Where the network is, not on "meta": the first pass there loads torch's decompositions, a second.
    device = next(backbone.parameters()).device
    with torch.inference_mode():
        backbone(torch.zeros(1, channels, size, size, device=device), 1, shift)
    return shift.shapes
