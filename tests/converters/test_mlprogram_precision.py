"""The Core ML interpreter's half precision, compressed constants, images and states."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.converters.programs import BINARY, REDUCTIONS, UNARY, close, numbers, properties, run, saved

pytest.importorskip("coremltools")
pytestmark = pytest.mark.filterwarnings("ignore")
with redirect_stderr(StringIO()):
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types
    from tsmzoo.converters.coreml.interpreter import ProgramRunner
    from tsmzoo.converters.coreml.ops import COMPUTED, EXACT
    from tsmzoo.converters.coreml.program import read

    from tsmzoo.errors import ArtifactError


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> Iterator[None]:
    """coremltools collects garbage at each conversion: a third of a second, were all that is loaded looked through."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


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


@given(st.sampled_from([(1, 1), (4, 1), (2, 3), (4, 6)]), st.booleans(), st.sampled_from(["int8", "uint8"]))
@properties
def test_constexpr_blockwise_shift_scale(blocks: tuple[int, int], shifted: bool, integer: str) -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0 if integer == "uint8" else -100, 100, (4, 6)).astype(integer)
    scale = (0.01 + rng.random(blocks)).astype("float16")
    offset = {"offset": rng.integers(0, 5, blocks).astype(integer)} if shifted else {}
    of_each = [np.kron(values, np.ones((4 // blocks[0], 6 // blocks[1]))) for values in (scale, *offset.values())]
    dense = of_each[0] * (data - (of_each[1] if shifted else 0))
    x = np.ones((4, 6), "float16")
    found = run(
        lambda x: mb.mul(x=x, y=mb.constexpr_blockwise_shift_scale(data=data, scale=scale, **offset)),
        x,
        target=ct.target.iOS18,
    )
    np.testing.assert_array_equal(found, dense.astype("float16"))


def test_every_operation_of_the_table_is_tested() -> None:
    others = {
        *("avg_pool", "batch_norm", "cast", "clip", "concat", "constexpr_affine_dequantize"),
        *("constexpr_blockwise_shift_scale", "conv", "expand_dims", "gather", "gelu"),
        *("leaky_relu", "linear", "matmul", "max_pool", "pad", "reshape", "slice_by_index", "slice_by_size"),
        *("sigmoid_hard", "softmax", "split", "squeeze", "stack", "thresholded_relu", "tile", "transpose"),
    }
    assert others | UNARY.keys() | BINARY.keys() | REDUCTIONS.keys() == COMPUTED.keys() | EXACT.keys()
    assert not COMPUTED.keys() & EXACT.keys()


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
