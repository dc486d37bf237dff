"""The functions of the Python API, which the commands call."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from tsmzoo import registry as registries
from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.checks import check
from tsmzoo.errors import ExportError, ZooError

if TYPE_CHECKING:
    from tsmzoo.artifact.contract import Contract, Preprocess, State
    from tsmzoo.benchmarking.run import BenchmarkRow
    from tsmzoo.catalog.download import Download
    from tsmzoo.catalog.flops import Cost
    from tsmzoo.data.dataset import Dataset
    from tsmzoo.evaluation.report import EvaluationResult
    from tsmzoo.exporting.report import Artifact
    from tsmzoo.formats import Format
    from tsmzoo.inference.model import Model
    from tsmzoo.inference.reference import ModelReference
    from tsmzoo.registry import Entry, Registry, ShiftName
    from tsmzoo.registry.recipes import Crops, Precision
    from tsmzoo.registry.schema import Backbone, Family, Mode
    from tsmzoo.training.train import TrainingResult
    from tsmzoo.typing import Array

#: A file or folder.
PathLike = str | Path
# The bounds of the command line.
Threads = Annotated[int, Meta(ge=1, le=256)]
Split = Annotated[int, Meta(ge=1, le=3)]
#: Sums of scores must stay finite.
Factor = Annotated[float, Meta(ge=-1e6, le=1e6)]


def _log(line: str) -> None:
    logging.getLogger("tsmzoo").warning("%s", line)


def _bytes(progress: Progress, model: str) -> Callable[[int, int | None], None]:
    """Return `progress` in the form that downloads call."""
    return lambda done, total: progress(f"downloading {model}", done, total or 0)


def _path(given: PathLike | None) -> Path | None:
    return None if given is None else Path(given)


# --- finding ---------------------------------------------------------------------------------------------------------


def list_models(
    pattern: str | None = None,
    *,
    family: Family | None = None,
    mode: Mode | None = None,
    backbone: Backbone | None = None,
    dataset: str | None = None,
    recommended: bool = False,
    search: str | None = None,
    registry: PathLike | None = None,
) -> list[str]:
    """List the ids of models.

    Args:
        pattern: An id, an alias, or a shell wildcard.
        family: `tsn`, `tsm` or `i3d`.
        mode: `offline` models take clips, `online` ones a frame at a time.
        backbone: The 2-D or 3-D network, for instance `mobilenet_v2`.
        dataset: The dataset it was trained on, for instance `sthv2`.
        recommended: List only the models to choose first for their task and cost.
        search: Text in the id, aliases, dataset, backbone, publisher or notes; case is ignored.
        registry: A registry file of your own, on top of tsmzoo's.

    Raises:
        RegistryError: `pattern` is no wildcard and no name of a model; or no model has such a family, mode, backbone
            or dataset.

    Examples:
        >>> tsmzoo.list_models("tsm_mbv2_motion*")
        ['tsm_mbv2_motion', 'tsm_mbv2_motion_online']
        >>> tsmzoo.list_models(family="tsm", mode="online", dataset="motion")
        ['tsm_mbv2_motion_online']
    """
    from tsmzoo.catalog.listing import matching

    wanted = {"family": family, "mode": mode, "backbone": backbone, "dataset": dataset}
    found = matching(open_registry(registry), pattern, wanted, search=search)
    return [entry.id for entry in found if entry.recommended or not recommended]


def model_info(model: str, *, registry: PathLike | None = None) -> Entry:
    """Return the registry's entry of a model: architecture, input, weights, published figures and their sources.

    Args:
        model: An id or alias.
        registry: A registry file of your own, on top of tsmzoo's.

    Raises:
        RegistryError: No model has this name; the message suggests the nearest ones.

    Examples:
        >>> entry = tsmzoo.model_info("tsm_r50_sthv2")
        >>> entry.backbone, entry.frames, entry.params
        ('resnet50', 8, 23864558)
        >>> entry.headline.top1, entry.headline.protocol
        (61.2, 'mit_sth_fullres_2clip')
    """
    return open_registry(registry).find(model)


def open_registry(path: PathLike | None = None) -> Registry:
    """Return tsmzoo's registry, with the one at `path` on top of it. Raises RegistryError."""
    return registries.load(*([Path(path)] if path is not None else []))


def download(
    model: str,
    *,
    source: PathLike | None = None,
    registry: PathLike | None = None,
    progress: Progress = silent,
    notify: Notify = _log,
) -> Download:
    """Download the weights of a model into the cache, if it does not hold them, and verify them.

    Args:
        model: An id or alias.
        source: Where to take it from in place of the published addresses: an https:// or hf:// address, or a local
            file, which is copied. It is held to the same digest. The other files of a checkpoint of several files are
            looked for beside it.
        registry: A registry file of your own, on top of tsmzoo's.
        progress: Called with what is downloaded, the bytes so far and their total (0 if unknown).
        notify: Called with each warning, a line; default: the logger `tsmzoo`.

    Raises:
        RegistryError: No model has this name.
        DownloadError: No weights were published, they could not be downloaded, or are not those that were published.

    Examples:
        >>> tsmzoo.download("tsm_mbv2_motion").bytes > 0
        True
    """
    from tsmzoo.catalog.download import fetch

    return fetch(open_registry(registry).find(model), source=source, progress=progress, notify=notify)


def count_flops(
    model: str,
    *,
    frames: int | None = None,
    size: int | None = None,
    per_module: bool = False,
    registry: PathLike | None = None,
) -> Cost:
    """Count the multiply-accumulates and parameters of a model; the published figures stand beside them.

    Convolutions, linear layers and matrix products count (fvcore, facebookresearch/fvcore:docs/flop_count.md); batch
    normalization, activations, pooling and the shift do not, as in the TSM paper.

    Args:
        model: An id or alias.
        frames: Frames of a clip, in place of the model's own.
        size: Side of the input in pixels, in place of the model's own.
        per_module: Report each module, too.
        registry: A registry file of your own, on top of tsmzoo's.

    Raises:
        RegistryError: No model has this name.
        ZooError: The input is larger than memory holds, or an online model is given several frames.

    Examples:
        >>> cost = tsmzoo.count_flops("tsm_mbv2_motion")
        >>> round(cost.gmacs_per_clip, 3), cost.input_shape
        (0.038, [1, 8, 3, 64, 64])
    """
    from tsmzoo.catalog import flops
    from tsmzoo.inference.reference import Frames, Size, frames_of

    check("frames", frames, Frames | None)
    check("size", size, Size | None)
    entry = open_registry(registry).find(model)
    return flops.cost(entry, size, frames_of(entry, frames), per_module=per_module)


# --- running ---------------------------------------------------------------------------------------------------------


def load(
    model: PathLike,
    *,
    weights: PathLike | None = None,
    seed: int = 0,
    weights_format: str | None = None,
    classes: int | None = None,
    labels: PathLike | Sequence[str] | None = None,
    shift: ShiftName | None = None,
    allow_shift_mismatch: bool = False,
    frames: int | None = None,
    size: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    registry: PathLike | None = None,
    progress: Progress = silent,
    notify: Notify = _log,
) -> Model:
    """Load a model of the registry, or an exported file.

    Published weights are downloaded if the cache does not hold them. A file (.onnx, .tflite, .mlpackage) needs neither
    torch nor the weights it was made from.

    Args:
        model: An id, an alias, or the path of a file that `export` wrote.
        weights: A checkpoint of your own in place of the published one, or `"random"`.
        seed: Seed of random weights.
        weights_format: Format of the checkpoint; default: detected from its keys.
        classes: Number of classes of the checkpoint, if they are not the model's.
        labels: Their names, in the order of the logits; or a file of them, one a line.
        shift: `uni` or `bi`: the shift that the checkpoint was trained with, if its keys do not show it.
        allow_shift_mismatch: Load a bidirectional checkpoint into an online model, whose answers then are not the
            published ones.
        frames: Frames of a clip, in place of the model's own.
        size: Side of the input in pixels, in place of the model's own.
        threads: Threads that it runs with; default: 1 for a network, the choice of the runtime for a file.
        device: `"cpu"`, the only one so far.
        registry: A registry file of your own, on top of tsmzoo's.
        progress: Called with what is downloaded, the bytes so far and their total (0 if unknown).
        notify: Called with each warning, a line; default: the logger `tsmzoo`.

    Raises:
        RegistryError: No model has this name.
        DownloadError: The weights could not be downloaded, or are not those that were published.
        CheckpointError: The weights are not of this model.
        ArtifactError: The file is missing, damaged, or not one that `export` wrote.
        ZooError: The device is unknown, or weights or another input are given for a file, which has its own.

    Examples:
        >>> model = tsmzoo.load("tsm_mbv2_motion")
        >>> len(model.labels), model.contract.frames, model.contract.size
        (14, 8, 64)
        >>> model.module.__class__.__name__
        'ClipModel'
    """
    if device != "cpu":
        raise ZooError(f"{device!r} is no device that tsmzoo runs on yet; leave out device, or give 'cpu'")
    from tsmzoo.inference.reference import ModelReference, frames_of

    check("threads", threads, Threads | None)
    names = registries.read_labels(Path(labels)) if isinstance(labels, str | Path) else labels
    reference = ModelReference(
        str(model),
        None if weights is None else str(weights),
        seed,
        weights_format,
        shift,
        allow_shift_mismatch,
        classes,
        None if names is None else tuple(names),
        frames,
        size,
    )
    if reference.is_file and registry is None:  # its contract says all that the registry does
        return reference.open(registries.Registry(), threads=threads, notify=notify)
    zoo = open_registry(registry)
    if not reference.is_file:
        frames_of(zoo.find(reference.model), frames)
    opened = reference.open(zoo, threads=threads, progress=_bytes(progress, reference.model), notify=notify)
    return replace(opened, registry_path=None if registry is None else Path(registry).absolute())


# --- exporting -------------------------------------------------------------------------------------------------------


def export(
    model: str | Model | ModelReference,
    to: Format | str,
    output: PathLike | None = None,
    *,
    precision: Precision | None = None,
    preprocess: Preprocess | None = None,
    state: State | None = None,
    gpu_safe: bool | None = None,
    softmax: bool | None = None,
    dynamic_batch: bool = False,
    calibrate: PathLike | None = None,
    keep_float: int = 0,
    clip: PathLike | None = None,
    images: str | None = None,
    kit: PathLike | None = None,
    registry: PathLike | None = None,
    progress: Progress = silent,
    notify: Notify = _log,
) -> Artifact:
    """Convert a model to a file, verify the file, and write its contract beside it.

    The file gets its name only after its outputs and states agreed with those of the network, over streams or clips.

    Args:
        model: An id or alias, or what `load` returned. The contract names the
            weights that were loaded: do not export a network that was changed since, load its new weights instead.
        to: `onnx`, `tflite` or `coreml`; or a recipe of tsmzoo's, such as `android`, or your own, a .yaml file.
        output: Where the file is written; default: `<model>-<precision>` in the current folder.
        precision: `fp32`, `fp16`, `w8` (weights in 8 bits) or `int8` (activations, too); default: the recipe's.
        preprocess: `embedded`: the file takes camera values, RGB, 0…255. `external`: it takes them normalized.
        state: Of an online model: `explicit`: each state is an input and an output. `packed`: all states are one of
            each. `implicit`: the file keeps them itself (Core ML).
        gpu_safe: Keep outputs apart from tensors that the network reads on, which some mobile GPUs corrupt (TFLite).
        softmax: The file returns probabilities, not logits.
        dynamic_batch: The file takes any number of clips or streams at once (ONNX).
        calibrate: A folder of some dozens of videos: int8 is calibrated on half of them and compared on the others.
        keep_float: Number of operators that stay float in int8: those that cost most accuracy.
        clip: A video or a folder of images, to verify on in addition to seeded noise.
        images: Template of the file names of images, if it cannot be detected: `img_{:05d}.jpg`.
        kit: A new folder for an app: the file, a class that runs it, and a test vector.
        registry: A registry file of your own, on top of tsmzoo's.
        progress: Called with what is being done, the bytes of a download so far and their total.
        notify: Called with each warning, a line; default: the logger `tsmzoo`.

    Raises:
        ExportError: The format does not allow it, its extra is not installed, or `output` cannot be written.
        VerificationError: The file differs from the network, and was not kept. A subclass of ExportError.
        RegistryError, DownloadError, CheckpointError: As in `load`.

    Examples:
        >>> artifact = tsmzoo.export("tsm_mbv2_motion_online", to="tflite", output="gestures.tflite")
        >>> artifact.passed, artifact.max_rel_error < 1e-4
        (True, True)
        >>> [state.input for state in artifact.contract.states[:2]]
        ['state_0', 'state_1']
    """
    from tsmzoo.exporting import export as exporter
    from tsmzoo.exporting.kit import kit as kits
    from tsmzoo.exporting.kit.vector import vector
    from tsmzoo.exporting.plan import plan_export
    from tsmzoo.exporting.report import document
    from tsmzoo.inference.model import Model, open_file, warnings
    from tsmzoo.inference.reference import ModelReference, frames_of, resized
    from tsmzoo.registry import recipes
    from tsmzoo.weights.load import record_checkpoint_path, record_registry_path

    start = time.perf_counter()
    exported = "{}: is an exported file; give the model that it was made from"
    if isinstance(model, Model):
        if model.network is None or model.registry is None:
            raise ExportError(exported.format(model.contract.artifact))
        zoo, entry, registry = model.registry, model.network.entry, registry or model.registry_path
    else:
        reference = model if isinstance(model, ModelReference) else ModelReference(str(model))
        if reference.is_file:
            raise ExportError(exported.format(reference.model))
        zoo = registries.with_classes(open_registry(registry), reference.model, reference.classes, reference.labels)
        entry = zoo.find(reference.model)
        entry = resized(entry, frames_of(entry, reference.frames), reference.size)
    target = recipes.target(str(to))
    folder = _path(kit)
    if folder is not None:
        kits.check(folder)

    def stage(what: str) -> None:
        progress(what, 0, 0)

    stage(f"loading the {target.format} converter")
    plan = plan_export(
        entry,
        target,
        out=_path(output),
        precision=precision,
        preprocess=preprocess,
        state=state,
        gpu_safe=gpu_safe,
        softmax=softmax,
        dynamic_batch=dynamic_batch,
        calibrate=_path(calibrate),
        images=images,
        keep_float=keep_float,
        notify=notify,
    )
    if folder is not None:
        kits.check_plan(plan, folder)
    video = None if clip is None else _video(zoo.find(entry.id), Path(clip), entry.size, images)
    if isinstance(model, Model):
        assert model.network is not None
        network = model.network
    else:
        network = reference.load_network(entry, _bytes(progress, entry.id), notify)
        for warning in warnings(entry.id, network):
            notify(warning)
    contract = exporter.export(zoo, network, plan, video=video, stage=stage)
    if network.weights == "local" and contract.checkpoint and network.path is not None:
        record_checkpoint_path(contract.checkpoint, str(network.path))  # for `verify`
    if registry is not None:
        record_registry_path(contract, Path(registry))
    if folder is not None:
        stage("writing the kit")
        kits.write(folder, plan.out, contract, vector(open_file(plan.out)))
    assert contract.verification is not None
    return document(plan.out, contract, contract.verification, time.perf_counter() - start, folder)


def verify(
    path: PathLike,
    *,
    weights: PathLike | None = None,
    shift: ShiftName | None = None,
    steps: int | None = None,
    clip: PathLike | None = None,
    images: str | None = None,
    registry: PathLike | None = None,
    progress: Progress = silent,
    notify: Notify = _log,
) -> Artifact:
    """Compare an exported file with the network it was made from: every output and state, over streams or clips.

    Args:
        path: A file that `export` wrote, its contract beside it.
        weights: The checkpoint, if it was your own and has moved since.
        shift: `uni` or `bi`: the shift it was trained with, if neither the contract nor its keys show it.
        steps: Frames of each stream; default: as in the export.
        clip: A video or a folder of images, to verify on in addition to seeded noise.
        images: Template of the file names of images, if it cannot be detected: `img_{:05d}.jpg`.
        registry: A registry of your own that holds the model; default: the one it was exported with.
        progress: Called with what is being done.
        notify: Called with each note, a line; default: the logger `tsmzoo`.

    Returns:
        The result; `passed` is whether the outputs and states of the file agreed with those of the network.

    Raises:
        ArtifactError: The file was changed since its export, or the weights are others.

    Examples:
        >>> tsmzoo.verify("gestures.tflite").passed
        True
    """
    from tsmzoo.artifact.store import read_contract
    from tsmzoo.exporting.check import reverify
    from tsmzoo.exporting.report import document

    start, path = time.perf_counter(), Path(path)
    check("steps", steps, Annotated[int, Meta(ge=2, le=10_000)] | None)
    zoo = with_model_of(open_registry(registry), path, registry, notify)
    video = None
    if clip is not None:
        contract = read_contract(path)
        video = _video(zoo.find(contract.model), Path(clip), contract.size, images)
    contract, report = reverify(
        zoo,
        path,
        weights=None if weights is None else str(weights),
        shift=shift,
        steps=steps,
        video=video,
        stage=lambda what: progress(what, 0, 0),
    )
    return document(path, contract, report, time.perf_counter() - start)


def _video(entry: Entry, clip: Path, size: int, template: str | None) -> Array:
    """Return the first frames of a video as `entry` takes them at `size`. Raises VideoError."""
    if entry.modality == "flow":
        raise ZooError(f"{entry.id} sees optical flow, not video; leave out --clip")
    from tsmzoo.data import select

    return select.first(clip, max(entry.short_side, size), size, template)


def with_model_of(
    zoo: Registry, artifact: Path, registry: PathLike | None, notify: Notify, contract: Contract | None = None
) -> Registry:
    """Return `zoo` with the model of an exported file; default: the contract beside it."""
    from tsmzoo.artifact.contract import check_consistent
    from tsmzoo.artifact.store import read_contract
    from tsmzoo.weights import load as weight_load

    contract = contract or read_contract(artifact)
    check_consistent(artifact, contract)  # before it is asked whose it is
    zoo, path = weight_load.with_model_of(zoo, artifact, contract, replace=registry is None)
    if path is not None:
        notify(f"note: {artifact}: is of {contract.model}, as it stands in {path}")
    return zoo


# --- measuring -------------------------------------------------------------------------------------------------------


def evaluate(
    models: PathLike | Model | ModelReference | Sequence[PathLike | Model | ModelReference],
    data: PathLike | Dataset | None = None,
    *,
    list_file: PathLike | None = None,
    layout: str | None = None,
    split: int = 1,
    images: str | None = None,
    protocol: str | None = None,
    clips: int | None = None,
    crops: Crops | None = None,
    frames: int | None = None,
    observe: Iterable[int] = (),
    factors: Sequence[float] = (),
    predictions: PathLike | None = None,
    html: PathLike | None = None,
    strict: bool = False,
    workers: int | None = None,
    registry: PathLike | None = None,
    progress: Progress = silent,
    notify: Notify = _log,
) -> EvaluationResult:
    """Measure accuracy on labelled videos under a published protocol; the published figure stands beside it.

    Under `torchrun` each process scores its share of the videos, and the first returns the result of all; the others
    end here, with SystemExit.

    Args:
        models: An id or alias, an exported file, what `load` returned, or saved predictions (.jsonl); the scores of
            several are added, as for two-stream models. What `load` returned runs in this process alone, with the
            frames and size that it was loaded with.
        data: The dataset as it was published, or a folder of your own: videos with annotations.txt (`path index` a
            line) and labels.txt, or in a folder a class.
        list_file: A list in place of the one in `data`.
        layout: Layout of `data`; default: detected from its files.
        split: Split of UCF101 or HMDB51, 1…3.
        images: Template of the file names of images, if it cannot be detected: `img_{:05d}.jpg`.
        protocol: An id or short name; default: that of the model's first published figure.
        clips: Clips per video, in place of the protocol's.
        crops: Crops per clip, in place of the protocol's: 1, 3, 5 or 10.
        frames: Frames per clip, in place of the protocol's.
        observe: Percentages of each video, 1…100, after which accuracy is measured, too.
        factors: Factors of the scores of several models; default: 1 each.
        predictions: A .jsonl file for the logits of each video; a run that was stopped is resumed from it.
        html: A file for a page with the confusion matrix.
        strict: Stop at a video that cannot be decoded.
        workers: Processes that decode and score, 0 for this one; default: one per core for long lists.
        registry: A registry file of your own, on top of tsmzoo's.
        progress: Called with the model, the videos done and their total.
        notify: Called with each warning, a line; default: the logger `tsmzoo`.

    Raises:
        DataError: The data are missing or malformed, their classes are not the model's, the protocol has another input
            than the model, or a video cannot be decoded and `strict` is set.
        ZooError: A value is out of bounds, or values are given that saved predictions have no use for.
        RegistryError, DownloadError, CheckpointError, ArtifactError: As in `load`.

    Examples:
        >>> result = tsmzoo.evaluate("tsm_mbv2_motion", "clips", workers=0)
        >>> result.videos, result.top1
        (14, 100.0)
    """
    from contextlib import ExitStack

    from tsmzoo.data import layouts
    from tsmzoo.data.dataset import Dataset
    from tsmzoo.evaluation import evaluate as evaluation
    from tsmzoo.evaluation import html as pages
    from tsmzoo.evaluation import report, scoring
    from tsmzoo.evaluation.protocol import Changes
    from tsmzoo.inference.model import Model
    from tsmzoo.inference.reference import ModelReference
    from tsmzoo.system import processes

    settings = evaluation.Settings(
        protocol=protocol,
        changes=Changes(clips=clips, crops=crops, frames=frames),
        observe=tuple(sorted({*observe} - {100})),  # the whole is scored anyway
        strict=strict,
        workers=workers,
        registries=(Path(registry),) if registry is not None else (),
    )
    check("split", split, Split)
    check("factors", list(factors), list[Factor])
    first = processes.is_first()
    notify = notify if first else silent
    members = [
        each if isinstance(each, Model | ModelReference) else ModelReference(str(each))
        for each in ([models] if isinstance(models, str | Path | Model | ModelReference) else models)
    ]
    names = [member.contract.model if isinstance(member, Model) else member.model for member in members]
    live = [number for number, name in enumerate(names) if not evaluation.is_saved(name)]
    if not members:
        raise ZooError("there is nothing to evaluate; give a model, a file or saved predictions")
    if len(factors) not in (0, len(members)):
        raise ZooError(f"{len(members)} models need as many factors, not {len(factors)}")
    given: dict[str, object] = {
        "data": data,
        "list_file": list_file,
        "layout": layout,
        "images": images,
        "protocol": protocol,
    }
    given |= {"clips": clips, "crops": crops, "frames": frames, "observe": settings.observe or None}
    given |= {"predictions": predictions}
    if not live and (unused := [name for name, value in given.items() if value is not None]):
        raise ZooError(f"saved predictions are scored as they are; leave out {' and '.join(unused)}")
    if live and data is None:
        raise ZooError(f"{names[live[0]]} needs videos to be measured on; give the folder of the data")
    if html is not None:
        pages.check(Path(html))
    zoo = open_registry(registry)

    def registry_of(member: Model | ModelReference) -> Registry:
        if isinstance(member, Model) and member.path is not None:
            own = registry or member.registry_path
            found = with_model_of(open_registry(own), member.path, own, notify, member.contract)
            return registries.with_classes(
                found, member.contract.model, member.contract.classes, member.contract.labels
            )
        if isinstance(member, Model):
            return member.registry or zoo
        return with_model_of(zoo, Path(member.model), registry, notify) if member.is_file else zoo

    zoos = [registry_of(member) for member in members]
    with ExitStack() as stack:
        listed = None
        if live and data is not None:
            listed = (
                data
                if isinstance(data, Dataset)
                else layouts.read(Path(data), _path(list_file), layout, split, images=images)
            )
            for line in layouts.notes(listed):
                notify(line)
        places = evaluation.places(names, _path(predictions), stack)
        speed = None
        for number in live:
            member, path = members[number], places[number]
            if isinstance(member, ModelReference):
                zoos[number] = member.adapted(zoos[number])
            assert listed is not None
            try:
                speed = evaluation.evaluate(
                    zoos[number], member, listed, settings, path, progress=progress, notify=notify
                )
            except KeyboardInterrupt:
                kept = f"run it again to go on from {path}" if predictions else "--predictions FILE keeps them"
                notify(f"stopped before the last video; {kept}")
                raise
        if not first:
            raise SystemExit
        found = scoring.score(places, factors)
        if strict and found.skipped:
            video, why = found.skipped[0]
            raise ZooError(
                f"--strict: {video} was skipped before ({why}); mend it and delete {found.skipping} to try again"
            )
        result = report.summary(zoos, found, speed, listed.left_out if listed else ())
    if html is not None:
        pages.write(Path(html), result, found)
    return result


def train(
    recipe: PathLike,
    data: PathLike | Dataset,
    val: PathLike | Dataset,
    output: PathLike,
    *,
    train_list: PathLike | None = None,
    val_list: PathLike | None = None,
    layout: str | None = None,
    split: int = 1,
    images: str | None = None,
    shift: ShiftName | None = None,
    allow_shift_mismatch: bool = False,
    strict: bool = False,
    registry: PathLike | None = None,
    progress: Progress = silent,
    notify: Notify = _log,
) -> TrainingResult:
    """Train a model on your own videos; a run that was stopped is resumed.

    `output` then holds the weights, model.safetensors; a registry.yaml, with which every other function takes the
    model; and metrics.jsonl, a line an epoch.

    Args:
        recipe: A recipe of tsmzoo's, or a .yaml file of your own.
        data: The videos to train on: a dataset as it was published, or a folder of your own, as in `evaluate`.
        val: The same, to measure on; never trained on.
        output: The folder of the run.
        train_list: A list in place of the one in `data`.
        val_list: A list in place of the one in `val`.
        layout: Layout of the data; default: detected from their files.
        split: Split of UCF101 or HMDB51, 1…3.
        images: Template of the file names of images, if it cannot be detected: `img_{:05d}.jpg`.
        shift: `uni` or `bi`: the shift that the recipe's weights were trained with, if their keys do not show it.
        allow_shift_mismatch: Start an online model from a bidirectional checkpoint.
        strict: Stop at a video that cannot be decoded.
        registry: A registry file of your own, on top of tsmzoo's.
        progress: Called with what is being done, the steps done and their total.
        notify: Called with each warning, a line; default: the logger `tsmzoo`.

    Raises:
        TrainingError: The recipe is not possible, or `output` holds another run.
        DataError: The data are missing or malformed, or the two lists have other classes.
        CheckpointError: The recipe's weights are not of its model.

    Examples:
        >>> result = tsmzoo.train("quick.yaml", data="clips", val="more", output="run")
        >>> tsmzoo.load(result.model, registry="run/registry.yaml")
        <Model quick, torch fp32, offline, 4 frames of 64 px>
    """
    from tsmzoo.data import layouts
    from tsmzoo.data.dataset import Dataset
    from tsmzoo.registry import recipes
    from tsmzoo.system import processes
    from tsmzoo.training import train as training

    notify = notify if processes.is_first() else silent
    check("split", split, Split)
    how, zoo = recipes.training(str(recipe)), open_registry(registry)

    def read(part: Literal["train", "val"], given: PathLike | Dataset, list_file: PathLike | None) -> Dataset:
        if isinstance(given, Dataset):
            return given
        option = f"--{part}-list"
        return layouts.read(Path(given), _path(list_file), layout, split, part, option=option, images=images)

    videos, held_out = read("train", data, train_list), read("val", val, val_list)
    for line in dict.fromkeys(layouts.notes(videos) + layouts.notes(held_out)):
        notify(line)
    return training.train(
        zoo,
        how,
        videos,
        held_out,
        Path(output),
        shift=shift,
        allow_shift_mismatch=allow_shift_mismatch,
        progress=progress,
        notify=notify,
        strict=strict,
    )


def benchmark(
    models: PathLike | ModelReference | Sequence[PathLike | ModelReference],
    *,
    runs: int = 30,
    threads: int = 1,
    profile: bool = False,
    frames: int | None = None,
    size: int | None = None,
    registry: PathLike | None = None,
    progress: Progress = silent,
    notify: Notify = _log,
) -> list[BenchmarkRow]:
    """Compare latency and memory of exported files and models.

    They take turns, each in a process of its own; on Linux on the same cores, since cores differ. A time is that of a
    clip (offline) or of a frame with the states fed back (online); a ratio is the median over the rounds.

    Args:
        models: Exported files, and ids or aliases of models, which run in torch.
        runs: Number of rounds.
        threads: Threads of each; Core ML chooses its own number.
        profile: Report the times of operators and nodes, too (onnx, tflite, torch).
        frames: Frames of a clip, in place of the model's own; a file has its own.
        size: Side of the input in pixels, in place of the model's own; a file has its own.
        registry: A registry file of your own, on top of tsmzoo's.
        progress: Called with what is being done, the rounds or bytes so far and their total.
        notify: Called with each warning, a line; default: the logger `tsmzoo`.

    Raises:
        ZooError: A name is neither a model nor an exported file, or a process died.

    Examples:
        >>> (row,) = tsmzoo.benchmark("gestures.tflite", runs=2)
        >>> row.median_ms > 0, row.per
        (True, 'frame')
    """
    import os

    from tsmzoo.benchmarking import run
    from tsmzoo.inference.model import Model
    from tsmzoo.inference.reference import ModelReference, frames_of
    from tsmzoo.weights import download

    check("runs", runs, Annotated[int, Meta(ge=1, le=100_000)])
    check("threads", threads, Threads)
    given = [models] if isinstance(models, str | Path | Model | ModelReference) else list(models)
    if not given:
        raise ZooError("there is nothing to run; give a model or a file")
    if any(isinstance(each, Model) for each in given):
        raise ZooError("each model is run in a process of its own; give its name or file, not what load returned")
    zoo = open_registry(registry)
    if threads > (cores := os.cpu_count() or threads):
        notify(f"{threads} threads on {cores} cores wait for each other; take --threads {cores}")
    jobs = []
    for each in given:
        reference = each if isinstance(each, ModelReference) else ModelReference(str(each), frames=frames, size=size)
        if reference.is_file:
            jobs.append(run.Job(subject=reference.model, threads=threads))
            continue
        if Path(reference.model).exists():
            raise ZooError(
                f"{reference.model}: is neither a model nor a file that export wrote (.onnx, .tflite, .mlpackage)"
            )
        entry = zoo.find(reference.model)
        if reference.weights is None:
            download.fetch(entry, progress=_bytes(progress, entry.id), notify=notify)
        job = run.Job(
            subject=reference.model,
            threads=threads,
            weights=reference.weights,
            seed=reference.seed,
            weights_format=reference.weights_format,
            shift=reference.shift,
            allow_shift_mismatch=reference.allow_shift_mismatch,
            classes=reference.classes,
            labels=reference.labels,
            frames=frames_of(entry, reference.frames),
            size=reference.size,
            registries=(str(registry),) if registry else (),
        )
        jobs.append(job)
    run.check(jobs, progress=progress)
    rows = run.rows(run.run_benchmark(jobs, runs=runs, profile=profile, progress=progress))
    for row in rows:
        if run.interpreted(row.runtime):
            notify(f"{row.artifact}: an interpreter ran it; its times say nothing of a phone")
    return rows
