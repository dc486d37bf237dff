"""The temporal shift (Lin, Gan, Han: TSM, ICCV 2019, § 3.2-3.4) in the forms that the project needs.

A network calls `shift(x, fold)` in front of the first convolution of each shifted residual branch, or of the block.
What the call does is not the network's affair: the same network, with the same weights, runs over a
batch of clips, over one clip in the rank-4 form for phones, or frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

#: (features, fold) -> features of the same shape, `fold` channels of which come from other frames.
Shift = Callable[[Tensor, int], Tensor]
#: In the residual branch, or in front of the whole block, its shortcut included.
Place = Literal["residual", "in-place"]

# F.pad's pairs run from the last axis to the first: one frame after or before the others of N, T, C, H, W.
_ZERO_AFTER = (0, 0, 0, 0, 0, 0, 0, 1)
_ZERO_BEFORE = (0, 0, 0, 0, 0, 0, 1, 0)


def shift_clip(x: Tensor, fold: int, group: int | None = None) -> Tensor:
    """Shift the features of one clip, T, C, H, W, in both directions; no tensor exceeds rank 4.

    Channels [0, fold) come from frame t+1, [fold, 2·fold) from frame t-1, the rest stay; frames
    outside the clip are zero. With `group` so many frames after another shift among themselves.
    """
    if (group or len(x)) == 1:
        return _lone(x, 2 * fold)
    # By channels first: a cut through time alone would copy the channels that stay, too.
    ahead, behind, rest = x[:, :fold], x[:, fold : 2 * fold], x[:, 2 * fold :]
    # Not F.pad: litert-torch cannot move a padded batch axis to channels-last, and brackets it with transposes.
    zero = torch.zeros_like(ahead[:1])
    future = torch.cat([part for frames in _groups(ahead, group) for part in (frames[1:], zero)])
    past = torch.cat([part for frames in _groups(behind, group) for part in (zero, frames[:-1])])
    return torch.cat([future, past, rest] if rest.shape[1] else [future, past], 1)


def _lone(x: Tensor, moved: int) -> Tensor:
    """Shift frames that have no neighbours, N, C, H, W: of `moved` channels zeros come, and no slice has no frames.

    coremltools takes such a slice for one with frames, and knows no slice of everything.
    """
    if moved == x.shape[1]:
        return torch.zeros_like(x)
    return torch.cat([torch.zeros_like(x[:, :moved]), x[:, moved:]], 1)


def _groups(x: Tensor, group: int | None) -> Sequence[Tensor]:
    return torch.split(x, group) if group else [x]


def shift_channels_last(x: Tensor, fold: int, group: int | None = None) -> Tensor:
    """Do what `shift_clip` does by a depthwise convolution over time, for files whose channels come last.

    Each channel's kernel has one 1 among zeros, so finite numbers come out as they are. In LiteRT it takes one pass in
    place of seven cuts and joins: less than half of their time.
    """
    t, c, h, w = x.shape
    ahead, behind, stay = [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    # A list, which is traced as a constant.
    kernel = torch.tensor([ahead] * fold + [behind] * fold + [stay] * (c - 2 * fold), dtype=x.dtype, device=x.device)
    # In memory the axes are T, H, W, C: a reshape of that to groups, T, H·W, C moves nothing.
    clips = x.permute(0, 2, 3, 1).reshape(t // (group or t), group or t, h * w, c).permute(0, 3, 1, 2)
    shifted = F.conv2d(clips, kernel.view(c, 1, 3, 1), padding=(1, 0), groups=c)
    return shifted.permute(0, 2, 3, 1).reshape(t, h, w, c).permute(0, 3, 1, 2)


def shift_one_clip(group: int | None, *, channels_last: bool = False) -> Shift:
    """Return the shift of one clip, of so many frames among themselves; of all of them without."""
    shift = shift_channels_last if channels_last else shift_clip
    return partial(shift, group=group) if group else shift


def shift_clips(frames: int) -> Shift:
    """Return the bidirectional shift over N clips of `frames` frames, features N·T, C, H, W clip by clip."""

    def shift(x: Tensor, fold: int) -> Tensor:
        if frames == 1:
            return _lone(x, 2 * fold)
        clips = x.reshape(-1, frames, *x.shape[1:])  # N, T, C, H, W
        future = F.pad(clips[:, 1:, :fold], _ZERO_AFTER)
        past = F.pad(clips[:, :-1, fold : 2 * fold], _ZERO_BEFORE)
        return torch.cat([future, past, clips[:, :, 2 * fold :]], 2).flatten(0, 1)

    return shift


def shift_clips_forward(frames: int) -> Shift:
    """Return the unidirectional shift over whole clips: channels [0, fold) come from frame t-1.

    This is what an online model is trained with; frame by frame, `OnlineShift` gives the same.
    """

    def shift(x: Tensor, fold: int) -> Tensor:
        if frames == 1:
            return _lone(x, fold)
        clips = x.reshape(-1, frames, *x.shape[1:])  # N, T, C, H, W
        past = F.pad(clips[:, :-1, :fold], _ZERO_BEFORE)
        return torch.cat([past, clips[:, :, fold:]], 2).flatten(0, 1)

    return shift


class OnlineShift:
    """The unidirectional shift of one step: takes a state at each call, keeps what the next step needs.

    One instance serves one pass through the network; the states it is given and gives stand in the
    order of the blocks, each N, fold, H, W.
    """

    def __init__(self, states: Iterable[Tensor]) -> None:
        self._states = iter(states)
        self.next_states: list[Tensor] = []

    def __call__(self, x: Tensor, fold: int) -> Tensor:
        self.next_states.append(x[:, :fold])
        return torch.cat([next(self._states), x[:, fold:]], 1)


class ZeroShift:
    """The first step of a stream: every state is zero. Records the states' shapes on the way."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, x: Tensor, fold: int) -> Tensor:
        past = torch.zeros_like(x[:, :fold])
        self.shapes.append(tuple(past.shape))
        return torch.cat([past, x[:, fold:]], 1)
