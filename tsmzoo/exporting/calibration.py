"""Calibrate and judge quantized files with real clips and streams, and with the states that these produce.

Random data would ruin it: the ranges of activations, and above all of states, follow from what moves in a video.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean

import msgspec
import numpy as np
from PIL import Image

from tsmzoo.artifact.arrays import feed
from tsmzoo.artifact.contract import Contract, Quality, Verification
from tsmzoo.callbacks import Notify, silent
from tsmzoo.data import motion, sampling, select, transforms
from tsmzoo.data.dataset import Video
from tsmzoo.data.layouts import folders
from tsmzoo.errors import DataError, ExportError, VideoError
from tsmzoo.inference.model import Model
from tsmzoo.registry import Entry
from tsmzoo.registry.recipes import QualityThreshold
from tsmzoo.typing import Array

#: Clips that set the ranges; of the bundled task, clips of another seed that are scored before and after.
CLIPS, SCORED = 56, 280
#: Frames of an online model's stream, and of the long one on which errors of states would add up.
STREAM, LONG = 16, 64
#: How many of these.
STREAMS = 8
#: Seeds of the bundled task that neither training (1) nor validation (2) has seen.
_SEED, _SCORED_SEED = 3, 4
#: Videos that cannot be read, and are named.
_NAMED = 3


@dataclass(frozen=True)
class CalibrationData:
    """Camera values 0…255, uint8."""

    #: N, T, C, H, W: sets the ranges.
    clips: Array
    #: The same of other videos, and their labels where these are known: for judging.
    scored: Array
    labels: tuple[int, ...] | None = None
    #: What it is, for the report.
    about: str = ""


def load_calibration(
    entry: Entry, folder: Path | None, template: str | None = None, notify: Notify = silent
) -> CalibrationData:
    """Return calibration data for `entry`: the videos of `folder`, or the bundled task if it was trained on that.

    A folder of images is a video; `template` is what they are called. Raises ExportError if there is neither, or
    fewer than two videos in `folder` can be read.
    """
    if folder is not None:
        return _of_folder(entry, folder, template, notify)
    if entry.dataset != "motion":
        raise ExportError(
            f"{entry.id} in fewer bits needs videos like those it will see: give --calibrate DIR, some dozens; "
            "random data would set ranges that no video has, and ruin it"
        )
    clips, _ = zip(*(_scene(entry, index, _SEED) for index in range(CLIPS)), strict=True)
    scored, labels = zip(*(_scene(entry, index, _SCORED_SEED) for index in range(SCORED)), strict=True)
    about = f"motion, {CLIPS} clips of seed {_SEED}; scored: {SCORED} of seed {_SCORED_SEED}"
    return CalibrationData(np.stack(clips), np.stack(scored), labels, about)


def _scene(entry: Entry, number: int, seed: int) -> tuple[Array, int]:
    """Return a clip of the bundled task, T, C, H, W, as evaluation would cut it from its file; odd ones backwards."""
    pictures, label = motion.scene(number // 2, seed)
    if number % 2:
        pictures, label = pictures[::-1], label + 1
    count = 8 if entry.mode == "online" else entry.frames
    chosen = [pictures[index] for index in sampling.centres(len(pictures), count)]
    return _prepared(entry, chosen), label


def _of_folder(entry: Entry, folder: Path, template: str | None, notify: Notify) -> CalibrationData:
    if entry.modality == "flow":
        raise ExportError(f"{entry.id} sees optical flow, which is not read to calibrate with; take fp16 or w8")
    paths = _videos(folder)
    if not paths:
        raise ExportError(f"{folder}: holds no videos and no folders of images; give a folder of some dozens")
    count = STREAM if entry.mode == "online" else entry.frames
    choose = partial(sampling.clip, count=count, stride=entry.stride)
    clips, unread = [], list[str]()
    taken = np.linspace(0, len(paths) - 1, min(len(paths), 2 * CLIPS)).astype(int)
    for index in taken:
        indices: list[int] = []

        def wanted(total: int, indices: list[int] = indices) -> list[int]:
            indices[:] = choose(total)
            return indices

        try:
            _, pictures = select.pick(Video(paths[index].name, paths[index], 0, images=template), wanted)
        except VideoError as error:
            unread.append(str(error))  # calibration needs many, not each
            continue
        clips.append(_prepared(entry, [pictures[number] for number in indices]))
    if len(clips) < 2:
        why = f" ({unread[0]})" if unread else ""
        raise ExportError(f"{folder}: fewer than two of its {len(paths)} videos can be read{why}; give others")
    for said in unread[:_NAMED]:
        notify(f"not calibrated with {said}")
    if unread:
        notify(f"{len(unread)} of the {len(taken)} videos that were opened cannot be read and were left out")
    about = f"{folder.name}, {len(clips)} of {len(paths)} videos, every other one for judging"
    return CalibrationData(np.stack(clips[::2]), np.stack(clips[1::2]), None, about)


def _videos(folder: Path) -> list[Path]:
    """Return the videos in `folder` at any depth, by name; or itself, if it is one and holds none.

    Raises ExportError if a folder cannot be read.
    """
    try:
        found = folders.videos(folder)
        names = sorted((*found.files, *found.images))
        return [folder / name for name in names] or ([folder] if folders.holds_images(folder) else [])
    except DataError as error:
        raise ExportError(str(error)) from None


def _prepared(entry: Entry, pictures: Sequence[Array]) -> Array:
    """Return pictures, H, W, 3, resized and cut as MIT does: T, C, H, W."""
    return np.stack(
        [transforms.prepared(Image.fromarray(picture), entry.short_side, entry.size) for picture in pictures]
    )


def feeds(model: Model, clips: Array) -> list[dict[str, Array]]:
    """Return the inputs of every step of `clips`, N, T, C, H, W: an online model's states are those it produced."""
    return [step for clip in clips for step in _steps(model, clip)]


def _steps(model: Model, clip: Array) -> Iterator[dict[str, Array]]:
    contract = model.contract
    name = contract.main_input.name
    if contract.mode == "offline":
        yield {name: feed(clip[None], contract)}
        return
    states = contract.initial_states()
    for pixels in clip:
        inputs = {name: feed(pixels[None], contract), **states}
        yield inputs
        outputs = model.runner.run(inputs)
        states = {pair.input: outputs[pair.output] for pair in contract.states}


def compare_quality(float_: Model, candidate: Model, given: CalibrationData) -> Quality:
    """Compare a file with the float one on real clips: first classes, scores if labels are known, a long stream."""
    drift: tuple[float, ...] = ()
    if candidate.contract.mode == "online":
        before, after = (model.frame_logits(given.scored).mean(1) for model in (float_, candidate))
        streams = _long_streams(given.scored)
        one, other = float_.frame_logits(streams), candidate.frame_logits(streams)
        drift = tuple(float(step) for step in _cosines(one, other).mean(0))
    else:
        before, after = (model.clip_logits(given.scored) for model in (float_, candidate))
    labels = given.labels
    return Quality(
        data=given.about,
        clips=len(before),
        agreement=float((before.argmax(1) == after.argmax(1)).mean()),
        cosine=float(np.mean(_cosines(before, after))),
        top1_float=_top1(before, labels),
        top1=_top1(after, labels),
        drift=drift,
    )


def apply_threshold(
    report: Verification, quality: Quality | None, contract: Contract, bar: QualityThreshold | None
) -> Verification:
    """Return `report` with what real clips showed, failed if that is below the target's threshold."""
    if quality is None or bar is None:
        return report
    report = msgspec.structs.replace(report, quality=quality)
    reason = None
    if quality.top1 is not None and quality.top1_float is not None:
        if quality.top1 < quality.top1_float - bar.lost:
            reason = f"top-1 falls from {quality.top1_float:.2f} to {quality.top1:.2f} % on {quality.data}"
    elif contract.weights != "random" and quality.agreement < bar.agreement:  # random logits are nearly ties
        reason = (
            f"{quality.agreement:.1%} of the first classes are those of the float file, less than {bar.agreement:.0%}"
        )
    if quality.cosine < bar.cosine:
        reason = f"its logits turn away from the float file's: cosine {quality.cosine:.3f}, below {bar.cosine}"
    elif quality.drift and (last := mean(quality.drift[-16:])) < bar.cosine:
        reason = f"errors of its states add up: cosine {last:.3f} at the end of a long stream, below {bar.cosine}"
    if reason is None or report.status == "failed":
        return report
    return msgspec.structs.replace(report, status="failed", reason=f"{reason}; calibrate with more videos, or take w8")


def _long_streams(clips: Array) -> Array:
    """Return some clips played to and fro, N, LONG, C, H, W: a stream without a cut, however short the clips are."""
    to_and_fro = np.concatenate([clips[:STREAMS], clips[:STREAMS, ::-1]], axis=1)
    return np.concatenate([to_and_fro] * -(-LONG // to_and_fro.shape[1]), axis=1)[:, :LONG]


def _top1(logits: Array, labels: tuple[int, ...] | None) -> float | None:
    return None if labels is None else float(100 * (logits.argmax(1) == np.array(labels)).mean())


def _cosines(one: Array, other: Array) -> Array:
    """Return the cosine of the angle between logits, of which the mean is taken: a constant changes no answer."""
    one, other = one - one.mean(-1, keepdims=True), other - other.mean(-1, keepdims=True)
    norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.asarray((one * other).sum(-1) / np.maximum(norms, 1e-12))
