"""The temporal shift (Lin, Gan, Han: TSM, ICCV 2019, § 3.2-3.4) for clips, for one clip and for streams.

A network calls `shift(x, fold)` before the first convolution of each shifted residual branch, or before the block. The
function is an argument of the network: the same network with the same weights runs on a batch of clips, on one clip
with tensors of rank 4 for phones, or frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

#: (features, fold) -> features of the same shape, in which `fold` channels for each direction come from other frames.
Shift = Callable[[Tensor, int], Tensor]
#: In the residual branch, or before the whole block, including its shortcut.
Place = Literal["residual", "in-place"]

# F.pad's pairs run from the last axis to the first: one frame after or before the others of N, T, C, H, W.
_ZERO_AFTER = (0, 0, 0, 0, 0, 0, 0, 1)
_ZERO_BEFORE = (0, 0, 0, 0, 0, 0, 1, 0)


def shift_clip(x: Tensor, fold: int, group: int | None = None) -> Tensor:
    """Shift the features of one clip, (T, C, H, W), in both directions; no tensor exceeds rank 4.

    Channels [0, fold) come from frame t+1, [fold, 2·fold) from frame t-1, the rest stay; frames outside the clip are
    zero. With `group`, each group of so many consecutive frames shifts by itself.
    """
    if (group or len(x)) == 1:
        return _shift_single_frames(x, 2 * fold)
    # Split channels first: slicing time alone would copy the channels that stay, too.
    ahead, behind, rest = x[:, :fold], x[:, fold : 2 * fold], x[:, 2 * fold :]
    # Not F.pad: litert-torch cannot move a padded batch axis to channels-last, and adds transposes around it.
    zero = torch.zeros_like(ahead[:1])
    future = torch.cat([part for frames in _groups(ahead, group) for part in (frames[1:], zero)])
    past = torch.cat([part for frames in _groups(behind, group) for part in (zero, frames[:-1])])
    return torch.cat([future, past, rest] if rest.shape[1] else [future, past], 1)


def _shift_single_frames(x: Tensor, moved: int) -> Tensor:
    """Shift frames without neighbors, (N, C, H, W): `moved` channels become zero, without slices of zero frames.

    coremltools mistakes such a slice for one with frames, and does not know a slice of everything.
    """
    if moved == x.shape[1]:
        return torch.zeros_like(x)
    return torch.cat([torch.zeros_like(x[:, :moved]), x[:, moved:]], 1)


def _groups(x: Tensor, group: int | None) -> Sequence[Tensor]:
    return torch.split(x, group) if group else [x]


def shift_channels_last(x: Tensor, fold: int, group: int | None = None) -> Tensor:
    """Like `shift_clip`, by a depthwise convolution over time, for files with channels last.

    The kernel of each channel has one 1 among zeros, so finite numbers stay exact. In LiteRT it takes one pass, not
    seven slices and concatenations, and less than half of their time.
    """
    t, c, h, w = x.shape
    ahead, behind, stay = [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    # From a list, which is traced as a constant.
    kernel = torch.tensor([ahead] * fold + [behind] * fold + [stay] * (c - 2 * fold), dtype=x.dtype, device=x.device)
    # In memory the axes are T, H, W, C: reshaping that to groups, T, H·W, C moves nothing.
    clips = x.permute(0, 2, 3, 1).reshape(t // (group or t), group or t, h * w, c).permute(0, 3, 1, 2)
    shifted = F.conv2d(clips, kernel.view(c, 1, 3, 1), padding=(1, 0), groups=c)
    return shifted.permute(0, 2, 3, 1).reshape(t, h, w, c).permute(0, 3, 1, 2)


def shift_one_clip(group: int | None, *, channels_last: bool = False) -> Shift:
    """Return the shift of one clip, of all frames or of each `group` of so many by itself."""
    shift = shift_channels_last if channels_last else shift_clip
    return partial(shift, group=group) if group else shift


def shift_clips(frames: int) -> Shift:
    """Return the bidirectional shift of N clips of `frames` (T) frames, features (N·T, C, H, W)."""

    def shift(x: Tensor, fold: int) -> Tensor:
        if frames == 1:
            return _shift_single_frames(x, 2 * fold)
        clips = x.reshape(-1, frames, *x.shape[1:])  # N, T, C, H, W
        future = F.pad(clips[:, 1:, :fold], _ZERO_AFTER)
        past = F.pad(clips[:, :-1, fold : 2 * fold], _ZERO_BEFORE)
        return torch.cat([future, past, clips[:, :, 2 * fold :]], 2).flatten(0, 1)

    return shift


def shift_clips_forward(frames: int) -> Shift:
    """Return the unidirectional shift of N clips of `frames` (T) frames: channels [0, fold) come from frame t-1.

    Online models are trained with it; frame by frame, a stream's memory (`memory.py`) gives the same.
    """

    def shift(x: Tensor, fold: int) -> Tensor:
        if frames == 1:
            return _shift_single_frames(x, fold)
        clips = x.reshape(-1, frames, *x.shape[1:])  # N, T, C, H, W
        past = F.pad(clips[:, :-1, :fold], _ZERO_BEFORE)
        return torch.cat([past, clips[:, :, fold:]], 2).flatten(0, 1)

    return shift
