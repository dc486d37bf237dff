"""Packages that the Core ML interpreter refuses, by name."""

from __future__ import annotations

import gc
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.converters.programs import constant, numbers, operation, saved

pytest.importorskip("coremltools")
pytestmark = pytest.mark.filterwarnings("ignore")
with redirect_stderr(StringIO()):
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.proto import Model_pb2
    from tsmzoo.converters.coreml.interpreter import ProgramRunner
    from tsmzoo.converters.coreml.program import read

    from tsmzoo.errors import ArtifactError


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> Iterator[None]:
    """coremltools collects garbage at each conversion: a third of a second, were all that is loaded looked through."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def specification(path: Path) -> Any:
    model = Model_pb2.Model()
    model.ParseFromString((path / "Data/com.apple.CoreML/model.mlmodel").read_bytes())
    return model


def write(path: Path, model: Any) -> None:
    (path / "Data/com.apple.CoreML/model.mlmodel").write_bytes(model.SerializeToString())


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
