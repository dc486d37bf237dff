"""Export a network to a verified file with its contract beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tsmzoo.artifact import store
from tsmzoo.artifact.contract import Contract, Quality
from tsmzoo.callbacks import Notify, silent
from tsmzoo.errors import ExportError, VerificationError
from tsmzoo.exporting import calibration
from tsmzoo.exporting.graph.conv3d_to_2d import conv3d_to_2d
from tsmzoo.exporting.graph.deploy import Deployed
from tsmzoo.exporting.graph.fold_batchnorm import fold_batch_norm
from tsmzoo.exporting.graph.fold_gates import fold_gates
from tsmzoo.exporting.graph.split_channels import split_channels
from tsmzoo.exporting.graph.states import Packed, Stateful
from tsmzoo.exporting.plan import ELSEWHERE, Plan
from tsmzoo.exporting.verify import verify
from tsmzoo.inference.describe import describe
from tsmzoo.inference.model import Model
from tsmzoo.models.wrappers import ClipModel, SingleClip, StreamStep
from tsmzoo.registry import Registry
from tsmzoo.system import files
from tsmzoo.system.quiet import quiet
from tsmzoo.typing import Array
from tsmzoo.weights.load import Network

if TYPE_CHECKING:
    from torch import nn


def export(
    registry: Registry,
    network: Network,
    plan: Plan,
    *,
    video: Array | None = None,
    stage: Notify = silent,
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
    stage: Notify,
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
    report = verify(registry, network, made, contract, converter, tolerance, plan.target.steps, video=video)
    report = calibration.apply_threshold(report, quality, contract, plan.target.bars.get(plan.target.precision))
    sha256, size = store.digest(made)
    contract = msgspec.structs.replace(contract, artifact=out.name, sha256=sha256, bytes=size, verification=report)
    if report.status == "failed":
        raise VerificationError(f"{out.name} failed its verification and was not kept: {report.reason}", out, contract)
    return contract


def _write(network: Network, contract: Contract, plan: Plan, made: Path, stage: Notify) -> Quality | None:
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
        stage(quantizing)
        converter.quantize(source, contract, [], made, plan.keep_float)
        return None
    reference = Model(converter.load(source, float_, 1), float_)
    feeds = calibration.feeds(reference, given.clips)
    stage(quantizing)
    costs = converter.quantize(source, contract, feeds, made, plan.keep_float)
    stage("comparing on real clips")
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
