"""Toy networks whose files have a fault, and the faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.artifact.contracts import toy_contract
from tsmzoo.artifact.contract import Contract, StatePair, Tensor, Verification
from tsmzoo.artifact.converter import Runner
from tsmzoo.exporting.compare import compare
from tsmzoo.inference.model import Model
from tsmzoo.typing import Array

Arrays = dict[str, Array]


Pair = tuple[Runner, Contract]


#: What is other than it should be in a call of a `Faulty` runner.
Change = Callable[["Faulty"], Arrays]


CLASSES, SIZE = 5, 8


def verify(reference: Pair, candidate: Pair, **options: Any) -> Verification:
    return compare(Model(*reference), Model(*candidate), **options)


LOGITS = Tensor(name="logits", shape=(1, CLASSES), dtype="float32", layout="NC", meaning="")


def tensor(name: str, *shape: int | str, layout: Any = "NCHW", dtype: Any = "float32") -> Tensor:
    return Tensor(name=name, shape=shape, dtype=dtype, layout=layout, meaning="")


def contract(**changes: Any) -> Contract:
    """An online model of two states of one shape, small enough to be done by hand."""
    facts: dict[str, Any] = {
        "inputs": (tensor("frame", 1, 3, SIZE, SIZE), *(tensor(f"state_{i}", 1, 2, SIZE, SIZE) for i in (0, 1))),
        "outputs": (LOGITS, *(tensor(f"next_state_{i}", 1, 2, SIZE, SIZE) for i in (0, 1))),
        "states": tuple(StatePair(input=f"state_{i}", output=f"next_state_{i}") for i in (0, 1)),
        "classes": CLASSES,
        "labels": None,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.25, 0.2, 0.5),
        "size": SIZE,
        "resize": SIZE,
        "target_fps": None,
    }
    return toy_contract(**(facts | changes))


WEIGHTS = np.random.default_rng(3).standard_normal((3, CLASSES)).astype("float32")


class Toy:
    """Two shifts in a row, in NumPy: what the second passes on depends on what the first was given."""

    runtime = "toy"

    def run(self, inputs: Arrays) -> Arrays:
        frame = inputs["frame"]
        first = np.concatenate([inputs["state_0"], frame[:, 2:]], 1)
        hidden = np.tanh(first + 0.3 * frame)
        second = np.concatenate([inputs["state_1"], hidden[:, 2:]], 1)
        return {
            "logits": second.mean((2, 3)) @ WEIGHTS,
            "next_state_0": frame[:, :2],
            "next_state_1": hidden[:, :2],
        }


class Faulty:
    """A runner with something done to its inputs before, or to its outputs after."""

    runtime = "faulty"

    def __init__(self, inner: Runner, before: Change | None = None, after: Change | None = None) -> None:
        self.inner, self.before, self.after = inner, before, after
        #: Calls so far, this one included.
        self.calls = 0
        #: What a fault keeps from call to call.
        self.held: Arrays = {}
        self.given: Arrays = {}
        self.outputs: Arrays = {}

    def run(self, inputs: Arrays) -> Arrays:
        self.calls += 1
        self.given = dict(inputs)
        if self.before:
            self.given |= self.before(self)
        self.outputs = {name: value.copy() for name, value in self.inner.run(self.given).items()}
        if self.after:
            self.outputs |= self.after(self)
        return self.outputs


class Recorder(Faulty):
    def __init__(self, inner: Runner) -> None:
        self.seen: list[Arrays] = []
        super().__init__(inner, lambda call: self.seen.append(call.given) or {})


def states_of(arrays: Arrays) -> Arrays:
    return {name: value for name, value in arrays.items() if name.startswith("state_")}


def forget_updates(call: Faulty) -> Arrays:
    """The next states are the states that came in."""
    return {f"next_{name}": value for name, value in states_of(call.given).items()}


def never_read(call: Faulty) -> Arrays:
    """The states are constants of the graph: its first step is right, and so is every next state of it."""
    return {name: np.zeros_like(value) for name, value in states_of(call.given).items()}


def swap(one: str, other: str) -> Change:
    return lambda call: {one: call.outputs[other], other: call.outputs[one]}


def drift(name: str, after: int) -> Change:
    """1 % too much of `name` from step `after` + 1 on."""
    return lambda call: {name: call.outputs[name] * 1.01} if call.calls > after else {}


def poison(name: str, value: float, at: int) -> Change:
    """One element of `name` is `value`, once."""

    def after(call: Faulty) -> Arrays:
        if call.calls == at:
            call.outputs[name].flat[1] = value
        return {}

    return after


def freeze(at: int) -> Change:
    """Every answer from that call on is that of that call."""

    def after(call: Faulty) -> Arrays:
        if call.calls <= at:
            call.held = call.outputs
        return call.held

    return after
