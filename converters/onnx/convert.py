"""Write ONNX files by `torch.onnx.export`, through torch.export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from tsmzoo.artifact.contract import METADATA_KEY, Contract

#: Before it Softmax, which nodes do not tell, took its axes otherwise.
_OLDEST_OPSET = 13


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
    save(proto, contract, out)


def save(model: onnx.ModelProto, contract: Contract, out: Path) -> None:
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
    """Return whether every node is one of that opset: its kind, attributes, and numbers of inputs and outputs."""
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
