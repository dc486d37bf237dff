"""The Core ML interpreter's convolutions and pools against NumPy."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.converters.programs import Array, close, numbers, pairs, properties, run

pytest.importorskip("coremltools")
pytestmark = pytest.mark.filterwarnings("ignore")
with redirect_stderr(StringIO()):
    from coremltools.converters.mil.mil import Builder as mb


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> Iterator[None]:
    """coremltools collects garbage at each conversion: a third of a second, were all that is loaded looked through."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@st.composite
def windows(draw: st.DrawFn, dilated: bool) -> dict[str, Any]:
    """Draw sizes, kernel, strides, dilations and padding of one to three axes."""
    axes = draw(st.integers(1, 3))

    def each(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes))

    pad_type = draw(st.sampled_from(["valid", "custom", "same", "same_lower"]))
    kernel = each(1, 4)
    dilations = each(1, 2) if dilated else [1] * axes
    pad = [draw(st.integers(0, k - 1)) for k in kernel for _ in range(2)] if pad_type == "custom" else None
    return {
        "sizes": each(3, 9),
        "kernel": kernel,
        "strides": each(1, 3),
        "dilations": dilations,
        "pad_type": pad_type,
        "pad": pad,
    }


def given_or_not(pad: list[int] | None) -> dict[str, list[int]]:
    return {} if pad is None else {"pad": pad}


def cut(x: Array, window: dict[str, Any], fill: float) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Yield each place of the result and the N, C, *K that stand in its window."""
    padded = np.pad(x, [(0, 0), (0, 0), *pairs(window)], constant_values=fill)
    reach = [(k - 1) * d + 1 for k, d in zip(window["kernel"], window["dilations"], strict=True)]
    lengths = [(n - r) // s + 1 for n, r, s in zip(padded.shape[2:], reach, window["strides"], strict=True)]
    assume(all(length > 0 for length in lengths))
    for place in product(*map(range, lengths)):
        index = tuple(
            slice(at * s, at * s + r, d)
            for at, s, r, d in zip(place, window["strides"], reach, window["dilations"], strict=True)
        )
        yield place, padded[(slice(None), slice(None), *index)]


def at_places(values: list[tuple[tuple[int, ...], Array]]) -> Array:
    """Put values, N, C each, at their places of N, C, *D."""
    lengths = np.array([place for place, _ in values]).max(0) + 1
    return np.stack([value for _, value in values], -1).reshape(*values[0][1].shape, *lengths)


@given(windows(dilated=True), st.sampled_from([(1, 2, 3), (2, 1, 1), (2, 2, 1), (3, 1, 2)]), st.booleans())
@properties
def test_conv(window: dict[str, Any], channels: tuple[int, int, int], biased: bool) -> None:
    groups, per_group, out_per_group = channels
    x = numbers(2, groups * per_group, *window["sizes"])
    weight = numbers(groups * out_per_group, per_group, *window["kernel"], seed=1)
    bias = numbers(groups * out_per_group, seed=2) if biased else np.zeros(groups * out_per_group, "float32")
    of_groups = weight.reshape(groups, out_per_group, -1).astype("float64")
    wanted = at_places(
        [
            (place, np.einsum("gok,ngk->ngo", of_groups, part.reshape(2, groups, -1)).reshape(2, -1) + bias)
            for place, part in cut(x, window, 0)
        ]
    )
    options: dict[str, Any] = {"bias": bias} if biased else {}
    names = ("strides", "dilations", "pad_type")
    options |= {name: window[name] for name in names} | given_or_not(window["pad"])
    close(run(lambda x: mb.conv(x=x, weight=weight, groups=groups, **options), x), wanted, 1e-4)


@given(windows(dilated=False), st.sampled_from(["max", "mean of all", "mean"]))
@properties
def test_pools(window: dict[str, Any], kind: str) -> None:
    x = numbers(2, 3, *window["sizes"])
    fill = {"max": -np.inf, "mean of all": 0.0, "mean": np.nan}[kind]
    axes = tuple(range(2, x.ndim))
    function = {"max": np.max, "mean of all": np.mean, "mean": np.nanmean}[kind]
    wanted = at_places([(place, function(part, axis=axes)) for place, part in cut(x, window, fill)])
    assume(np.isfinite(wanted).all())  # a window in the padding alone has no mean
    names = ("strides", "pad_type")
    options = {name: window[name] for name in names} | given_or_not(window["pad"]) | {"kernel_sizes": window["kernel"]}
    if kind == "max":
        close(run(lambda x: mb.max_pool(x=x, **options), x), wanted)
    else:
        close(run(lambda x: mb.avg_pool(x=x, exclude_padding_from_average=kind == "mean", **options), x), wanted)


@given(
    st.lists(st.integers(3, 9), min_size=1, max_size=2),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 2),
    st.sampled_from(["max", "mean of all", "mean"]),
)
@properties
def test_pools_round_their_size_up(sizes: list[int], kernel: int, stride: int, pad: int, kind: str) -> None:
    """As PyTorch does: the last window begins before the end of x, and what is not even padding never counts."""
    assume(2 * pad <= kernel >= stride)  # with longer strides coremltools counts a window that holds nothing
    x = numbers(1, 2, *sizes)

    def spans(size: int) -> list[tuple[int, int]]:
        starts = range(-pad, size, stride)
        starts = starts[: math.ceil((size + 2 * pad - kernel) / stride) + 1]
        return [(start, start + kernel) for start in starts]

    values = []
    for place in product(*(enumerate(spans(size)) for size in sizes)):
        inside = x[(..., *(slice(max(first, 0), last) for _, (first, last) in place))]
        axes = tuple(range(2, x.ndim))
        count = np.prod([min(last, size + pad) - first for (_, (first, last)), size in zip(place, sizes, strict=True)])
        assume(inside.size > 0)
        value = inside.max(axes) if kind == "max" else inside.mean(axes)
        if kind == "mean of all":
            value = inside.sum(axes) / count
        values.append((tuple(at for at, _ in place), value))
    options = {"kernel_sizes": [kernel] * len(sizes), "strides": [stride] * len(sizes), "ceil_mode": True}
    options |= {"pad_type": "custom", "pad": [pad] * 2 * len(sizes)}
    if kind != "max":
        options["exclude_padding_from_average"] = kind == "mean"
    found = run(lambda x: (mb.max_pool if kind == "max" else mb.avg_pool)(x=x, **options), x)
    close(found, at_places(values))
