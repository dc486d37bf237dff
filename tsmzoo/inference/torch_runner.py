"""A network in torch behind the interface of exported files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tsmzoo.artifact.contract import Contract
from tsmzoo.inference.describe import describe
from tsmzoo.inference.model import Model
from tsmzoo.models.wrappers import ClipModel, StreamStep
from tsmzoo.registry import Registry
from tsmzoo.system.threads import threads
from tsmzoo.typing import Array
from tsmzoo.weights.load import Network


class TorchRunner:
    """The network itself, not folded, not rewritten: what a file is compared with."""

    runtime = f"torch {torch.__version__}"

    def __init__(self, network: Network, contract: Contract, threads: int = 1) -> None:
        self._threads = threads
        self._backbone, self._online = network.backbone.eval(), contract.mode == "online"
        self._group = network.entry.shift_frames
        self._inputs = [tensor.name for tensor in contract.inputs]
        self._outputs = [tensor.name for tensor in contract.outputs]

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        tensors = [torch.from_numpy(inputs[name]) for name in self._inputs]
        with torch.inference_mode(), threads(self._threads):
            out = self._form(tensors[0])(*tensors)
        outputs = out if isinstance(out, tuple) else (out,)
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, outputs, strict=True)}

    def _form(self, main: Tensor) -> nn.Module:
        """Return the form for an input: clips may be of any T, as whole videos are."""
        return StreamStep(self._backbone) if self._online else ClipModel(self._backbone, main.shape[1], self._group)


def torch_model(registry: Registry, network: Network, threads: int | None = None) -> Model:
    """Return `network` ready to run, in one thread unless more are given; it takes any number of clips or streams."""
    contract = describe(registry, network, dynamic_batch=True)
    if contract.mode == "online":
        module: nn.Module = StreamStep(network.backbone)
    else:
        module = ClipModel(network.backbone, contract.frames, network.entry.shift_frames)
    return Model(TorchRunner(network, contract, threads or 1), contract, module.eval(), network, registry)
