"""Time Core ML packages, by Core ML on a Mac and by our interpreter elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tsmzoo.artifact.contract import Contract
from tsmzoo.benchmarking.run import Profile
from tsmzoo.benchmarking.sessions import pixels

from .runtime import load


class CoremlSession:
    """Core ML on a Mac, which takes as many threads as it likes; elsewhere our interpreter."""

    def __init__(self, path: Path, contract: Contract) -> None:
        runner = load(path, contract)
        self.runtime, self._runner, self._contract = runner.runtime, runner, contract
        self._inputs = {contract.main_input.name: pixels(contract), **contract.initial_states()}

    def run(self) -> Any:
        outputs = self._runner.run(self._inputs)
        self._inputs |= {pair.input: outputs[pair.output] for pair in self._contract.states}
        return outputs[self._contract.outputs[0].name]

    def profile(self, passes: int) -> Profile | None:  # noqa: ARG002 - as the others take it
        return None


def session(path: Path, contract: Contract, threads: int) -> CoremlSession:
    return CoremlSession(path, contract)
