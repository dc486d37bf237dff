"""Train a model by a recipe, and publish it: weights, and a registry with which they are a model like any other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from torch import nn

from tsmzoo import models
from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.data import layouts
from tsmzoo.data.dataset import Dataset
from tsmzoo.errors import CheckpointError, TrainingError
from tsmzoo.registry import Entry, Registry, ShiftName
from tsmzoo.registry.recipes import Training
from tsmzoo.system import processes
from tsmzoo.training import loop, publish, run
from tsmzoo.training.held_out import check
from tsmzoo.weights import checkpoint, checkpoint_file, pretrained
from tsmzoo.weights.load import load_network


class UnreadableVideo(msgspec.Struct, frozen=True):
    """A video of a list that could not be read."""

    list: run.ListName
    video: str
    why: str


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """A trained model and its last metrics; `train --json` is its serialization. Accuracies are percents, 0…100."""

    #: The id of the model, and the folder with its weights and its registry.
    model: str
    folder: str
    weights_sha256: str
    train_list: str
    train_list_sha256: str
    #: Videos that the list names, and that were trained on.
    train_listed: int
    train_videos: int
    val_list: str
    val_list_sha256: str
    #: Videos that the list names, and that were measured.
    val_listed: int
    val_videos: int
    #: What of the data sets was not listed, in words.
    left_out: tuple[str, ...]
    #: Epochs done, and the last learning rate.
    epoch: float
    lr: float
    #: Means over the last steps, on clips that were trained on.
    loss: float
    top1: float
    #: On the validation list.
    val_top1: float
    #: Videos of the training list that could not be read.
    skipped: int
    #: Duration of the run, resumed ones included.
    seconds: float
    #: Videos of both lists that could not be read.
    skipped_videos: tuple[UnreadableVideo, ...]


def train(
    zoo: Registry,
    recipe: Training,
    videos: Dataset,
    held_out: Dataset,
    out: Path,
    *,
    shift: ShiftName | None = None,
    allow_shift_mismatch: bool = False,
    progress: Progress = silent,
    notify: Notify = silent,
    strict: bool = False,
) -> TrainingResult:
    """Train as `recipe` says, or go on where the run in `out` stopped.

    `shift` is what the recipe's weights were trained with, if their keys do not say it. `out` then holds
    model.safetensors, registry.yaml and metrics.jsonl. Raises TrainingError, CheckpointError or DownloadError.
    """
    notify = notify if processes.is_first() else silent
    for line in dict.fromkeys(layouts.notes(videos) + layouts.notes(held_out)):
        notify(line)
    lists = " and ".join(f"{part.list_path} ({len(part)} videos)" for part in (videos, held_out))
    progress(f"to train and to measure on: {lists}", 0, 0)
    train_videos, val_videos = layouts.share_classes(videos, held_out)
    with _key_named(recipe):
        net, entry = _start(zoo, recipe, train_videos, val_videos, progress, notify, shift, allow_shift_mismatch)
    run.check_folder(out, (publish.WEIGHTS, publish.REGISTRY, run.METRICS, run.RESUME))
    normalisation = zoo.normalisations[entry.normalisation]
    fitted = loop.fit(net, entry, normalisation, recipe, train_videos, val_videos, out, progress, notify, strict=strict)
    if processes.is_first():
        entry = publish.publish(zoo, net, entry, recipe, train_videos, val_videos, out, fitted)
    metrics = fitted.metrics
    assert metrics.val_top1 is not None  # the last line ends an epoch
    # Runs that an earlier version finished do not say what was skipped.
    skipped, measured = metrics.skipped or 0, metrics.val_videos or len(held_out)
    return TrainingResult(
        model=entry.id,
        folder=str(out),
        weights_sha256=entry.sha256 or "",
        train_list=str(videos.list_path),
        train_list_sha256=videos.list_sha256,
        train_listed=len(videos),
        train_videos=len(videos) - skipped,
        val_list=str(held_out.list_path),
        val_list_sha256=held_out.list_sha256,
        val_listed=len(held_out),
        val_videos=measured,
        left_out=tuple(dict.fromkeys(videos.left_out + held_out.left_out)),
        epoch=metrics.epoch,
        lr=metrics.lr,
        loss=metrics.loss,
        top1=metrics.top1,
        val_top1=metrics.val_top1,
        skipped=skipped,
        seconds=metrics.seconds,
        skipped_videos=tuple(
            UnreadableVideo(which, name, why)
            for which in run.LISTS
            for name, why in (fitted.skipped[which] | fitted.lost[which]).items()
        ),
    )


def _start(
    zoo: Registry,
    recipe: Training,
    videos: Dataset,
    held_out: Dataset,
    progress: Progress,
    notify: Notify,
    shift: ShiftName | None,
    allow_shift_mismatch: bool,
) -> tuple[nn.Module, Entry]:
    """Return the network that `recipe` starts from, and the entry of the model that it becomes.

    The classifier is kept if the classes are the same, and new if not, or on an image network. Raises TrainingError if
    the lists differ in their classes, the model sees no RGB, or the recipe leaves the frames of a clip open.
    """
    entry = zoo.find(recipe.model)
    if recipe.name in zoo.aliases:
        raise TrainingError(f"{recipe.name} is an alias of {zoo.aliases[recipe.name]}; give the recipe another `name`")
    if entry.modality != "rgb":
        raise TrainingError(f"{entry.id} sees optical flow, which no video alone gives; choose an RGB model")
    if entry.mode == "online" and recipe.frames is None:
        raise TrainingError(f"{entry.id} is online and is trained on clips: add `frames` to the recipe, for instance 8")
    if recipe.schedule == "steps" and not recipe.steps:
        raise TrainingError("schedule `steps` needs `steps`, the epochs after which the rate falls; or take `cosine`")
    for warning in check(entry, recipe, videos, held_out):
        notify(f"warning: {warning}")
    classes = (
        len(videos.classes) if videos.classes else 1 + max(video.label for video in (*videos.videos, *held_out.videos))
    )
    # Each video of the list has one class.
    trained = msgspec.structs.replace(entry, id=recipe.name, classes=classes, multi_label=False, split=videos.split)
    if recipe.weights == "random":
        return models.build(trained, seed=recipe.seed), trained
    held = entry
    if recipe.weights != "published":
        net, path = models.build(trained, seed=recipe.seed), Path(recipe.weights)
        if loaded := pretrained.load_pretrained(net, trained, path, shift):
            for note in loaded.notes:
                notify(f"note: {path}: {note}")
            return net, trained
        held = msgspec.structs.replace(entry, classes=checkpoint.count_classes(net, entry, path) or entry.classes)
    network = load_network(
        held,
        None if recipe.weights == "published" else recipe.weights,
        shift=shift,
        allow_shift_mismatch=allow_shift_mismatch,
        progress=progress,
        notify=notify,
    )
    if held.classes != entry.classes or videos.classes is None or videos.classes != zoo.label_names(entry):
        models.replace_classifier(network.backbone, classes, recipe.seed)
    return network.backbone, trained


@contextmanager
def _key_named(recipe: Training) -> Iterator[None]:
    """Name the key `weights` of the recipe in a CheckpointError."""
    path = Path(recipe.weights)
    try:
        if recipe.weights not in ("published", "random") and not os.path.exists(checkpoint_file.find_file(path)):
            raise CheckpointError(f"{path}: does not exist; give `random`, `published` or the path of a checkpoint")
        yield
    except CheckpointError as error:
        if recipe.weights == "published":
            raise
        raise CheckpointError(f"`weights` of the recipe: {error}") from None
