"""Quantize ONNX files by onnxruntime's tools, calibrated with what the float file computes.

- `fp16`: weights and activations in half precision; inputs and outputs stay float32, as the contract has them.
  Running means and the count of frames are computed in float32 (`states.py`), here and in int8.
- `w8`: weights of convolutions and linear layers in int8, one scale a channel; ONNX Runtime dequantizes them at every
  run, so that the file is small and slow.
- `int8`: weights and activations in int8, in the QDQ form that ONNX Runtime's kernels for CPU and phones read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from tsmzoo.artifact.contract import Contract
from tsmzoo.errors import ArtifactError
from tsmzoo.typing import Array

from ..costs import costs, probes
from ..states import Node, kept_exact
from .convert import save

_WEIGHTED = ("Conv", "Gemm", "MatMul")
#: Nodes that compute, which is where rounding costs.
_COSTLY = (*_WEIGHTED, "Add", "ReduceMean", "GlobalAveragePool")


def quantize(
    source: Path, contract: Contract, feeds: Sequence[dict[str, Array]], out: Path, keep_float: int = 0
) -> list[tuple[str, float]]:
    """Write the float file `source` in the precision of `contract`, by onnxruntime's tools."""
    model, costs = onnx.load_model(source), list[tuple[str, float]]()
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    exact = kept_exact(list(_nodes(model.graph)), contract)
    if contract.precision == "fp16":
        model = half(model, exact)
    elif contract.precision == "w8":
        model = weights_in_bytes(model)
    else:
        model, costs = quantized(model, feeds, keep_float, exact)
    save(model, contract, out)
    return costs


def _nodes(graph: onnx.GraphProto) -> Iterator[Node]:
    constants = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        yield Node(node.name, set(node.input) - constants, set(node.output))


def half(model: onnx.ModelProto, exact: Sequence[str] = ()) -> onnx.ModelProto:
    """Return `model` in half precision, but for the nodes `exact`."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    done: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True, node_block_list=list(exact))
    _sort(done.graph)  # it appends the casts of the inputs behind what reads them
    return done


def _sort(graph: onnx.GraphProto) -> None:
    """Put each node behind those that write what it reads, and keep one of those that write the same."""
    known = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    # The converter casts a tensor anew for each node that stays in float32, under the same name.
    waiting = list({tuple(node.output): node for node in graph.node}.values())
    del graph.node[:]
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise ArtifactError("the half-precision graph has a cycle; report this model")
        for node in ready:
            known.update(node.output)
        graph.node.extend(ready)
        waiting = [node for node in waiting if not known.issuperset(node.output)]


def weights_in_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with its weights in int8, one scale an output channel."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    made: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        if node.op_type in _WEIGHTED and len(node.input) > 1 and (tensor := tensors.get(node.input[1])) is not None:
            if tensor.name not in made:
                axis = 1 if node.op_type == "MatMul" else 0
                new, parts = _in_bytes(tensor, axis)
                nodes.append(new)
                graph.initializer.extend(parts)
                graph.initializer.remove(tensor)
                made[tensor.name] = new.output[0]
            node.input[1] = made[tensor.name]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _in_bytes(tensor: onnx.TensorProto, axis: int) -> tuple[onnx.NodeProto, list[onnx.TensorProto]]:
    values = numpy_helper.to_array(tensor)
    others = tuple(index for index in range(values.ndim) if index != axis)
    scale = (np.abs(values).max(others) / 127).astype(np.float32)
    scale[scale == 0] = 1
    shape = [-1 if index == axis else 1 for index in range(values.ndim)]
    rounded = np.round(values / scale.reshape(shape)).astype(np.int8)
    names = [f"{tensor.name}.{part}" for part in ("int8", "scale", "zero")]
    arrays = (rounded, scale, np.zeros(len(scale), np.int8))
    parts = [numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True)]
    return helper.make_node("DequantizeLinear", names, [f"{tensor.name}.float"], axis=axis), parts


def quantized(
    model: onnx.ModelProto, feeds: Sequence[dict[str, Array]], keep_float: int = 0, exact: Sequence[str] = ()
) -> tuple[onnx.ModelProto, list[tuple[str, float]]]:
    """Return `model` with weights and activations in int8, and what its operators cost.

    What is computed from the pixels at first stays float, as do the nodes `exact` and the `keep_float` operators that
    cost most; these stand first in the costs, which only a wish for some has measured.
    """
    always = [*exact, *_outputs_apart(model.graph, set(exact)), *_normalization(model.graph)]
    with tempfile.TemporaryDirectory() as folder:
        source, ranges = Path(folder) / "float.onnx", Path(folder) / "ranges.json" if keep_float else None
        onnx.save_model(model, source)
        whole = _applied(source, feeds, always, ranges)
        if not keep_float:
            return whole, []
        dearest = _costs(source, feeds, whole, ranges, always)
        kept = [name for name, _ in dearest[:keep_float]]
        return _applied(source, feeds, [*kept, *always], ranges), dearest


def _outputs_apart(graph: onnx.GraphProto, exact: set[str]) -> list[str]:
    """Let what follows an output of the nodes `exact` read a copy, and return the names of the nodes that copy.

    What is quantized for a reader is quantized for the output, too, and a mean would be handed on rounded.
    """
    outputs = {value.name for value in graph.output}
    nodes, copies = list(graph.node), list[onnx.NodeProto]()
    for node in list(nodes):
        for name in outputs.intersection(node.output) if node.name in exact else ():
            copy = helper.make_node("Identity", [name], [f"{name}.copy"], name=f"{name}.copy")
            for reader in nodes:
                if reader.name not in exact:
                    reader.input[:] = [copy.output[0] if given == name else given for given in reader.input]
            copies.append(copy)
            nodes.insert(nodes.index(node) + 1, copy)
    del graph.node[:]
    graph.node.extend(nodes)
    return [copy.name for copy in copies]


def _applied(
    source: Path, feeds: Sequence[dict[str, Array]], kept: list[str], ranges: Path | None = None
) -> onnx.ModelProto:
    """Return the file `source` in int8 but for the nodes `kept`; what the tensors range over is kept at `ranges`."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> Any:
            return next(self._feeds, None)

    out = source.with_name("int8.onnx")
    quantization.quantize_static(
        str(source),
        str(out),
        Reader(),
        per_channel=True,
        nodes_to_exclude=kept,
        extra_options={"CalibTensorRangeSymmetric": False, "ForceQuantizeNoInputCheck": False},
        **({"calibration_cache_path": ranges} if ranges else {}),
    )
    return onnx.load_model(out)


def _costs(
    source: Path, feeds: Sequence[dict[str, Array]], whole: onnx.ModelProto, ranges: Path | None, always: Sequence[str]
) -> list[tuple[str, float]]:
    """Return the nodes with weights or sums and what each costs, largest first.

    `whole` is the file with none kept but those that `always` are.
    """
    model = onnx.load_model(source)
    names = [node.name for node in model.graph.node if node.op_type in _COSTLY]
    steps = probes(feeds)

    def logits(model: onnx.ModelProto) -> Array:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return np.concatenate([session.run([model.graph.output[0].name], inputs)[0] for inputs in steps])

    def found(kept: Sequence[str]) -> Array:
        return logits(_applied(source, feeds, [*kept, *always], ranges) if kept else whole)

    return costs([name for name in names if name not in always], logits(model), found)


def _normalization(graph: onnx.GraphProto) -> list[str]:
    """Return the nodes between the bytes of the input and the first node with weights."""
    pixels = {value.name for value in graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    names = []
    for node in graph.node:
        if pixels & set(node.input) and node.op_type in ("Cast", "Sub", "Mul", "Reshape", "Slice", "Concat"):
            pixels |= set(node.output)
            names.append(node.name)
    return names
