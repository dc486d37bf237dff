"""Write Core ML packages (ML Programs) by coremltools, from torch.export."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch
from torch import nn

from tsmzoo.artifact.contract import METADATA_KEY, Contract, Tensor

from ..states import Node, kept_exact


@contextmanager
def writing() -> Iterator[None]:
    """Raise OSError if coremltools, which writes to a temporary folder first, finds no room there."""
    try:
        yield
    except RuntimeError as error:
        if "FileWriter" not in str(error):
            raise
        raise OSError(errno.ENOSPC, "its disk may be full", tempfile.gettempdir()) from None


@writing()
def convert(model: nn.Module, contract: Contract, out: Path) -> None:
    """Write `model` as an ML Program for iOS 15 and later; 18 where it keeps its states itself.

    Weights in bytes, which `quantize` writes, are known from iOS 16 on.
    """
    examples = tuple(torch.zeros([int(n) for n in tensor.shape]) for tensor in contract.inputs)
    with torch.no_grad():
        program = torch.export.export(model, examples, strict=False).run_decompositions({})
    package = ct.convert(
        program,
        inputs=[_input(tensor) for tensor in contract.inputs],
        outputs=[ct.TensorType(name=tensor.name, dtype=np.float32) for tensor in contract.outputs],
        states=[_state(part) for part in contract.kept_states] or None,
        convert_to="mlprogram",
        compute_precision=_precision(contract),
        # States inside the file came with iOS 18.
        minimum_deployment_target=ct.target.iOS18 if contract.state == "implicit" else ct.target.iOS15,
        skip_model_load=True,
    )
    save(package, contract, out)


def save(package: Any, contract: Contract, out: Path) -> None:
    package.author = contract.citation
    package.license = contract.licence
    package.short_description = f"{contract.model}, exported by tsmzoo"
    package.user_defined_metadata[METADATA_KEY] = contract.embedded()
    package.save(str(out))
    # What coremltools lays beside the model for ExecuTorch, a tenth of a small package, is nothing to Core ML.
    (out / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)


def _input(tensor: Tensor) -> Any:
    if tensor.type == "image":
        return ct.ImageType(name=tensor.name, shape=tensor.shape, color_layout=ct.colorlayout.RGB)
    return ct.TensorType(name=tensor.name, shape=tensor.shape, dtype=np.float32)


def _precision(contract: Contract) -> Any:
    """Return what is computed in half precision: in fp16 all but running means and the count of frames."""
    if contract.precision == "fp32":
        return ct.precision.FLOAT32
    exact: set[str] | None = None

    def is_half(operation: Any) -> bool:
        nonlocal exact
        if exact is None:  # the program as it is before the first of its operations is changed
            exact = set(kept_exact(list(_nodes(operation.enclosing_block)), contract))
        return operation.name not in exact

    return ct.transform.FP16ComputePrecision(op_selector=is_half)


def _nodes(block: Any) -> Iterator[Node]:
    """Yield the operations of a program; what they read are variables, or lists of them, and constants have a value."""
    for operation in block.operations:
        read = [variable for given in operation.inputs.values() for variable in np.ravel(given) if variable is not None]
        yield Node(
            operation.name,
            {variable.name for variable in read if variable.val is None},
            {variable.name for variable in operation.outputs},
        )


def _state(part: Tensor) -> Any:
    return ct.StateType(wrapped_type=ct.TensorType(shape=part.shape, dtype=np.dtype(part.dtype).type), name=part.name)
