"""The Core ML interpreter's products, norms, arithmetic and moves against NumPy."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.converters.programs import (
    BINARY,
    REDUCTIONS,
    UNARY,
    close,
    numbers,
    properties,
    run,
)

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


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@given(st.lists(st.integers(1, 4), max_size=2), st.integers(1, 5), st.integers(1, 5), st.booleans())
@properties
def test_linear(lead: list[int], inner: int, outer: int, biased: bool) -> None:
    x, weight, bias = numbers(*lead, inner), numbers(outer, inner, seed=1), numbers(outer, seed=2)
    options = {"bias": bias} if biased else {}
    wanted = x.astype("float64") @ weight.T + (bias if biased else 0)
    close(run(lambda x: mb.linear(x=x, weight=weight, **options), x), wanted)


@given(st.sampled_from([((), ()), ((2,), (2,)), ((3, 1), (2,)), ((), (2,))]), st.booleans(), st.booleans())
@properties
def test_matmul(lead: tuple[tuple[int, ...], tuple[int, ...]], turn_x: bool, turn_y: bool) -> None:
    x = numbers(*lead[0], *((5, 3) if turn_x else (3, 5)))
    y = numbers(*lead[1], *((4, 5) if turn_y else (5, 4)), seed=1)
    wanted = np.matmul(x.swapaxes(-1, -2) if turn_x else x, y.swapaxes(-1, -2) if turn_y else y)
    close(run(lambda x, y: mb.matmul(x=x, y=y, transpose_x=turn_x, transpose_y=turn_y), x, y), wanted)


@given(st.integers(1, 3), st.booleans(), st.sampled_from([None, 1e-5, 0.1]))
@properties
def test_batch_norm(axes: int, scaled: bool, epsilon: float | None) -> None:
    x, mean, variance = numbers(2, 3, *[4] * axes), numbers(3, seed=1), numbers(3, seed=2) ** 2 + 0.1
    gamma, beta = numbers(3, seed=3), numbers(3, seed=4)
    options: dict[str, Any] = {"gamma": gamma, "beta": beta} if scaled else {}
    options |= {} if epsilon is None else {"epsilon": np.float32(epsilon)}
    each = (slice(None), *[None] * axes)
    wanted = (x - mean[each]) / np.sqrt(variance[each] + (epsilon or 1e-5))
    wanted = wanted * gamma[each] + beta[each] if scaled else wanted
    close(run(lambda x: mb.batch_norm(x=x, mean=mean, variance=variance, **options), x), wanted, 1e-4)


@pytest.mark.parametrize("kind", UNARY)
@given(shape=shapes)
@settings(properties, max_examples=5)
def test_unary(kind: str, shape: tuple[int, ...]) -> None:
    x = 4 * numbers(*shape)
    x = np.abs(x) + 0.1 if kind in ("sqrt", "rsqrt") else x
    close(run(lambda x: getattr(mb, kind)(x=x), x), UNARY[kind](x.astype("float64")))


@pytest.mark.parametrize("kind", BINARY)
@given(
    both=st.sampled_from([((2, 3), (2, 3)), ((2, 3), (3,)), ((4, 1, 3), (2, 1)), ((1,), (2, 2, 2, 2)), ((3,), ())]),
    constant=st.booleans(),
)
@settings(properties, max_examples=8)
def test_binary(kind: str, both: tuple[tuple[int, ...], tuple[int, ...]], constant: bool) -> None:
    x, y = numbers(*both[0]), numbers(*both[1], seed=1)
    x = np.abs(x) + 0.1 if kind == "pow" else x
    operation, wanted = getattr(mb, kind), BINARY[kind](x.astype("float64"), y)
    if constant or y.ndim == 0:
        close(run(lambda x: operation(x=x, y=y), x), wanted)
    else:
        close(run(lambda x, y: operation(x=x, y=y), x, y), wanted)


@pytest.mark.parametrize("kind", REDUCTIONS)
@given(shape=shapes, data=st.data(), keep=st.booleans())
@settings(properties, max_examples=8)
def test_reductions(kind: str, shape: tuple[int, ...], data: st.DataObject, keep: bool) -> None:
    rank = len(shape)
    axes = data.draw(st.none() | st.lists(st.integers(-rank, rank - 1), min_size=1, unique_by=lambda a: a % rank))
    x = numbers(*shape)
    wanted = REDUCTIONS[kind](x, axis=None if axes is None else tuple(axes), keepdims=keep)
    given_axes = {} if axes is None else {"axes": axes}
    found = run(lambda x: getattr(mb, kind)(x=x, keep_dims=keep, **given_axes), x)
    close(found, np.asarray(wanted))


@given(shapes, st.data())
@properties
def test_softmax(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = 3 * numbers(*shape)
    exp = np.exp(x.astype("float64"))
    close(run(lambda x: mb.softmax(x=x, axis=axis), x), exp / exp.sum(axis, keepdims=True))


@given(st.floats(-2, 1, width=16), st.floats(1.5, 6, width=16))
@settings(properties, max_examples=8)
def test_bounds_and_slopes(low: float, high: float) -> None:
    x = 5 * numbers(3, 4)
    alpha, beta = np.float32(low), np.float32(high)
    close(run(lambda x: mb.clip(x=x, alpha=alpha, beta=beta), x), np.clip(x, alpha, beta))
    close(run(lambda x: mb.leaky_relu(x=x, alpha=alpha), x), np.where(x >= 0, x, alpha * x))
    close(run(lambda x: mb.sigmoid_hard(x=x, alpha=alpha, beta=beta), x), np.clip(alpha * x + beta, 0, 1))
    close(run(lambda x: mb.thresholded_relu(x=x, alpha=alpha), x), np.where(x >= alpha, x, 0))


@pytest.mark.parametrize("mode", ["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"])
def test_gelu(mode: str) -> None:
    x = 2 * numbers(50)
    share = {
        "EXACT": [0.5 + 0.5 * math.erf(v / math.sqrt(2)) for v in x],
        "TANH_APPROXIMATION": 0.5 + 0.5 * np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
        "SIGMOID_APPROXIMATION": 1 / (1 + np.exp(-1.702 * x)),
    }[mode]
    close(run(lambda x: mb.gelu(x=x, mode=mode), x), x * np.array(share))


@given(shapes, st.data())
@settings(properties, max_examples=60)
def test_slice_by_index(shape: tuple[int, ...], data: st.DataObject) -> None:
    rank = len(shape)

    def each(values: st.SearchStrategy[Any]) -> list[Any]:
        return data.draw(st.lists(values, min_size=rank, max_size=rank))

    begin = [data.draw(st.integers(-n, n - 1)) for n in shape]
    end = [data.draw(st.integers(-n, n)) for n in shape]
    optional = {
        "stride": data.draw(st.none() | st.just(each(st.integers(1, 3)))),
        "begin_mask": data.draw(st.none() | st.just(each(st.booleans()))),
        "end_mask": data.draw(st.none() | st.just(each(st.booleans()))),
        "squeeze_mask": data.draw(st.none() | st.just(each(st.booleans()))),
    }
    x = numbers(*shape)
    none = [False] * rank
    index: list[int | slice] = []
    for axis in range(rank):
        first = None if (optional["begin_mask"] or none)[axis] else begin[axis]
        last = None if (optional["end_mask"] or none)[axis] else end[axis]
        step = (optional["stride"] or [1] * rank)[axis]
        index.append((first or 0) if (optional["squeeze_mask"] or none)[axis] else slice(first, last, step))
    wanted = np.asarray(x[tuple(index)])
    assume(wanted.size)
    options = {name: value for name, value in optional.items() if value is not None}
    found = run(lambda x: mb.slice_by_index(x=x, begin=begin, end=end, **options), x)
    np.testing.assert_array_equal(found, wanted)


@given(shapes, st.data())
@properties
def test_slice_by_size(shape: tuple[int, ...], data: st.DataObject) -> None:
    begin = [data.draw(st.integers(0, n - 1)) for n in shape]
    size = [data.draw(st.sampled_from([-1, *range(1, n - b + 1)])) for n, b in zip(shape, begin, strict=True)]
    x = numbers(*shape)
    wanted = x[tuple(slice(b, None if n == -1 else b + n) for b, n in zip(begin, size, strict=True))]
    np.testing.assert_array_equal(run(lambda x: mb.slice_by_size(x=x, begin=begin, size=size), x), wanted)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((6, 4), (6, 4)),
        ((-1,), (24,)),
        ((2, -1, 4), (2, 3, 4)),
        ((4, 3, 2, 1), (4, 3, 2, 1)),
        ((0, -1, 2), (2, 6, 2)),
        ((0, 0, 0), (2, 3, 4)),
        ((-1, 0, 1), (8, 3, 1)),
    ],
)
def test_reshape(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    x = numbers(2, 3, 4)
    np.testing.assert_array_equal(run(lambda x: mb.reshape(x=x, shape=shape), x), x.reshape(wanted))


@given(shapes, st.data())
@properties
def test_axes(shape: tuple[int, ...], data: st.DataObject) -> None:
    """Transpose, expand_dims and squeeze, with places counted from the end, too."""
    rank, x = len(shape), numbers(*shape)
    perm = data.draw(st.permutations(range(rank)))
    turned = data.draw(st.lists(st.booleans(), min_size=rank, max_size=rank))
    negative = [axis - rank if turn else axis for axis, turn in zip(perm, turned, strict=True)]
    axis = data.draw(st.integers(-rank - 1, rank))
    assume(any(n > 1 for n in shape))
    single = tuple(axis for axis, n in enumerate(shape) if n == 1)
    found = run(
        lambda x: [
            mb.transpose(x=x, perm=negative),
            mb.expand_dims(x=x, axes=[axis]),
            mb.expand_dims(x=x, axes=[0, -1]),
            mb.squeeze(x=x),
            mb.squeeze(x=x, axes=list(range(rank))),
        ],
        x,
    )
    wanted = [x.transpose(perm), np.expand_dims(x, axis), x[None, ..., None], np.squeeze(x), np.squeeze(x, single)]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@given(shapes, st.data())
@properties
def test_joining_and_splitting(shape: tuple[int, ...], data: st.DataObject) -> None:
    rank = len(shape)
    axis = data.draw(st.integers(-rank, rank - 1))
    x, y = numbers(*shape), numbers(*shape, seed=1)
    longer = np.concatenate([y, y], axis)
    interleaved = np.empty_like(longer)
    each = [slice(None)] * rank
    for start, part in ((0, x), (1, y)):
        each[axis] = slice(start, None, 2)
        interleaved[tuple(each)] = part
    sizes = [shape[axis] * 2 - 1, 1]
    found = run(
        lambda x, y, longer: [
            mb.concat(values=[x, longer, x], axis=axis),
            mb.concat(values=[x, y], axis=axis, interleave=True),
            mb.stack(values=[x, y], axis=axis),
            *mb.split(x=longer, num_splits=2, axis=axis),
            *mb.split(x=longer, split_sizes=sizes, axis=axis),
        ],
        *(x, y, longer),
    )
    wanted = [np.concatenate([x, longer, x], axis), interleaved, np.stack([x, y], axis), y, y]
    for one, other in zip(found, [*wanted, *np.split(longer, [sizes[0]], axis)], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@given(shape=st.lists(st.integers(3, 5), min_size=1, max_size=4).map(tuple), data=st.data())
@settings(properties, max_examples=10)
def test_pad(mode: str, shape: tuple[int, ...], data: st.DataObject) -> None:
    last = data.draw(st.integers(1, len(shape)))
    amounts = data.draw(st.lists(st.integers(0, 2), min_size=2 * last, max_size=2 * last))
    x = numbers(*shape)
    pairs = [(0, 0)] * (len(shape) - last) + list(zip(amounts[::2], amounts[1::2], strict=True))
    if mode == "constant":
        found = run(lambda x: mb.pad(x=x, pad=amounts, mode=mode, constant_val=np.float32(0.5)), x)
        np.testing.assert_array_equal(found, np.pad(x, pairs, constant_values=0.5))
    else:
        found = run(lambda x: mb.pad(x=x, pad=amounts, mode=mode), x)
        np.testing.assert_array_equal(found, np.pad(x, pairs, "edge" if mode == "replicate" else mode))


@given(shapes, st.data())
@properties
def test_gather_and_tile(shape: tuple[int, ...], data: st.DataObject) -> None:
    rank, x = len(shape), numbers(*shape)
    axis = data.draw(st.integers(-rank, rank - 1))
    length = shape[axis]
    some = data.draw(st.lists(st.integers(-length, length - 1), min_size=2, max_size=2))
    one, two = np.array(some, "int32"), np.array([some, some], "int32")
    reps = data.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    found = run(
        lambda x, i, j: [
            mb.gather(x=x, indices=i, axis=axis),
            mb.gather(x=x, indices=j, axis=axis),
            mb.tile(x=x, reps=reps),
        ],
        *(x, one, two),
    )
    for got, wanted in zip(found, [np.take(x, one, axis), np.take(x, two, axis), np.tile(x, reps)], strict=True):
        np.testing.assert_array_equal(got, wanted)
