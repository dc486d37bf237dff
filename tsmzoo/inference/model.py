"""A model that is ready to run: a network in torch or an exported file, behind one interface. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from tsmzoo.artifact.arrays import feed, from_layout, logits, unpacked
from tsmzoo.artifact.contract import Contract
from tsmzoo.artifact.converter import Runner, StatefulRunner, open_artifact
from tsmzoo.system.quiet import quiet
from tsmzoo.typing import Array

if TYPE_CHECKING:
    from torch import nn

    from tsmzoo.weights.load import Network

#: Of an online model, by name.
States = dict[str, Array]


@dataclass(frozen=True)
class Model:
    """A network or an exported file, ready to run, and its contract."""

    runner: Runner
    #: What its tensors are, its labels, its preprocessing, and what it was made from.
    contract: Contract
    #: The network in torch; None for a file.
    module: nn.Module | None = None

    @property
    def any_batch(self) -> bool:
        """Whether it takes several clips or streams at once."""
        return isinstance(self.contract.main_input.shape[0], str)

    def run_clips(self, pixels: Array) -> dict[str, Array]:
        """Return the outputs for clips of camera values 0…255, N, T, C, H, W."""
        return self._canonical(self.runner.run({self.contract.main_input.name: feed(pixels, self.contract)}))

    def run_step(self, pixels: Array, states: States | None = None) -> tuple[dict[str, Array], States]:
        """Return the outputs after a frame of camera values 0…255, N, C, H, W, and the next states.

        Without `states` it begins anew, from zeros.
        """
        if states is None:
            states = self.contract.initial_states(len(pixels))
            if self.contract.state == "implicit":
                cast("StatefulRunner", self.runner).reset()
        outputs = self.runner.run({self.contract.main_input.name: feed(pixels, self.contract), **states})
        return self._canonical(outputs), {pair.input: outputs[pair.output] for pair in self.contract.states}

    def run_stream(self, frames: Iterable[Array]) -> Iterator[dict[str, Array]]:
        """Yield the outputs after each frame of camera values 0…255, N, C, H, W, the states fed back from zero."""
        states: States | None = None
        for pixels in frames:
            outputs, states = self.run_step(pixels, states)
            yield outputs

    def clip_logits(self, clips: Array) -> Array:
        """Return the logits, N, classes, of clips of camera values, N, T, C, H, W: at once where it takes them so."""
        if self.any_batch:
            return self.run_clips(clips)["logits"]
        return np.concatenate([self.run_clips(clip[None])["logits"] for clip in clips])

    def frame_logits(self, clips: Array) -> Array:
        """Return the logits after each frame, N, T, classes, of streams of camera values, N, T, C, H, W."""
        if not self.any_batch and len(clips) > 1:
            return np.concatenate([self.frame_logits(clip[None]) for clip in clips])
        steps = self.run_stream(clips[:, step] for step in range(clips.shape[1]))
        return np.stack([outputs["logits"] for outputs in steps], axis=1)

    def _canonical(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """Return outputs as those of the network in torch: channels first, each state by itself, logits."""
        contract = self.contract
        found = {tensor.name: from_layout(outputs[tensor.name], tensor.layout) for tensor in contract.outputs}
        if contract.state == "packed":
            layouts = {part.name: part.layout for part in contract.parts}
            states = unpacked(found.pop("next_state"), contract.parts)
            found |= {f"next_{name}": from_layout(state, layouts[name]) for name, state in states.items()}
        if contract.answer != "logits":
            found["logits"] = logits(found[contract.answer], contract.activation, contract.precision)
        return found


def open_file(path: Path, threads: int | None = None) -> Model:
    """Return an exported file, checked against its contract, ready to run. Raises ArtifactError."""
    contract, converter = open_artifact(path)
    with quiet():
        converter.check(path, contract)
        return Model(converter.load(path, contract, threads), contract)


def check_file(path: Path) -> None:
    """Check an exported file against its contract, and run nothing. Raises ArtifactError."""
    contract, converter = open_artifact(path)
    with quiet():
        converter.check(path, contract)


def warnings(model: str, made_of: Network | Contract) -> Iterator[str]:
    """Yield what makes the answers of `model` doubtful: random weights, a shift it was not trained with."""
    if made_of.weights == "random":
        yield f"warning: the weights of {model} are RANDOM (seed {made_of.seed}); its answers mean nothing"
    if made_of.checkpoint and made_of.checkpoint.shift_mismatch:
        yield f"warning: {model} holds a BIDIRECTIONAL checkpoint; its answers are not the published ones"
