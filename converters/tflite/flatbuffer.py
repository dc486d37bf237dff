"""Check, read and write TFLite files as flatbuffers."""

from __future__ import annotations

import struct
from math import prod
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tsmzoo.artifact.contract import METADATA_KEY, MOST_NUMBERS
from tsmzoo.typing import Array

#: The one signature of our files.
SIGNATURE = "serving_default"
_OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


# --- checked ---------------------------------------------------------------------------------------------------------

#: What stands in a field: a number of so many bytes, a vector of such, text, a table or a vector of tables.
_Field = int | tuple[int] | str
_TEXT = "text"
#: Tables of TFLite's schema by their fields, in order. Fields that no file of ours has are None: sparse weights, custom
#: operators, weights in other files.
_TABLES: dict[str, tuple[_Field | None, ...]] = {
    "Model": (4, "[OperatorCode", "[SubGraph", _TEXT, "[Buffer", (4,), "[Metadata", "[SignatureDef", None, None),
    "OperatorCode": (1, None, 4, 4),
    "SubGraph": ("[Tensor", (4,), (4,), "[Operator", _TEXT, 4),
    "Tensor": ((4,), 1, 4, _TEXT, "Quantization", 1, None, (4,), 1, None, None),
    "Quantization": ((4,), (4,), (4,), (8,), 1, None, 4),
    "Operator": (4, (4,), (4,), 1, "Options", None, 1, (1,), (4,), None, None, 1, None, 4),
    #: Of every other kind of operator that `runtime.py` lets pass: numbers only.
    "Options": (8,) * 16,
    "ReshapeOptions": ((4,),),
    "FullyConnectedOptions": (1, 1, 1, 1, 1),
    "Buffer": ((1,), 8, 8),
    "Metadata": (_TEXT, 4),
    "SignatureDef": ("[TensorMap", "[TensorMap", _TEXT, None, 4),
    "TensorMap": (_TEXT, 4),
}
_OPTIONS = {getattr(schema.BuiltinOptions, name): name for name in ("ReshapeOptions", "FullyConnectedOptions")}
#: Tables that a file may have: far above what a network of hundreds of operators needs.
_MOST_TABLES = 1_000_000


class Damaged(ValueError):
    """What is wrong with the bytes of a file, in words."""


class _Walk:
    """Follows every offset of a flatbuffer, whose readers in C++ believe them. Raises Damaged."""

    def __init__(self, content: bytes) -> None:
        self._content, self._tables = content, 0

    def check(self) -> None:
        if self._content[4:8] != b"TFL3":
            raise Damaged("its mark is not there")
        self._table(self._number("<I", 0), "Model")

    def _number(self, kind: str, place: int) -> int:
        if not 0 <= place <= len(self._content) - struct.calcsize(kind):
            raise Damaged(f"an offset leads to byte {place} of {len(self._content)}")
        return int(struct.unpack_from(kind, self._content, place)[0])

    def _table(self, place: int, name: str) -> None:
        self._tables += 1
        if self._tables > _MOST_TABLES:
            raise Damaged(f"it has more than {_MOST_TABLES} tables")
        fields = self._fields(place)
        end = place + self._number("<H", place - self._number("<i", place) + 2)
        if not place + 4 <= end <= len(self._content):
            raise Damaged(f"a table at byte {place} ends at {end} of {len(self._content)}")
        known = _TABLES[name]
        if name == "Operator" and 3 in fields:
            known = (*known[:4], _OPTIONS.get(self._number("<B", fields[3]), "Options"), *known[5:])
        for slot, where in fields.items():
            kind = known[slot] if slot < len(known) else None
            if kind is None:
                raise Damaged(f"a table {name} has a field {slot}, which no file of ours has")
            if not place + 4 <= where < end or (isinstance(kind, int) and name != "Options" and where + kind > end):
                raise Damaged(f"a field of {name} lies outside of it")
            if not isinstance(kind, int):
                self._reference(where, kind)

    def _fields(self, place: int) -> dict[int, int]:
        """Return where the fields of a table lie that it has, by their numbers."""
        index = place - self._number("<i", place)
        size = self._number("<H", index)
        if size < 4 or size % 2:
            raise Damaged(f"a table at byte {place} has an index of {size} bytes")
        offsets = ((slot, self._number("<H", index + 4 + 2 * slot)) for slot in range((size - 4) // 2))
        return {slot: place + offset for slot, offset in offsets if offset}

    def _reference(self, where: int, kind: _Field) -> None:
        place = where + self._number("<I", where)
        if isinstance(kind, str) and kind != _TEXT and not kind.startswith("["):
            self._table(place, kind)
            return
        count = self._number("<I", place)
        each = 1 if kind == _TEXT else kind[0] if isinstance(kind, tuple) else 4
        if place + 4 + count * each > len(self._content):
            raise Damaged(f"a vector at byte {place} holds {count} elements, more than there are bytes")
        if kind == _TEXT and self._number("<B", place + 4 + count):
            raise Damaged(f"a text at byte {place} does not end")
        if isinstance(kind, str) and kind.startswith("["):
            for item in range(count):
                slot = place + 4 + 4 * item
                self._table(slot + self._number("<I", slot), kind[1:])


def check(content: bytes) -> Any:
    """Return the model in `content` once all that its readers rely on holds: offsets, indices, sizes of constants.

    Raises Damaged.
    """
    _Walk(content).check()
    model = read(content)
    if len(model.subgraphs or ()) != 1 or not model.buffers or model.signatureDefs is None:
        raise Damaged("it has not one graph, with buffers and a signature")
    (graph,) = model.subgraphs
    tensors, operators = graph.tensors or [], graph.operators or []
    if graph.inputs is None or graph.outputs is None:
        raise Damaged("its graph has no inputs or no outputs")
    outside = [graph.inputs, graph.outputs]
    named = [item for each in model.signatureDefs for item in (*(each.inputs or ()), *(each.outputs or ()))]
    outside.append([item.tensorIndex for item in named])
    indices = [*outside, *(operator.outputs for operator in operators)]
    whole = all(each.inputs is not None and each.outputs is not None and len(each.outputs) for each in operators)
    if not whole or not all(_within(each, 0, len(tensors)) for each in indices):
        raise Damaged("a number of a tensor is none of its tensors")
    if not all(_within(operator.inputs, -1, len(tensors)) for operator in operators):
        raise Damaged("an operator reads none of its tensors")
    if not _within([operator.opcodeIndex for operator in operators], 0, len(model.operatorCodes or ())):
        raise Damaged("an operator is of no kind")
    stored = [tensor.buffer for tensor in tensors] + [entry.buffer for entry in model.metadata or ()]
    if not _within(stored, 0, len(model.buffers)) or not _within(
        [each.subgraphIndex for each in model.signatureDefs], 0, 1
    ):
        raise Damaged("a buffer or graph is none of its own")
    if any(item.name is None for item in (*named, *(model.metadata or ()))):
        raise Damaged("an input, output or entry of metadata has no name")
    for tensor in tensors:
        _check_size(tensor, model.buffers[tensor.buffer].data)
    _check_order(model, graph)
    return model


def _check_order(model: Any, graph: Any) -> None:
    """Raise Damaged where a tensor is read that nothing wrote before: its memory is none."""
    constants = {index for index, tensor in enumerate(graph.tensors) if model.buffers[tensor.buffer].data is not None}
    known = constants | {-1, *map(int, graph.inputs)}
    if len(known) != len(constants) + 1 + len(graph.inputs):
        raise Damaged("an input is a constant, or another one")
    for operator in graph.operators:
        written = [int(index) for index in operator.outputs]
        if not known.issuperset(map(int, operator.inputs)) or not known.isdisjoint(written):
            raise Damaged("an operator reads what nothing in front of it writes, or writes what is there")
        known.update(written)
    if not known.issuperset(map(int, graph.outputs)):
        raise Damaged("nothing writes an output")


def _within(indices: Any, low: int, high: int) -> bool:
    return all(low <= int(index) < high for index in indices)


#: Bytes of a number of each type that constants have.
_BYTES = {
    **{getattr(schema.TensorType, name): 4 for name in ("FLOAT32", "INT32")},
    **{getattr(schema.TensorType, name): 1 for name in ("INT8", "UINT8", "BOOL")},
    **{schema.TensorType.FLOAT16: 2, schema.TensorType.INT16: 2, schema.TensorType.INT64: 8},
}


def _check_size(tensor: Any, data: Any) -> None:
    shape = shape_of(tensor)
    if min(shape, default=1) < 0 or prod(shape) > MOST_NUMBERS or tensor.type not in _BYTES:
        raise Damaged(f"a tensor is of type {tensor.type} and shape {list(shape)}")
    if data is not None and len(data) != prod(shape) * _BYTES[tensor.type]:
        raise Damaged(f"a constant of shape {list(shape)} has {len(data)} bytes")
    quantization = tensor.quantization
    if quantization is None:
        return
    scales, zeros = (values if values is not None else () for values in (quantization.scale, quantization.zeroPoint))
    if len(scales) > 1 and not (
        0 <= quantization.quantizedDimension < len(shape) and shape[quantization.quantizedDimension] == len(scales)
    ):
        raise Damaged(f"{len(scales)} scales are not those of a shape {list(shape)}")
    if len(zeros) not in (len(scales), 1, 0):
        raise Damaged(f"{len(zeros)} zero points are not those of {len(scales)} scales")
    if not all(np.isfinite(scales)) or any(scale < 0 for scale in scales):
        raise Damaged("a scale is no positive number")


# --- read and written ------------------------------------------------------------------------------------------------


def read(content: bytes) -> Any:
    """Return the model in `content`, whose weights may lie behind the flatbuffer."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def operator_name(model: Any, operator: Any) -> str:
    """Return the name of an operator's kind, such as CONV_2D."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Old readers look at the deprecated field, which holds codes below 127.
    return str(_OPERATORS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM"))


def writers_of(graph: Any) -> dict[int, Any]:
    """Return the operator that writes each tensor, by the tensor's index."""
    return {int(index): operator for operator in graph.operators for index in operator.outputs}


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Return the shape of a tensor; a number has none."""
    return tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()


def code_of(model: Any, kind: int, version: int) -> int:
    """Return the index of an operator's kind and version among those of `model`, which gets it if it has none."""
    for index, code in enumerate(model.operatorCodes):
        if (code.builtinCode, code.version) == (kind, version):
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def constant(model: Any, index: int, dtype: type[np.generic]) -> Array:
    """Return the numbers of the constant tensor `index`, flat; none where it is no constant."""
    data = model.buffers[model.subgraphs[0].tensors[index].buffer].data
    return np.frombuffer(b"" if data is None else bytes(data), dtype)


class _Builder(flatbuffers.Builder):  # type: ignore[misc]  # flatbuffers has no types
    """Puts byte vectors at multiples of 16, as TFLite's schema demands of weights and the Python packer forgets.

    Equal vectors are written once: constants, and the zero points of int8 weights, which are all zero.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)

    def CreateNumpyVector(self, x: Any) -> int:
        key = x.dtype.str, x.tobytes()
        if key not in self._written:
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


def write(model: Any) -> bytes:
    """Return the bytes of a file, its weights inside the flatbuffer: readers of 2023 do not look behind it."""
    builder = _Builder(sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None) + 2**20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def with_metadata(content: bytes, text: str) -> bytes:
    model = read(content)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    entry.name, entry.buffer = METADATA_KEY, len(model.buffers)
    model.buffers.append(buffer)
    older = [item for item in model.metadata or [] if item.name.decode() == METADATA_KEY]
    for item in older:
        model.buffers[item.buffer].data = None
    model.metadata = [*(item for item in model.metadata or [] if item not in older), entry]
    return write(model)
