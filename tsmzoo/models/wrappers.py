"""Wrap a backbone as a model of clips, of one clip with tensors of rank 4, or of one step of a stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tsmzoo.errors import ZooError
from tsmzoo.models.memory import ClipMemory, FirstStep, StepMemory
from tsmzoo.models.shift import shift_clips, shift_one_clip
from tsmzoo.registry import StateSpec


class ClipModel(nn.Module):
    """Maps clips, (N, T, C, H, W), to logits, (N, classes): the mean over the T frames (TSN's consensus).

    For training and batches: T is fixed, N is not. I3D gives one row of logits per clip, which is its own mean. An
    `online` model looks back only; `StreamStep` gives the same logits frame by frame, averaged here, or, of a network
    that keeps running means (MoViNet), those after the last frame. Each `group` of so many frames shifts by itself
    (default: all T).
    """

    def __init__(self, backbone: nn.Module, frames: int, group: int | None = None, *, online: bool = False) -> None:
        super().__init__()
        _check_frames(backbone, frames, group)
        self.backbone, self.frames = backbone, frames
        self._group, self._online = group or frames, online

    def forward(self, clip: Tensor) -> Tensor:
        memory = (ClipMemory if self._online else shift_clips)(self._group)  # not kept: it cannot be pickled
        logits: Tensor = self.backbone(clip.flatten(0, 1), self.frames, memory)
        answers = logits.reshape(clip.shape[0], -1, logits.shape[1])
        return answers[:, -1] if isinstance(memory, ClipMemory) and memory.averages else answers.mean(1)


class SingleClip(nn.Module):
    """Maps one clip, (T, C, H, W) or (1, T, C, H, W), to logits, (1, classes); inside no tensor exceeds rank 4.

    `channels_last` is true if the exported file will have its axes so; it decides how the shift is expressed.
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
    """Raise ZooError if a clip is too short for the pools over time (I3D), or not a multiple of the shift's group."""
    if frames < (fewest := getattr(backbone, "fewest_frames", 1)):
        raise ZooError(f"this model needs clips of {fewest} frames at least, not of {frames}; give as many")
    if group and frames % group:
        raise ZooError(f"{frames} frames do not divide into the {group} that this model shifts; give a multiple")


class StreamStep(nn.Module):
    """Maps a frame, (N, C, H, W), and the states to logits, (N, classes), and the next states; a pure function.

    `channels_last` is true if the exported file will have its axes so; it decides how states are computed with.
    """

    def __init__(self, backbone: nn.Module, *, channels_last: bool = False) -> None:
        super().__init__()
        self.backbone, self._channels_last = backbone, channels_last

    def forward(self, frame: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        memory = StepMemory(states, channels_last=self._channels_last)
        logits: Tensor = self.backbone(frame, 1, memory)
        return logits, *memory.next_states


def states_of(backbone: nn.Module, channels: int, size: int) -> list[StateSpec]:
    """Return the states of a stream of frames of `size` pixels, in the order in which `StreamStep` takes them."""
    memory = FirstStep()
    # On the network's device, not on "meta": the first pass there loads torch's decompositions, which takes a second.
    device = next(backbone.parameters()).device
    with torch.inference_mode():
        backbone(torch.zeros(1, channels, size, size, device=device), 1, memory)
    return memory.states


def state_shapes(backbone: nn.Module, channels: int, size: int) -> list[tuple[int, ...]]:
    """Return the shapes, (1, C, H, W), of `states_of`."""
    return [state.shape for state in states_of(backbone, channels, size)]
