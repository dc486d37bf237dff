"""ONNX: written by `torch.onnx.export` through torch.export, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime
import torch
from torch import nn

from tsmzoo.artifact.arrays import check_outputs, check_tensors
from tsmzoo.artifact.contract import METADATA_KEY, Contract, DType, Layout
from tsmzoo.errors import ArtifactError
from tsmzoo.text import of_error
from tsmzoo.typing import Array

frame_layout: Layout = "NCHW"
clip_layout: Layout = "NTCHW"
pixel_type: Literal["tensor", "image"] = "tensor"
packed_state = "state"
precisions = ("fp32",)
libraries = ("torch", "onnx", "onnxscript", "onnxruntime")

#: Before it Softmax, which nodes do not tell, took its axes otherwise.
_OLDEST_OPSET = 13


def pixel_dtype(mode: str) -> DType:
    return "uint8"


def convert(model: nn.Module, contract: Contract, out: Path) -> None:
    """Write `model` as one file, weights included."""
    # An axis of any length is given 2 in the example: torch.export takes 1 for a constant.
    examples = tuple(torch.zeros(tensor.lengths(2), dtype=getattr(torch, tensor.dtype)) for tensor in contract.inputs)
    program = torch.onnx.export(
        model,
        examples,
        dynamo=True,
        input_names=[tensor.name for tensor in contract.inputs],
        output_names=[tensor.name for tensor in contract.outputs],
        dynamic_shapes=_dynamic_shapes(contract),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:  # stack traces, with the paths of the machine that exported
        node.ClearField("metadata_props")
    _save(proto, contract, out)


def quantize(
    source: Path, contract: Contract, feeds: Sequence[dict[str, Array]], out: Path, keep_float: int = 0
) -> list[tuple[str, float]]:
    """Write the float file `source` in the precision of `contract`, by onnxruntime's tools."""
    from .quantize import half, quantized, weights_in_bytes

    model, costs = onnx.load_model(source), list[tuple[str, float]]()
    if contract.precision == "fp16":
        model = half(model)
    elif contract.precision == "w8":
        model = weights_in_bytes(model)
    else:
        model, costs = quantized(model, feeds, keep_float)
    _save(model, contract, out)
    return costs


def _save(model: onnx.ModelProto, contract: Contract, out: Path) -> None:
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=contract.embedded())
    model.doc_string = f"{contract.model}, exported by tsmzoo"
    _declare_oldest(model)
    onnx.save_model(model, out)


def _declare_oldest(model: onnx.ModelProto) -> None:
    """Declare the oldest opset and IR version that the nodes are of, for older runtimes; nothing else changes."""
    opset = next(opset for opset in model.opset_import if not opset.domain)
    while opset.version > _OLDEST_OPSET and _are_of(model, opset.version - 1):
        opset.version -= 1
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)


def _are_of(model: onnx.ModelProto, version: int) -> bool:
    """Say whether every node is one of that opset: its kind, attributes, and numbers of inputs and outputs."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {opset.domain: opset.version for opset in model.opset_import} | {"": version}
    try:
        for node in model.graph.node:
            onnx.checker.check_node(node, context)
    except onnx.checker.ValidationError:
        return False
    return True


def _dynamic_shapes(contract: Contract) -> Any:
    if not any(isinstance(n, str) for n in contract.main_input.shape):
        return None
    batch = {0: torch.export.Dim(str(contract.main_input.shape[0]))}
    if contract.state == "packed":
        return batch, batch
    states = tuple(batch for _ in contract.states)
    return (batch, states) if states else (batch,)


def check(path: Path, contract: Contract) -> tuple[list[str], list[str]]:
    """Names, shapes and types as in the contract; valid ONNX; no weights outside the file. No advice."""
    try:
        model = onnx.load_model(path, load_external_data=False)
        tensors = list(onnx.external_data_helper._get_all_tensors(model))
    except Exception as error:  # protobuf raises many kinds
        raise _invalid(path, error) from None
    for tensor in tensors:
        if onnx.external_data_helper.uses_external_data(tensor):
            where = next((item.value for item in tensor.external_data if item.key == "location"), "")
            raise ArtifactError(f"{path}: keeps weights in another file, {where}, which is refused; export it again")
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # as does the checker
        raise _invalid(path, error) from None
    for node in model.graph.node:  # loops among them, which may never end
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ArtifactError(f"{path}: has a {node.op_type} with a graph of its own, none of ours; export it again")
    if model.functions or model.graph.sparse_initializer:
        raise ArtifactError(f"{path}: has functions or sparse weights, none of ours; export it again")
    values = (*model.graph.input, *model.graph.output)
    wanted = {tensor.name: (tensor.dtype, tensor.shape) for tensor in (*contract.inputs, *contract.outputs)}
    if len(values) != len(wanted):
        raise ArtifactError(f"{path}: has {len(values)} inputs and outputs, its contract says {len(wanted)}")
    check_tensors(path, {value.name: _described(value) for value in values}, wanted)
    contract.check_copy(path, {item.key: item.value for item in model.metadata_props}.get(METADATA_KEY))
    operators = len(model.graph.node)
    structure = [
        f"valid ONNX, opset {model.opset_import[0].version}",
        f"tensors as named ({len(wanted)})",
        f"{operators} nodes",
    ]
    return structure, []


def _invalid(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path}: is no valid ONNX file ({of_error(error)}); export it again")


def _described(value: onnx.ValueInfoProto) -> tuple[str, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    return _dtype(tensor.elem_type), tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)


def _dtype(number: int) -> str:
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(number).name)
    except KeyError:
        return f"of type {number}"


class OnnxRunner:
    """ONNX Runtime on the CPU."""

    runtime = f"onnxruntime {onnxruntime.__version__}"

    def __init__(self, path: Path, contract: Contract, threads: int | None = None) -> None:
        self._path, self._contract = path, contract
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises plain RuntimeErrors of its own
            raise ArtifactError(f"{path}: ONNX Runtime rejects it ({of_error(error)}); export it again") from None
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        try:
            values = self._session.run(self._names, inputs)
        except Exception as error:  # the same
            raise ArtifactError(
                f"{self._path}: ONNX Runtime fails on it ({of_error(error)}); export it again"
            ) from None
        outputs = dict(zip(self._names, values, strict=True))
        check_outputs(self._path, self._contract, inputs, outputs)
        return outputs


def load(path: Path, contract: Contract, threads: int | None = None) -> OnnxRunner:
    return OnnxRunner(path, contract, threads)
