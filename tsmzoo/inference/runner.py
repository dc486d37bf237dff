"""Run clips and streams through a runner, in torch or from a file: one loop for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np

from tsmzoo.artifact.arrays import feed, from_layout, logits, unpacked
from tsmzoo.artifact.contract import Contract
from tsmzoo.artifact.converter import Runner, StatefulRunner
from tsmzoo.typing import Array


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
