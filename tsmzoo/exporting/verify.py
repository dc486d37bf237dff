"""Verify an exported file, its structure and its numbers: when it is made, and again at any time later."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from tsmzoo.artifact import arrays
from tsmzoo.artifact.contract import Contract, Tensor, Verification
from tsmzoo.artifact.converter import Converter, open_artifact
from tsmzoo.callbacks import Notify, Progress
from tsmzoo.data import select
from tsmzoo.errors import ArtifactError, ZooError
from tsmzoo.exporting.compare import compare
from tsmzoo.exporting.report import Artifact, result
from tsmzoo.inference.model import Model
from tsmzoo.inference.reference import registry_of_file, resized
from tsmzoo.inference.torch_runner import torch_model
from tsmzoo.registry import Entry, Registry, ShiftName, recipes, with_classes
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


def verify_file(
    zoo: Registry,
    path: Path,
    *,
    weights: str | None,
    shift: ShiftName | None,
    steps: int | None,
    clip: Path | None,
    images: str | None,
    registry: Path | None,
    progress: Progress,
    notify: Notify,
) -> Artifact:
    """Compare an exported file with the network it was made from, whose model is in `zoo`, or else beside the file.

    `weights` says where its weights lie now, `shift` what they were trained with, where its contract does not.
    Raises ArtifactError if the file was changed, or the weights are others.
    """
    start = time.perf_counter()
    zoo = registry_of_file(zoo, path, [registry] if registry else [], notify)
    progress("checking the digest", 0, 0)
    contract, converter = open_artifact(path)
    video = video_of(zoo.find(contract.model), clip, contract.size, images)
    zoo = with_classes(zoo, contract.model, contract.classes, contract.labels)
    entry = resized(zoo.find(contract.model), contract.frames, contract.size)
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
    progress("loading the weights", 0, 0)
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
    progress("verifying", 0, 0)
    before = contract.verification
    if before is None:
        raise ArtifactError(f"{path}: its contract holds no verification; export it again")
    # Tolerance and length are those of the recipe that it was made by, which may be a file of somebody's.
    steps = steps or max((case.steps for case in before.cases), default=recipes.target(contract.format).steps)
    report = verify(zoo, network, path, contract, converter, before.tolerance, steps, video=video)
    # What real clips showed holds on: the digest says that this is the file.
    contract = msgspec.structs.replace(contract, verification=msgspec.structs.replace(report, quality=before.quality))
    return result(path, contract, time.perf_counter() - start)


def video_of(entry: Entry, clip: Path | None, size: int, template: str | None) -> Array | None:
    """Return the first frames of a video as `entry` takes them at `size`. Raises VideoError."""
    if clip is None:
        return None
    if entry.modality == "flow":
        raise ZooError(f"{entry.id} sees optical flow, not video; leave out --clip")
    return select.first(clip, max(entry.short_side, size), size, template)
