"""The contract of a network in a format, before there is a file."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from tsmzoo import __version__
from tsmzoo.artifact.contract import Activation, Contract, Preprocess, State
from tsmzoo.artifact.converter import Converter
from tsmzoo.artifact.tensors import TensorConventions, tensors
from tsmzoo.models.wrappers import states_of
from tsmzoo.registry import Registry
from tsmzoo.weights.load import Network


def describe(
    registry: Registry,
    network: Network,
    converter: Converter | None = None,
    *,
    precision: str = "fp32",
    preprocess: Preprocess = "external",
    dynamic_batch: bool = False,
    state: State = "explicit",
    gpu_safe: bool = False,
    activated: bool = False,
) -> Contract:
    """Return the contract of `network` in the format of `converter`; default: of the network in torch.

    `activated`: its first output is probabilities, not logits.
    """
    entry = network.entry
    normalisation = registry.normalisations[entry.normalisation]
    activation: Activation = "sigmoid" if entry.multi_label else "softmax"
    states = states_of(network.backbone, entry.channels, entry.size) if entry.mode == "online" else []
    found = tensors(
        entry,
        states,
        converter.conventions if converter else TensorConventions(),
        order=normalisation.order,
        preprocess=preprocess,
        batch="N" if dynamic_batch else 1,
        state=state,
        activation=activation if activated else None,
    )
    libraries = converter.libraries if converter else ("torch",)
    return Contract(
        model=entry.id,
        family=entry.family,
        mode=entry.mode,
        backbone=entry.backbone,
        dataset=entry.dataset,
        format=converter.format if converter else "torch",
        precision=precision,
        preprocess=preprocess,
        state=state,
        activation=activation,
        gpu_safe=gpu_safe,
        inputs=found.inputs,
        outputs=found.outputs,
        states=found.pairs,
        parts=found.parts,
        classes=entry.classes,
        labels=registry.label_names(entry),
        channel_order=normalisation.order,
        mean=normalisation.mean,
        std=normalisation.std,
        size=entry.size,
        resize=entry.short_side,
        frames=entry.frames,
        sampling=entry.sampling,
        stride=entry.stride,
        target_fps=entry.target_fps,
        weights=network.weights,
        checkpoint=network.checkpoint,
        seed=network.seed,
        licence=entry.licence,
        citation=registry.sources[entry.source].citation,
        doubt=entry.doubt,
        versions={"tsmzoo": __version__} | {name: _version(name) for name in libraries},
    )


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
