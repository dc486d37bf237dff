"""From a network to a verified file with its contract beside it; and the same check of a file made before."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec

from tsmzoo import __version__, artifact, recipe
from tsmzoo.artifact import Array, Contract, DType, Layout, StatePair, Tensor, Verification
from tsmzoo.converter import Converter, Format, Runner, format_of, load_converter, missing_extra
from tsmzoo.errors import ArtifactError, ExportError
from tsmzoo.models.forms import Clips, Deployed, OneClip, Step, fold_batch_norm, state_shapes
from tsmzoo.quiet import quiet
from tsmzoo.registry import Entry, Registry
from tsmzoo.runner import TorchRunner
from tsmzoo.verify import not_run, verify, with_structure
from tsmzoo.weights import Network, obtain, silent

Preprocess = Literal["embedded", "external"]
#: Told what is going on, a few words at a time.
Stage = Callable[[str], None]

#: Short side of the resized video over the side of the crop: 256 to 224, in both publishers' protocols.
_RESIZE_RATIO = 256 / 224


def describe(
    registry: Registry,
    network: Network,
    *,
    format_: str = "torch",
    precision: str = "fp32",
    preprocess: Preprocess = "external",
    pixel_dtype: DType = "float32",
    frame_layout: Layout = "NCHW",
    clip_layout: Layout = "NTCHW",
    dynamic_batch: bool = False,
    libraries: tuple[str, ...] = ("torch",),
) -> Contract:
    """Return the contract of `network` in a format; by default that of the network run in torch."""
    entry = network.entry
    inputs, outputs = _tensors(
        network,
        pixel_dtype=pixel_dtype if preprocess == "embedded" else "float32",
        frame_layout=frame_layout,
        clip_layout=clip_layout,
        batch="N" if dynamic_batch else 1,
        values="camera values 0…255" if preprocess == "embedded" else "(value / 255 - mean) / std",
    )
    normalisation = registry.normalisations[entry.normalisation]
    return Contract(
        model=entry.id,
        family=entry.family,
        mode=entry.mode,
        backbone=entry.backbone,
        dataset=entry.dataset,
        format=format_,
        precision=precision,
        preprocess=preprocess,
        inputs=inputs,
        outputs=outputs,
        states=tuple(
            StatePair(input=state.name, output=next_state.name)
            for state, next_state in zip(inputs[1:], outputs[1:], strict=True)
        ),
        classes=entry.classes,
        labels=registry.label_names(entry),
        channel_order=normalisation.order,
        mean=normalisation.mean,
        std=normalisation.std,
        size=entry.size,
        resize=round(entry.size * _RESIZE_RATIO),
        frames=entry.frames,
        sampling=entry.sampling if entry.stride is None else f"{entry.sampling}, every {entry.stride}th frame",
        target_fps=entry.target_fps,
        weights=network.weights,
        checkpoint=network.checkpoint,
        seed=network.seed,
        licence=entry.licence,
        source=registry.sources[entry.source].citation,
        doubt=entry.doubt,
        versions={"tsmzoo": __version__} | {name: _version(name) for name in libraries},
    )


def _tensors(
    network: Network, *, pixel_dtype: DType, frame_layout: Layout, clip_layout: Layout, batch: int | str, values: str
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    entry = network.entry
    kind = "RGB" if entry.modality == "rgb" else "five x, y flow images"
    logits = Tensor(
        name="logits", shape=(batch, entry.classes), dtype="float32", layout="NC", meaning="class scores before softmax"
    )
    if entry.mode == "offline":
        axes = {"N": batch, "T": entry.frames, "C": entry.channels, "H": entry.size, "W": entry.size}
        clip = Tensor(
            name="clip",
            shape=tuple(axes[axis] for axis in clip_layout),
            dtype=pixel_dtype,
            layout=clip_layout,
            meaning=f"{entry.frames} frames in order of time, {kind}, {values}",
        )
        return (clip,), (logits,)
    axes = {"N": batch, "C": entry.channels, "H": entry.size, "W": entry.size}
    frame = Tensor(
        name="frame",
        shape=tuple(axes[axis] for axis in frame_layout),
        dtype=pixel_dtype,
        layout=frame_layout,
        meaning=f"one frame, {kind}, {values}",
    )
    inputs, outputs = [frame], [logits]
    for index, (_, channels, height, width) in enumerate(state_shapes(network.backbone, entry.channels, entry.size)):
        axes = {"N": batch, "C": channels, "H": height, "W": width}
        shape = tuple(axes[axis] for axis in frame_layout)
        for tensors, name, meaning in (
            (inputs, f"state_{index}", f"features of the frame before at shifted block {index}; zeros at first"),
            (outputs, f"next_state_{index}", f"what state_{index} is for the next frame"),
        ):
            tensors.append(Tensor(name=name, shape=shape, dtype="float32", layout=frame_layout, meaning=meaning))
    return tuple(inputs), tuple(outputs)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def export(
    registry: Registry,
    network: Network,
    format_: Format,
    *,
    out: Path | None = None,
    precision: str | None = None,
    preprocess: Preprocess | None = None,
    dynamic_batch: bool = False,
    video: Array | None = None,
    stage: Stage = silent,
) -> tuple[Path, Contract]:
    """Write `network` in `format_` and its contract beside it, and verify the file before it gets its name.

    `video` (S, C, H, W, 0…255) joins the seeded noise that the file is verified with. Returns the
    path and the contract. Raises ExportError, and leaves nothing behind, where the file fails.
    """
    target = recipe.target(format_)
    stage(f"loading the {format_} converter")
    with quiet():
        converter = load_converter(format_)
    precision = precision or target.precision
    if precision not in converter.precisions:
        raise ExportError(f"{format_} is not written in {precision} yet; choose {' or '.join(converter.precisions)}")
    if dynamic_batch and format_ != Format.ONNX:
        raise ExportError(f"--dynamic-batch is for onnx; {format_} files take one clip or frame a call")
    entry = network.entry
    out = _output_path(out, entry, precision, converter)
    contract = describe(
        registry,
        network,
        format_=format_,
        precision=precision,
        preprocess=preprocess or target.preprocess,
        # An image is three channels of bytes; stacked flow has ten.
        pixel_dtype=converter.pixel_dtype(entry.mode) if entry.modality == "rgb" else "float32",
        frame_layout=converter.frame_layout,
        clip_layout=converter.clip_layout,
        dynamic_batch=dynamic_batch,
        libraries=converter.libraries,
    )
    # Beside the target, so that the renames below stay within one file system.
    with tempfile.TemporaryDirectory(prefix=".tsmzoo-", dir=out.parent) as folder:
        made = Path(folder) / out.name
        stage(f"converting {entry.id} to {format_}")
        with quiet():
            try:
                converter.convert(_deployed(network, contract), contract, made)
            except ModuleNotFoundError as error:
                raise missing_extra(format_, error) from None
        stage("verifying")
        report = check(registry, network, made, contract, converter, video=video)
        if report.status == "failed":
            raise ExportError(f"{out.name} failed its verification and was not kept: {report.reason}")
        sha256, size = artifact.digest(made)
        contract = msgspec.structs.replace(contract, artifact=out.name, sha256=sha256, bytes=size, verification=report)
        written = artifact.contract_path(made)
        artifact.write_contract(contract, written)
        if out.is_dir():  # a package made before cannot be renamed over
            os.rename(out, Path(folder) / "replaced")
        artifact.make_way(out)
        os.replace(made, out)
        os.replace(written, artifact.contract_path(out))
    return out, contract


def _output_path(out: Path | None, entry: Entry, precision: str, converter: Converter) -> Path:
    out = out or Path(f"{entry.id}-{precision}{converter.suffix}")
    if out.suffix != converter.suffix:
        raise ExportError(f"{out}: must end in {converter.suffix}")
    if not out.parent.is_dir():
        raise ExportError(f"{out.parent}: is no folder; make it first")
    if out.exists() and out.is_dir() != (converter.suffix == ".mlpackage"):
        raise ExportError(f"{out}: is in the way; move it first")
    return out


def _deployed(network: Network, contract: Contract) -> Deployed:
    form: Step | Clips | OneClip
    if contract.mode == "online":
        form = Step(network.backbone)
    elif isinstance(contract.main_input.shape[0], str):
        form = Clips(network.backbone, contract.frames)
    else:
        form = OneClip(network.backbone, contract.frames)
    embedded = contract.preprocess == "embedded"
    return Deployed(
        fold_batch_norm(form),
        contract.mean if embedded else None,
        contract.std if embedded else None,
        channels_last=contract.main_input.layout in ("NHWC", "THWC"),
    ).eval()


def check(
    registry: Registry,
    network: Network,
    path: Path,
    contract: Contract,
    converter: Converter,
    *,
    steps: int | None = None,
    video: Array | None = None,
) -> Verification:
    """Compare the file at `path` with `network`: its structure, then, where a runtime exists, its numbers."""
    target = recipe.target(contract.format)
    tolerance = target.tolerance[contract.precision]
    with quiet():
        structure = converter.check(path, contract)
        runner = converter.load(path, contract)
        if runner is None:
            reason = f"nothing on this system runs {contract.format}; its structure alone was checked"
            return with_structure(not_run(reason, tolerance), structure)
        reference: Runner = TorchRunner(network, plain := describe(registry, network))
        report = verify(
            (reference, plain), (runner, contract), tolerance=tolerance, steps=steps or target.steps, video=video
        )
    return with_structure(report, structure)


def open_artifact(path: Path) -> tuple[Contract, Converter]:
    """Return the contract and the converter of an exported file whose digest is still the contract's.

    Raises ArtifactError where the file was changed since, or ExportError where its extra is missing.
    """
    format_ = format_of(path)
    contract = artifact.read_contract(path)
    sha256, size = artifact.digest(path)
    if sha256 != contract.sha256:
        raise ArtifactError(
            f"{path}: was changed since its export (sha256 {sha256[:12]}…, {size} bytes; its contract says "
            f"{str(contract.sha256)[:12]}…, {contract.bytes}); export it again"
        )
    with quiet():
        return contract, load_converter(format_)


def reverify(
    registry: Registry,
    path: Path,
    *,
    weights: str | None = None,
    steps: int | None = None,
    video: Array | None = None,
    stage: Stage = silent,
) -> tuple[Contract, Verification]:
    """Verify an exported file again, against the weights it was made from.

    `weights` says where these lie now. Raises ArtifactError where the file was changed, or the
    weights are others.
    """
    stage("checking the digest")
    contract, converter = open_artifact(path)
    entry = msgspec.structs.replace(registry.find(contract.model), size=contract.size, frames=contract.frames)
    source = contract.checkpoint
    if contract.weights == "random":
        weights = "random"
    elif contract.weights == "local" and weights is None and source is not None:
        weights = source.path
        if not Path(weights).is_file():
            raise ArtifactError(f"{path}: was made from {weights}, which is gone; give it with --weights FILE")
    stage("loading the weights")
    network = obtain(
        entry,
        weights,
        seed=contract.seed or 0,
        weights_format=source.format if source else None,
        allow_shift_mismatch=source is not None and source.shift_mismatch,
    )
    if source and network.checkpoint and source.sha256 != network.checkpoint.sha256:
        raise ArtifactError(
            f"{path}: was made from other weights than {network.checkpoint.path} (sha256 {source.sha256[:12]}…); "
            "give those with --weights FILE"
        )
    stage("verifying")
    return contract, check(registry, network, path, contract, converter, steps=steps, video=video)
