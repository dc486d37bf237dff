"""Helpers to time a file: what is fed, and what its runtime tells of operators, brought into one form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from time import perf_counter
from typing import Any

import numpy as np

from tsmzoo.artifact.contract import Contract
from tsmzoo.artifact.converter import Operator, Profile, Runner, Session
from tsmzoo.typing import Array


class RunnerSession:
    """A file in the runner that every command has; for runtimes that bind no tensors and tell no times of operators."""

    def __init__(self, runner: Runner, contract: Contract) -> None:
        self.runtime, self._runner, self._contract = runner.runtime, runner, contract
        self._inputs = {contract.main_input.name: pixels(contract), **contract.initial_states()}

    def run(self) -> Any:
        outputs = self._runner.run(self._inputs)
        self._inputs |= {pair.input: outputs[pair.output] for pair in self._contract.states}
        return outputs[self._contract.answer]

    def profile(self, passes: int) -> None:  # noqa: ARG002 - as the others take it
        return None


def pixels(contract: Contract) -> Array:
    """Return noise as the file's main input takes it."""
    tensor, random = contract.main_input, np.random.default_rng(0)
    shape = tensor.lengths()
    if contract.preprocess == "embedded":
        return random.integers(0, 256, shape).astype(tensor.dtype)
    return random.standard_normal(shape).astype(tensor.dtype)


def slowest(operators: Iterable[Operator]) -> tuple[Operator, ...]:
    """Return `operators` in order of their times."""
    return tuple(sorted(operators, key=lambda operator: -operator.ms))


def profile_of(events: Iterable[tuple[str, str, float, int]], passes: int) -> Profile:
    """Sum an operator's kind, node, milliseconds and calls, over the kinds and over the nodes."""
    kinds, nodes, counts = Counter[str](), Counter[tuple[str, str]](), Counter[Any]()
    for kind, name, ms, calls in events:
        kinds[kind] += ms  # type: ignore[assignment]  # a Counter adds any numbers
        nodes[kind, name] += ms  # type: ignore[assignment]
        counts[kind] += calls
        counts[kind, name] += calls
    return Profile(
        passes,
        slowest(Operator(kind, None, ms / passes, counts[kind] // passes) for kind, ms in kinds.items()),
        slowest(Operator(*node, ms / passes, counts[node] // passes) for node, ms in nodes.items()),
    )


def timed(session: Session, passes: int) -> list[float]:
    """Return the seconds of each of `passes`."""
    times = []
    for _ in range(passes):
        began = perf_counter()
        session.run()
        times.append(perf_counter() - began)
    return times
