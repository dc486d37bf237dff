"""What a stream remembers: frame by frame it is what a clip gives, and how it is reckoned by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tsmzoo.models import memory
from tsmzoo.models.memory import ClipMemory, FirstStep, Memory, StepMemory
from tsmzoo.registry import StateSpec


def network(x: Tensor, remembered: Memory) -> Tensor:
    """A network of one channel after another: shift, buffers of three and one frames, two means."""
    x = remembered(x, 1)
    x = x + sum(part * (index + 2) for index, part in enumerate(remembered.past(x, 3).split(x.shape[1], 1)))
    x = x * remembered.mean(x.mean((2, 3), keepdim=True))
    x = x - remembered.past(x, 1)
    return x + remembered.mean(x.amax((2, 3), keepdim=True))


def stepped(clips: Tensor) -> Tensor:
    first = FirstStep()
    network(clips[:, 0], first)
    states, out = [torch.zeros(state.shape) for state in first.states], []
    for frame in clips.unbind(1):
        step = StepMemory(states)
        out.append(network(frame, step))
        states = step.next_states
    return torch.stack(out, 1)


@given(n=st.integers(1, 3), t=st.integers(1, 7), c=st.integers(2, 4), seed=st.integers(0, 99))
def test_frames_one_by_one_give_what_the_clip_gives(n: int, t: int, c: int, seed: int) -> None:
    clips = torch.randn(n, t, c, 3, 2, generator=torch.Generator().manual_seed(seed))
    whole = network(clips.flatten(0, 1), ClipMemory(t)).reshape(clips.shape)
    assert torch.allclose(stepped(clips), whole, atol=1e-4 * float(whole.abs().max() + 1))


def test_first_step_tells_the_states() -> None:
    first = FirstStep()
    network(torch.randn(2, 4, 5, 6), first)
    assert first.states == [
        StateSpec("feature", (2, 1, 5, 6)),
        StateSpec("buffer", (2, 12, 5, 6), 3),
        StateSpec("mean", (2, 4, 1, 1)),
        StateSpec("buffer", (2, 4, 5, 6)),
        StateSpec("mean", (2, 4, 1, 1)),
        StateSpec("count", (2, 1, 1, 1)),
    ]


def test_a_buffer_holds_the_frames_before_oldest_first() -> None:
    clip = torch.arange(1.0, 5.0).view(4, 1, 1, 1)
    assert ClipMemory(4).past(clip, 2).flatten(1).tolist() == [[0, 0], [0, 1], [1, 2], [2, 3]]


def test_a_mean_counts_all_frames_alike_until_the_most_and_then_fades(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_COUNTED", 3)
    clip = torch.tensor([6.0, 0.0, 3.0, 9.0, 1.0]).view(5, 1, 1, 1)
    wanted = [6.0, 3.0, 3.0, 5.0, 5 - 4 / 3]
    assert ClipMemory(5).mean(clip).flatten().tolist() == pytest.approx(wanted)
    states = [torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)]
    for frame, mean in zip(clip, wanted, strict=True):
        step = StepMemory(states)
        assert float(step.mean(frame[None])) == pytest.approx(mean)
        states = step.next_states
    assert float(states[-1]) == 3
