"""Export a model to a verified file with its contract beside it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tsmzoo.artifact import store
from tsmzoo.artifact.contract import Contract, Quality
from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.errors import ExportError, VerificationError
from tsmzoo.exporting import calibration
from tsmzoo.exporting.graph.conv3d_to_2d import conv3d_to_2d
from tsmzoo.exporting.graph.deploy import Deployed
from tsmzoo.exporting.graph.fold_batchnorm import fold_batch_norm
from tsmzoo.exporting.graph.fold_gates import fold_gates
from tsmzoo.exporting.graph.split_channels import split_channels
from tsmzoo.exporting.graph.states import Packed, Stateful
from tsmzoo.exporting.kit import kit as kits
from tsmzoo.exporting.kit.vector import vector
from tsmzoo.exporting.plan import ELSEWHERE, Plan, plan_export
from tsmzoo.exporting.report import Artifact, result
from tsmzoo.exporting.verify import verify, video_of
from tsmzoo.inference.describe import describe
from tsmzoo.inference.model import Model, open_file, warnings
from tsmzoo.inference.reference import ModelReference, frames_of, resized
from tsmzoo.models.wrappers import ClipModel, SingleClip, StreamStep
from tsmzoo.registry import Registry, recipes, with_classes
from tsmzoo.system import files
from tsmzoo.system.quiet import quiet
from tsmzoo.typing import Array
from tsmzoo.weights.load import Network, record_checkpoint_path, record_registry_path

if TYPE_CHECKING:
    from torch import nn


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
    progress(f"loading the {target.format} converter", 0, 0)
    plan = plan_export(entry, target, images=images, notify=notify, **wishes)
    if kit is not None:
        kits.check_plan(plan, kit)
    video = video_of(zoo.find(entry.id), clip, entry.size, images)
    if isinstance(model, ModelReference):
        network = model.load_network(entry, progress, notify)
        for warning in warnings(entry.id, network):
            notify(warning)
    contract = write_artifact(zoo, network, plan, video=video, progress=progress)
    if network.weights == "local" and contract.checkpoint and network.path is not None:
        record_checkpoint_path(contract.checkpoint, str(network.path))  # for `verify_file`
    if registry is not None:
        record_registry_path(contract, registry)
    if kit is not None:
        progress("writing the kit", 0, 0)
        kits.write(kit, plan.out, contract, vector(open_file(plan.out)))
    return result(plan.out, contract, time.perf_counter() - start, kit)


def write_artifact(
    registry: Registry, network: Network, plan: Plan, *, video: Array | None = None, progress: Progress = silent
) -> Contract:
    """Write `network` and its contract as `plan` says, and verify the file before it gets its name.

    `video` (S, C, H, W, 0…255) joins the seeded noise that the file is verified with. Raises ExportError, and leaves
    nothing behind, where the file cannot be written, VerificationError where it fails.
    """
    converter, out = plan.converter, plan.out
    contract = describe(
        registry,
        network,
        converter,
        precision=plan.target.precision,
        preprocess=plan.target.preprocess,
        dynamic_batch=plan.dynamic_batch,
        state=plan.target.state,
        gpu_safe=plan.target.gpu_safe,
        activated=plan.target.softmax,
    )
    try:
        with files.beside(out) as folder:  # so that all is renamed within one file system
            folder.mkdir()
            contract = _made(registry, network, plan, contract, folder / out.name, video, progress)
            store.put(folder / out.name, contract, out)
    except OSError as error:
        raise ExportError(f"{_place(error, out)}: cannot be written ({files.reason(error)}); {ELSEWHERE}") from None
    return contract


def _place(error: OSError, out: Path) -> object:
    """Return what could not be written: `out`, or a temporary file somewhere else."""
    name = error.filename2 or error.filename
    elsewhere = isinstance(name, str) and not Path(name).absolute().is_relative_to(out.absolute().parent)
    return name if elsewhere else out


def _made(
    registry: Registry,
    network: Network,
    plan: Plan,
    contract: Contract,
    made: Path,
    video: Array | None,
    progress: Progress,
) -> Contract:
    """Write the file to `made`, verify it, and return its contract."""
    converter, out = plan.converter, plan.out
    progress(f"converting {plan.entry.id} to {plan.target.format}", 0, 0)
    with quiet():
        quality = _write(network, contract, plan, made, progress)
    progress("verifying", 0, 0)
    tolerance = plan.target.tolerance[plan.target.precision]
    if plan.target.precision == "fp16" and network.weights == "random":
        tolerance = min(2 * tolerance, 1.0)  # they amplify rounding as no trained ones do
    report = verify(registry, network, made, contract, converter, tolerance, plan.target.steps, video=video)
    report = calibration.apply_threshold(report, quality, contract, plan.target.bars.get(plan.target.precision))
    sha256, size = store.digest(made)
    contract = msgspec.structs.replace(contract, artifact=out.name, sha256=sha256, bytes=size, verification=report)
    if report.status == "failed":
        raise VerificationError(f"{out.name} failed its verification and was not kept: {report.reason}", out, contract)
    return contract


def _write(network: Network, contract: Contract, plan: Plan, made: Path, progress: Progress) -> Quality | None:
    """Write the file; a quantized one is made from a float one, with which it is compared."""
    converter, given = plan.converter, plan.calibration
    if contract.precision in converter.precisions:
        converter.convert(_deployed(network, contract), contract, made)
        return None
    float_ = msgspec.structs.replace(contract, precision=converter.precisions[-1])
    source = made.with_name(f"float{made.suffix}")
    # A sum of convolutions would be rounded once more.
    converter.convert(_deployed(network, float_, whole=contract.precision == "int8"), float_, source)
    quantizing = f"quantising to {contract.precision}"
    if given is None:
        progress(quantizing, 0, 0)
        converter.quantize(source, contract, [], made, plan.keep_float)
        return None
    reference = Model(converter.load(source, float_, 1), float_)
    feeds = calibration.feeds(reference, given.clips)
    progress(quantizing, 0, 0)
    costs = converter.quantize(source, contract, feeds, made, plan.keep_float)
    progress("comparing on real clips", 0, 0)
    candidate = Model(converter.load(made, contract, 1), contract)
    quality = calibration.compare_quality(reference, candidate, given)
    kept = tuple(name for name, _ in costs[: plan.keep_float])
    return msgspec.structs.replace(quality, kept_float=kept, costs=tuple(costs))


def _deployed(network: Network, contract: Contract, *, whole: bool = False) -> nn.Module:
    """Return `network` as it stands in the file; with `whole` its features stay whole (`split_channels`)."""
    form: StreamStep | ClipModel | SingleClip
    channels_last = contract.main_input.layout in ("NHWC", "THWC")
    if contract.mode == "online":
        form = StreamStep(network.backbone, channels_last=channels_last)
    elif isinstance(contract.main_input.shape[0], str):
        form = ClipModel(network.backbone, contract.frames, network.entry.shift_frames)
    else:
        group = network.entry.shift_frames
        form = SingleClip(network.backbone, contract.frames, group, channels_last=channels_last)
    embedded = contract.preprocess == "embedded"
    folded = fold_gates(fold_batch_norm(form), channels_last=channels_last)
    if isinstance(form, SingleClip):
        folded = conv3d_to_2d(folded if whole else split_channels(folded), channels_last=channels_last)
    deployed = Deployed(
        folded,
        contract.mean if embedded else None,
        contract.std if embedded else None,
        channels_last=channels_last,
        bgr=contract.channel_order == "BGR",
        activation=contract.activation if contract.answer != "logits" else None,
    )
    shapes = [[int(n) for n in part.shape[1:]] for part in contract.parts]
    if contract.state == "packed":
        return Packed(deployed, shapes).eval()
    return (Stateful(deployed, shapes) if contract.state == "implicit" else deployed).eval()
