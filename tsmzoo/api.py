"""The functions of the Python API, which the commands call: each checks its values and calls one function of a room."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from tsmzoo import registry as registries
from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.checks import check
from tsmzoo.errors import RegistryError, UsageError
from tsmzoo.text import CELL, one_line

if TYPE_CHECKING:
    from tsmzoo.artifact.contract import Preprocess, State
    from tsmzoo.benchmarking.run import BenchmarkRow
    from tsmzoo.catalog.cached import CachedFile
    from tsmzoo.catalog.check import EntryCheck
    from tsmzoo.catalog.doctor import Diagnosis
    from tsmzoo.catalog.download import Download
    from tsmzoo.catalog.flops import Cost
    from tsmzoo.catalog.info import ModelInfo
    from tsmzoo.catalog.links import LinkCheck
    from tsmzoo.catalog.listing import ModelRow
    from tsmzoo.catalog.own_checkpoint import CheckpointInfo
    from tsmzoo.evaluation.report import EvaluationResult
    from tsmzoo.exporting.card import Pushed
    from tsmzoo.exporting.report import Artifact
    from tsmzoo.formats import Format
    from tsmzoo.inference.model import Model
    from tsmzoo.inference.reference import ModelReference
    from tsmzoo.live.answer import Answer
    from tsmzoo.registry import Registry, ShiftName
    from tsmzoo.registry.recipes import Crops, Precision
    from tsmzoo.registry.schema import Backbone, Family, Modality, Mode
    from tsmzoo.training.train import TrainingResult
    from tsmzoo.weights.mirror import Mirrored

#: A file or folder.
PathLike = str | Path
# The bounds of the command line.
Threads = Annotated[int, Meta(ge=1, le=256)]
Split = Annotated[int, Meta(ge=1, le=3)]
#: Sums of scores must stay finite.
Factor = Annotated[float, Meta(ge=-1e6, le=1e6)]


def _log(line: str) -> None:
    import logging

    logging.getLogger("tsmzoo").warning("%s", line)


def _path(name: str, given: Any) -> Path:
    """Return the path given as the argument `name`. Raises UsageError if it can be none."""
    try:
        path = Path(given)
        if b"\0" not in os.fsencode(path):
            return path
    except (TypeError, UnicodeEncodeError):
        pass
    raise UsageError(f"`{name}` cannot be {one_line(repr(given), CELL)}: give a path")


def _optional(name: str, given: PathLike | None) -> Path | None:
    return None if given is None else _path(name, given)


def _file(given: PathLike) -> Path:
    """Return the path of an exported file, fetched if it is on the hub. Raises UsageError, DownloadError."""
    from tsmzoo.inference.reference import here

    return _path("path", here(str(given)))


def _several(name: str, given: Any) -> list[Any]:
    """Return the values given as the argument `name`. Raises UsageError if they are not several."""
    if not isinstance(given, Iterable):
        raise UsageError(f"`{name}` cannot be {one_line(repr(given), CELL)}: give a list")
    return list(given)


def _each(models: Any) -> list[Any]:
    """Return one model, or several, as a list."""
    return [models] if isinstance(models, str) or not isinstance(models, Iterable) else list(models)


def _zoo(registry: PathLike | None) -> Registry:
    """Return tsmzoo's registry, with the one at `registry` on top of it. Raises RegistryError."""
    return registries.load(_optional("registry", registry))


# --- finding ---------------------------------------------------------------------------------------------------------


def list_models(
    pattern: str | None = None,
    *,
    family: Family | None = None,
    mode: Mode | None = None,
    backbone: Backbone | None = None,
    dataset: str | None = None,
    modality: Modality | None = None,
    recommended: bool = False,
    search: str | None = None,
    registry: PathLike | None = None,
) -> list[str]:
    """List the ids of models.

    Args:
        pattern: An id, an alias, or a shell wildcard.
        family: `tsn`, `tsm`, `i3d`, `x3d` or `movinet`.
        mode: `offline` models take clips, `online` ones a frame at a time.
        backbone: The 2-D or 3-D network, for instance `mobilenet_v2`.
        dataset: The dataset it was trained on, for instance `sthv2`.
        modality: `rgb` or `flow`.
        recommended: List only the models to choose first for their task and cost.
        search: Text in the id, aliases, dataset, backbone, publisher or notes; case is ignored.
        registry: A registry file of your own, on top of tsmzoo's.

    Raises:
        RegistryError: `pattern` is no wildcard and no name of a model; or no model has such a family, mode, backbone,
            dataset or modality.

    Examples:
        >>> tsmzoo.list_models("tsm_mbv2_motion*")
        ['tsm_mbv2_motion', 'tsm_mbv2_motion_online']
        >>> tsmzoo.list_models(family="tsm", mode="online", dataset="motion")
        ['tsm_mbv2_motion_online']
    """
    from tsmzoo.catalog.listing import matching

    wanted = {"family": family, "mode": mode, "dataset": dataset, "backbone": backbone, "modality": modality}
    found = matching(
        _zoo(registry), check("pattern", pattern, str | None), wanted, search=check("search", search, str | None)
    )
    return [entry.id for entry in found if entry.recommended or not recommended]


def model_table(models: Iterable[str], *, registry: PathLike | None = None) -> list[ModelRow]:
    """Return the row of each model in the table of `tsmzoo list`: input, cost, headline accuracy, licence …

    Args:
        models: Ids or aliases, for instance those that `list_models` returns.
        registry: A registry file of your own, on top of tsmzoo's.

    Raises:
        RegistryError: No model has such a name.

    Examples:
        >>> [(row.id, row.top1) for row in tsmzoo.model_table(["tsm_mbv2_motion", "tsm_r50_sthv2"])]
        [('tsm_mbv2_motion', 98.79), ('tsm_r50_sthv2_8f_mit', 61.2)]
    """
    from tsmzoo.catalog import listing

    zoo = _zoo(registry)
    return [listing.row(zoo, zoo.find(str(model))) for model in _each(models)]


def model_info(model: str, *, registry: PathLike | None = None) -> ModelInfo:
    """Return all about a model: architecture, source, input, labels, weights, published figures and their protocols.

    Args:
        model: An id or alias.
        registry: A registry file of your own, on top of tsmzoo's.

    Returns:
        What `info --json` prints; and each attribute of its `entry`, the registry's own record.

    Raises:
        RegistryError: No model has this name; the message suggests the nearest ones.

    Examples:
        >>> info = tsmzoo.model_info("tsm_r50_sthv2")
        >>> info.backbone, info.frames, info.params
        ('resnet50', 8, 23864558)
        >>> info.headline.top1, info.headline.protocol
        (61.2, 'mit_sth_fullres_2clip')
        >>> info.source.name, info.labels.names[0]
        ('MIT HAN Lab', 'Approaching something with your camera')
    """
    from tsmzoo.catalog.info import info

    zoo = _zoo(registry)
    return info(zoo, zoo.find(str(model)))


def describe_checkpoint(
    weights: PathLike,
    like: str | None = None,
    *,
    weights_format: str | None = None,
    labels: PathLike | Sequence[str] | None = None,
    shift: ShiftName | None = None,
    registry: PathLike | None = None,
) -> CheckpointInfo:
    """Describe a checkpoint of your own, and write a registry in which it is a model.

    Args:
        weights: The checkpoint.
        like: A model with the same input; default: the most similar one.
        weights_format: Format of the checkpoint; default: detected from its keys.
        labels: Names of its classes, in the order of the logits; or a file of them, one a line.
        shift: `uni` or `bi`: the shift that it was trained with, if its keys do not show it.
        registry: A registry file of your own, on top of tsmzoo's.

    Raises:
        CheckpointError: The file fits no model.

    Examples:
        >>> found = tsmzoo.describe_checkpoint("own.safetensors")
        >>> found.backbone, found.classes, found.like
        ('mobilenet_v2', 14, 'tsm_mbv2_motion')
    """
    from tsmzoo.catalog import own_checkpoint

    return own_checkpoint.describe(
        _zoo(registry),
        _path("weights", weights),
        like,
        weights_format=weights_format,
        shift=shift,
        names=_names(labels),
    )


def check_registry(path: PathLike, *, progress: Progress = silent) -> list[EntryCheck]:
    """Check a registry file of your own, and count the parameters, GMACs and states of its models.

    Args:
        path: The file; it may lack these figures.
        progress: Called with what is being done.

    Raises:
        RegistryError: The file is no registry.

    Examples:
        >>> (entry,) = tsmzoo.check_registry("own.yaml")
        >>> entry.id, entry.missing, entry.wrong
        ('own', (), {})
    """
    from tsmzoo.catalog import check as catalog_check

    return catalog_check.check(_path("path", path), progress)


def _names(labels: Any) -> tuple[str, ...] | None:
    """Return names of classes that are given themselves, or as a file."""
    if labels is None:
        return None
    if isinstance(labels, str | os.PathLike):
        return registries.read_labels(_path("labels", labels))
    names = tuple(labels) if isinstance(labels, Iterable) and not isinstance(labels, bytes) else (None,)
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"`labels` cannot be {one_line(repr(labels), CELL)}: give names, or a file of them")
    return names


def download(
    model: str,
    *,
    source: PathLike | None = None,
    record: PathLike | None = None,
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
        record: A file to which the sha256 and the size of the checkpoint are added: a registry of pins, for `registry`.
        registry: A registry file of your own, on top of tsmzoo's.
        progress: Called with what is downloaded, the bytes so far and their total (0 if unknown).
        notify: Called with each warning, a line; default: the logger `tsmzoo`.

    Raises:
        RegistryError: No model has this name; or `record` is a file that holds anything but pins.
        DownloadError: No weights were published, they could not be downloaded, or are not those that were published.

    Examples:
        >>> tsmzoo.download("tsm_mbv2_motion").bytes > 0
        True
    """
    from tsmzoo.catalog.download import fetch

    entry = _zoo(registry).find(str(model))
    return fetch(entry, source=source, record=_optional("record", record), progress=progress, notify=notify)


def list_cache(pattern: str | None = None, *, registry: PathLike | None = None) -> list[CachedFile]:
    """List the files of the cache.

    Args:
        pattern: An id, an alias, or a shell wildcard; or the name of a folder of the cache, of a model that is no
            longer known.
        registry: A registry file of your own, on top of tsmzoo's. Without it, files of its models are orphans.

    Raises:
        RegistryError: `pattern` is no wildcard, and nothing has this name.
        DownloadError: The cache cannot be read.

    Examples:
        >>> [file.path for file in tsmzoo.list_cache() if file.state == "quarantined"]
        []
    """
    from tsmzoo.catalog import cached

    return cached.find(_zoo(registry), check("pattern", pattern, str | None))


def verify_cache(
    pattern: str | None = None, *, registry: PathLike | None = None, progress: Progress = silent
) -> list[CachedFile]:
    """Hold the downloaded files to their digests again.

    Args:
        pattern: As for `list_cache`.
        registry: As for `list_cache`.
        progress: Called with what is being done.

    Returns:
        The files that have their published name, with `sha256`, `pin`, and `state`: `"whole"` or `"wrong"`.

    Raises:
        RegistryError: `pattern` is no wildcard, and nothing has this name.
        DownloadError: The cache cannot be read.

    Examples:
        >>> [file.id for file in tsmzoo.verify_cache() if file.state == "wrong"]
        []
    """
    from tsmzoo.catalog import cached

    return cached.verify(_zoo(registry), check("pattern", pattern, str | None), progress)


def prune_cache(
    pattern: str | None = None,
    *,
    dry_run: bool = False,
    registry: PathLike | None = None,
    notify: Notify = _log,
) -> list[CachedFile]:
    """Remove interrupted downloads, quarantined files and outdated copies of YAML files from the cache.

    Models that are being downloaded are left alone; links are not followed. The record of the digest of a first
    download stays, so that the next one is held to it.

    Args:
        pattern: Remove all files of these models instead: an id, an alias, or a shell wildcard; or the name of a folder
            of the cache, of a model that is no longer known.
        dry_run: Remove nothing.
        registry: As for `list_cache`.
        notify: Called with a line about each model that was left alone; default: the logger `tsmzoo`.

    Returns:
        What was removed, or would be.

    Raises:
        RegistryError: `pattern` is no wildcard, and nothing has this name.
        DownloadError: The cache cannot be read.

    Examples:
        >>> sum(file.bytes for file in tsmzoo.prune_cache("tsm_r50_sthv2", dry_run=True))
        0
    """
    from tsmzoo.catalog import cached

    return cached.prune(_zoo(registry), check("pattern", pattern, str | None), dry_run=dry_run, notify=notify)


def check_links(
    pattern: str | None = None, *, registry: PathLike | None = None, progress: Progress = silent
) -> list[LinkCheck]:
    """Ask every address of a model's checkpoint whether the file is there; nothing is downloaded.

    An address has ten seconds to answer, all of them ten minutes. Addresses of one host are asked one at a time.

    Args:
        pattern: An id, an alias, or a shell wildcard; default: all models.
        registry: A registry file of your own, on top of tsmzoo's.
        progress: Called with what is being done, and how many addresses of how many have answered.

    Returns:
        A result for each address of each model. A model that comes with tsmzoo has none.

    Raises:
        RegistryError: `pattern` is no wildcard and no name of a model.
        DownloadError: TSMZOO_OFFLINE is set, or no connection can be made with the proxy or certificate settings.

    Examples:
        >>> [link.url for link in tsmzoo.check_links("tsm_mbv2_motion*") if not link.alive]
        []
    """
    from tsmzoo.catalog import links
    from tsmzoo.catalog.listing import matching

    zoo = _zoo(registry)
    return links.check(zoo, matching(zoo, check("pattern", pattern, str | None)), progress)


def doctor(*, progress: Progress = silent) -> Diagnosis:
    """Examine the installation: versions, imports, extras, cache, proxies, GPUs.

    Each installed package is imported in a process of its own, which takes half a minute with all extras.

    Args:
        progress: Called with what is being done.

    Returns:
        What was found. `problems` says what is broken and what to do about it; it is empty if all is well.

    Raises:
        ZooError: The package `packaging` is missing, without which versions cannot be compared.

    Examples:
        >>> found = tsmzoo.doctor()
        >>> [problem.what for problem in found.problems]
        []
        >>> [extra.name for extra in found.extras]
        ['onnx', 'tflite', 'coreml', 'plots', 'tensorflow']
    """
    from tsmzoo.catalog.doctor import examine

    return examine(progress)


def mirror(
    folder: PathLike,
    models: str | Iterable[str],
    *,
    url: str | None = None,
    original: bool = False,
    registry: PathLike | None = None,
    progress: Progress = silent,
    notify: Notify = _log,
) -> list[Mirrored]:
    """Lay out checkpoints in a folder of your own that a web server or a repository of the hub can serve.

    Each becomes a safetensors file of the same tensors, and `registry.yaml` names it by its sha256. Give that registry
    to whoever is to use the mirror: it is what they trust, in place of the publisher's digest.

    Args:
        folder: The folder; it is made, or added to.
        models: Ids, aliases or shell wildcards.
        url: Where the folder will be served: `https://…` or `hf://USER/REPO`; default: the registry names the files
            beside it, for a shared disk.
        original: Keep the published bytes, which `TSMZOO_MIRROR` serves under the publisher's digests; no registry is
            written.
        registry: A registry file of your own, on top of tsmzoo's.
        progress: Called with what is downloaded, the bytes so far and their total (0 if unknown).
        notify: Called with each warning, a line; default: the logger `tsmzoo`.

    Raises:
        RegistryError: Nothing has such a name and published weights, or `url` is no address.
        DownloadError: A checkpoint could not be downloaded, or is not the one that was published.
        CheckpointError: A checkpoint cannot be read.

    Examples:
        >>> (one,) = tsmzoo.mirror("mirror", "tsm_mbv2_motion")
        >>> tsmzoo.download("tsm_mbv2_motion", registry="mirror/registry.yaml").path == one.path
        True
    """
    from tsmzoo.catalog.listing import matching
    from tsmzoo.weights import mirror as mirrors

    if original and url is not None:
        raise UsageError("`url` goes into a registry, which `original` does not write; leave out one")
    zoo = _zoo(registry)
    found = {each.id: each for one in _each(models) for each in matching(zoo, str(one))}
    entries = [each for each in found.values() if each.has_weights]
    if not entries:
        raise RegistryError("no weights were published for these models; there is nothing to mirror")
    return mirrors.mirror(
        zoo,
        entries,
        _path("folder", folder),
        url=check("url", url, str | None),
        original=original,
        progress=progress,
        notify=notify,
    )


def count_flops(
    model: str,
    *,
    frames: int | None = None,
    size: int | None = None,
    per_module: bool = False,
    per_video: bool = True,
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
        per_video: Report a video under each published protocol, too, whose many frames may take minutes to count.
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

    frames, size = check("frames", frames, Frames | None), check("size", size, Size | None)
    entry = _zoo(registry).find(str(model))
    return flops.cost(entry, size, frames_of(entry, frames), per_module=per_module, per_video=per_video)


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
        model: An id, an alias, the path of a file that `export` wrote, or its address on the Hugging Face hub,
            `hf://USER/REPO/FILE[@REVISION]`.
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
        raise UsageError(f"{device!r} is no `device` that tsmzoo runs on yet; leave it out, or give 'cpu'")
    from tsmzoo.inference.reference import ModelReference, here, open_reference

    reference = ModelReference(
        here(str(model)),
        weights=None if weights is None else str(weights),
        seed=seed,
        weights_format=weights_format,
        shift=shift,
        allow_shift_mismatch=allow_shift_mismatch,
        classes=classes,
        labels=_names(labels),
        frames=frames,
        size=size,
    )
    threads = check("threads", threads, Threads | None)
    return open_reference(reference, _optional("registry", registry), threads=threads, progress=progress, notify=notify)


def watch(
    model: Model,
    video: PathLike | int,
    *,
    window: int | None = None,
    threshold: float | None = None,
    hold: int | None = None,
    cut: float | None = None,
    reset_every: float | None = None,
    every: float | None = None,
    span: float | None = None,
    fps: float | None = None,
    images: str | None = None,
    save: PathLike | None = None,
    notify: Notify = _log,
) -> Generator[Answer, None, None]:
    """Run a model on a video or a camera, as `tsmzoo run` does, and yield its answers as the frames go by.

    An online model answers every frame, an offline one once a video, and every second of a camera. A camera has no end:
    break out of the loop, or call `close` of what is returned.

    Args:
        model: What `load` returned.
        video: A video file, a folder of images, the number of a camera, or an address (`rtsp://…`).
        window: Answers to average; default: 0.8 s of the stream.
        threshold: Least probability of a shown label, 0…1; default: 0.5.
        hold: Consecutive steps that a new label must lead before it is shown; default: 2 for a stream.
        cut: Difference of consecutive frames, 0…1, that resets the states; 0: never; default: 0.4.
        reset_every: Seconds from reset to reset.
        every: For an offline model: seconds between answers; default: 1 for a camera.
        span: For an offline model: seconds covered by the clip of each such answer; default: 4.
        fps: Frame rate of a folder of images; default: each image is a step.
        images: Template of the file names of images, if it cannot be detected: `img_{:05d}.jpg`.
        save: A file, .mp4, for the video with the labels drawn on it.
        notify: Called with each note, a line; default: the logger `tsmzoo`.

    Raises:
        VideoError: There is no such source, it cannot be decoded, or `save` cannot be written.
        DataError: A logit is no finite number: the weights are damaged.
        ZooError: A value is out of bounds, the model has no use for it, or sees optical flow, not RGB.

    Examples:
        >>> model = tsmzoo.load("tsm_mbv2_motion_online")
        >>> *_, last = tsmzoo.watch(model, "opening.mp4")
        >>> last.top[0].label
        'opening'
    """
    from tsmzoo.inference.model import Model
    from tsmzoo.live import session, video_writer

    if not isinstance(model, Model):
        raise UsageError(f"{model!r}: is no `model` that load returned; load it first")
    options = session.LiveOptions(
        window=window,
        threshold=threshold,
        hold=hold,
        cut=cut,
        reset_every=reset_every,
        every=every,
        span=span,
        save=_optional("save", save),
    )
    if type(video) is not int:
        _path("video", video)
    if options.save is not None:
        video_writer.check(options.save, str(video))
    source = session.open_for(model, str(video), options, fps=fps, images=images, notify=notify)
    return session.play(model, source, options)


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
    from tsmzoo.exporting.export import export_model
    from tsmzoo.inference.reference import referred

    return export_model(
        _zoo(registry),
        referred(model),
        str(to),
        out=_optional("output", output),
        precision=precision,
        preprocess=preprocess,
        state=state,
        gpu_safe=gpu_safe,
        softmax=softmax,
        dynamic_batch=dynamic_batch,
        calibrate=_optional("calibrate", calibrate),
        keep_float=keep_float,
        clip=_optional("clip", clip),
        images=images,
        kit=_optional("kit", kit),
        registry=_optional("registry", registry),
        progress=progress,
        notify=notify,
    )


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
        path: A file that `export` wrote, its contract beside it; or its address on the hub,
            `hf://USER/REPO/FILE[@REVISION]`.
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
    from tsmzoo.exporting.verify import verify_file

    return verify_file(
        _zoo(registry),
        _file(path),
        weights=None if weights is None else str(weights),
        shift=shift,
        steps=check("steps", steps, Annotated[int, Meta(ge=2, le=10_000)] | None),
        clip=_optional("clip", clip),
        images=images,
        registry=_optional("registry", registry),
        progress=progress,
        notify=notify,
    )


def card(path: PathLike, *, registry: PathLike | None = None) -> str:
    """Return the model card of an exported file, in Markdown with the Hugging Face hub's front matter.

    It says what the file is, its input, states and outputs, the published accuracy of its network, how it was verified,
    its licence, what is doubtful, and how to run it.

    Args:
        path: A file that `export` wrote, its contract beside it; or its address on the hub.
        registry: A registry of your own that holds the model.

    Raises:
        ArtifactError: The file is missing, damaged, was changed since its export, or is not one that `export` wrote.

    Examples:
        >>> tsmzoo.card("gestures.tflite").splitlines()[:3]
        ['---', 'license: apache-2.0', 'library_name: tsmzoo']
    """
    from tsmzoo.exporting import card as cards

    return cards.text(_zoo(registry), _file(path))


def push(
    path: PathLike,
    to: str,
    *,
    private: bool = False,
    allow_random: bool = False,
    registry: PathLike | None = None,
    notify: Notify = _log,
) -> Pushed:
    """Send an exported file, its contract and its model card to a repository of the Hugging Face hub, in one commit.

    The repository is created if there is none. A README.md that tsmzoo did not write stays as it is. The token is the
    one of `hf auth login`, or `HF_TOKEN`.

    Args:
        path: A file that `export` wrote, its contract beside it.
        to: `hf://USER/REPO`.
        private: Create the repository as a private one, and send nothing to a public one.
        allow_random: Send a file with random weights, whose answers mean nothing.
        registry: A registry of your own that holds the model.
        notify: Called with each warning, a line; default: the logger `tsmzoo`.

    Raises:
        ArtifactError: The file is missing, was changed since its export, or its weights are random.
        DownloadError: There is no token, the hub refuses it, or cannot be reached.

    Examples:
        >>> tsmzoo.push("gestures.tflite", "me/gestures")
        Traceback (most recent call last):
        ...
        tsmzoo.errors.DownloadError: me/gestures: is no repository on the hub; give hf://USER/REPO
    """
    from tsmzoo.exporting import card as cards

    return cards.push(
        _zoo(registry),
        _path("path", path),
        check("to", to, str),
        private=private,
        allow_random=allow_random,
        notify=notify,
    )


# --- measuring -------------------------------------------------------------------------------------------------------


def evaluate(
    models: PathLike | Model | ModelReference | Sequence[PathLike | Model | ModelReference],
    data: PathLike | None = None,
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

    Under `torchrun` each process scores its share of the videos, and all return the result of all; `videos_per_s` is
    that of each.

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
    from tsmzoo.evaluation import evaluate as evaluation
    from tsmzoo.evaluation.protocol import Changes
    from tsmzoo.inference.reference import referred

    settings = evaluation.Settings(
        protocol=protocol,
        changes=Changes(clips=clips, crops=crops, frames=frames),
        observe=tuple(sorted({check("observe", each, int) for each in _several("observe", observe)})),
        strict=strict,
        workers=workers,
        registries=(_path("registry", registry),) if registry is not None else (),
    )
    return evaluation.evaluate(
        [referred(model) for model in _each(models)],
        settings,
        data=_optional("data", data),
        list_file=_optional("list_file", list_file),
        layout=check("layout", layout, str | None),
        split=check("split", split, Split),
        images=images,
        factors=check("factors", _several("factors", factors), list[Factor]),
        predictions=_optional("predictions", predictions),
        html=_optional("html", html),
        progress=progress,
        notify=notify,
    )


def train(
    recipe: PathLike,
    data: PathLike,
    val: PathLike,
    output: PathLike,
    *,
    weights: PathLike | None = None,
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
        weights: What training starts from, in place of the recipe's: `random`, `published`, or a checkpoint.
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
    from tsmzoo.data.layouts import read
    from tsmzoo.registry import recipes
    from tsmzoo.training import train as training

    split, layout = check("split", split, Split), check("layout", layout, str | None)
    how, zoo = recipes.training(str(recipe)), _zoo(registry)
    if weights is not None:
        how = msgspec.structs.replace(how, weights=str(_path("weights", weights)))
    return training.train(
        zoo,
        how,
        read(
            _path("data", data),
            _optional("train_list", train_list),
            layout,
            split,
            "train",
            option="--train-list",
            images=images,
        ),
        read(
            _path("val", val), _optional("val_list", val_list), layout, split, "val", option="--val-list", images=images
        ),
        _path("output", output),
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
    from tsmzoo.benchmarking import run
    from tsmzoo.formats import is_artifact
    from tsmzoo.inference.reference import ModelReference, here

    runs = check("runs", runs, Annotated[int, Meta(ge=1, le=100_000)])
    threads = check("threads", threads, Threads)
    references = []
    for each in _each(models):
        if not isinstance(each, str | Path | ModelReference):
            raise UsageError(f"{each!r}: is run in a process of its own; give its name or file, not what load returned")
        if isinstance(each, ModelReference):
            references.append(replace(each, model=here(each.model)))
        elif is_artifact(str(each)):
            references.append(ModelReference(here(str(each))))
        else:
            references.append(ModelReference(str(each), frames=frames, size=size))
    if not references:
        raise UsageError("there is nothing to run; give a model or a file")
    return run.benchmark(
        _zoo(registry),
        references,
        runs=runs,
        threads=threads,
        profile=profile,
        registries=(str(registry),) if registry is not None else (),
        progress=progress,
        notify=notify,
    )


def draw_accuracy(
    folder: PathLike,
    *,
    benchmarks: Iterable[PathLike] = (),
    registry: PathLike | None = None,
    notify: Notify = _log,
) -> list[Path]:
    """Draw published accuracy against cost, a picture per dataset, as SVG and PNG.

    Args:
        folder: The output folder; pictures of the same name are replaced.
        benchmarks: Outputs of `bench --json`, to draw accuracy against measured latency, too.
        registry: A registry file of your own, on top of tsmzoo's.
        notify: Called with a line about rows that cannot be drawn; default: the logger `tsmzoo`.

    Returns:
        The pictures.

    Raises:
        DataError: The folder cannot be written, a file of `benchmarks` cannot be used, or matplotlib is missing.

    Examples:
        >>> sorted(path.name for path in tsmzoo.draw_accuracy("pictures"))[-1]
        'accuracy-somethingv2.svg'
    """
    from tsmzoo.benchmarking import plots

    return plots.write(
        _zoo(registry),
        _path("folder", folder),
        [_path("benchmarks", file) for file in _several("benchmarks", benchmarks)],
        note=notify,
    )


def generate_clips(
    folder: PathLike, videos: int = 1000, *, seed: int = 0, progress: Progress = silent
) -> tuple[str, ...]:
    """Generate labelled videos whose classes differ only in the order of frames, which `evaluate` and `train` read.

    Args:
        folder: A new folder.
        videos: Number of clips, even: half of them are the other half backwards.
        seed: Seed of the clips; the same one gives the same files.
        progress: Called with what is being done, the videos written and their total.

    Returns:
        The names of the classes, in the order of their labels.

    Raises:
        DataError: The folder is not empty or cannot be written, or the number is odd.

    Examples:
        >>> len(tsmzoo.generate_clips("fourteen", 14))
        14
    """
    from tsmzoo.data import motion

    videos = check("videos", videos, Annotated[int, Meta(ge=2, le=1_000_000)])
    seed = check("seed", seed, Annotated[int, Meta(ge=0, le=2**63 - 1)])
    motion.write(_path("folder", folder), videos, seed, lambda done, total: progress("writing", done, total))
    return motion.CLASSES
