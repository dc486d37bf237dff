"""Evaluate what the user names: models, files and saved predictions, on their data, as one result and one page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tsmzoo import registry as registries
from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.data import layouts
from tsmzoo.errors import DataError, UsageError, ZooError
from tsmzoo.evaluation import html as pages
from tsmzoo.evaluation import report, scoring
from tsmzoo.evaluation.evaluate import Settings, evaluate
from tsmzoo.evaluation.report import EvaluationResult
from tsmzoo.formats import is_saved
from tsmzoo.inference.model import Model
from tsmzoo.inference.reference import ModelReference, listed, registry_of_file
from tsmzoo.registry import Registry, with_classes
from tsmzoo.system import files, processes


def evaluate_members(
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
    if not members:
        raise UsageError("there is nothing to evaluate; give a model, a file or saved predictions")
    if len(factors) not in (0, len(members)):
        raise UsageError(f"{len(members)} models need as many `factors`, not {len(factors)}")
    given: dict[str, object] = {
        "data": data,
        "list_file": list_file,
        "layout": layout,
        "images": images,
        "protocol": settings.protocol,
    }
    given |= {name: getattr(settings.changes, name) for name in ("clips", "crops", "frames")}
    given |= {"observe": settings.observe or None, "predictions": predictions}
    unused = [name for name, value in given.items() if value is not None]
    unused += dict.fromkeys(name for each in members if isinstance(each, ModelReference) for name in each.given)
    if not live and unused:
        raise UsageError(f"saved predictions are scored as they are; leave out {listed(unused)}")
    if live and data is None:
        raise UsageError(f"{names[live[0]]} needs videos to be measured on; give the folder of the `data`")
    settings = replace(settings, observe=tuple(level for level in settings.observe if level != 100))  # scored anyway
    for member in members:
        if isinstance(member, ModelReference):
            member.check_file()
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
                try:
                    speed = evaluate(
                        zoos[number],
                        members[number],
                        dataset,
                        settings,
                        places[number],
                        progress=progress,
                        notify=notify,
                    )
                except KeyboardInterrupt:
                    kept = (
                        f"run it again to go on from {places[number]}"
                        if predictions
                        else "--predictions FILE keeps them"
                    )
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
