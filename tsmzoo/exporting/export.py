"""From a network to a verified file with its contract beside it; and the same check of a file made before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import msgspec

from tsmzoo.artifact import arrays, store
from tsmzoo.artifact.contract import Contract, Preprocess, Quality, State, Tensor, Verification
from tsmzoo.artifact.converter import Converter, converter_of, formats_that, load_converter, open_artifact
from tsmzoo.errors import ArtifactError, ExportError, VerificationError
from tsmzoo.exporting import calibration
from tsmzoo.exporting.calibration import CalibrationData, load_calibration
from tsmzoo.exporting.graph.conv3d_to_2d import flatten
from tsmzoo.exporting.graph.deploy import Deployed
from tsmzoo.exporting.graph.fold_batchnorm import fold_batch_norm
from tsmzoo.exporting.graph.split_channels import apart
from tsmzoo.exporting.graph.states import Packed, Stateful
from tsmzoo.exporting.verify import verify, with_structure
from tsmzoo.formats import format_of
from tsmzoo.inference.describe import describe
from tsmzoo.inference.model import Model
from tsmzoo.inference.torch_runner import torch_model
from tsmzoo.models.wrappers import ClipModel, SingleClip, StreamStep
from tsmzoo.registry import Entry, Registry, ShiftName, recipes, with_classes
from tsmzoo.registry.recipes import Precision, QualityThreshold, Target
from tsmzoo.system import files
from tsmzoo.system.quiet import quiet
from tsmzoo.typing import Array
from tsmzoo.weights.key_maps import RULES
from tsmzoo.weights.load import Network, load_network, recorded_checkpoint_path

if TYPE_CHECKING:
    from torch import nn

#: Told what is going on, a few words at a time.
Stage = Callable[[str], None]
_ELSEWHERE = "make room there, or choose another place with -o"


def silent(_: object) -> None:
    """Say nothing of what is going on."""


@dataclass(frozen=True)
class Plan:
    """What is to be written and where: checked before anything long begins."""

    entry: Entry
    #: The recipe, with what was wished for in its place.
    target: Target
    converter: Converter
    out: Path
    dynamic_batch: bool
    #: What a file in fewer bits is calibrated and compared with.
    material: CalibrationData | None = None
    #: Operators that stay float in int8.
    keep_float: int = 0


def plan(
    entry: Entry,
    target: Target,
    *,
    out: Path | None = None,
    precision: Precision | None = None,
    preprocess: Preprocess | None = None,
    state: State | None = None,
    gpu_safe: bool | None = None,
    softmax: bool | None = None,
    dynamic_batch: bool = False,
    calibrate: Path | None = None,
    images: str | None = None,
    keep_float: int = 0,
    notify: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Settle an export of `entry`; what is not given comes from the recipe `target`.

    Raises ExportError or ArtifactError where the format cannot do it, its extra is missing, or the
    place is taken.
    """
    if entry.mode == "offline" and state not in (None, "explicit"):
        raise ExportError(f"{entry.id} is offline and has no states; leave out --state")
    target = msgspec.structs.replace(
        target,
        precision=precision or target.precision,
        preprocess=preprocess or target.preprocess,
        state="explicit" if entry.mode == "offline" else state or target.state,
        gpu_safe=target.gpu_safe if gpu_safe is None else gpu_safe,
        softmax=target.softmax if softmax is None else softmax,
    )
    format_, precision = target.format, target.precision
    able = converter_of(format_)
    if target.state not in able.states:
        known = formats_that(lambda each: target.state in each.states)
        raise ExportError(
            f"{target.state} states are for {known}; {format_} files keep none, take --state packed or explicit"
        )
    if target.state == "implicit" and precision == "fp32" and able.conventions.kept_dtype == "float16":
        raise ExportError("implicit states are of half precision (Core ML knows no others); take fp16 or w8")
    if target.gpu_safe and not able.gpu_safe:
        raise ExportError(f"--gpu-safe is for {formats_that(lambda each: each.gpu_safe)}; leave it out")
    if target.softmax and precision == "int8":
        raise ExportError("probabilities have 256 steps in int8; take --no-softmax, and make them of the logits")
    if dynamic_batch and not able.dynamic_batch:
        known = formats_that(lambda each: each.dynamic_batch)
        raise ExportError(f"--dynamic-batch is for {known}; {format_} files take one clip or frame a call")
    if precision not in target.tolerance:
        raise ExportError(f"{format_} is not written in {precision} yet; choose {' or '.join(target.tolerance)}")
    # Files whose tensors are others have names of their own.
    variant = ("" if target.state == "explicit" else f"-{target.state}") + ("-softmax" if target.softmax else "")
    out = out or Path(f"{entry.id}-{precision}{variant}{format_.suffix}")
    try:
        if out.suffix != format_.suffix:
            raise ExportError(f"{out}: must end in {format_.suffix}")
        format_of(out)
        if not out.parent.is_dir():
            raise ExportError(f"{out}: its folder does not exist; make {out.parent} first")
        if out.exists() and not (out.is_dir() if able.is_folder else out.is_file()):
            raise ExportError(f"{out}: is in the way; move it first")
        store.check_way(out)
    except OSError as error:
        raise ExportError(f"{out}: cannot be written ({error.strerror}); {_ELSEWHERE}") from None
    with quiet():
        converter = load_converter(format_)
    if keep_float and precision != "int8":
        raise ExportError("--keep-float is for int8; leave it out")
    if precision in target.bars and precision in converter.precisions:
        raise ExportError(
            f"a bar for {precision} would compare a {format_} file with itself; take it out of the recipe"
        )
    compared = precision == "int8" or precision in target.bars
    if calibrate is not None and not compared:
        raise ExportError("--calibrate is for int8; leave it out")
    return Plan(
        entry=entry,
        target=target,
        converter=converter,
        out=out,
        dynamic_batch=dynamic_batch,
        material=load_calibration(entry, calibrate, images, notify) if compared else None,
        keep_float=keep_float,
    )


def export(
    registry: Registry,
    network: Network,
    plan: Plan,
    *,
    video: Array | None = None,
    stage: Stage = silent,
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
            contract = _made(registry, network, plan, contract, folder / out.name, video, stage)
            store.put(folder / out.name, contract, out)
    except OSError as error:
        raise ExportError(f"{_place(error, out)}: cannot be written ({files.reason(error)}); {_ELSEWHERE}") from None
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
    stage: Stage,
) -> Contract:
    """Write the file to `made`, verify it, and return its contract."""
    converter, out = plan.converter, plan.out
    stage(f"converting {plan.entry.id} to {plan.target.format}")
    with quiet():
        quality = _write(network, contract, plan, made, stage)
    stage("verifying")
    tolerance = plan.target.tolerance[plan.target.precision]
    if plan.target.precision == "fp16" and network.weights == "random":
        tolerance = min(2 * tolerance, 1.0)  # they amplify rounding as no trained ones do
    report = check(registry, network, made, contract, converter, tolerance, plan.target.steps, video=video)
    report = apply_threshold(report, quality, contract, plan.target.bars.get(plan.target.precision))
    sha256, size = store.digest(made)
    contract = msgspec.structs.replace(contract, artifact=out.name, sha256=sha256, bytes=size, verification=report)
    if report.status == "failed":
        raise VerificationError(f"{out.name} failed its verification and was not kept: {report.reason}", out, contract)
    return contract


def _write(network: Network, contract: Contract, plan: Plan, made: Path, stage: Stage) -> Quality | None:
    """Write the file; in fewer bits than the converter's own, by way of a float one, with which it is compared."""
    converter, given = plan.converter, plan.material
    if contract.precision in converter.precisions:
        converter.convert(_deployed(network, contract), contract, made)
        return None
    float_ = msgspec.structs.replace(contract, precision=converter.precisions[-1])
    source = made.with_name(f"float{made.suffix}")
    # A sum of convolutions would be rounded once more.
    converter.convert(_deployed(network, float_, whole=contract.precision == "int8"), float_, source)
    quantising = f"quantising to {contract.precision}"
    if given is None:
        stage(quantising)
        converter.quantize(source, contract, [], made, plan.keep_float)
        return None
    reference = Model(converter.load(source, float_, 1), float_)
    feeds = calibration.feeds(reference, given.clips)
    stage(quantising)
    costs = converter.quantize(source, contract, feeds, made, plan.keep_float)
    stage("comparing on real clips")
    candidate = Model(converter.load(made, contract, 1), contract)
    quality = calibration.compare_quality(reference, candidate, given)
    kept = tuple(name for name, _ in costs[: plan.keep_float])
    return msgspec.structs.replace(quality, kept_float=kept, costs=tuple(costs))


def apply_threshold(
    report: Verification, quality: Quality | None, contract: Contract, bar: QualityThreshold | None
) -> Verification:
    """Return `report` with what real clips showed, failed where that is below the target's bar."""
    if quality is None or bar is None:
        return report
    report = msgspec.structs.replace(report, quality=quality)
    reason = None
    if quality.top1 is not None and quality.top1_float is not None:
        if quality.top1 < quality.top1_float - bar.lost:
            reason = f"top-1 falls from {quality.top1_float:.2f} to {quality.top1:.2f} % on {quality.data}"
    elif contract.weights != "random" and quality.agreement < bar.agreement:  # random logits are nearly ties
        reason = (
            f"{quality.agreement:.1%} of the first classes are those of the float file, less than {bar.agreement:.0%}"
        )
    if quality.cosine < bar.cosine:
        reason = f"its logits turn away from the float file's: cosine {quality.cosine:.3f}, below {bar.cosine}"
    elif quality.drift and (last := mean(quality.drift[-16:])) < bar.cosine:
        reason = f"errors of its states add up: cosine {last:.3f} at the end of a long stream, below {bar.cosine}"
    if reason is None or report.status == "failed":
        return report
    return msgspec.structs.replace(report, status="failed", reason=f"{reason}; calibrate with more videos, or take w8")


def _deployed(network: Network, contract: Contract, *, whole: bool = False) -> nn.Module:
    """Return `network` as it stands in the file; with `whole` its features stay whole (`apart`)."""
    form: StreamStep | ClipModel | SingleClip
    channels_last = contract.main_input.layout in ("NHWC", "THWC")
    if contract.mode == "online":
        form = StreamStep(network.backbone)
    elif isinstance(contract.main_input.shape[0], str):
        form = ClipModel(network.backbone, contract.frames, network.entry.shift_frames)
    else:
        group = network.entry.shift_frames
        form = SingleClip(network.backbone, contract.frames, group, channels_last=channels_last)
    embedded = contract.preprocess == "embedded"
    folded = fold_batch_norm(form)
    if isinstance(form, SingleClip):
        folded = flatten(folded if whole else apart(folded), channels_last=channels_last)
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


def check(
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
        report = verify(reference, candidate, tolerance=tolerance, steps=steps, video=video)
    return with_structure(report, structure, advice)


def _check_made_of(path: Path, contract: Contract, plain: Contract) -> None:
    """Raise ArtifactError where a file is of another network than the one described by `plain`."""
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
    stage: Stage = silent,
) -> tuple[Contract, Verification]:
    """Verify an exported file again, against the weights it was made from.

    `weights` says where these lie now, `shift` what they were trained with, where its contract does not. Raises
    ArtifactError where the file was changed, or the weights are others.
    """
    stage("checking the digest")
    contract, converter = open_artifact(path)
    registry = with_classes(registry, contract.model, contract.classes, contract.labels)
    entry = msgspec.structs.replace(registry.find(contract.model), size=contract.size, frames=contract.frames)
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
    report = check(registry, network, path, contract, converter, before.tolerance, steps, video=video)
    # What real clips showed holds on: the digest says that this is the file.
    return contract, msgspec.structs.replace(report, quality=before.quality)
