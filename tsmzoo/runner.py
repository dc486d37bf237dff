"""Running a model, in torch or from a file, over clips and streams: one loop for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from tsmzoo.artifact import Array, Contract, feed, from_layout, logits, unpacked
from tsmzoo.converter import Runner, StatefulRunner
from tsmzoo.models.forms import Clips, Step
from tsmzoo.threads import one_thread
from tsmzoo.weights import Network


class TorchRunner:
    """The network itself, not folded, not rewritten: what a file is compared with."""

    runtime = f"torch {torch.__version__}"

    def __init__(self, network: Network, contract: Contract) -> None:
        self._backbone, self._online = network.backbone.eval(), contract.mode == "online"
        self._group = network.entry.shift_frames
        self._inputs = [tensor.name for tensor in contract.inputs]
        self._outputs = [tensor.name for tensor in contract.outputs]

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        tensors = [torch.from_numpy(inputs[name]) for name in self._inputs]
        with torch.inference_mode(), one_thread():
            out = self._form(tensors[0])(*tensors)
        outputs = out if isinstance(out, tuple) else (out,)
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, outputs, strict=True)}

    def _form(self, main: Tensor) -> nn.Module:
        """Return the form for an input: clips may be of any T, as whole videos are."""
        return Step(self._backbone) if self._online else Clips(self._backbone, main.shape[1], self._group)


def run_clip(runner: Runner, contract: Contract, pixels: Array) -> dict[str, Array]:
    """Return the outputs for clips of camera values 0…255, N, T, C, H, W."""
    return _canonical(contract, runner.run({contract.main_input.name: feed(pixels, contract)}))


def step(
    runner: Runner, contract: Contract, pixels: Array, states: dict[str, Array] | None = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the outputs after a frame of camera values 0…255, N, C, H, W, and the next states.

    Without `states` it begins anew, from zeros.
    """
    if states is None:
        states = contract.initial_states(len(pixels))
        if contract.state == "implicit":
            cast("StatefulRunner", runner).reset()
    outputs = runner.run({contract.main_input.name: feed(pixels, contract), **states})
    return _canonical(contract, outputs), {pair.input: outputs[pair.output] for pair in contract.states}


def stream(runner: Runner, contract: Contract, frames: Iterable[Array]) -> Iterator[dict[str, Array]]:
    """Yield the outputs after each frame of camera values 0…255, N, C, H, W, the states fed back from zero."""
    states: dict[str, Array] | None = None
    for pixels in frames:
        outputs, states = step(runner, contract, pixels, states)
        yield outputs


def _canonical(contract: Contract, outputs: dict[str, Array]) -> dict[str, Array]:
    """Return outputs as those of the network in torch: channels first, each state by itself, logits."""
    found = {tensor.name: from_layout(outputs[tensor.name], tensor.layout) for tensor in contract.outputs}
    if contract.state == "packed":
        layouts = {part.name: part.layout for part in contract.parts}
        states = unpacked(found.pop("next_state"), contract.parts)
        found |= {f"next_{name}": from_layout(state, layouts[name]) for name, state in states.items()}
    if contract.answer != "logits":
        found["logits"] = logits(found[contract.answer], contract.activation, contract.precision)
    return found


def clips_logits(runner: Runner, contract: Contract, clips: Array) -> Array:
    """Return the logits, N, classes, of clips of camera values, N, T, C, H, W, at once where the file takes them so."""
    if isinstance(contract.main_input.shape[0], str):
        return run_clip(runner, contract, clips)["logits"]
    return np.concatenate([run_clip(runner, contract, clip[None])["logits"] for clip in clips])


def streams_logits(runner: Runner, contract: Contract, clips: Array) -> Array:
    """Return the logits after each frame, N, T, classes, of streams of camera values, N, T, C, H, W."""
    if not isinstance(contract.main_input.shape[0], str) and len(clips) > 1:
        return np.concatenate([streams_logits(runner, contract, clip[None]) for clip in clips])
    steps = stream(runner, contract, (clips[:, step] for step in range(clips.shape[1])))
    return np.stack([outputs["logits"] for outputs in steps], axis=1)
