"""Measure what each operator in int8 costs: how much smaller the error of the logits is if it stays float."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tsmzoo.typing import Array

#: Steps that costs are measured on.
_PROBES = 32


def probes(feeds: Sequence[dict[str, Array]]) -> list[dict[str, Array]]:
    """Return steps spread over `feeds`."""
    return [feeds[int(index)] for index in np.linspace(0, len(feeds) - 1, min(len(feeds), _PROBES))]


def costs(operators: Iterable[str], wanted: Array, found: Callable[[Sequence[str]], Array]) -> list[tuple[str, float]]:
    """Return the operators and their costs, largest first, as mean errors relative to the range of the logits.

    `wanted` are the logits of the float file; `found` gives those of one in int8 but for the operators named.
    """

    def error(kept: Sequence[str]) -> float:
        return float(np.abs(found(kept) - wanted).mean() / np.ptp(wanted))

    whole = error(())
    return sorted(((name, whole - error([name])) for name in operators), key=lambda item: -item[1])
