"""The interpreter of ML Programs, operation by operation: what is run is what coremltools saved, read back from disk.

Oracles are NumPy's own functions, and windows cut by hand; the shapes that coremltools declares are checked on the way.
"""

from __future__ import annotations

import gc
import json
import math
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("coremltools")
pytestmark = pytest.mark.filterwarnings("ignore")

with redirect_stderr(StringIO()):
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types
    from coremltools.proto import Model_pb2
    from tsmzoo.converters.coreml.interpreter import ProgramRunner
    from tsmzoo.converters.coreml.ops import COMPUTED, EXACT
    from tsmzoo.converters.coreml.program import read

    from tsmzoo.errors import ArtifactError

Array = np.ndarray[Any, Any]
properties = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
TYPES = {"float32": types.fp32, "float16": types.fp16, "int32": types.int32}


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> Iterator[None]:
    """coremltools collects garbage at each conversion: a third of a second, were all that is loaded looked through."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@contextmanager
def saved(
    body: Callable[..., Any], *inputs: Array, target: Any = ct.target.iOS16, **options: Any
) -> Iterator[tuple[Path, dict[str, Array]]]:
    """Save a program of inputs x0, x1, … whose output is y (or y0, y1, …); give its package and its inputs."""
    specs = [mb.TensorSpec(shape=array.shape, dtype=TYPES[str(array.dtype)]) for array in inputs]
    names = [f"x{index}" for index in range(len(inputs))]

    def named(*values: Any) -> Any:
        given = body(*values)
        if isinstance(given, list | tuple):
            return tuple(mb.identity(x=value, name=f"y{index}") for index, value in enumerate(given))
        return mb.identity(x=given, name="y")

    arguments = ", ".join(names)
    function = eval(f"lambda {arguments}: named({arguments})", {"named": named})
    program = mb.program(input_specs=specs, opset_version=target)(function)
    options = {"pass_pipeline": ct.PassPipeline.EMPTY, "compute_precision": ct.precision.FLOAT32} | options
    package = ct.convert(
        program, convert_to="mlprogram", minimum_deployment_target=target, skip_model_load=True, **options
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.mlpackage"
        package.save(str(path))
        yield path, dict(zip(names, inputs, strict=True))


def run(body: Callable[..., Any], *inputs: Array, **options: Any) -> Any:
    """Return what the saved program gives, y or all of y0, y1, …"""
    try:
        with saved(body, *inputs, **options) as (path, feeds):
            outputs = ProgramRunner(path).run(feeds)
    except ArtifactError:
        raise
    except (ValueError, TypeError, IndexError, AssertionError) as error:  # coremltools refuses some attributes itself
        if "mil" not in str(error.__traceback__ and _origin(error)):
            raise
        assume(False)
    return outputs["y"] if "y" in outputs else [outputs[f"y{index}"] for index in range(len(outputs))]


def _origin(error: BaseException) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame.tb_frame.f_code.co_filename if frame else ""


def numbers(*shape: int, seed: int = 0, dtype: str = "float32") -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def close(found: Array, wanted: Array, tolerance: float = 1e-5) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)

# --- windows: convolutions and pools ---------------------------------------------------------------------------------


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


def pairs(window: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the padding by axis; the least that gives ceil(size / stride) places, for `same`."""
    found = []
    for axis, (size, kernel) in enumerate(zip(window["sizes"], window["kernel"], strict=True)):
        stride, reach = window["strides"][axis], (kernel - 1) * window["dilations"][axis] + 1
        if window["pad_type"] == "custom":
            found.append(tuple(window["pad"][2 * axis : 2 * axis + 2]))
        elif window["pad_type"] == "valid":
            found.append((0, 0))
        else:
            places = math.ceil(size / stride)
            total = next(n for n in range(99) if size + n >= reach and (size + n - reach) // stride + 1 >= places)
            half = total // 2
            found.append((half, total - half) if window["pad_type"] == "same" else (total - half, half))
    return found


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


# --- products, norms, arithmetic -------------------------------------------------------------------------------------


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


UNARY: dict[str, Callable[[Array], Array]] = {
    "abs": np.abs,
    "exp": np.exp,
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}
BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mul": np.multiply,
    "pow": np.power,
    "real_div": np.divide,
    "sub": np.subtract,
}
REDUCTIONS: dict[str, Callable[..., Array]] = {
    "reduce_max": np.max,
    "reduce_mean": np.mean,
    "reduce_min": np.min,
    "reduce_sum": np.sum,
}


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


@pytest.mark.parametrize("mode", ["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"])
def test_gelu(mode: str) -> None:
    x = 2 * numbers(50)
    share = {
        "EXACT": [0.5 + 0.5 * math.erf(v / math.sqrt(2)) for v in x],
        "TANH_APPROXIMATION": 0.5 + 0.5 * np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
        "SIGMOID_APPROXIMATION": 1 / (1 + np.exp(-1.702 * x)),
    }[mode]
    close(run(lambda x: mb.gelu(x=x, mode=mode), x), x * np.array(share))


# --- what only moves numbers -----------------------------------------------------------------------------------------


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
    np.testing.assert_array_equal(run(lambda x: mb.transpose(x=x, perm=negative), x), x.transpose(perm))

    axis = data.draw(st.integers(-rank - 1, rank))
    np.testing.assert_array_equal(run(lambda x: mb.expand_dims(x=x, axes=[axis]), x), np.expand_dims(x, axis))
    np.testing.assert_array_equal(run(lambda x: mb.expand_dims(x=x, axes=[0, -1]), x), x[None, ..., None])

    assume(any(n > 1 for n in shape))
    np.testing.assert_array_equal(run(lambda x: mb.squeeze(x=x), x), np.squeeze(x))
    single = tuple(axis for axis, n in enumerate(shape) if n == 1)
    found = run(lambda x: mb.squeeze(x=x, axes=list(range(rank))), x)
    np.testing.assert_array_equal(found, np.squeeze(x, single))


@given(shapes, st.data())
@properties
def test_joining_and_splitting(shape: tuple[int, ...], data: st.DataObject) -> None:
    rank = len(shape)
    axis = data.draw(st.integers(-rank, rank - 1))
    x, y = numbers(*shape), numbers(*shape, seed=1)
    longer = np.concatenate([y, y], axis)
    found = run(lambda x, y: mb.concat(values=[x, y, x], axis=axis), x, longer)
    np.testing.assert_array_equal(found, np.concatenate([x, longer, x], axis))
    found = run(lambda x, y: mb.concat(values=[x, y], axis=axis, interleave=True), x, y)
    wanted = np.empty_like(longer)
    each = [slice(None)] * rank
    for start, part in ((0, x), (1, y)):
        each[axis] = slice(start, None, 2)
        wanted[tuple(each)] = part
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(run(lambda x, y: mb.stack(values=[x, y], axis=axis), x, y), np.stack([x, y], axis))

    halves = run(lambda x: mb.split(x=x, num_splits=2, axis=axis), longer)
    for half in halves:
        np.testing.assert_array_equal(half, y)
    sizes = [shape[axis] * 2 - 1, 1]
    parts = run(lambda x: mb.split(x=x, split_sizes=sizes, axis=axis), longer)
    for part, piece in zip(parts, np.split(longer, [sizes[0]], axis), strict=True):
        np.testing.assert_array_equal(part, piece)


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
    for indices in (np.array(some, "int32"), np.array([some, some], "int32")):
        found = run(lambda x, i: mb.gather(x=x, indices=i, axis=axis), x, indices)
        np.testing.assert_array_equal(found, np.take(x, indices, axis))
    reps = data.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    np.testing.assert_array_equal(run(lambda x: mb.tile(x=x, reps=reps), x), np.tile(x, reps))


# --- half precision, compressed constants ----------------------------------------------------------------------------


def test_casts_round_to_the_nearest() -> None:
    x = np.array([1 / 3, -2.7, 2.7, 1 + 2**-11, 1 + 3 * 2**-11, 6e-8, 65519, 70000, 0], "float32")
    half = run(lambda x: mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32"), x)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(half, x.astype("float16").astype("float32"))
    whole = run(lambda x: mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="fp32"), x)
    np.testing.assert_array_equal(whole, np.trunc(x))
    true = run(lambda x: mb.cast(x=mb.cast(x=x, dtype="bool"), dtype="fp32"), x)
    np.testing.assert_array_equal(true, x != 0)


@pytest.mark.parametrize("kind", ["add", "mul", "sub", "real_div"])
def test_halves_are_rounded_once(kind: str) -> None:
    x, y = 100 * numbers(500, dtype="float16"), numbers(500, seed=1, dtype="float16")
    found = run(lambda x, y: getattr(mb, kind)(x=x, y=y), x, y)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, BINARY[kind](x.astype("float64"), y).astype("float16"))


def test_a_convolution_in_half_precision_sums_in_more() -> None:
    x, weight = numbers(1, 512, 3, 3, dtype="float16"), numbers(8, 512, 3, 3, seed=1, dtype="float16")
    bias = 1000 * numbers(8, seed=2, dtype="float16")
    found = run(lambda x: mb.conv(x=x, weight=weight, bias=bias), x)
    assert found.dtype == np.float16
    exact = (x.astype("float64") * weight).sum((1, 2, 3)) + bias
    near = np.abs(found[0, :, 0, 0] - exact) / np.spacing(exact.astype("float16"))
    assert near.max() <= 0.51  # half a step is what one rounding costs
    pooled = run(lambda x: mb.reduce_mean(x=x, axes=[0, 1, 2, 3]), x)
    assert pooled == x.astype("float64").mean().astype("float16")


@given(st.integers(0, 3), st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["float16", "float32"]))
@properties
def test_constexpr_affine_dequantize(axis: int, scales: bool, offsets: bool, signed: bool, dtype: str) -> None:
    shape, integer = (4, 3, 2, 5), "int8" if signed else "uint8"
    rng = np.random.default_rng(axis)
    data = rng.integers(-100 if signed else 0, 100, shape).astype(integer)
    scale = (0.01 + rng.random(shape[axis] if scales else ())).astype(dtype)
    zero = rng.integers(0, 9, shape[axis] if offsets else ()).astype(integer)
    x = numbers(*shape, dtype=dtype)
    each = [-1 if place == axis else 1 for place in range(4)]
    dense = np.reshape(scale, each if scales else ()).astype("float64") * (
        data.astype("float64") - np.reshape(zero, each if offsets else ())
    )
    found = run(
        lambda x: mb.mul(
            x=x, y=mb.constexpr_affine_dequantize(quantized_data=data, zero_point=zero, scale=scale, axis=axis)
        ),
        x,
    )
    close(found, (x.astype("float64") * dense.astype(dtype)).astype(dtype))


@given(st.sampled_from([(1, 1), (4, 1), (2, 3), (4, 6)]), st.booleans(), st.sampled_from(["int8", "uint8", "int4"]))
@properties
def test_constexpr_blockwise_shift_scale(blocks: tuple[int, int], shifted: bool, integer: str) -> None:
    rng = np.random.default_rng(0)
    numpy = types.nptype_from_builtin(types.string_to_builtin(integer))
    high = 7 if integer == "int4" else 100
    data = rng.integers(0 if integer == "uint8" else -high, high, (4, 6)).astype(numpy)
    scale = (0.01 + rng.random(blocks)).astype("float16")
    offset = {"offset": rng.integers(0, 5, blocks).astype(numpy)} if shifted else {}
    of_each = [np.kron(values, np.ones((4 // blocks[0], 6 // blocks[1]))) for values in (scale, *offset.values())]
    dense = of_each[0] * (data - (of_each[1] if shifted else 0))
    x = np.ones((4, 6), "float16")
    found = run(
        lambda x: mb.mul(x=x, y=mb.constexpr_blockwise_shift_scale(data=data, scale=scale, **offset)),
        x,
        target=ct.target.iOS18,
    )
    np.testing.assert_array_equal(found, dense.astype("float16"))


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_constexpr_lut_to_dense(bits: int) -> None:
    rng = np.random.default_rng(bits)
    lut, indices = numbers(2**bits), rng.integers(0, 2**bits, (3, 7)).astype("uint8")
    packed = np.packbits(np.unpackbits(indices.reshape(-1, 1), axis=1, bitorder="little")[:, :bits], bitorder="little")
    x = np.ones((3, 7), "float32")
    shape = np.array([3, 7], "uint32")
    found = run(lambda x: mb.mul(x=x, y=mb.constexpr_lut_to_dense(indices=packed, lut=lut, shape=shape)), x)
    np.testing.assert_array_equal(found, lut[indices])

    numpy = types.nptype_from_builtin(types.string_to_builtin(f"uint{bits}"))
    tables = numbers(3, 1, 2**bits, 1)
    body = lambda x: mb.mul(x=x, y=mb.constexpr_lut_to_dense(indices=indices.astype(numpy), lut=tables))  # noqa: E731
    found = run(body, x, target=ct.target.iOS18)
    np.testing.assert_array_equal(found, np.take_along_axis(tables[:, 0, :, 0], indices.astype(int), 1))


def test_every_operation_of_the_table_is_tested() -> None:
    others = {
        *("avg_pool", "batch_norm", "cast", "clip", "concat", "constexpr_affine_dequantize"),
        *("constexpr_blockwise_shift_scale", "constexpr_lut_to_dense", "conv", "expand_dims", "gather", "gelu"),
        *("leaky_relu", "linear", "matmul", "max_pool", "pad", "reshape", "slice_by_index", "slice_by_size"),
        *("softmax", "split", "squeeze", "stack", "tile", "transpose"),
    }
    assert others | UNARY.keys() | BINARY.keys() | REDUCTIONS.keys() == COMPUTED.keys() | EXACT.keys()
    assert not COMPUTED.keys() & EXACT.keys()


# --- images, states, what comes in and goes out ----------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_images_have_their_scale_bias_and_order(layout: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 4, 5), dtype="uint8")
    image = ct.ImageType(
        name="x0",
        shape=(1, 3, 4, 5),
        scale=1 / 64,
        bias=[-1.0, 0.5, 2.0],
        color_layout=getattr(ct.colorlayout, layout),
    )
    pipeline = ct.PassPipeline.DEFAULT
    body = lambda x: mb.mul(x=x, y=np.float32(2))  # noqa: E731
    template = pixels.astype("float32")
    with saved(body, template, inputs=[image], pass_pipeline=pipeline) as (path, _):
        found = ProgramRunner(path).run({"x0": pixels})["y"]
        with pytest.raises(ArtifactError, match="takes 'x0' as fp32"):
            ProgramRunner(path).run({"x0": pixels[0]})
    ordered = pixels if layout == "RGB" else pixels[:, ::-1]
    close(found, 2 * (ordered / 64 + np.reshape([-1.0, 0.5, 2.0], (3, 1, 1))))


def test_states_last_until_they_are_reset() -> None:
    """A running sum in fp16, beside a state that keeps the input before."""
    specs = [
        mb.TensorSpec(shape=(2,), dtype=types.fp16),
        mb.StateTensorSpec(shape=(2,), dtype=types.fp16),
        mb.StateTensorSpec(shape=(2,), dtype=types.fp16),
    ]

    @mb.program(input_specs=specs, opset_version=ct.target.iOS18)
    def program(x: Any, total: Any, last: Any) -> Any:
        before = mb.read_state(input=last)
        sum_ = mb.coreml_update_state(state=total, value=mb.add(x=x, y=mb.read_state(input=total)))
        mb.coreml_update_state(state=last, value=x)
        return mb.identity(x=sum_, name="sum"), mb.identity(x=before, name="before")

    package = ct.convert(
        program,
        convert_to="mlprogram",
        pass_pipeline=ct.PassPipeline.EMPTY,
        minimum_deployment_target=ct.target.iOS18,
        skip_model_load=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        package.save(f"{folder}/m.mlpackage")
        runner, other = (ProgramRunner(Path(folder) / "m.mlpackage") for _ in range(2))
    for _ in range(2):
        last, total = np.zeros(2, "float16"), np.zeros(2, "float16")
        for step in range(5):
            x = numbers(2, seed=step, dtype="float16")
            total = total + x
            found = runner.run({"x": x})
            np.testing.assert_array_equal(found["sum"], total)
            np.testing.assert_array_equal(found["before"], last)
            last = x.copy()
            x[:], found["sum"][:] = 9, 9  # a caller may use its arrays again
        runner.reset()
    np.testing.assert_array_equal(other.run({"x": last})["before"], 0)


def test_what_is_not_needed_is_not_kept_and_constants_may_be_outputs() -> None:
    x = numbers(2, 3)

    def body(x: Any) -> list[Any]:
        y = mb.add(x=x, y=np.float32(1))
        return [y, mb.mul(x=y, y=y), mb.const(val=np.float32([1, 2])), x]

    found = run(body, x)
    for given_, wanted in zip(found, [x + 1, (x + 1) ** 2, np.float32([1, 2]), x], strict=True):
        close(given_, wanted)
    with saved(body, x) as (path, feeds):
        runner = ProgramRunner(path)
        runner.run(feeds)["y2"][:] = 7
        np.testing.assert_array_equal(runner.run(feeds)["y2"], [1, 2])
        assert read(path).operations


# --- what is refused, by name ----------------------------------------------------------------------------------------


def specification(path: Path) -> Any:
    model = Model_pb2.Model()
    model.ParseFromString((path / "Data/com.apple.CoreML/model.mlmodel").read_bytes())
    return model


def write(path: Path, model: Any) -> None:
    (path / "Data/com.apple.CoreML/model.mlmodel").write_bytes(model.SerializeToString())


def block_of(model: Any) -> Any:
    (function,) = model.mlProgram.functions.values()
    return function.block_specializations[function.opset]


def operation(model: Any, kind: str) -> Any:
    return next(item for item in block_of(model).operations if item.type == kind)


def constant(model: Any, item: Any, parameter: str) -> Any:
    """Return the value that an operation's parameter is bound to."""
    name = item.inputs[parameter].arguments[0].name
    return next(each.attributes["val"] for each in block_of(model).operations if each.outputs[0].name == name)


def conv_body(x: Any) -> Any:
    return mb.conv(x=x, weight=numbers(8, 4, 3, 3, seed=1), pad_type="custom", pad=[1, 1, 1, 1])


X = numbers(1, 4, 6, 6)


def rename(model: Any) -> None:
    operation(model, "conv").type = "convolve"


def new_parameter(model: Any) -> None:
    item = operation(model, "conv")
    item.inputs["padding_mode"].CopyFrom(item.inputs["pad_type"])


def new_value(model: Any) -> None:
    constant(model, operation(model, "conv"), "pad_type").immediateValue.tensor.strings.values[0] = "mirror"


def zero_stride(model: Any) -> None:
    item = operation(model, "conv")
    item.inputs["strides"].CopyFrom(item.inputs["pad"])
    constant(model, item, "pad").immediateValue.tensor.ints.values[0] = 0


def no_weight(model: Any) -> None:
    del operation(model, "conv").inputs["weight"]


def computed_pad(model: Any) -> None:
    operation(model, "conv").inputs["pad"].arguments[0].name = "x0"


def unknown_name(model: Any) -> None:
    operation(model, "conv").inputs["x"].arguments[0].name = "nothing"


def other_shape(model: Any) -> None:
    operation(model, "conv").outputs[0].type.tensorType.dimensions[2].constant.size = 5


def other_type(model: Any) -> None:
    operation(model, "conv").outputs[0].type.tensorType.dataType = 10


def double(model: Any) -> None:
    operation(model, "conv").outputs[0].type.tensorType.dataType = 12


def flexible(model: Any) -> None:
    model.mlProgram.functions["main"].inputs[0].type.tensorType.dimensions[2].unknown.variadic = False


def two_functions(model: Any) -> None:
    model.mlProgram.functions["other"].CopyFrom(model.mlProgram.functions["main"])


def no_opset(model: Any) -> None:
    model.mlProgram.functions["main"].opset = "CoreML99"


def nested(model: Any) -> None:
    operation(model, "conv").blocks.add()


def no_program(model: Any) -> None:
    model.neuralNetwork.SetInParent()


def grey(model: Any) -> None:
    model.description.input[0].type.imageType.colorSpace = 10


def dictionary(model: Any) -> None:
    model.description.output[0].type.dictionaryType.stringKeyType.SetInParent()


def text(model: Any) -> None:
    model.description.input[0].type.stringType.SetInParent()


def other_output(model: Any) -> None:
    model.description.output[0].name = "z"


def no_state(model: Any) -> None:
    operation(model, "identity").type = "read_state"


def few_elements(model: Any) -> None:
    constant(model, operation(model, "conv"), "pad").immediateValue.tensor.ints.values.pop()


def blob_type(model: Any) -> None:
    constant(model, operation(model, "conv"), "weight").type.tensorType.dataType = 32 - 22  # half


def blob_place(model: Any) -> None:
    constant(model, operation(model, "conv"), "weight").blobFileValue.offset += 8


def blob_far(model: Any) -> None:
    constant(model, operation(model, "conv"), "weight").blobFileValue.offset = 1 << 40


def blob_mark(model: Any) -> None:
    constant(model, operation(model, "conv"), "weight").blobFileValue.offset += 64


def blob_file(model: Any) -> None:
    constant(model, operation(model, "conv"), "weight").blobFileValue.fileName = "@model_path/weights/other.bin"


def blob_outside(model: Any) -> None:
    constant(model, operation(model, "conv"), "weight").blobFileValue.fileName = "@model_path/../../../secret"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (rename, "the operation convolve"),
        (new_parameter, "a parameter 'padding_mode'"),
        (new_value, "pad_type = mirror"),
        (zero_stride, "strides = "),
        (no_weight, "lacks its parameter 'weight'"),
        (computed_pad, "computes its 'pad'"),
        (unknown_name, "needs 'nothing'"),
        (other_shape, "its program says fp32[1, 8, 5, 6]"),
        (other_type, "gives torch.float32 (1, 8, 6, 6), its program says fp16"),
        (double, "a tensor of FLOAT64"),
        (flexible, "shape is not fixed"),
        (two_functions, "2 functions"),
        (no_opset, "CoreML99"),
        (nested, "blocks of its own"),
        (no_program, "no ML Program"),
        (grey, "GRAYSCALE"),
        (dictionary, "a dictionaryType"),
        (text, "a stringType"),
        (other_output, "describes 'z'"),
        (no_state, "of no state"),
        (few_elements, "3 elements instead of int32[4]"),
        (blob_type, "weights of type fp32 instead of fp16"),
        (blob_place, "no weights at byte 72"),
        (blob_far, "no weights at byte 1099511627776"),
        (blob_mark, "mark is not there"),
        (blob_file, "other.bin, which is not in it"),
        (blob_outside, "secret, which is not in it"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_known_is_named(change: Callable[[Any], None], named: str) -> None:
    with saved(conv_body, X) as (path, feeds):
        (path.parent / "secret").write_bytes(struct.pack("<II", 1, 2) + bytes(4096))
        ProgramRunner(path).run(feeds)
        model = specification(path)
        change(model)
        write(path, model)
        with pytest.raises(ArtifactError) as caught:
            ProgramRunner(path).run(feeds)
    message = str(caught.value)
    assert named in message
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def no_manifest(path: Path) -> None:
    (path / "Manifest.json").unlink()


def empty_manifest(path: Path) -> None:
    (path / "Manifest.json").write_text("[]")


def manifest_outside(path: Path) -> None:
    manifest = json.loads((path / "Manifest.json").read_bytes())
    (path.parent / "m").write_bytes((path / "Data/com.apple.CoreML/model.mlmodel").read_bytes())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = "../../m"
    (path / "Manifest.json").write_text(json.dumps(manifest))


def no_model(path: Path) -> None:
    (path / "Data/com.apple.CoreML/model.mlmodel").unlink()


def half_model(path: Path) -> None:
    model = path / "Data/com.apple.CoreML/model.mlmodel"
    model.write_bytes(model.read_bytes()[:-40])


def weights_of(path: Path) -> Path:
    return path / "Data/com.apple.CoreML/weights/weight.bin"


def no_weights(path: Path) -> None:
    weights_of(path).unlink()


def half_weights(path: Path) -> None:
    weights_of(path).write_bytes(weights_of(path).read_bytes()[:400])


def no_weights_left(path: Path) -> None:
    weights_of(path).write_bytes(b"")


def older_weights(path: Path) -> None:
    content = bytearray(weights_of(path).read_bytes())
    content[4] = 1
    weights_of(path).write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        *(no_manifest, empty_manifest, manifest_outside, no_model, half_model),
        *(no_weights, half_weights, no_weights_left, older_weights),
    ],
)
def test_a_damaged_package_is_refused_in_one_line(damage: Callable[[Path], None]) -> None:
    with saved(conv_body, X) as (path, _):
        damage(path)
        with pytest.raises(ArtifactError) as caught:
            ProgramRunner(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_weights_are_those_that_coremltools_reads() -> None:
    from coremltools.libmilstoragepython import _BlobStorageReader

    with saved(conv_body, X) as (path, _):
        place = constant(specification(path), operation(specification(path), "conv"), "weight").blobFileValue.offset
        theirs = np.asarray(_BlobStorageReader(str(weights_of(path))).read_float_data(place))
        weight = next(
            array
            for item in read(path).operations
            if item.kind == "const" and isinstance(array := item.arguments["val"][0], np.ndarray) and array.ndim == 4
        )
    np.testing.assert_array_equal(weight.flatten(), theirs)
