"""Compute accuracy from saved predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from tsmzoo.errors import DataError
from tsmzoo.evaluation import predictions
from tsmzoo.evaluation.metrics import Tally
from tsmzoo.evaluation.predictions import Header, VideoLogits


@dataclass
class Scored:
    """The answers of one model, or of several whose scores are added, counted."""

    headers: list[Header]
    #: The factor of each model's scores.
    factors: tuple[float, ...]
    tally: Tally
    #: The answers of each model alone.
    members: list[Tally]
    #: The answers after so many percent of each video.
    observed: dict[int, Tally]
    #: The means of the answers after each frame, where the answers are those after the last; of one model alone.
    averaged: Tally | None
    #: Name and reason.
    skipped: list[tuple[str, str]]
    #: The file of predictions that lacks the first skipped video.
    skipping: Path | None = None


def score(paths: Sequence[Path], factors: Sequence[float] = ()) -> Scored:
    """Score saved predictions; the scores of several files are added, each times its factor (two streams, ensembles).

    Each file adds what its protocol averages, logits or probabilities; if the protocols differ in that, all add
    probabilities. Raises DataError if the files are not of the same videos and classes, or if no video was decoded.
    """
    headers = [predictions.read_header(path) for path in paths]
    factors = tuple(factors) or (1.0,) * len(paths)
    if len(factors) != len(paths):
        raise DataError(f"{len(paths)} sets of predictions, but {len(factors)} weights of scores; give one each")
    for path, header in zip(paths[1:], headers[1:], strict=True):
        if header.classes != headers[0].classes:
            raise DataError(f"{path}: has other classes, or another order of them, than {paths[0]}")
    plans = [header.plan for header in headers]
    if len({followed.average for followed in plans}) > 1:
        plans = [msgspec.structs.replace(followed, average="probabilities") for followed in plans]
    levels = headers[0].observe if all(header.observe == headers[0].observe for header in headers) else ()
    averaged = Tally() if len(plans) == 1 and plans[0].answer == "last" else None
    observed = {level: Tally() for level in levels}
    found = Scored(headers, factors, Tally(), [Tally() for _ in paths], observed, averaged, [])
    for row in _together(paths, headers):
        if bad := next((each for each in zip(row, paths, strict=True) if each[0].skipped is not None), None):
            prediction, path = bad
            found.skipped.append((prediction.video, str(prediction.skipped)))
            found.skipping = found.skipping or path
            continue
        label = row[0].label
        for path, each in zip(paths, row, strict=True):
            if (width := len(each.logits[0])) != (first := len(row[0].logits[0])):
                raise DataError(f"{path}: has {width} logits of {each.video}, {paths[0]} has {first}; predict again")
        parts = [predictions.scores(each.logits, how) for each, how in zip(row, plans, strict=True)]
        found.tally.add(np.tensordot(factors, parts, 1), label)
        for member, part in zip(found.members, parts, strict=True):
            member.add(part, label)
        if averaged is not None:
            averaged.add(predictions.scores(row[0].averaged, plans[0]), label)
        for level, tally in found.observed.items():
            early = [predictions.scores(each.observed[str(level)], how) for each, how in zip(row, plans, strict=True)]
            tally.add(np.tensordot(factors, early, 1), label)
    for path, header in zip(paths, headers, strict=True):
        if (there := len(found.tally.labels) + len(found.skipped)) != header.videos:
            raise DataError(f"{path}: holds {there} of {header.videos} videos; run it again to go on")
    if not found.tally.labels:
        raise DataError(f"none of the {len(found.skipped)} videos could be scored; {': '.join(found.skipped[0])}")
    return found


def _together(paths: Sequence[Path], headers: Sequence[Header]) -> Iterator[list[VideoLogits]]:
    """Yield the predictions of all files for each video, in the order of the first file."""
    others = [predictions.Index(path, header) for path, header in zip(paths[1:], headers[1:], strict=True)]
    seen: set[str] = set()
    for first in predictions.read(paths[0], headers[0]):
        if first.video in seen:
            raise DataError(f"{paths[0]}: has {first.video} twice; predict again")
        seen.add(first.video)
        row = [first]
        for path, other in zip(paths[1:], others, strict=True):
            prediction = other.get(first.video)
            if prediction is None:
                raise DataError(f"{path}: lacks {first.video}, which {paths[0]} has; predict over one list")
            if prediction.label != first.label:
                raise DataError(f"{path}: says another class of {first.video} than {paths[0]}; predict over one list")
            row.append(prediction)
        yield row
    if any(len(other) != len(seen) for other in others):
        raise DataError(f"{paths[0]}: has {len(seen)} videos, others more; predict over one list")
