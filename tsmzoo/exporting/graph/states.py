"""The states of a stream in one tensor, or kept by the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from tsmzoo.exporting.graph.deploy import Deployed


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
