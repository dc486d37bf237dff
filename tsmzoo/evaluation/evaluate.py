"""Evaluate models, files and saved predictions on videos: a run that can be resumed and shared among processes."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import av
import cv2
import msgspec
import PIL
import torch

from tsmzoo import __version__
from tsmzoo import registry as registries
from tsmzoo.artifact.contract import Contract
from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.checks import check_fields
from tsmzoo.data import layouts
from tsmzoo.data.dataset import Dataset
from tsmzoo.errors import ArtifactError, DataError, UsageError, ZooError
from tsmzoo.evaluation import html as pages
from tsmzoo.evaluation import predict, predictions, report, scoring
from tsmzoo.evaluation.predictions import Header, Store
from tsmzoo.evaluation.protocol import Changes, EvaluationPlan, choose
from tsmzoo.evaluation.report import EvaluationResult
from tsmzoo.formats import is_saved
from tsmzoo.inference.model import Model
from tsmzoo.inference.reference import ModelReference, listed, registry_of_file, resized
from tsmzoo.inference.torch_runner import torch_model
from tsmzoo.registry import Registry, with_classes
from tsmzoo.system import files, processes

#: Most worker processes: each holds torch and the model.
_MOST_WORKERS = 16
_UNCHANGED = Changes()
_OFFICIAL = {layout.of for layout in layouts.LAYOUTS.values() if layout.of}


@dataclass(frozen=True)
class Settings:
    """Options of an evaluation."""

    protocol: str | None = None
    changes: Changes = _UNCHANGED
    #: Percents of each video after which the answer is also scored.
    observe: tuple[Annotated[int, msgspec.Meta(ge=1, le=100)], ...] = ()
    #: Stop at the first video that cannot be decoded.
    strict: bool = False
    #: Processes that decode and score; None: one for each core.
    workers: Annotated[int, msgspec.Meta(ge=0, le=256)] | None = None
    #: Registries on top of tsmzoo's own.
    registries: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)


def evaluate(
    members: Sequence[Model | ModelReference],
    settings: Settings,
    *,
    data: Path | None,
    list_file: Path | None,
    layout: str | None,
    split: int,
    images: str | None,
    factors: Sequence[float],
    predictions: Path | None,
    html: Path | None,
    progress: Progress,
    notify: Notify,
) -> EvaluationResult:
    """Evaluate each of `members`, add their scores, and return the accuracy; saved predictions are scored as they are.

    Under `torchrun` each process scores its share of the videos; all return the same result but for their speed, and
    the first writes the page. Raises ZooError.
    """
    notify = notify if processes.is_first() else silent
    names = [member.contract.model if isinstance(member, Model) else member.model for member in members]
    live = [number for number, name in enumerate(names) if not is_saved(name)]
    given: dict[str, object] = {"data": data, "list_file": list_file, "layout": layout, "images": images}
    given |= {"protocol": settings.protocol} | msgspec.structs.asdict(settings.changes)
    given |= {"observe": settings.observe or None, "predictions": predictions}
    _check_given(members, [names[number] for number in live], factors, given)
    settings = replace(settings, observe=tuple(level for level in settings.observe if level != 100))  # scored anyway
    if html is not None:
        pages.check(html)
    zoos = [_registry_of(member, settings.registries, notify) for member in members]
    with ExitStack() as stack:
        places = _places(names, predictions, stack)
        speed, left_out = None, tuple[str, ...]()
        if live and data is not None:
            dataset = layouts.read(data, list_file, layout, split, images=images)
            left_out = dataset.left_out
            for line in layouts.notes(dataset):
                notify(line)
            for number in live:
                member, path = members[number], places[number]
                try:
                    speed = save_predictions(
                        zoos[number], member, dataset, settings, path, progress=progress, notify=notify
                    )
                except KeyboardInterrupt:
                    kept = f"run it again to go on from {path}" if predictions else "--predictions FILE keeps them"
                    notify(f"stopped before the last video; {kept}")
                    raise
        scored = scoring.score(places, factors)
        if settings.strict and scored.skipped:
            video, why = scored.skipped[0]
            raise ZooError(
                f"--strict: {video} was skipped before ({why}); mend it and delete {scored.skipping} to try again"
            )
        result = report.summary(zoos, scored, speed, left_out)
    if html is not None and processes.is_first():
        pages.write(html, result, scored)
    return result


def _check_given(
    members: Sequence[Model | ModelReference], live: Sequence[str], factors: Sequence[float], given: dict[str, object]
) -> None:
    """Raise UsageError or ZooError if what is given is not for these members, of which `live` are to be run."""
    references = [member for member in members if isinstance(member, ModelReference)]
    if not members:
        raise UsageError("there is nothing to evaluate; give a model, a file or saved predictions")
    if len(factors) not in (0, len(members)):
        raise UsageError(f"{len(members)} models need as many `factors`, not {len(factors)}")
    unused = [name for name, value in given.items() if value is not None]
    unused += dict.fromkeys(name for each in references for name in each.given)
    if not live and unused:
        raise UsageError(f"saved predictions are scored as they are; leave out {listed(unused)}")
    if live and given["data"] is None:
        raise UsageError(f"{live[0]} needs videos to be measured on; give the folder of the `data`")
    for reference in references:
        reference.check_file()


def _registry_of(member: Model | ModelReference, own: Sequence[Path], notify: Notify) -> Registry:
    """Return the registry of tsmzoo and the user's `own`, with the model of `member` and its classes."""
    if isinstance(member, ModelReference):
        zoo = registries.load(*own)
        if member.is_file:
            zoo = registry_of_file(zoo, Path(member.model), own, notify)
        return zoo if is_saved(member.model) else member.adapted(zoo)
    if member.path is None:
        return member.registry or registries.load(*own)
    if not own and member.registry_path is not None:
        own = [member.registry_path]
    contract = member.contract
    zoo = registry_of_file(registries.load(*own), member.path, own, notify, contract)
    return with_classes(zoo, contract.model, contract.classes, contract.labels)


def _places(models: Sequence[str], kept: Path | None, stack: ExitStack) -> list[Path]:
    """Return the file of predictions of each of `models`; saved predictions name their own.

    Those of several models are FILE.1.jsonl, FILE.2.jsonl …; without `kept` they last until `stack` is closed. Raises
    DataError if `kept` has another ending, or if several processes have no file to share.
    """
    live = [model for model in models if not is_saved(model)]
    if kept is not None and kept.suffix != ".jsonl":
        raise DataError(f"{kept}: must end in .jsonl; what the predictions are of is written to {kept.stem}.json")
    if kept is None and live:
        if processes.count() > 1:
            raise DataError("several processes need --predictions FILE.jsonl, in a folder that all of them see")
        try:
            kept = stack.enter_context(files.temporary()) / "predictions.jsonl"
        except OSError as error:
            place = error.filename or "a folder for temporary files"
            raise DataError(f"{place}: cannot be made ({error.strerror}); set TMPDIR, or give --predictions") from None
    found, number = [], 0
    for model in models:
        if is_saved(model):
            found.append(Path(model))
            continue
        assert kept is not None
        number += 1
        found.append(kept if len(live) == 1 else kept.with_name(f"{kept.stem}.{number}.jsonl"))
    return found


def save_predictions(
    zoo: Registry,
    member: ModelReference | Model,
    dataset: Dataset,
    settings: Settings,
    path: Path,
    *,
    progress: Progress = silent,
    notify: Notify = silent,
) -> float | None:
    """Write the predictions of `member` for all of `dataset` to `path`; resume the run that stopped there.

    Under `torchrun` each process scores its share, rank 0 merges all into `path`, and all wait for it. Returns the
    videos a second of this process and its workers, None if no video was left to score. Raises DataError if model and
    data do not fit, or if a video cannot be decoded and `strict` is set.
    """
    if isinstance(member, ModelReference) and not member.is_file:
        _check_origin(dataset, zoo.find(member.model).id, zoo.find(member.model).dataset)  # before a download
    model, followed = _opened(zoo, member, settings, progress, notify)
    contract = model.contract
    dataset = fitted(zoo, dataset, contract)
    for line in report.warnings(zoo, contract.model, contract.weights, dataset.split):
        notify(f"warning: {line}")
    if dataset.part == "train":
        notify(f"warning: {dataset.list_path} is a list for training; the accuracy on it is not that on other videos")
    rank, count = processes.rank(), processes.count()
    chunks = predict.chunked(dataset.videos, followed)
    header = _header(contract, followed, settings.observe, dataset, model.runner.runtime)
    # Worker processes cannot open a model that is open here alone.
    reference, settings = (
        (member, settings) if isinstance(member, ModelReference) else (None, replace(settings, workers=0))
    )
    job = predict.ScoringJob(reference, settings.registries, followed, settings.observe, settings.strict)
    with predictions.exclusive(path, rank), processes.gathered():
        store = Store(path, header, [[video.name for video in chunk] for chunk in chunks], rank, count)
        share = range(rank, len(chunks), count)
        mine = [chunks[number] for number in share if number not in store.done]
        videos, left = sum(len(chunks[number]) for number in share), sum(map(len, mine))
        begun, done = time.monotonic(), videos - left
        for predicted in predict.predict(job, model, mine, _workers(settings, mine)):
            store.append(predicted)
            done += len(predicted)
            progress(contract.model, done, videos)
        seconds = time.monotonic() - begun
        processes.gather(None)  # all have written theirs
        problem = None
        try:
            if processes.is_first():
                store.finish()
        except DataError as error:
            problem = error
        if (problem := processes.gather(problem)[0]) is not None:
            raise problem
    return left / seconds if left else None


def _opened(
    zoo: Registry, member: ModelReference | Model, settings: Settings, progress: Progress, notify: Notify
) -> tuple[Model, EvaluationPlan]:
    """Return the model, opened with one thread, and the plan for it."""
    if isinstance(member, Model) and member.network is not None:
        network = member.network
        published = zoo.by_id.get(network.entry.id, network.entry)
        # One that was loaded with another input keeps it, as a file does.
        chosen = (network.entry.frames, network.entry.size) != (published.frames, published.size)
        followed = choose(published, member.contract if chosen else None, settings.protocol, settings.changes)
        entry = resized(network.entry, followed.frames, followed.size)
        return torch_model(zoo, replace(network, entry=entry), threads=1), followed
    if isinstance(member, Model) or member.is_file:
        model = member if isinstance(member, Model) else member.open(zoo, threads=1, notify=notify)
        contract = model.contract
        entry = zoo.find(contract.model)
        if (entry.mode, entry.channels) != (contract.mode, len(contract.mean)):
            raise ArtifactError(
                f"{contract.artifact if isinstance(member, Model) else member.model}: is no file of {entry.id}, "
                "which its contract names; export it again"
            )
        return model, choose(entry, contract, settings.protocol, settings.changes)
    entry = zoo.find(member.model)
    followed = choose(entry, None, settings.protocol, settings.changes)
    model = predict.as_planned(member, followed).open(zoo, threads=1, progress=progress, notify=notify)
    return model, followed


def _workers(settings: Settings, mine: Sequence[Any]) -> int:
    if settings.workers is not None:
        return settings.workers if len(mine) > 1 else 0
    share = min(predict.cores() // processes.here(), _MOST_WORKERS)
    # A process takes seconds to start: a short list is scored in this one.
    return min(share, len(mine)) if share > 1 and len(mine) > 2 * share else 0


def fitted(zoo: Registry, dataset: Dataset, contract: Contract) -> Dataset:
    """Return `dataset` with its labels in the order of the model's logits.

    Classes are matched by name, whatever the spelling; of a list without names the indices are taken. Raises DataError
    if the model was trained on other classes.
    """
    _check_origin(dataset, contract.model, contract.dataset)
    if contract.model in zoo.by_id and zoo.by_id[contract.model].multi_label:
        raise DataError(
            f"{contract.model} answers several classes at once, which a list of one class a video cannot score"
        )
    used = sorted({video.label for video in dataset.videos})
    if dataset.classes is None or contract.labels is None:
        if dataset.classes is not None and len(dataset.classes) != contract.classes:
            raise DataError(f"the data have {len(dataset.classes)} classes, {contract.model} has {contract.classes}")
        if used[-1] >= contract.classes:
            raise DataError(f"the list has class {used[-1]}, but {contract.model} answers {contract.classes} classes")
        return dataset
    index_of = layouts.matcher(contract.labels)
    order = {label: index_of(dataset.classes[label]) for label in used}
    if lacking := [repr(dataset.classes[label]) for label in used if order[label] is None]:
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise DataError(
            f"the classes of the data are not those of {contract.model}: it has no {lacking[0]}{more}; "
            "evaluate it on the data it was trained for"
        )
    return replace(dataset, videos=tuple(replace(video, label=order[video.label] or 0) for video in dataset.videos))


def _check_origin(dataset: Dataset, model: str, trained_on: str) -> None:
    """Raise DataError if data and model are of two official data sets: Something V1 and V2 share their names."""
    of = dataset.of
    if of is not None and trained_on in _OFFICIAL and of != trained_on:
        raise DataError(
            f"the data are {of}, and {model} was trained on {trained_on}; choose a model of {of}: "
            f"tsmzoo list --dataset {of}"
        )


def _header(
    contract: Contract, followed: EvaluationPlan, observe: tuple[int, ...], dataset: Dataset, runtime: str
) -> Header:
    resizing = f"Pillow {PIL.__version__}" if followed.pipeline == "mit" else f"OpenCV {cv2.__version__}"
    return Header(
        model=contract.model,
        format=contract.format,
        precision=contract.precision,
        artifact_sha256=contract.sha256,
        mean=contract.mean,
        std=contract.std,
        weights=contract.weights,
        weights_sha256=contract.checkpoint.sha256 if contract.checkpoint else None,
        seed=contract.seed,
        plan=followed,
        observe=observe,
        list_sha256=dataset.list_sha256,
        videos_sha256=hashlib.sha256(
            "".join(f"{video.name} {video.label}{video.images or ''}\n" for video in dataset.videos).encode()
        ).hexdigest(),
        dataset=dataset.of or dataset.name,
        named=dataset.classes is not None,
        videos=len(dataset),
        classes=contract.labels,
        decoder=f"PyAV {av.__version__} (FFmpeg {av.ffmpeg_version_info}), {resizing}",
        runtime=f"{runtime}, {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        tsmzoo=__version__,
        list_file=dataset.list_name,
        split=dataset.split,
        reading=predictions.READING,
    )
