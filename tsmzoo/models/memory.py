"""What a network remembers of the frames before, whether frames come one by one or as whole clips.

A network of a stream takes a memory in the place of the shift: `memory(x, fold)` shifts as TSM does (`shift.py`),
`memory.past(x, frames)` hands back the features of the frames before (MoViNet's temporal convolutions), and
`memory.mean(x)` the mean over all frames so far. Each call owns one state: a step of a stream takes the states in the
order of the calls and hands them on, a clip starts each from zeros.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from tsmzoo.models.shift import shift_clips_forward
from tsmzoo.registry import StateKind, StateSpec

#: Frames that a running mean weighs alike; from then on the past fades, so that a mean of an endless stream still
#: moves. It is the largest count that half precision holds exactly, and 40 times the frames that published figures see.
MOST_COUNTED = 2048


class Memory(Protocol):
    """What a network of a stream is called with."""

    def __call__(self, x: Tensor, fold: int) -> Tensor:
        """Return (N·T, C, H, W) with channels [0, fold) of the frame before: the unidirectional shift."""
        ...

    def past(self, x: Tensor, frames: int) -> Tensor:
        """Return the features of the `frames` frames before, (N·T, frames·C, H, W), oldest first; zeros at first."""
        ...

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean of (N·T, C, 1, 1) over all frames of its stream so far, this one included."""
        ...


class ClipMemory:
    """The memory of N clips of `frames` (T) frames, features (N·T, C, H, W): online models are trained with it."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._shift = shift_clips_forward(frames)
        #: Whether the network took a mean: then what it answers after the last frame is of all of them.
        self.averages = False

    def __call__(self, x: Tensor, fold: int) -> Tensor:
        return self._shift(x, fold)

    def past(self, x: Tensor, frames: int) -> Tensor:
        clips = F.pad(x.reshape(-1, self._frames, *x.shape[1:]), (0, 0, 0, 0, 0, 0, frames, 0))
        return torch.cat([clips[:, first : first + self._frames] for first in range(frames)], 2).flatten(0, 1)

    def mean(self, x: Tensor) -> Tensor:
        self.averages = True
        clips = x.reshape(-1, self._frames, *x.shape[1:])
        means = [torch.zeros_like(clips[:, 0])]
        for step, frame in enumerate(clips.unbind(1), start=1):
            means.append(means[-1] + (frame - means[-1]) / min(step, MOST_COUNTED))
        return torch.stack(means[1:], 1).flatten(0, 1)


class StepMemory:
    """The memory of one step of N streams; pure: it takes states, and gives `next_states` in the same order.

    States lie as the network calls for them; after them, if it takes means, the count of frames, (N, 1, 1, 1), one for
    all. Use one instance for one forward pass. `channels_last` is true if the exported file will have its axes so: then
    litert-torch puts no transposes around what is computed with states.
    """

    def __init__(self, states: Iterable[Tensor], *, channels_last: bool = False) -> None:
        self._states, self._channels_last = list(states), channels_last
        self._next: list[Tensor] = []
        self._count: Tensor | None = None
        #: What the present frame adds to a mean: one part in so many frames.
        self._share: Tensor | None = None

    @property
    def next_states(self) -> list[Tensor]:
        return self._next if self._count is None else [*self._next, self._count]

    def __call__(self, x: Tensor, fold: int) -> Tensor:
        before = self._states[len(self._next)]
        self._next.append(x[:, :fold])
        return torch.cat([before, x[:, fold:]], 1)

    def past(self, x: Tensor, frames: int) -> Tensor:  # noqa: ARG002 - as the buffer has it
        buffer = self._states[len(self._next)]
        axis = 3 if self._channels_last else 1
        newest = [*torch.split(self._ordered(buffer), x.shape[1], axis)[1:], self._ordered(x)]
        self._next.append(self._ordered_back(torch.cat(newest, axis)))
        return buffer

    def mean(self, x: Tensor) -> Tensor:
        if self._share is None:
            self._count = torch.clamp(self._states[-1] + 1, max=MOST_COUNTED)
            # Not the reciprocal, for which Core ML adds 1e-4 to what it divides by.
            self._share = torch.ones(1, dtype=x.dtype, device=x.device) / self._count
        before = self._states[len(self._next)]
        # Not the sum, which grows without bound: in half precision it would soon stand still.
        before, x = self._ordered(before), self._ordered(x)
        mean = self._ordered_back(before + (x - before) * self._share)
        self._next.append(mean)
        return mean

    def _ordered(self, x: Tensor) -> Tensor:
        """Return `x` with its axes in the order of the file."""
        return x.permute(0, 2, 3, 1) if self._channels_last else x

    def _ordered_back(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2) if self._channels_last else x


class FirstStep:
    """The memory of the first step of a stream, where every state is zero; records what states there are."""

    def __init__(self) -> None:
        self._states: list[StateSpec] = []
        self._count: StateSpec | None = None

    @property
    def states(self) -> list[StateSpec]:
        """The states of the N streams."""
        return self._states if self._count is None else [*self._states, self._count]

    def __call__(self, x: Tensor, fold: int) -> Tensor:
        past = torch.zeros_like(x[:, :fold])
        self._add("feature", past)
        return torch.cat([past, x[:, fold:]], 1)

    def past(self, x: Tensor, frames: int) -> Tensor:
        past = torch.zeros_like(x).repeat(1, frames, 1, 1)
        self._add("buffer", past, frames)
        return past

    def mean(self, x: Tensor) -> Tensor:
        self._count = StateSpec("count", (len(x), 1, 1, 1))
        self._add("mean", x)
        return x

    def _add(self, kind: StateKind, x: Tensor, frames: int = 1) -> None:
        self._states.append(StateSpec(kind, tuple(x.shape), frames))
