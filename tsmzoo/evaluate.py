"""Accuracy of a model or a file over labelled videos."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np

from tsmzoo import sampling, video
from tsmzoo.artifact import Array, Contract
from tsmzoo.converter import Runner
from tsmzoo.dataset import Dataset
from tsmzoo.errors import DataError, VideoError
from tsmzoo.registry import Registry
from tsmzoo.runner import run_clip, stream

#: Frames of a clip for an online model, which itself takes them one by one.
ONLINE_FRAMES = 8
#: Skipped videos that the text names.
_NAMED = 5


@dataclass
class Scores:
    """The logits of each video that could be decoded, in the order of the list, and who was skipped."""

    labels: list[int] = field(default_factory=list)
    logits: list[Array] = field(default_factory=list)
    #: Path and reason.
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    seconds: float = 0.0


def check_fit(zoo: Registry, dataset: Dataset, contract: Contract) -> None:
    """Raise DataError where the classes of `dataset` are not the model's, or it cannot be scored on videos of one."""
    if contract.channel_order == "flow":
        raise DataError(f"{contract.model} sees optical flow, which no video alone gives; choose an RGB model")
    if contract.model in zoo.by_id and zoo.by_id[contract.model].multi_label:
        raise DataError(
            f"{contract.model} answers several classes at once, which a list of one class a video cannot score"
        )
    if dataset.classes is not None and contract.labels is not None and dataset.classes != contract.labels:
        ours, theirs = next(
            (pair for pair in zip(contract.labels, dataset.classes, strict=False) if pair[0] != pair[1]),
            (f"{len(contract.labels)} classes", f"{len(dataset.classes)}"),
        )
        raise DataError(
            f"the classes of the data are not those of {contract.model}: {theirs!r} where the model has {ours!r}; "
            "evaluate it on the data it was trained for"
        )
    if (most := max(dataset.labels)) >= contract.classes:
        raise DataError(f"the list has class {most}, but {contract.model} answers {contract.classes} classes")


def score(
    runner: Runner, contract: Contract, dataset: Dataset, frames: int, progress: Callable[[int, int], None]
) -> Scores:
    """Run a clip of `frames` frames of each video, its centre square, through the model.

    An offline model sees the clip whole, an online one frame by frame from zero states, and its logits are
    averaged. A video that cannot be decoded is skipped and named. Raises DataError where none can.
    """
    scores, begun = Scores(), time.monotonic()
    choose = partial(sampling.clip, count=frames, stride=contract.stride)
    for done, (path, label) in enumerate(zip(dataset.videos, dataset.labels, strict=True)):
        progress(done, len(dataset))
        try:
            images = [image for _, image in video.pick(path, choose)]
        except VideoError as error:
            scores.skipped.append((path, str(error)))
            continue
        clip = np.stack([video.prepare(image, contract.resize, contract.size) for image in images])
        scores.logits.append(_logits(runner, contract, clip))
        scores.labels.append(label)
    scores.seconds = time.monotonic() - begun
    if not scores.labels:
        raise DataError(f"none of the {len(dataset)} videos could be decoded: {scores.skipped[0][1]}")
    return scores


def _logits(runner: Runner, contract: Contract, clip: Array) -> Array:
    """Return the logits, classes, of a clip, T, C, H, W."""
    if contract.mode == "offline":
        return np.asarray(run_clip(runner, contract, clip[None])["logits"][0])
    answers: Iterator[Array] = (outputs["logits"][0] for outputs in stream(runner, contract, (f[None] for f in clip)))
    return np.asarray(np.mean(list(answers), axis=0))


def summary(scores: Scores, dataset: Dataset, contract: Contract, frames: int) -> dict[str, Any]:
    """Return the document that `eval` prints; accuracies in percent."""
    labels, logits = np.asarray(scores.labels), np.stack(scores.logits)
    order = logits.argsort(1)[:, ::-1]
    right = order[:, 0] == labels
    low, high = interval(int(right.sum()), len(right))
    return {
        "model": contract.model,
        "format": contract.format,
        "precision": contract.precision,
        "protocol": f"{'dense' if contract.stride else 'uniform'}{frames}_center_1clip",
        "dataset": dataset.name,
        "trained_on": contract.dataset,
        "videos": len(labels),
        "skipped": len(scores.skipped),
        "top1": round(100 * float(right.mean()), 2),
        "top5": round(100 * float((order[:, :5] == labels[:, None]).any(1).mean()), 2),
        "mean_class": round(100 * float(np.mean([right[labels == label].mean() for label in np.unique(labels)])), 2),
        "ci95": [round(100 * low, 2), round(100 * high, 2)],
        "videos_per_s": round(len(labels) / scores.seconds, 1),
        "weights": contract.weights,
        "weights_sha256": contract.checkpoint.sha256 if contract.checkpoint else None,
        "list_sha256": dataset.list_sha256,
        "decoder": f"PyAV {av.__version__}, Pillow bilinear, anti-aliased",
        "skipped_videos": [{"video": str(path), "why": why} for path, why in scores.skipped],
    }


def interval(right: int, of: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    z, share = 1.959964, right / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def published(zoo: Registry, contract: Contract) -> list[dict[str, Any]]:
    """Return the figures that the registry has for the model, each under its own protocol."""
    entry = zoo.by_id.get(contract.model)
    return [msgspec.to_builtins(result) for result in entry.results] if entry else []


def text(document: dict[str, Any]) -> str:
    """Return the same to read."""
    d = document
    skipped = f", {d['skipped']} skipped" if d["skipped"] else ""
    lines = [
        f"{d['model']} ({d['format']} {d['precision']}): top-1 {d['top1']:.2f} % "
        f"(95 % interval {d['ci95'][0]:.2f}…{d['ci95'][1]:.2f}), top-5 {d['top5']:.2f} %, "
        f"mean of classes {d['mean_class']:.2f} %",
        f"  {d['videos']} videos{skipped}, {d['protocol']}, {d['videos_per_s']:.1f} videos/s; {d['decoder']}",
    ]
    lines += [f"  skipped {row['why']}" for row in d["skipped_videos"][:_NAMED]]
    if len(d["skipped_videos"]) > _NAMED:
        lines.append(f"  … and {len(d['skipped_videos']) - _NAMED} more; --json names all")
    lines += [f"  published: top-1 {row['top1']} under {row['protocol']}" for row in d["published"]]
    return "\n".join(lines)
