"""Find the operators that keep running means and the count of frames, which no precision may round.

What a frame adds to the mean of a thousand is less than half a step of int8 or of a half: rounded, the mean would
stand still.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tsmzoo.artifact.contract import Contract


class Node(NamedTuple):
    """An operator of a file: its name, and the tensors that it reads and writes; constants are left out."""

    name: str
    inputs: set[str]
    outputs: set[str]


def kept_exact(nodes: Sequence[Node], contract: Contract) -> list[str]:
    """Return the names of the operators of `nodes`, which lie in the order they run in, that keep means and the count.

    Those are all between a mean and the next mean, and what is computed from the count alone.
    """
    kinds = {tensor.name: tensor.kind for tensor in contract.inputs}
    names = []
    for pair in contract.states:
        if kinds[pair.input] == "mean":
            names += _between(nodes, pair.input, pair.output)
        elif kinds[pair.input] == "count":
            names += _from_alone(nodes, pair.input)
    return names


def _between(nodes: Sequence[Node], first: str, last: str) -> list[str]:
    behind = {first}
    following = []
    for node in nodes:
        if behind & node.inputs:
            behind |= node.outputs
            following.append(node)
    before = {last}
    names = []
    for node in reversed(following):
        if before & node.outputs:
            before |= node.inputs
            names.append(node.name)
    return names


def _from_alone(nodes: Sequence[Node], state: str) -> list[str]:
    known = {state}
    names = []
    for node in nodes:
        if node.inputs and known >= node.inputs:
            known |= node.outputs
            names.append(node.name)
    return names
