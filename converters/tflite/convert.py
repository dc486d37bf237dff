"""TFLite: written by litert-torch, channels last and of rank 4 at most, run by the LiteRT interpreter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import Tensor, nn

from tsmzoo.artifact.arrays import check_outputs, check_tensors
from tsmzoo.artifact.contract import METADATA_KEY, Contract, DType, Layout
from tsmzoo.errors import ArtifactError
from tsmzoo.text import of_error
from tsmzoo.typing import Array

from . import flatbuffer, gpu_delegate
from .flatbuffer import operator_name, read, write

frame_layout: Layout = "NHWC"
clip_layout: Layout = "THWC"
pixel_type: Literal["tensor", "image"] = "tensor"
packed_state = "state"
precisions = ("fp32",)
libraries = ("torch", "litert-torch", "litert-converter", "ai-edge-litert")

SIGNATURE = "serving_default"
#: Mobile GPUs take no tensor of more axes.
_MAX_RANK = 4
_DTYPES = {schema.TensorType.FLOAT32: "float32", schema.TensorType.UINT8: "uint8"}


def pixel_dtype(mode: str) -> DType:
    return "uint8"


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
    out.write_bytes(_with_metadata(content, contract.embedded()))


def quantize(
    source: Path, contract: Contract, feeds: Sequence[dict[str, Array]], out: Path, keep_float: int = 0
) -> list[tuple[str, float]]:
    """Write the float file `source` in the precision of `contract`, by ai-edge-quantizer."""
    from .quantize import quantized  # a second, which other precisions need not wait for

    content, costs = quantized(source.read_bytes(), contract, feeds, keep_float)
    out.write_bytes(_with_metadata(content, contract.embedded()))
    return costs


def _arranged(content: bytes) -> bytes:
    """Return the file with its bytes read the fast way, and short names: modules' paths are up to a tenth of a file."""
    model = read(content)
    _dequantize_pixels(model)
    gpu_delegate.mean_in_place(model)
    _cut_states_early(model)
    graph = model.subgraphs[0]
    (signature,) = model.signatureDefs
    outside = {item.tensorIndex for item in (*signature.inputs, *signature.outputs)}
    writers = {index: operator for operator in graph.operators for index in operator.outputs}
    for index, tensor in enumerate(graph.tensors):
        if index not in outside:
            kind = operator_name(model, writers[index]) if index in writers else "constant"
            tensor.name = f"{kind.lower()}_{index}".encode()
    return write(model)


def _with_metadata(content: bytes, text: str) -> bytes:
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


def _dequantize_pixels(model: Any) -> None:
    """Turn the cast of an input of bytes into their dequantisation, by 1: XNNPACK has a kernel for that alone.

    The cast takes as long as a tenth of a small network; the numbers are the same.
    """
    graph = model.subgraphs[0]
    pixels = {index for index in graph.inputs if graph.tensors[index].type == schema.TensorType.UINT8}
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 1
    for operator in graph.operators:
        if operator.inputs[0] in pixels and operator_name(model, operator) == "CAST":
            operator.opcodeIndex = len(model.operatorCodes)
            operator.builtinOptions, operator.builtinOptionsType = None, schema.BuiltinOptions.NONE
            values = schema.QuantizationParametersT()
            values.scale, values.zeroPoint = [1.0], [0]
            graph.tensors[operator.inputs[0]].quantization = values
    if any(operator.opcodeIndex == len(model.operatorCodes) for operator in graph.operators):
        model.operatorCodes.append(code)


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


def check(path: Path, contract: Contract) -> tuple[list[str], list[str]]:
    """Names, shapes and types as in the contract; rank 4 at most; builtin operators only. Advice on mobile GPUs."""
    try:
        model = flatbuffer.check(path.read_bytes())
        graph = model.subgraphs[0]
        operators = Counter(operator_name(model, operator) for operator in graph.operators)
        (signature,) = [item for item in model.signatureDefs if item.signatureKey.decode() == SIGNATURE]
        items = [(item.name.decode(), item.tensorIndex) for item in (*signature.inputs, *signature.outputs)]
        copies = [model.buffers[item.buffer].data for item in model.metadata if item.name.decode() == METADATA_KEY]
        copy = bytes(copies[0]).decode() if copies else None
    except Exception as error:  # the generated reader raises whatever odd bytes lead to
        raise ArtifactError(f"{path}: is no TFLite file of ours ({of_error(error)}); export it again") from None
    # Before anything else is asked of them, whose rules are those of their kinds.
    if foreign := sorted(name for name in operators if name not in gpu_delegate.TAKEN):
        raise ArtifactError(f"{path}: needs {', '.join(foreign)}, which phones' runtimes lack; report this model")
    if sorted(index for _, index in items) != sorted((*graph.inputs, *graph.outputs)):
        raise ArtifactError(f"{path}: its signature is not of its inputs and outputs; export it again")
    tensors = {name: graph.tensors[index] for name, index in items}
    found = {
        name: (_DTYPES.get(tensor.type), tuple(int(n) for n in tensor.shape) if tensor.shape is not None else ())
        for name, tensor in tensors.items()
    }
    wanted = {tensor.name: (tensor.dtype, tensor.shape) for tensor in (*contract.inputs, *contract.outputs)}
    check_tensors(path, found, wanted)
    contract.check_copy(path, copy)
    rank = max(len(tensor.shape) if tensor.shape is not None else 0 for tensor in graph.tensors)
    if rank > _MAX_RANK:
        raise ArtifactError(f"{path}: has a tensor of rank {rank}, which mobile GPUs refuse; report this model")
    found_against = gpu_delegate.findings(model)
    if contract.gpu_safe and (shared := [finding for finding in found_against if finding.kind == "output"]):
        raise ArtifactError(f"{path}: {shared[0]}, in spite of --gpu-safe; report this model")
    structure = [
        f"tensors as named ({len(wanted)})",
        f"rank {rank} at most",
        f"{operators.total()} builtin operators, TRANSPOSE {operators['TRANSPOSE']}",
    ]
    if not found_against:
        structure.append("nothing known against LiteRT's GPU delegate")
    return structure, [gpu_delegate.summary(found_against)] if found_against else []


class TfliteRunner:
    """The LiteRT interpreter, XNNPACK on the CPU."""

    def __init__(self, path: Path, contract: Contract, threads: int | None = None) -> None:
        from importlib.metadata import version

        from ai_edge_litert.interpreter import Interpreter

        self.runtime = f"ai-edge-litert {version('ai-edge-litert')}"
        self._path, self._contract = path, contract
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()  # here, where what it prints is swallowed
            self._signature = self._interpreter.get_signature_runner(SIGNATURE)
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"{path}: LiteRT rejects it ({of_error(error)}); export it again") from None

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        try:
            outputs: dict[str, Array] = self._signature(**inputs)
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"{self._path}: LiteRT fails on it ({of_error(error)}); export it again") from None
        check_outputs(self._path, self._contract, inputs, outputs)
        return outputs


def load(path: Path, contract: Contract, threads: int | None = None) -> TfliteRunner:
    return TfliteRunner(path, contract, threads)
