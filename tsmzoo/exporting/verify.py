"""Verify an exported file, its structure and its numbers: when it is made, and again at any time later."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tsmzoo.artifact import arrays
from tsmzoo.artifact.contract import Contract, Tensor, Verification
from tsmzoo.artifact.converter import Converter, open_artifact
from tsmzoo.callbacks import Notify, silent
from tsmzoo.errors import ArtifactError
from tsmzoo.exporting.compare import compare
from tsmzoo.inference.model import Model
from tsmzoo.inference.reference import resized
from tsmzoo.inference.torch_runner import torch_model
from tsmzoo.registry import Registry, ShiftName, recipes, with_classes
from tsmzoo.system.quiet import quiet
from tsmzoo.typing import Array
from tsmzoo.weights.key_maps import RULES
from tsmzoo.weights.load import Network, load_network, recorded_checkpoint_path


def verify(
    registry: Registry,
    network: Network,
    path: Path,
    contract: Contract,
    converter: Converter,
    tolerance: float,
    steps: int,
    *,
    video: Array | None = None,
) -> Verification:
    """Compare the file at `path` with `network`: its structure, then its numbers."""
    with quiet():
        structure, advice = converter.check(path, contract)
        reference = torch_model(registry, network)
        _check_made_of(path, contract, reference.contract)
        candidate = Model(converter.load(path, contract), contract)
        report = compare(reference, candidate, tolerance=tolerance, steps=steps, video=video)
    return msgspec.structs.replace(report, structure=tuple(structure), advice=tuple(advice))


def _check_made_of(path: Path, contract: Contract, plain: Contract) -> None:
    """Raise ArtifactError if a file is of another network than the one described by `plain`."""
    inputs = (contract.main_input, *(contract.parts or contract.inputs[1:]))
    found: dict[str, object] = {tensor.name: _without_batch(tensor) for tensor in inputs}
    found |= {"mode": contract.mode, "channels": len(contract.mean), "classes": contract.classes}
    wanted: dict[str, object] = {tensor.name: _without_batch(tensor) for tensor in plain.inputs}
    wanted |= {"mode": plain.mode, "channels": len(plain.mean), "classes": plain.classes}
    arrays.check_tensors(path, found, wanted, "its model has")


def _without_batch(tensor: Tensor) -> dict[str, int | str]:
    """Return the lengths of the axes by name, but for the batch, which is a file's own affair."""
    return {axis: n for axis, n in zip(tensor.layout, tensor.shape, strict=True) if axis != "N"}


def reverify(
    registry: Registry,
    path: Path,
    *,
    weights: str | None = None,
    shift: ShiftName | None = None,
    steps: int | None = None,
    video: Array | None = None,
    stage: Notify = silent,
) -> tuple[Contract, Verification]:
    """Verify an exported file again, against the weights it was made from.

    `weights` says where these lie now, `shift` what they were trained with, where its contract does not. Raises
    ArtifactError where the file was changed, or the weights are others.
    """
    stage("checking the digest")
    contract, converter = open_artifact(path)
    registry = with_classes(registry, contract.model, contract.classes, contract.labels)
    entry = resized(registry.find(contract.model), contract.frames, contract.size)
    source = contract.checkpoint
    if weights is not None and (source is None) != (weights == "random"):
        raise ArtifactError(
            f"{path}: was made from {contract.weights} weights, not from {weights}; leave out --weights"
        )
    if shift is not None and source is not None and source.shift not in (None, shift):
        raise ArtifactError(f"{path}: was made from weights trained with shift {source.shift}; leave out --shift")
    if source is None:
        weights = "random"
    elif weights is None and contract.weights == "local":
        weights = recorded_checkpoint_path(source)
        if weights is None:
            raise ArtifactError(f"{path}: was made from {source.file}, which is not where it was; give --weights FILE")
    if source is not None and (source.format, entry.backbone) not in RULES:
        raise ArtifactError(
            f"{path}: its contract names a checkpoint of {source.format!r}, which {entry.backbone} has none of; "
            "export it again"
        )
    stage("loading the weights")
    network = load_network(
        entry,
        weights,
        seed=contract.seed or 0,
        weights_format=source.format if source else None,
        shift=shift or (source.shift if source else None),
        allow_shift_mismatch=source is not None and source.shift_mismatch,
    )
    found = network.checkpoint
    if source and found and source.sha256 != found.sha256:
        raise ArtifactError(
            f"{path}: was made from other weights than {found.file} (sha256 {source.sha256[:12]}…, not "
            f"{found.sha256[:12]}…); give those with --weights FILE"
        )
    stage("verifying")
    before = contract.verification
    if before is None:
        raise ArtifactError(f"{path}: its contract holds no verification; export it again")
    # Tolerance and length are those of the recipe that it was made by, which may be a file of somebody's.
    steps = steps or max((case.steps for case in before.cases), default=recipes.target(contract.format).steps)
    report = verify(registry, network, path, contract, converter, before.tolerance, steps, video=video)
    # What real clips showed holds on: the digest says that this is the file.
    return contract, msgspec.structs.replace(report, quality=before.quality)
