"""TFLite files as flatbuffers: read as objects, written small and aligned."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tsmzoo.artifact import Array

_OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


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
