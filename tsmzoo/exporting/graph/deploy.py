"""A model as it stands in a file: pixels normalized inside, axes in the order of the format."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tsmzoo.artifact.contract import Activation
from tsmzoo.models.wrappers import SingleClip


class Deployed(nn.Module):
    """A form as it stands in a file: pixels normalized inside, axes in the order of the format.

    With `mean` and `std` (on the scale 0…1) the input holds camera values 0…255, else it is
    normalized already. `channels_last` moves the channels of input, states and next states to the end.
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
        activation: Activation | None = None,
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
        if isinstance(self.form, SingleClip):
            pixels = pixels.flatten(0, -4)  # before anything is computed in more axes than phones' processors like
        x = self._normalize(pixels) if self.embedded else pixels
        if self.channels_last:
            x, states = x.permute(0, 3, 1, 2), tuple(state.permute(0, 3, 1, 2) for state in states)
        out = self.form(x, *states)
        answer, *next_states = out if isinstance(out, tuple) else (out,)
        if self.activation:
            answer = answer.softmax(1) if self.activation == "softmax" else answer.sigmoid()
        if self.channels_last:
            next_states = [state.permute(0, 2, 3, 1) for state in next_states]
        return answer, *next_states

    def _normalize(self, pixels: Tensor) -> Tensor:
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
