"""Check TFLite files, and run them in the LiteRT interpreter."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

from tsmzoo.artifact.arrays import check_outputs, check_tensors, runtime_error
from tsmzoo.artifact.contract import METADATA_KEY, Contract
from tsmzoo.errors import ArtifactError
from tsmzoo.text import of_error
from tsmzoo.typing import Array

from . import flatbuffer, gpu_delegate
from .flatbuffer import SIGNATURE, operator_name, shape_of
from .session import RUNTIME, opened

_DTYPES = {schema.TensorType.FLOAT32: "float32", schema.TensorType.UINT8: "uint8"}


def check(path: Path, contract: Contract) -> tuple[list[str], list[str]]:
    """Check tensors against the contract, rank 4 at most, and builtin operators only; give advice on mobile GPUs."""
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
    found = {name: (_DTYPES.get(tensor.type), shape_of(tensor)) for name, tensor in tensors.items()}
    wanted = {tensor.name: (tensor.dtype, tensor.shape) for tensor in (*contract.inputs, *contract.outputs)}
    check_tensors(path, found, wanted)
    contract.check_copy(path, copy)
    rank = max(len(shape_of(tensor)) for tensor in graph.tensors)
    if rank > gpu_delegate.MAX_RANK:
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

    runtime = RUNTIME

    def __init__(self, path: Path, contract: Contract, threads: int | None = None) -> None:
        self._path, self._contract = path, contract
        self._lock = threading.Lock()  # an interpreter has one set of tensors
        self._interpreter, self._signature = opened(path, threads)

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        try:
            with self._lock:
                outputs: dict[str, Array] = self._signature(**inputs)
        except (ValueError, RuntimeError) as error:
            raise runtime_error(self._path, "LiteRT fails on", error) from None
        check_outputs(self._path, self._contract, inputs, outputs)
        return outputs


def load(path: Path, contract: Contract, threads: int | None = None) -> TfliteRunner:
    return TfliteRunner(path, contract, threads)
