"""The result of an evaluation: accuracy beside the published figure, as a struct and as text."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tsmzoo.evaluation import metrics
from tsmzoo.evaluation.metrics import Tally
from tsmzoo.evaluation.predictions import Header
from tsmzoo.evaluation.protocol import Changes, EvaluationPlan
from tsmzoo.evaluation.scoring import Scored
from tsmzoo.registry import Registry, recipes
from tsmzoo.registry.recipes import STRIDED
from tsmzoo.text import joined

#: Classes, confusions and skipped videos that the report names.
_NAMED = 5


class PublishedAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """A published accuracy, in percent, compared with the measured one."""

    #: The protocol that gave it; None if the publisher does not say.
    protocol: str | None
    #: The page, table or log that has it, and the publisher's words for the protocol.
    source: str
    as_published: str
    top1: float | None
    top5: float | None
    #: Mean average precision, for multi-label datasets.
    map: float | None
    #: Frames of a clip when it was measured, if they are neither the protocol's nor the model's own.
    frames: int | None
    #: It was published under the protocol that was followed.
    same_protocol: bool
    #: It lies inside the 95 % interval; None if the protocol is another or no top-1 was published.
    inside: bool | None


class ObservedAccuracy(msgspec.Struct, frozen=True):
    """Accuracy after the first `percent` of each video."""

    percent: int
    top1: float


class AveragedAccuracy(msgspec.Struct, frozen=True):
    """Accuracy of the mean of a stream's answers after each frame."""

    top1: float
    top5: float


class ClassAccuracy(msgspec.Struct, frozen=True, rename={"name": "class"}):
    """Accuracy on the videos of one class."""

    name: str
    top1: float
    videos: int


class Confusion(msgspec.Struct, frozen=True, rename={"name": "class"}):
    """How many videos of a class were taken for another class."""

    name: str
    taken_for: str
    videos: int


class MemberAccuracy(msgspec.Struct, frozen=True):
    """Accuracy of one model among several whose scores are added."""

    model: str
    protocol: str
    factor: float
    top1: float
    top5: float
    mean_class: float


class SkippedVideo(msgspec.Struct, frozen=True):
    """A video that could not be decoded."""

    video: str
    why: str


class EvaluationResult(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy of a model over a data set under a protocol; `eval --json` is its serialization.

    Accuracies are percents, 0…100, rounded to two decimals. If the scores of several models were added, what
    describes one model (`format`, `plan`, `weights` …) describes the first.
    """

    model: str
    format: str
    precision: str
    #: The library that ran the model, and the processor.
    runtime: str
    protocol: str
    plan: EvaluationPlan
    dataset: str
    #: Videos that were scored, and that could not be decoded.
    videos: int
    skipped: int
    top1: float
    top5: float
    #: Mean of the accuracies of the classes.
    mean_class: float
    #: Wilson's 95 % interval of top-1.
    ci95: tuple[float, float]
    published: tuple[PublishedAccuracy, ...]
    #: What is known to differ from how a published figure was measured.
    differences: tuple[str, ...]
    #: Accuracy after parts of each video, if it was asked for.
    observed: tuple[ObservedAccuracy, ...]
    #: Of an online model whose accuracy is that after the last frame: that of the mean over all frames; else None.
    averaged: AveragedAccuracy | None
    #: The five classes and confusions that cost most.
    worst_classes: tuple[ClassAccuracy, ...]
    confusions: tuple[Confusion, ...]
    #: Each of the models whose scores were added; none for one model.
    members: tuple[MemberAccuracy, ...]
    #: Speed of this run; None if all predictions were there.
    videos_per_s: float | None
    weights: str
    weights_sha256: str | None
    artifact_sha256: str | None
    list_file: str | None
    split: int | None
    list_sha256: str
    #: The libraries that decoded and resized the videos.
    decoder: str
    skipped_videos: tuple[SkippedVideo, ...]
    #: What of the data set was not listed, in words.
    left_out: tuple[str, ...] = ()


def summary(
    zoos: Sequence[Registry], scored: Scored, videos_per_s: float | None = None, left_out: Sequence[str] = ()
) -> EvaluationResult:
    """Return the result of an evaluation; `zoos` are the registries of the models, one for each."""
    first, tally = scored.headers[0], scored.tally
    right, of = sum(place == 0 for place in tally.places), len(tally.places)
    low, high = (_percent(end) for end in metrics.interval(right, of))
    by_class = tally.by_class()

    def name(label: int) -> str:
        return first.classes[label] if first.classes else f"class {label}"

    missed = [label for label, (right, of) in by_class.items() if right < of]
    worst = sorted(missed, key=lambda label: (by_class[label][0] / by_class[label][1], label))[:_NAMED]
    alone = len(scored.headers) == 1
    observed = sorted((scored.observed | ({100: tally} if scored.observed else {})).items())
    members = zip(scored.headers, scored.factors, scored.members, strict=True)
    return EvaluationResult(
        model=first.model if alone else _sum(scored),
        format=first.format,
        precision=first.precision,
        runtime=first.runtime,
        protocol=first.plan.name if alone else " + ".join(dict.fromkeys(h.plan.name for h in scored.headers)),
        plan=first.plan,
        dataset=first.dataset,
        videos=of,
        skipped=len(scored.skipped),
        **_accuracies(tally),
        ci95=(low, high),
        published=_published(zoos[0], first, low, high) if alone else (),
        differences=_differences(zoos, scored),
        observed=tuple(ObservedAccuracy(level, _percent(early.top(1))) for level, early in observed),
        averaged=None
        if scored.averaged is None
        else AveragedAccuracy(_percent(scored.averaged.top(1)), _percent(scored.averaged.top(5))),
        worst_classes=tuple(
            ClassAccuracy(name(label), _percent(by_class[label][0] / by_class[label][1]), by_class[label][1])
            for label in worst
        ),
        confusions=tuple(
            Confusion(name(label), name(answer), times)
            for (label, answer), times in tally.confusions().most_common(_NAMED)
        ),
        members=()
        if alone
        else tuple(
            MemberAccuracy(header.model, header.plan.name, factor, **_accuracies(member))
            for header, factor, member in members
        ),
        videos_per_s=None if videos_per_s is None else round(videos_per_s, 2),
        weights=first.weights,
        weights_sha256=first.weights_sha256,
        artifact_sha256=first.artifact_sha256,
        list_file=first.list_file,
        split=first.split,
        list_sha256=first.list_sha256,
        decoder=first.decoder,
        skipped_videos=tuple(SkippedVideo(name, why) for name, why in scored.skipped),
        left_out=tuple(left_out),
    )


def _accuracies(tally: Tally) -> dict[str, float]:
    return {"top1": _percent(tally.top(1)), "top5": _percent(tally.top(5)), "mean_class": _percent(tally.mean_class())}


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _sum(scored: Scored) -> str:
    return " + ".join(
        header.model if factor == 1 else f"{factor:g} x {header.model}"
        for header, factor in zip(scored.headers, scored.factors, strict=True)
    )


def _published(zoo: Registry, header: Header, low: float, high: float) -> tuple[PublishedAccuracy, ...]:
    """Return the published figures of a model, each with whether it lies in the interval from `low` to `high`."""
    entry = zoo.by_id.get(header.model)
    rows = []
    for result in entry.results if entry else ():
        same = result.protocol == header.plan.name  # which names what was changed, too
        inside = low <= result.top1 <= high if same and result.top1 is not None else None
        rows.append(PublishedAccuracy(**msgspec.structs.asdict(result), same_protocol=same, inside=inside))
    return tuple(rows)


def _differences(zoos: Sequence[Registry], scored: Scored) -> tuple[str, ...]:
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
    return tuple(dict.fromkeys(found))


def warnings(zoo: Registry, model: str, weights: str, split: int | None) -> list[str]:
    """Return a warning if a model is tested on another official split than its own: it was trained on those videos."""
    entry = zoo.by_id.get(model)
    if entry is None or entry.split in (None, split) or split is None or weights != "published":
        return []
    return [
        f"{model} was trained on split {entry.split} and is tested on split {split}, most of whose videos it was "
        f"trained on: the accuracy is too high; take --split {entry.split}"
    ]


def text(result: EvaluationResult) -> str:
    """Return the result as lines to read."""
    r = result
    what = f"{r.model} ({r.format} {r.precision})" if not r.members else r.model
    speed = f", {r.videos_per_s:.1f} videos/s" if r.videos_per_s else ""
    lines = [
        f"{what}: top-1 {r.top1:.2f} % (95 % interval {r.ci95[0]:.2f}…{r.ci95[1]:.2f}), "
        f"top-5 {r.top5:.2f} %, mean of classes {r.mean_class:.2f} %",
        f"  {r.videos} videos of {r.dataset}, {r.skipped} skipped{speed}",
        f"  list {r.list_file or 'of an older run'}{f', split {r.split}' if r.split else ''}, "
        f"sha256 {r.list_sha256[:12]}…",
        f"  {r.protocol}: {_in_words(r.plan)}",
        f"  {r.decoder}; {r.runtime}",
    ]
    lines += [f"  {m.factor:g} x {m.model}: top-1 {m.top1:.2f} %, top-5 {m.top5:.2f} %" for m in r.members]
    for row in r.published:
        verdict = {True: "inside the interval", False: "OUTSIDE the interval", None: "not this protocol"}[row.inside]
        lines.append(f"  published: top-1 {row.top1} under {row.protocol}: {verdict}")
    lines += [f"  differs: {difference}" for difference in r.differences]
    if r.averaged:
        lines.append(
            f"  mean of the answers after each frame: top-1 {r.averaged.top1:.2f} %, top-5 {r.averaged.top5:.2f} %"
        )
    if r.observed:
        curve = ", ".join(f"{row.percent} % {row.top1:.2f}" for row in r.observed)
        lines.append(f"  top-1 after so much of each video: {curve}")
    if r.worst_classes:
        worst = ", ".join(f"{row.name} {row.top1:.0f} %" for row in r.worst_classes)
        lines.append(f"  worst classes: {worst}")
    if r.confusions:
        taken = ", ".join(f"{row.name} for {row.taken_for} ({row.videos})" for row in r.confusions)
        lines.append(f"  most often taken: {taken}")
    lines += [f"  skipped {row.video}: {row.why}" for row in r.skipped_videos[:_NAMED]]
    if len(r.skipped_videos) > _NAMED:
        lines.append(f"  … and {len(r.skipped_videos) - _NAMED} more; --json names all")
    return joined(lines)


def _in_words(p: EvaluationPlan) -> str:
    stride = f" every {p.stride}" if p.sampling in STRIDED else ""
    most = " at most" if p.sampling == "whole" else ""
    crops = "1 crop" if p.crops == 1 else f"{p.crops} crops"
    last = "after the last frame; " if p.answer == "last" else ""
    return (
        f"{p.clips} clip{'s' if p.clips > 1 else ''} of {p.frames} frames{most}, {p.sampling}{stride}; "
        f"short side {p.short_side}, {crops} of {p.size}; {last}mean of {p.average}"
    )
