"""What predictions amount to: accuracies beside the published figure, as a document and as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tsmzoo.errors import DataError
from tsmzoo.evaluation import metrics, predictions
from tsmzoo.evaluation.metrics import Tally
from tsmzoo.evaluation.predictions import Header, Prediction
from tsmzoo.evaluation.protocol import Changes
from tsmzoo.registry import Registry, recipes
from tsmzoo.registry.recipes import STRIDED
from tsmzoo.text import joined

#: Classes and confusions that the report names.
_NAMED = 5


@dataclass
class Scored:
    """What predictions amount to."""

    headers: list[Header]
    #: Factors of the members' scores.
    factors: tuple[float, ...]
    tally: Tally
    #: Of each member alone, where there are several.
    members: list[Tally]
    #: After so many percent of the videos.
    observed: dict[int, Tally]
    #: Name and reason.
    skipped: list[tuple[str, str]]
    #: The predictions that lack the first of them.
    skipping: Path | None = None


def score(paths: Sequence[Path], factors: Sequence[float] = ()) -> Scored:
    """Score saved predictions; those of several files are added, each times its factor (two streams, ensembles).

    What is added is what each protocol averages; logits of one and probabilities of another both become
    probabilities. Raises DataError where the files are not of the same videos and classes, or nothing could be
    decoded.
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
    found = Scored(headers, factors, Tally(), [Tally() for _ in paths], {level: Tally() for level in levels}, [])
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
        for level, tally in found.observed.items():
            early = [predictions.scores(each.observed[str(level)], how) for each, how in zip(row, plans, strict=True)]
            tally.add(np.tensordot(factors, early, 1), label)
    for path, header in zip(paths, headers, strict=True):
        if (there := len(found.tally.labels) + len(found.skipped)) != header.videos:
            raise DataError(f"{path}: holds {there} of {header.videos} videos; run it again to go on")
    if not found.tally.labels:
        raise DataError(f"none of the {len(found.skipped)} videos could be scored; {': '.join(found.skipped[0])}")
    return found


def _together(paths: Sequence[Path], headers: Sequence[Header]) -> Iterator[list[Prediction]]:
    """Yield the predictions of all files for one video after the other, in the order of the first file."""
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


def summary(zoos: Sequence[Registry], scored: Scored, videos_per_s: float | None) -> dict[str, Any]:
    """Return the document that `eval` prints, of members each in a registry of its own; accuracies in percent."""
    first, tally = scored.headers[0], scored.tally
    right, of = sum(place == 0 for place in tally.places), len(tally.places)
    ci = tuple(round(100 * end, 2) for end in metrics.interval(right, of))
    by_class = tally.by_class()

    def name(label: int) -> str:
        return first.classes[label] if first.classes else f"class {label}"

    missed = [label for label, (right, of) in by_class.items() if right < of]
    worst = sorted(missed, key=lambda label: (by_class[label][0] / by_class[label][1], label))[:_NAMED]
    alone = len(scored.headers) == 1
    return {
        "model": first.model if alone else _sum(scored),
        "format": first.format,
        "precision": first.precision,
        "runtime": first.runtime,
        "protocol": first.plan.name if alone else " + ".join(dict.fromkeys(h.plan.name for h in scored.headers)),
        "plan": msgspec.to_builtins(first.plan),
        "dataset": first.dataset,
        "videos": of,
        "skipped": len(scored.skipped),
        **_accuracies(tally),
        "ci95": list(ci),
        "published": _published(zoos[0], first, ci) if alone else [],
        "differences": _differences(zoos, scored),
        "observed": [
            {"percent": level, "top1": _percent(early.top(1))}
            for level, early in sorted((scored.observed | ({100: tally} if scored.observed else {})).items())
        ],
        "worst_classes": [
            {
                "class": name(label),
                "top1": _percent(by_class[label][0] / by_class[label][1]),
                "videos": by_class[label][1],
            }
            for label in worst
        ],
        "confusions": [
            {"class": name(label), "taken_for": name(answer), "videos": times}
            for (label, answer), times in tally.confusions().most_common(_NAMED)
        ],
        "members": []
        if alone
        else [
            {"model": header.model, "protocol": header.plan.name, "factor": factor, **_accuracies(member)}
            for header, factor, member in zip(scored.headers, scored.factors, scored.members, strict=True)
        ],
        "videos_per_s": None if videos_per_s is None else round(videos_per_s, 2),
        "weights": first.weights,
        "weights_sha256": first.weights_sha256,
        "artifact_sha256": first.artifact_sha256,
        "list_file": first.list_file,
        "split": first.split,
        "list_sha256": first.list_sha256,
        "decoder": first.decoder,
        "skipped_videos": [{"video": name, "why": why} for name, why in scored.skipped],
    }


def _accuracies(tally: Tally) -> dict[str, float]:
    return {
        "top1": _percent(tally.top(1)),
        "top5": _percent(tally.top(5)),
        "mean_class": _percent(tally.mean_class()),
    }


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _sum(scored: Scored) -> str:
    return " + ".join(
        header.model if factor == 1 else f"{factor:g} x {header.model}"
        for header, factor in zip(scored.headers, scored.factors, strict=True)
    )


def _published(zoo: Registry, header: Header, ci: tuple[float, ...]) -> list[dict[str, Any]]:
    """Return the published figures, those of the protocol that was followed with whether they lie in the interval."""
    entry = zoo.by_id.get(header.model)
    rows = []
    for result in entry.results if entry else ():
        same = result.protocol == header.plan.name  # which names what was changed, too
        inside = ci[0] <= result.top1 <= ci[1] if same and result.top1 is not None else None
        rows.append(msgspec.to_builtins(result) | {"same_protocol": same, "inside": inside})
    return rows


def _differences(zoos: Sequence[Registry], scored: Scored) -> list[str]:
    """Return what is known to differ from how a published figure was measured."""
    found = []
    for zoo, header in zip(zoos, scored.headers, strict=True):
        entry = zoo.by_id.get(header.model)
        if header.weights != "published":
            found.append(f"the weights of {header.model} are {header.weights}, not the published ones")
        found += warnings(zoo, header.model, header.weights, header.split)
        if header.plan.changes != Changes():
            found.append(f"the protocol was changed: {header.plan.name}")
        elif entry and all(result.protocol != header.plan.protocol for result in entry.results):
            found.append(f"no figure of {header.model} is published under {header.plan.protocol}")
        if note := recipes.protocol(header.plan.protocol).note:
            found.append(f"of {header.plan.protocol}: {note}")
        if not header.named:
            found.append(f"the list names no classes: its indices are taken in the order of {header.model}")
        if header.format != "torch":
            found.append(f"{header.model} ran as {header.format} {header.precision}, not in torch")
        if entry:
            found += entry.doubt
    if scored.skipped:
        found.append(f"{len(scored.skipped)} of {scored.headers[0].videos} listed videos were skipped")
    return list(dict.fromkeys(found))


def warnings(zoo: Registry, model: str, weights: str, split: int | None) -> list[str]:
    """Return what makes a figure on an official split too high: the videos of the others were trained on."""
    entry = zoo.by_id.get(model)
    if entry is None or entry.split in (None, split) or split is None or weights != "published":
        return []
    return [
        f"{model} was trained on split {entry.split} and is tested on split {split}, most of whose videos it was "
        f"trained on: the accuracy is too high; take --split {entry.split}"
    ]


def text(document: dict[str, Any]) -> str:
    """Return the same to read."""
    d = document
    what = f"{d['model']} ({d['format']} {d['precision']})" if not d["members"] else d["model"]
    speed = f", {d['videos_per_s']:.1f} videos/s" if d["videos_per_s"] else ""
    lines = [
        f"{what}: top-1 {d['top1']:.2f} % (95 % interval {d['ci95'][0]:.2f}…{d['ci95'][1]:.2f}), "
        f"top-5 {d['top5']:.2f} %, mean of classes {d['mean_class']:.2f} %",
        f"  {d['videos']} videos of {d['dataset']}, {d['skipped']} skipped{speed}",
        f"  list {d['list_file'] or 'of an older run'}{f', split {split}' if (split := d['split']) else ''}, "
        f"sha256 {d['list_sha256'][:12]}…",
        f"  {d['protocol']}: {_in_words(d['plan'])}",
        f"  {d['decoder']}; {d['runtime']}",
    ]
    lines += [
        f"  {m['factor']:g} x {m['model']}: top-1 {m['top1']:.2f} %, top-5 {m['top5']:.2f} %" for m in d["members"]
    ]
    for row in d["published"]:
        verdict = {True: "inside the interval", False: "OUTSIDE the interval", None: "not this protocol"}[row["inside"]]
        lines.append(f"  published: top-1 {row['top1']} under {row['protocol']}: {verdict}")
    lines += [f"  differs: {difference}" for difference in d["differences"]]
    if d["observed"]:
        curve = ", ".join(f"{row['percent']} % {row['top1']:.2f}" for row in d["observed"])
        lines.append(f"  top-1 after so much of each video: {curve}")
    if d["worst_classes"]:
        worst = ", ".join(f"{row['class']} {row['top1']:.0f} %" for row in d["worst_classes"])
        lines.append(f"  worst classes: {worst}")
    if d["confusions"]:
        taken = ", ".join(f"{row['class']} for {row['taken_for']} ({row['videos']})" for row in d["confusions"])
        lines.append(f"  most often taken: {taken}")
    lines += [f"  skipped {row['video']}: {row['why']}" for row in d["skipped_videos"][:_NAMED]]
    if len(d["skipped_videos"]) > _NAMED:
        lines.append(f"  … and {len(d['skipped_videos']) - _NAMED} more; --json names all")
    return joined(lines)


def _in_words(followed: dict[str, Any]) -> str:
    p = followed
    stride = f" every {p['stride']}" if p["sampling"] in STRIDED else ""
    most = " at most" if p["sampling"] == "whole" else ""
    crops = "1 crop" if p["crops"] == 1 else f"{p['crops']} crops"
    return (
        f"{p['clips']} clip{'s' if p['clips'] > 1 else ''} of {p['frames']} frames{most}, {p['sampling']}{stride}; "
        f"short side {p['short_side']}, {crops} of {p['size']}; mean of {p['average']}"
    )
