"""Export a model and verify a file: from what the user names to the result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tsmzoo.artifact.store import read_contract
from tsmzoo.callbacks import Notify, Progress
from tsmzoo.data import select
from tsmzoo.errors import ExportError, ZooError
from tsmzoo.exporting import export
from tsmzoo.exporting.kit import kit as kits
from tsmzoo.exporting.kit.vector import vector
from tsmzoo.exporting.plan import plan_export
from tsmzoo.exporting.report import Artifact, document
from tsmzoo.exporting.verify import reverify
from tsmzoo.inference.model import Model, open_file, warnings
from tsmzoo.inference.reference import ModelReference, frames_of, registry_of_file, resized
from tsmzoo.registry import Entry, Registry, ShiftName, recipes, with_classes
from tsmzoo.typing import Array
from tsmzoo.weights.load import record_checkpoint_path, record_registry_path


def export_model(
    zoo: Registry,
    model: Model | ModelReference,
    to: str,
    *,
    clip: Path | None,
    images: str | None,
    kit: Path | None,
    registry: Path | None,
    progress: Progress,
    notify: Notify,
    **wishes: Any,
) -> Artifact:
    """Convert a model of `zoo`, or one that is loaded, as the recipe `to` and `wishes` (`plan_export`'s) say.

    `registry` is the user's own, if the model is from it. Raises ExportError, or VerificationError if the file differs.
    """
    start = time.perf_counter()

    def stage(what: str) -> None:
        progress(what, 0, 0)

    exported = "{}: is an exported file; give the model that it was made from"
    if isinstance(model, Model):
        if model.network is None or model.registry is None:
            raise ExportError(exported.format(model.contract.artifact))
        network, zoo, registry = model.network, model.registry, registry or model.registry_path
        entry = network.entry
    else:
        if model.is_file:
            raise ExportError(exported.format(model.model))
        zoo = with_classes(zoo, model.model, model.classes, model.labels)
        entry = zoo.find(model.model)
        entry = resized(entry, frames_of(entry, model.frames), model.size)
    target = recipes.target(to)
    if kit is not None:
        kits.check(kit)
    stage(f"loading the {target.format} converter")
    plan = plan_export(entry, target, images=images, notify=notify, **wishes)
    if kit is not None:
        kits.check_plan(plan, kit)
    video = _video(zoo.find(entry.id), clip, entry.size, images)
    if isinstance(model, ModelReference):
        network = model.load_network(entry, progress, notify)
        for warning in warnings(entry.id, network):
            notify(warning)
    contract = export.export(zoo, network, plan, video=video, stage=stage)
    if network.weights == "local" and contract.checkpoint and network.path is not None:
        record_checkpoint_path(contract.checkpoint, str(network.path))  # for `verify_file`
    if registry is not None:
        record_registry_path(contract, registry)
    if kit is not None:
        stage("writing the kit")
        kits.write(kit, plan.out, contract, vector(open_file(plan.out)))
    assert contract.verification is not None
    return document(plan.out, contract, contract.verification, time.perf_counter() - start, kit)


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

    Raises ArtifactError if the file was changed, or the weights are others.
    """
    start = time.perf_counter()
    zoo = registry_of_file(zoo, path, [registry] if registry else [], notify)
    contract = read_contract(path)
    video = _video(zoo.find(contract.model), clip, contract.size, images)
    contract, report = reverify(
        zoo, path, weights=weights, shift=shift, steps=steps, video=video, stage=lambda what: progress(what, 0, 0)
    )
    return document(path, contract, report, time.perf_counter() - start)


def _video(entry: Entry, clip: Path | None, size: int, template: str | None) -> Array | None:
    """Return the first frames of a video as `entry` takes them at `size`. Raises VideoError."""
    if clip is None:
        return None
    if entry.modality == "flow":
        raise ZooError(f"{entry.id} sees optical flow, not video; leave out --clip")
    return select.first(clip, max(entry.short_side, size), size, template)
