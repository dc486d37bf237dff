"""What is read off a saved Core ML program: the oldest system, its weights, what keeps it from the Neural Engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

ct = pytest.importorskip("coremltools")

from coremltools.converters.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402
from tsmzoo.converters.coreml import neural_engine  # noqa: E402

# coremltools leaves a folder to its finaliser.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


def spec_of(
    shape: tuple[int, ...], build: Callable[[Any], Any], *, half: bool = True, target: Any = ct.target.iOS15
) -> tuple[Any, Any]:
    @mb.program(input_specs=[mb.TensorSpec(shape=shape, dtype=types.fp32)], opset_version=target)
    def program(x: Any) -> Any:
        return build(x)

    precision = ct.precision.FLOAT16 if half else ct.precision.FLOAT32
    package = ct.convert(
        program,
        convert_to="mlprogram",
        compute_precision=precision,
        minimum_deployment_target=target,
        skip_model_load=True,
    )
    spec = package.get_spec()
    function = next(iter(spec.mlProgram.functions.values()))
    return spec, next(iter(function.block_specializations.values())).operations


def test_nothing_speaks_against_half_precision_in_four_axes() -> None:
    spec, operations = spec_of((1, 3, 8, 32), lambda x: mb.relu(x=x))
    assert neural_engine.advice(spec, operations) == []
    assert neural_engine.system(spec) == "iOS 15, macOS 12"


@pytest.mark.parametrize(
    ("shape", "build", "half", "words"),
    [
        ((1, 3, 8, 32), lambda x: mb.relu(x=x), False, "1 of 1 results are float32"),
        ((1, 2, 3, 8, 32), lambda x: mb.relu(x=x), True, "more than 4 axes (1 relu)"),
        # Twice 24 rows (a 3 x 8 x 7 tensor in and out) of 14 bytes, each in 64.
        ((1, 3, 8, 7), lambda x: mb.relu(x=x), True, "rows of its tensors (7 wide) are padded to 64 bytes"),
    ],
)
def test_what_speaks_against_it_is_named(
    shape: tuple[int, ...], build: Callable[[Any], Any], half: bool, words: str
) -> None:
    (only,) = neural_engine.advice(*spec_of(shape, build, half=half))
    assert words in only
    assert only.endswith(")")  # the source
    if "padded" in words:
        assert f"{2 * 24 * 64 / 1e3:.0f} kB for {2 * 24 * 14 / 1e3:.0f}" in only


def test_weights_are_counted_in_however_few_bits_they_lie() -> None:
    kernel = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype("float32")
    for half in (True, False):
        _, operations = spec_of((1, 16, 8, 32), lambda x: mb.conv(x=x, weight=kernel, pad_type="same"), half=half)
        assert neural_engine.weights(operations) == kernel.size
