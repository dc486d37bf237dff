"""Find what keeps a TFLite file from phones' GPUs, and mend what an added operator can.

No GPU is asked, so nothing found means that nothing is known, not that a GPU was seen to agree. The rules are those of
LiteRT's source, tflite/tools/versioning/gpu_compatibility.cc and, below tflite/delegates/gpu/common, model_builder.cc
(what is taken, in which version, which attributes are read), gpu_model.cc and transformations/remove_noop.cc (what is
merged into the operator before it, or dropped), tasks/reduce.cc. What goes wrong with states on Mali, without a word,
others found out: github.com/john-rocky/LiteRT-Models, movinet/README.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .flatbuffer import code_of, constant, operator_name, read, shape_of, write, writers_of

#: Axes that it takes.
MAX_RANK = 4
#: The operators that the delegate takes, of those that our exports and their neighbours have, and the newest version.
TAKEN = {
    **dict.fromkeys(("ADD", "DIV", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE", "SUB"), 2),
    **dict.fromkeys(("ABS", "ELU", "EXP", "FLOOR", "LOG", "LOGISTIC", "NEG", "RSQRT", "SQRT", "SQUARE", "TANH"), 2),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION", "PAD", "PADV2", "RELU", "RELU6", "SLICE"), 2),
    **dict.fromkeys(("BATCH_MATMUL", "CAST", "HARD_SWISH", "MEAN", "REDUCE_MAX", "SPLIT", "SUM"), 99),  # any
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), 6),
    **dict.fromkeys(("STRIDED_SLICE", "TRANSPOSE"), 4),
    **{"DEQUANTIZE": 3, "FULLY_CONNECTED": 9, "MUL": 3, "QUANTIZE": 2, "RESHAPE": 1, "SOFTMAX": 2},
}
#: int8 and uint8 it computes in float, rounded as the file says; constants of int32 are shapes and biases.
_TYPES = {getattr(schema.TensorType, name) for name in ("FLOAT32", "FLOAT16", "INT8", "UINT8", "BOOL")}
#: Operators that hand on numbers of their first input: merged with what stands before or behind, or aliases of it.
_VIEWS = ("SLICE", "STRIDED_SLICE", "RESHAPE", "TRANSPOSE", "QUANTIZE", "DEQUANTIZE")
#: Operators on the numbers at the same place of two tensors, one of which may be a constant.
_PAIRS = ("ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "POW", "SQUARED_DIFFERENCE", "SUB")


class Finding(NamedTuple):
    """What speaks against the GPU: an operator's kind, or `output`; the tensor it writes; why."""

    kind: str
    tensor: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind} {self.tensor} {self.why}"


def summary(findings: list[Finding]) -> str:
    """Return one line for all of `findings`, of which there are some; equal ones counted."""
    counted = Counter((kind, why) for kind, _, why in findings)
    first = {(kind, why): tensor for kind, tensor, why in reversed(findings)}
    parts = [
        f"{kind} {first[kind, why]}{f' (and {count - 1} more)' if count > 1 else ''} {why}"
        for (kind, why), count in counted.items()
    ]
    advice = " (export with --gpu-safe)" if any(finding.kind == "output" for finding in findings) else ""
    return f"LiteRT's GPU delegate: {'; '.join(parts)}{advice}"


def findings(model: Any) -> list[Finding]:
    """Return what speaks against running `model`, as flatbuffer.read gives it, on the GPU: operators, then outputs."""
    graph = model.subgraphs[0]
    found = [
        Finding(operator_name(model, operator), _name(graph.tensors[operator.outputs[0]]), why)
        for operator in graph.operators
        for why in _refusals(model, operator)
    ]
    return found + [Finding("output", name, why) for _, name, why in _shared_outputs(model)]


def decouple(content: bytes) -> bytes:
    """Return the file with an operator of its own in front of each output that is also read inside, or part of it.

    An average over one pixel: the number that goes in, in float and int8 (but for the sign of zero), and of all that
    changes nothing the one that is kept as an operator of its own. A product by one is merged into the operator before
    it, a slice of everything or a reshape to the same shape may be dropped, a maximum with itself is refused, and a
    maximum over one pixel starts from -10000 on the GPU.
    """
    model = read(content)
    graph = model.subgraphs[0]
    shared = [index for index, _, _ in _shared_outputs(model) if len(shape_of(graph.tensors[index])) == MAX_RANK]
    for index in shared:
        _insert_average(model, index)
    return write(model) if shared else content


def mean_in_place(model: Any) -> None:
    """Take the mean over other axes in place of moving these to the end, where that alone is what a transpose is for.

    The delegate has no reshape behind a mean: one over H and W of N, C, H, W leaves C where it looks for H.
    """
    graph = model.subgraphs[0]
    readers, writers = _readers(graph), writers_of(graph)
    for mean in [operator for operator in graph.operators if operator_name(model, operator) == "MEAN"]:
        before = writers.get(int(mean.inputs[0]))
        if before is None or operator_name(model, before) != "TRANSPOSE" or len(readers[int(mean.inputs[0])]) > 1:
            continue
        order = constant(model, before.inputs[1], np.int32).tolist()
        axes = [order[axis] for axis in constant(model, mean.inputs[1], np.int32)]
        kept = [axis for axis in order if axis not in axes]
        if mean.builtinOptions.keepDims or kept != sorted(kept) or int(mean.inputs[0]) in graph.outputs:
            continue
        moved, old_axes = mean.inputs
        # In the place of the moved tensor: one that nothing writes or reads would be a trap.
        _set_constant(model, moved, np.array(sorted(axes), np.int32), like=old_axes)
        mean.inputs = [before.inputs[0], moved]
        graph.operators.remove(before)


# --- operators ----------------------------------------------------------------------------------------------------


def _refusals(model: Any, operator: Any) -> Iterator[str]:
    """Yield why the delegate does not take an operator, or computes something else."""
    graph, name = model.subgraphs[0], operator_name(model, operator)
    tensors = [graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]
    if name not in TAKEN:
        yield "is no operator that it knows"
    elif (version := model.operatorCodes[operator.opcodeIndex].version) > TAKEN[name]:
        yield f"is of version {version}, and it knows {TAKEN[name]} at most"
    for tensor in tensors:
        if len(shape_of(tensor)) > MAX_RANK:
            yield f"has a tensor of rank {len(shape_of(tensor))}"
        if model.buffers[tensor.buffer].data is None and tensor.type not in _TYPES:
            yield "computes with numbers that are neither float nor bytes"
    if rule := _RULES.get(name):
        yield from rule(model, operator)


def _pair(model: Any, operator: Any) -> Iterator[str]:
    tensors = [model.subgraphs[0].tensors[index] for index in operator.inputs]
    constants = [shape_of(tensor) for tensor in tensors if model.buffers[tensor.buffer].data is not None]
    shapes = [shape_of(tensor) for tensor in tensors]
    if operator.inputs[0] == operator.inputs[1] and operator_name(model, operator) not in ("ADD", "MUL"):
        yield "takes one tensor twice"
    elif any(len(shape) == MAX_RANK and shape[0] > 1 for shape in constants):
        yield "has a constant with a batch"
    elif not constants and len(shapes[0]) != len(shapes[1]) and min(map(len, shapes)) > 1:
        yield "has inputs of different ranks"


def _slice(model: Any, operator: Any) -> Iterator[str]:
    if len(shape_of(model.subgraphs[0].tensors[operator.inputs[0]])) not in (3, 4):
        yield "cuts a tensor that is not of rank 3 or 4"
    options = operator.builtinOptions
    if operator_name(model, operator) == "STRIDED_SLICE":
        if options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask:
            yield "adds or drops axes"
        if (constant(model, operator.inputs[3], np.int32) < 0).any():
            yield "goes backwards"


def _pad(model: Any, operator: Any) -> Iterator[str]:
    # Three axes it takes as well, and pads the batch by one on both sides.
    if shape_of(model.subgraphs[0].tensors[operator.inputs[1]]) != (4, 2):
        yield "pads a tensor that is not of rank 4"


def _softmax(model: Any, operator: Any) -> Iterator[str]:
    if operator.builtinOptions.beta != 1:
        yield "has a beta other than 1"


def _mean(model: Any, operator: Any) -> Iterator[str]:
    source, target = (model.subgraphs[0].tensors[index] for index in (operator.inputs[0], operator.outputs[0]))
    if model.buffers[model.subgraphs[0].tensors[operator.inputs[1]].buffer].data is None:
        yield "has axes that are no constant"
        return
    rank = len(shape_of(source))
    axes = {int(axis) % rank for axis in constant(model, operator.inputs[1], np.int32)}
    reduced = tuple(1 if axis in axes else size for axis, size in enumerate(shape_of(source)))
    if _as_image(reduced) != _as_image(shape_of(target)):
        yield "drops axes in front of those it keeps, for which the GPU has no reshape"


def _matmul(model: Any, operator: Any) -> Iterator[str]:
    if operator.builtinOptions.adjX or operator.builtinOptions.adjY:
        yield "is to transpose an input, which is not read"
    second = model.subgraphs[0].tensors[operator.inputs[1]]
    if model.buffers[second.buffer].data is not None and len(shape_of(second)) != 2:
        yield "has a constant that is no matrix"


def _cast(model: Any, operator: Any) -> Iterator[str]:
    tensors = model.subgraphs[0].tensors
    types = {tensors[operator.inputs[0]].type, tensors[operator.outputs[0]].type}
    if types & {schema.TensorType.UINT8, schema.TensorType.INT8}:
        yield "takes bytes"


def _dense(model: Any, operator: Any) -> Iterator[str]:
    tensors, options = model.subgraphs[0].tensors, operator.builtinOptions
    if options.weightsFormat:
        yield "has weights in another order"
    ranks = {len(shape_of(tensors[index])) for index in (operator.inputs[0], operator.outputs[0])}
    if options.keepNumDims and len(ranks) > 1:
        yield "is to keep axes that it does not keep"


_RULES: dict[str, Callable[[Any, Any], Iterator[str]]] = {
    **dict.fromkeys(_PAIRS, _pair),
    **{"SLICE": _slice, "STRIDED_SLICE": _slice, "PAD": _pad, "PADV2": _pad, "SOFTMAX": _softmax, "MEAN": _mean},
    **{"BATCH_MATMUL": _matmul, "CAST": _cast, "FULLY_CONNECTED": _dense},
}


def _as_image(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape as the GPU has it, N, H, W, C: N alone, N and C, or N, W and C where there are fewer axes."""
    padded = {0: (), 1: (1, 1, 1), 2: (1, 1), 3: (1,)}.get(len(shape), ())
    return (*shape[:1], *padded, *shape[1:])


# --- outputs ------------------------------------------------------------------------------------------------------


def _shared_outputs(model: Any) -> Iterator[tuple[int, str, str]]:
    """Yield index, name and fault of each output whose numbers are also read inside the graph."""
    graph = model.subgraphs[0]
    readers, writers, inputs = _readers(graph), writers_of(graph), {int(index) for index in graph.inputs}
    names = {int(item.tensorIndex): item.name.decode() for each in model.signatureDefs for item in each.outputs}
    for index in map(int, graph.outputs):
        name, seen = names.get(index) or _name(graph.tensors[index]), index
        limit = 0  # readers that the output itself has
        while True:
            if seen in inputs:
                yield index, name, "is an input handed through"
            elif len(readers.get(seen, ())) > limit:
                yield index, name, "is read inside the graph" if seen == index else "is part of what is read inside"
            elif (writer := writers.get(seen)) is not None and operator_name(model, writer) in _VIEWS:
                seen, limit = int(writer.inputs[0]), 1
                continue
            elif writer is not None and operator_name(model, writer) in _PAIRS and inputs & set(writer.inputs):
                yield index, name, "is an input with something done to it"
            break


def _insert_average(model: Any, index: int) -> None:
    """Let an average over one pixel write what the output at `index` was."""
    graph = model.subgraphs[0]
    source = graph.tensors[index]
    result = schema.TensorT()
    vars(result).update(vars(source))
    source.name = f"{_name(source)}_inside".encode()
    average, options = schema.OperatorT(), schema.Pool2DOptionsT()
    options.padding = schema.Padding.VALID
    options.strideW = options.strideH = options.filterWidth = options.filterHeight = 1
    version = 1 if source.type == schema.TensorType.FLOAT32 else 2
    average.opcodeIndex = code_of(model, schema.BuiltinOperator.AVERAGE_POOL_2D, version)
    average.inputs, average.outputs = [index], [len(graph.tensors)]
    average.builtinOptions, average.builtinOptionsType = options, schema.BuiltinOptions.Pool2DOptions
    graph.tensors.append(result)
    written = [number for number, each in enumerate(graph.operators) if index in each.outputs]
    graph.operators.insert(written[0] + 1 if written else 0, average)
    graph.outputs = [len(graph.tensors) - 1 if each == index else int(each) for each in graph.outputs]
    for item in [item for each in model.signatureDefs for item in each.outputs]:
        if item.tensorIndex == index:
            item.tensorIndex = len(graph.tensors) - 1


# --- graphs -------------------------------------------------------------------------------------------------------


def _readers(graph: Any) -> dict[int, list[Any]]:
    readers: dict[int, list[Any]] = {}
    for operator in graph.operators:
        for index in {int(index) for index in operator.inputs}:
            readers.setdefault(index, []).append(operator)
    return readers


def _name(tensor: Any) -> str:
    return str((tensor.name or b"").decode())


def _set_constant(model: Any, index: int, values: Any, like: int) -> None:
    """Make of the tensor at `index` a constant of the type and shape of the tensor `like`."""
    tensors, buffer = model.subgraphs[0].tensors, schema.BufferT()
    vars(tensors[index]).update(vars(tensors[like]))
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    tensors[index].name, tensors[index].buffer = f"constant_{index}".encode(), len(model.buffers)
    model.buffers.append(buffer)
