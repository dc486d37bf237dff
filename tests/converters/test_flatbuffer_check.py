"""TFLite files whose bytes lead nowhere: what is wrong is found before a runtime follows it and the process dies."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
flatbuffer = pytest.importorskip("tsmzoo.converters.tflite.flatbuffer", exc_type=ImportError)


def made() -> Any:
    """Return a model that adds a constant of int8, one scale a channel, dequantised, to its input."""
    model, graph, signature = schema.ModelT(), schema.SubGraphT(), schema.SignatureDefT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT(), schema.BufferT()], []
    model.buffers[1].data = np.arange(6, dtype="uint8")
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [0], [3]
    kinds = (schema.TensorType.FLOAT32, schema.TensorType.INT8, schema.TensorType.FLOAT32, schema.TensorType.FLOAT32)
    for index, kind in enumerate(kinds):
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.name, tensor.buffer = np.array([2, 3], "int32"), kind, b"t", int(index == 1)
        graph.tensors.append(tensor)
    scales = schema.QuantizationParametersT()
    scales.scale, scales.zeroPoint = np.full(3, 0.5, "float32"), np.zeros(3, "int64")
    scales.quantizedDimension = 1
    graph.tensors[1].quantization = scales
    for kind, inputs, output in (("DEQUANTIZE", [1], 2), ("ADD", [0, 2], 3)):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version, operator.opcodeIndex = 2, len(model.operatorCodes)
        operator.inputs, operator.outputs = inputs, [output]
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    signature.signatureKey, signature.inputs, signature.outputs = b"serving_default", [], []
    for items, name, index in ((signature.inputs, b"frame", 0), (signature.outputs, b"logits", 3)):
        items.append(schema.TensorMapT())
        items[0].name, items[0].tensorIndex = name, index
    model.subgraphs, model.signatureDefs, model.metadata = [graph], [signature], []
    return model


def test_a_whole_file_passes() -> None:
    model = flatbuffer.check(flatbuffer.write(made()))
    assert flatbuffer.constant(model, 1, np.int8).tolist() == [0, 1, 2, 3, 4, 5]


def reads(index: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.subgraphs[0].operators[1].inputs = [0, index]

    return change


def lacks_the_writer(model: Any) -> None:
    del model.subgraphs[0].operators[0]


def wrong_order(model: Any) -> None:
    model.subgraphs[0].operators.reverse()


def writes_a_constant(model: Any) -> None:
    model.subgraphs[0].operators[0].outputs = [1]


def no_kind(model: Any) -> None:
    model.subgraphs[0].operators[0].opcodeIndex = 7


def no_buffer(model: Any) -> None:
    model.subgraphs[0].tensors[1].buffer = 9


def short_constant(model: Any) -> None:
    model.buffers[1].data = np.arange(5, dtype="uint8")


def huge(model: Any) -> None:
    model.subgraphs[0].tensors[2].shape = np.array([2**31 - 1] * 3, "int32")


def negative(model: Any) -> None:
    model.subgraphs[0].tensors[2].shape = np.array([2, -3], "int32")


def scales(model: Any) -> None:
    model.subgraphs[0].tensors[1].quantization.quantizedDimension = 5


def not_finite(model: Any) -> None:
    model.subgraphs[0].tensors[1].quantization.scale = np.array([1, np.nan, 1], "float32")


def unnamed(model: Any) -> None:
    model.signatureDefs[0].inputs[0].name = None


def outside(model: Any) -> None:
    model.signatureDefs[0].outputs[0].tensorIndex = 4


def two_graphs(model: Any) -> None:
    model.subgraphs.append(model.subgraphs[0])


@pytest.mark.parametrize(
    "change",
    [
        *(reads(2**31 - 1), reads(4), reads(-2), reads(3), lacks_the_writer, wrong_order, writes_a_constant, no_kind),
        *(no_buffer, short_constant, huge, negative, scales, not_finite, unnamed, outside, two_graphs),
    ],
    ids=lambda value: value.__name__,
)
def test_what_a_runtime_would_trust_is_checked(change: Callable[[Any], None]) -> None:
    model = made()
    change(model)
    with pytest.raises(flatbuffer.Damaged):
        flatbuffer.check(flatbuffer.write(model))


def root_of(content: bytes) -> int:
    return int(struct.unpack_from("<I", content)[0])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (lambda _: 0, 2**32 - 1),
        (lambda content: root_of(content), 2**31 - 1),  # the table's index, far in front of the file
        (lambda content: root_of(content), 2**32 - 2**20),  # and far behind
        (lambda content: root_of(content) - struct.unpack_from("<i", content, root_of(content))[0], 0xFFFF),
        (lambda _: 4, 0),
    ],
)
def test_offsets_stay_inside(place: Callable[[bytes], int], value: int) -> None:
    content = bytearray(flatbuffer.write(made()))
    struct.pack_into("<I", content, place(bytes(content)), value)
    with pytest.raises(flatbuffer.Damaged):
        flatbuffer.check(bytes(content))


def test_a_cut_file_is_damaged() -> None:
    content = flatbuffer.write(made())
    for length in range(0, len(content), 7):
        with pytest.raises(flatbuffer.Damaged):
            flatbuffer.check(content[:length])


def test_every_byte_is_read_or_refused_without_another_error() -> None:
    """Each byte of the file turned to what breaks most: Damaged, or a model whose texts and numbers can be read."""
    content = flatbuffer.write(made())
    damaged = 0
    for place in range(len(content)):
        for value in (0xFF, 0x7F):
            odd = bytearray(content)
            odd[place] = value
            try:
                flatbuffer.check(bytes(odd))
            except flatbuffer.Damaged:
                damaged += 1
    assert damaged > len(content) / 4
