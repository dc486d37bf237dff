"""Open TFLite files in the LiteRT interpreter, and time them."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tsmzoo.artifact.arrays import runtime_error
from tsmzoo.artifact.contract import Contract
from tsmzoo.artifact.converter import Profile
from tsmzoo.artifact.session import pixels, profile_of
from tsmzoo.system.quiet import quiet

from . import profile

RUNTIME = f"ai-edge-litert {version('ai-edge-litert')}"


def opened(path: Path, threads: int | None) -> tuple[Interpreter, Any]:
    """Return the file in the interpreter, and its signature to call. Raises ArtifactError if LiteRT rejects it."""
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()  # here, where what it prints is swallowed
        return interpreter, interpreter.get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise runtime_error(path, "LiteRT rejects", error) from None


class TfliteSession:
    """The LiteRT interpreter, by its tensors' indices: by the signature a small network takes 1.2 times as long."""

    runtime = RUNTIME

    def __init__(self, path: Path, contract: Contract, threads: int) -> None:
        self._opened = (path, threads)
        self._interpreter, signature = opened(path, threads)
        inputs, outputs = signature.get_input_details(), signature.get_output_details()
        self._pixels, self._frame = pixels(contract), inputs[contract.main_input.name]["index"]
        self._answer = outputs[contract.outputs[0].name]["index"]
        self._states = [(inputs[pair.input]["index"], outputs[pair.output]["index"]) for pair in contract.states]
        for tensor in contract.inputs[1:]:
            self._interpreter.set_tensor(inputs[tensor.name]["index"], np.zeros(tensor.lengths(), tensor.dtype))

    def run(self) -> Any:
        self._interpreter.set_tensor(self._frame, self._pixels)
        self._interpreter.invoke()
        for state, next_state in self._states:
            # Two copies; a view of either tensor takes as long to get.
            self._interpreter.set_tensor(state, self._interpreter.get_tensor(next_state))
        return self._interpreter.get_tensor(self._answer)

    def profile(self, passes: int) -> Profile | None:
        """By node of the graph as XNNPACK rewrote it; the states are not fed back."""
        with quiet():  # it logs what it makes
            told = profile.profile(*self._opened, passes)
        if told is None:
            return None
        counted, nodes = told
        return profile_of(nodes, counted)


def session(path: Path, contract: Contract, threads: int) -> TfliteSession:
    return TfliteSession(path, contract, threads)
