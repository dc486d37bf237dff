"""Write TFLite files by litert-torch, channels last and of rank 4 at most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ai_edge_litert import schema_py_generated as schema
from torch import Tensor, nn

from tsmzoo.artifact.contract import Contract

from . import gpu_delegate
from .flatbuffer import SIGNATURE, code_of, operator_name, read, with_metadata, write, writers_of


class _Named(nn.Module):
    """litert-torch takes the tensors' names from keyword arguments and from the keys of a dict."""

    def __init__(self, model: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.model = model
        self.inputs = [tensor.name for tensor in contract.inputs]
        self.outputs = [tensor.name for tensor in contract.outputs]

    def forward(self, **tensors: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.outputs, self.model(*(tensors[name] for name in self.inputs)), strict=True))


def convert(model: nn.Module, contract: Contract, out: Path) -> None:
    """Write `model` with one signature, and the contract among the metadata."""
    import litert_torch  # seconds, and nothing else here needs it

    examples = {
        tensor.name: torch.zeros([int(n) for n in tensor.shape], dtype=getattr(torch, tensor.dtype))
        for tensor in contract.inputs
    }
    named = _Named(model, contract).eval()
    # Half the time and less memory where weights are many; the operators are the same.
    made = litert_torch.signature(SIGNATURE, named, sample_kwargs=examples).convert(lightweight_conversion=True)
    content = _arranged(made.model_content())
    if contract.gpu_safe:
        content = gpu_delegate.decouple(content)
    out.write_bytes(with_metadata(content, contract.embedded()))


def _arranged(content: bytes) -> bytes:
    """Return the file with its bytes read the fast way, and short names: modules' paths are up to a tenth of a file."""
    model = read(content)
    _dequantize_pixels(model)
    gpu_delegate.mean_in_place(model)
    _cut_states_early(model)
    graph = model.subgraphs[0]
    (signature,) = model.signatureDefs
    outside = {item.tensorIndex for item in (*signature.inputs, *signature.outputs)}
    writers = writers_of(graph)
    for index, tensor in enumerate(graph.tensors):
        if index not in outside:
            kind = operator_name(model, writers[index]) if index in writers else "constant"
            tensor.name = f"{kind.lower()}_{index}".encode()
    return write(model)


def _dequantize_pixels(model: Any) -> None:
    """Turn the cast of an input of bytes into their dequantization, by 1: XNNPACK has a kernel for that alone.

    The cast takes as long as a tenth of a small network; the numbers are the same.
    """
    graph = model.subgraphs[0]
    pixels = {index for index in graph.inputs if graph.tensors[index].type == schema.TensorType.UINT8}
    for operator in graph.operators:
        if operator.inputs[0] in pixels and operator_name(model, operator) == "CAST":
            operator.opcodeIndex = code_of(model, schema.BuiltinOperator.DEQUANTIZE, 1)
            operator.builtinOptions, operator.builtinOptionsType = None, schema.BuiltinOptions.NONE
            values = schema.QuantizationParametersT()
            values.scale, values.zeroPoint = [1.0], [0]
            graph.tensors[operator.inputs[0]].quantization = values


def _cut_states_early(model: Any) -> None:
    """Put the cut of each next state right behind the operator that writes what is cut, while caches still hold it.

    litert-torch puts them at the end of the graph; a quarter of the time of all cuts.
    """
    graph = model.subgraphs[0]
    writers = {index: place for place, operator in enumerate(graph.operators) for index in operator.outputs}

    def place_of(item: tuple[int, Any]) -> tuple[int, bool]:
        place, operator = item
        cut = operator_name(model, operator) == "SLICE" and operator.outputs[0] in graph.outputs
        return (writers.get(operator.inputs[0], -1), True) if cut else (place, False)

    graph.operators = [operator for _, operator in sorted(enumerate(graph.operators), key=place_of)]
