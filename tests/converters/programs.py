"""ML Programs made for a test, and run by the interpreter."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, settings

pytest.importorskip("coremltools")
with redirect_stderr(StringIO()):
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types
    from tsmzoo.converters.coreml.interpreter import ProgramRunner

    from tsmzoo.errors import ArtifactError

Array = np.ndarray[Any, Any]


properties = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


TYPES = {"float32": types.fp32, "float16": types.fp16, "int32": types.int32}


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


def block_of(model: Any) -> Any:
    (function,) = model.mlProgram.functions.values()
    return function.block_specializations[function.opset]


def operation(model: Any, kind: str) -> Any:
    return next(item for item in block_of(model).operations if item.type == kind)


def constant(model: Any, item: Any, parameter: str) -> Any:
    """Return the value that an operation's parameter is bound to."""
    name = item.inputs[parameter].arguments[0].name
    return next(each.attributes["val"] for each in block_of(model).operations if each.outputs[0].name == name)
