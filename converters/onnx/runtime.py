"""Check ONNX files, and run them in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime

from tsmzoo.artifact.arrays import check_outputs, check_tensors, runtime_error
from tsmzoo.artifact.contract import METADATA_KEY, Contract
from tsmzoo.errors import ArtifactError
from tsmzoo.text import of_error
from tsmzoo.typing import Array

from .session import RUNTIME, opened


def check(path: Path, contract: Contract) -> tuple[list[str], list[str]]:
    """Check that the file is valid ONNX with the tensors of its contract and no weights outside it; give no advice."""
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

    runtime = RUNTIME

    def __init__(self, path: Path, contract: Contract, threads: int | None = None) -> None:
        self._path, self._contract = path, contract
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        self._session = opened(path, options)
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        try:
            values = self._session.run(self._names, inputs)
        except Exception as error:  # the same
            raise runtime_error(self._path, "ONNX Runtime fails on", error) from None
        outputs = dict(zip(self._names, values, strict=True))
        check_outputs(self._path, self._contract, inputs, outputs)
        return outputs


def load(path: Path, contract: Contract, threads: int | None = None) -> OnnxRunner:
    return OnnxRunner(path, contract, threads)
