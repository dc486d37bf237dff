"""Quantize TFLite files by ai-edge-quantizer, calibrated with what the float file computes.

- `fp16`: weights in half precision, computed in float.
- `w8`: weights in int8, one scale a channel, computed in float.
- `int8`: weights and activations in int8. What only moves numbers (slice, concatenation, padding, a shift of ones and
  zeros, and each state from one step to the next) keeps one scale from end to end, so that nothing is rounded twice on
  its way and a state that is fed back is the state that came out. Inputs, outputs and their normalization stay float,
  and so do running means and the count of frames (`states.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import qtyping, quantizer, recipe

from tsmzoo.artifact.contract import Contract
from tsmzoo.typing import Array

from ..costs import costs, probes
from ..states import Node, kept_exact
from .flatbuffer import SIGNATURE, constant, operator_name, read, with_metadata, write

#: Operators that hand on numbers as they are, and how many of their inputs are numbers (the rest are shapes).
_MOVES = {
    "SLICE": 1,
    "STRIDED_SLICE": 1,
    "CONCATENATION": None,
    "PAD": 1,
    "PADV2": 1,
    "TRANSPOSE": 1,
    "RESHAPE": 1,
    "AVERAGE_POOL_2D": 1,
    "MAX_POOL_2D": 1,
    "MAXIMUM": None,
}
_NOT = "no_quantize"
#: Operators that compute, which is where rounding costs.
_COSTLY = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "ADD", "MEAN")


def quantize(
    source: Path, contract: Contract, feeds: Sequence[dict[str, Array]], out: Path, keep_float: int = 0
) -> list[tuple[str, float]]:
    """Write the float file `source` in the precision of `contract`, by ai-edge-quantizer."""
    content, ranges, dearest = source.read_bytes(), None, list[tuple[str, float]]()
    if contract.precision == "int8":
        ranges = _ranges(content, contract, feeds)
        dearest = _costs(content, contract, ranges, feeds) if keep_float else []
    kept = [name for name, _ in dearest[:keep_float]]
    out.write_bytes(with_metadata(_applied(content, contract, ranges, kept), contract.embedded()))
    return dearest


def _applied(content: bytes, contract: Contract, ranges: dict[str, Any] | None, kept: Iterable[str]) -> bytes:
    """Return the file with the recipe of the precision applied, but for the operators that write the tensors `kept`."""
    work = quantizer.Quantizer(content)
    if contract.precision == "fp16":
        work.load_quantization_recipe(_half())
    elif contract.precision == "w8":
        work.load_quantization_recipe(recipe.weight_only_wi8_afp32())
    else:
        work.load_quantization_recipe(recipe.static_wi8_ai8())
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            work.update_quantization_recipe(".*", end, None, _NOT)
        model = read(content)
        for name in (*kept, *_normalization(model), *kept_exact(list(_nodes(model)), contract)):
            # The quantizer matches the names of all that an operator writes, each followed by a semicolon.
            work.update_quantization_recipe(f"^{name};", qtyping.TFLOperationName.ALL_SUPPORTED, None, _NOT)
    done = work.quantize(copy.deepcopy(ranges), enable_progress_report=False, enable_progress_bar=False)
    model = read(bytes(done.quantized_model))
    # Of a next state that is also quantized for what follows, the library lists the bytes in the signature's place.
    (signature,) = model.signatureDefs
    named = [item.tensorIndex for item in signature.outputs]
    missing = iter(index for index in named if index not in model.subgraphs[0].outputs)
    model.subgraphs[0].outputs = [index if index in named else next(missing) for index in model.subgraphs[0].outputs]
    for tensor in model.subgraphs[0].tensors:
        if model.buffers[tensor.buffer].data is not None:
            tensor.name = None  # "constant" and a number says nothing, half the tensors are such
    return write(model)


def _ranges(content: bytes, contract: Contract, feeds: Sequence[dict[str, Array]]) -> dict[str, Any]:
    """Return the range of every tensor over `feeds`, one for all between which numbers only move."""
    work = quantizer.Quantizer(content)
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    # One step gives the form; the numbers are ours, since the library forgets: it takes moving averages, which
    # clip what is rare (on the bundled online model a cosine of 0.98 with the float logits, 0.9998 so).
    ranges: dict[str, Any] = work.calibrate({SIGNATURE: list(feeds[:1])}, num_threads=1)
    _widen(content, feeds, ranges)
    _share_scales(read(content), contract, ranges)
    return ranges


def _costs(
    content: bytes, contract: Contract, ranges: dict[str, Any], feeds: Sequence[dict[str, Array]]
) -> list[tuple[str, float]]:
    """Return the operators with weights or sums, by what they write, and what each costs, largest first."""
    model = read(content)
    graph = model.subgraphs[0]
    names = [
        graph.tensors[operator.outputs[0]].name.decode()
        for operator in graph.operators
        if operator_name(model, operator) in _COSTLY and not _moved(model, operator)
    ]
    steps, answer = probes(feeds), contract.outputs[0].name

    def logits(content: bytes) -> Array:
        run = Interpreter(model_content=content, num_threads=1).get_signature_runner(SIGNATURE)
        return np.concatenate([run(**inputs)[answer] for inputs in steps])

    return costs(names, logits(content), lambda kept: logits(_applied(content, contract, ranges, kept)))


def _half() -> list[dict[str, Any]]:
    return [
        {
            "regex": ".*",
            "operation": qtyping.TFLOperationName.ALL_SUPPORTED,
            "algorithm_key": quantizer.algorithm_manager.AlgorithmName.FLOAT_CASTING,
            "op_config": {
                "weight_tensor_config": {"num_bits": 16, "dtype": "FLOAT"},
                "compute_precision": "FLOAT",
                "explicit_dequantize": True,
            },
        }
    ]


def _normalization(model: Any) -> list[str]:
    """Return what is computed from the pixels before the first operator with weights."""
    graph = model.subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    seen = {index for index in graph.inputs if graph.tensors[index].type == schema.TensorType.UINT8}
    written = []
    for operator in graph.operators:
        if operator.inputs[0] in seen and operator_name(model, operator) in ("DEQUANTIZE", "RESHAPE", "MUL", "ADD"):
            seen.add(operator.outputs[0])
            written.append(names[operator.outputs[0]])
    return written


def _nodes(model: Any) -> Iterator[Node]:
    """Yield the operators, called as the first tensor that they write."""
    graph = model.subgraphs[0]
    (signature,) = model.signatureDefs
    names = {index: tensor.name.decode() for index, tensor in enumerate(graph.tensors)}
    known = {item.tensorIndex: item.name.decode() for item in (*signature.inputs, *signature.outputs)}
    variable = {*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)}
    for operator in graph.operators:
        inputs, outputs = (
            {known.get(index, names[index]) for index in indices if index in variable}
            for indices in (operator.inputs, operator.outputs)
        )
        yield Node(names[operator.outputs[0]], inputs, outputs)


def _widen(content: bytes, feeds: Sequence[dict[str, Array]], ranges: dict[str, Any]) -> None:
    """Set the ranges to the least and the largest number of each tensor over all of `feeds`."""
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_preserve_all_tensors=True)
    run = interpreter.get_signature_runner(SIGNATURE)
    tensors = {
        each["index"]: ranges[each["name"]] for each in interpreter.get_tensor_details() if ranges.get(each["name"])
    }
    least: dict[int, float] = {}
    largest: dict[int, float] = {}
    for inputs in feeds:
        run(**inputs)
        for index in tensors:
            values = interpreter.get_tensor(index)
            least[index] = min(least.get(index, np.inf), float(values.min()))
            largest[index] = max(largest.get(index, -np.inf), float(values.max()))
    for index, held in tensors.items():
        held["min"] = np.full_like(held["min"], least[index])
        held["max"] = np.full_like(held["max"], largest[index])


def _moved(model: Any, operator: Any) -> list[int]:
    """Return the inputs whose numbers `operator` hands on as they are; none where it computes."""
    name, inputs = operator_name(model, operator), [int(index) for index in operator.inputs]
    if name in _MOVES:
        return inputs[: _MOVES[name]]
    return inputs[:1] if name == "DEPTHWISE_CONV_2D" and _selects(model, *inputs[1:]) else []


def _selects(model: Any, weights: int, bias: int = -1) -> bool:
    """Return whether a depthwise convolution takes one number of each channel as it is: the shift of a clip."""
    kernel = constant(model, weights, np.float32)
    ones = kernel.reshape(-1, int(model.subgraphs[0].tensors[weights].shape[-1]))
    return bool(
        kernel.size
        and np.isin(ones, (0, 1)).all()
        and (ones.sum(0) == 1).all()
        and (bias < 0 or not constant(model, bias, np.float32).any())
    )


def _share_scales(model: Any, contract: Contract, ranges: dict[str, Any]) -> None:
    """Give tensors between which numbers only move the range of them all."""
    graph = model.subgraphs[0]
    first: dict[int, int] = {}

    def group(index: int) -> int:
        while (above := first.setdefault(index, index)) != index:
            index = above
        return index

    def join(one: int, other: int) -> None:
        first[group(one)] = group(other)

    for operator in graph.operators:
        for index in _moved(model, operator):
            join(index, int(operator.outputs[0]))
    (signature,) = model.signatureDefs
    index_of = {item.name.decode(): item.tensorIndex for item in (*signature.inputs, *signature.outputs)}
    for pair in contract.states:
        join(index_of[pair.input], index_of[pair.output])
    groups: dict[int, list[dict[str, Any]]] = {}
    for index in first:
        if held := ranges.get(graph.tensors[index].name.decode()):
            groups.setdefault(group(index), []).append(held)
    for members in groups.values():
        low, high = min(float(np.min(m["min"])) for m in members), max(float(np.max(m["max"])) for m in members)
        for member in members:
            member["min"], member["max"] = np.full_like(member["min"], low), np.full_like(member["max"], high)
