"""Run a model over a list of videos, in chunks that one process scores with one thread.

The answers to a chunk depend on the chunk alone, not on the process or the time: a run that was stopped and resumed,
and one of many processes, give the same numbers to the digit.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tsmzoo import registry
from tsmzoo.data import sampling, select, transforms
from tsmzoo.data.dataset import Video
from tsmzoo.errors import DataError, VideoError
from tsmzoo.evaluation.predictions import VideoLogits, rows
from tsmzoo.evaluation.protocol import EvaluationPlan
from tsmzoo.inference.model import Model
from tsmzoo.inference.reference import ModelReference
from tsmzoo.system import processes
from tsmzoo.typing import Array

#: Views of a chunk, about: enough to share the cost of a call, few enough to fit any memory.
_VIEWS = 8
#: Frames that a network sees at once; a single clip may be longer.
_FRAMES = 128


@dataclass(frozen=True)
class ScoringJob:
    """All that a process needs to score videos."""

    #: None for one that only this process has.
    member: ModelReference | None
    #: Registries on top of tsmzoo's own.
    registries: tuple[Path, ...]
    plan: EvaluationPlan
    #: Percents of each video after which the answer is also scored.
    observe: tuple[int, ...] = ()
    #: Stop at a video that cannot be decoded.
    strict: bool = False


def as_planned(member: ModelReference, plan: EvaluationPlan) -> ModelReference:
    """Return `member` at the frames and size of `plan`; a file has its own."""
    return member if member.is_file else replace(member, frames=plan.frames, size=plan.size)


def chunked(videos: tuple[Video, ...], plan: EvaluationPlan) -> list[tuple[Video, ...]]:
    """Split the list into chunks, each of which is scored at once."""
    size = max(1, _at_once(plan.frames) // plan.views)
    return [videos[start : start + size] for start in range(0, len(videos), size)]


def predict(
    job: ScoringJob, model: Model, chunks: list[tuple[Video, ...]], workers: int
) -> Iterator[list[VideoLogits]]:
    """Yield the predictions of each chunk, in order, computed in `workers` processes.

    With 0 they are computed in this one, by `model`: the job's member, opened. Raises DataError where a process dies,
    or with `strict` where a video cannot be decoded.
    """
    if not workers or not chunks:
        score = _Scorer(job, model)
        for chunk in chunks:
            yield score(chunk)
        return
    with ProcessPoolExecutor(min(workers, len(chunks)), processes.Spawn(), _start, (job,)) as pool:
        ahead: deque[Future[list[VideoLogits]]] = deque()
        try:
            for chunk in chunks:
                ahead.append(pool.submit(_score, chunk))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BrokenProcessPool:
            raise DataError(
                "a process that decodes and scores died, perhaps for want of memory; run it again to go on "
                "(with --predictions, from where it was), or with fewer --workers"
            ) from None
        except BaseException:
            for child in multiprocessing.active_children():  # they hold nothing to save
                child.terminate()
            raise


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_scorer: _Scorer


def _start(job: ScoringJob) -> None:
    global _scorer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
    processes.follow_parent()
    zoo = registry.load(*job.registries)
    assert job.member is not None
    _scorer = _Scorer(job, as_planned(job.member, job.plan).open(zoo, threads=1))


def _score(chunk: tuple[Video, ...]) -> list[VideoLogits]:
    return _scorer(chunk)


class _Scorer:
    """A model, opened, and the plan it follows."""

    def __init__(self, job: ScoringJob, model: Model) -> None:
        self._job, self._model = job, model

    def __call__(self, chunk: tuple[Video, ...]) -> list[VideoLogits]:
        """Return the prediction of each video; that of a video that cannot be decoded says why."""
        clips: list[Views | str] = []
        for video in chunk:
            try:
                clips.append(load_views(video, self._job.plan, () if self._online else self._job.observe))
            except VideoError as error:
                if self._job.strict:
                    raise DataError(f"--strict: {error}") from None
                # Without the path: the file is the same wherever the data lie.
                clips.append(str(error).removeprefix(f"{video.path}: "))
        seen = [clip for clip in clips if not isinstance(clip, str)]
        answers = iter(self._answers(seen))
        return [
            VideoLogits(video.name, video.label, [], skipped=clip)
            if isinstance(clip, str)
            else VideoLogits(video.name, video.label, *next(answers))
            for video, clip in zip(chunk, clips, strict=True)
        ]

    @property
    def _online(self) -> bool:
        return self._model.contract.mode == "online"

    def _answers(
        self, seen: list[Views]
    ) -> list[tuple[list[list[float]], dict[str, list[list[float]]], list[list[float]]]]:
        """Return the logits of the views of each video, those after each observed part of it, and averaged ones."""
        if not seen:
            return []
        levels = self._job.observe
        whole = _run(self._model, [video.whole for video in seen])
        if self._online:
            last = self._job.plan.answer == "last"
            return [
                (
                    rows(answer[:, -1] if last else answer.mean(1)),
                    {str(level): rows(_so_far(answer, video, level, last=last)) for level in levels},
                    rows(answer.mean(1)) if last else [],
                )
                for answer, video in zip(whole, seen, strict=True)
            ]
        parts = {level: _run(self._model, [video.parts[level] for video in seen]) for level in levels}
        return [
            (rows(answer), {str(level): rows(parts[level][index]) for level in levels}, [])
            for index, answer in enumerate(whole)
        ]


def _run(model: Model, videos: list[Array]) -> list[Array]:
    """Return the logits of the views of each video: V, classes; for an online model after each frame: V, T, classes."""
    answer = model.frame_logits if model.contract.mode == "online" else model.clip_logits
    if len({views_.shape[1] for views_ in videos}) > 1:  # videos that are seen whole
        return [logits for views_ in videos for logits in _run(model, [views_])]
    clips = np.concatenate(videos)
    step = _at_once(clips.shape[1])
    logits = np.concatenate([answer(clips[start : start + step]) for start in range(0, len(clips), step)])
    return np.split(model.check_finite(logits), np.cumsum([len(views_) for views_ in videos])[:-1])


def _at_once(frames: int) -> int:
    """Return how many clips of `frames` frames a network sees at once."""
    return max(1, min(_VIEWS, _FRAMES // frames))


def _so_far(answer: Array, video: Views, level: int, *, last: bool) -> Array:
    """Return the mean, or the last, of an online model's logits over the frames in the first `level` percent."""
    end = _observed(video.total, level)
    # Up to the first frame beyond: where a clip goes on from the start, later ones were seen before.
    frames = [next((step for step, index in enumerate(clip) if index >= end), len(clip)) or 1 for clip in video.clips]
    crops = len(answer) // len(frames)  # views stand crop by crop, and of each crop clip by clip
    seen = zip(answer, frames * crops, strict=True)
    return np.stack([view[count - 1] if last else view[:count].mean(0) for view, count in seen])


@dataclass(frozen=True)
class Views:
    """The views of a video: V, T, C, H, W, uint8; crop by crop, and of each crop clip by clip."""

    #: Frames in the video, and the indices of those in each clip.
    total: int
    clips: list[list[int]]
    whole: Array
    #: Views of the first so many percent of the video.
    parts: dict[int, Array]


def load_views(video: Video, plan: EvaluationPlan, observe: tuple[int, ...] = ()) -> Views:
    """Decode the frames of a video that `plan` needs, resize and crop them. Raises VideoError."""
    rule = sampling.RULES[plan.sampling]
    clips: dict[int, list[list[list[int]]]] = {}

    def choose(total: int) -> set[int]:
        for level in (100, *observe):
            part = _observed(total, level)
            taken = rule(part, plan.wanted)
            clips[level] = [[sampling.stacked(index, part, plan.stack) for index in clip] for clip in taken]
        return {index for taken in clips.values() for clip in taken for stack in clip for index in stack}

    total, pictures = select.pick(video, choose, flow=plan.flow, threads=1)
    crops = {
        index: transforms.crop(
            transforms.resized(picture, plan.short_side, plan.pipeline), plan.size, plan.crops, plan.pipeline
        )
        for index, picture in pictures.items()
    }
    views_ = {level: _views(taken, crops, plan.crops) for level, taken in clips.items()}
    return Views(total, [[stack[0] for stack in clip] for clip in clips[100]], views_.pop(100), views_)


def _views(clips: list[list[list[int]]], crops: dict[int, list[Array]], count: int) -> Array:
    inputs = [
        [np.concatenate([crops[index][crop] for index in stack], axis=-1) for stack in clip]
        for crop in range(count)
        for clip in clips
    ]
    return np.ascontiguousarray(np.asarray(inputs).transpose(0, 1, 4, 2, 3))


def _observed(total: int, level: int) -> int:
    return max(1, math.ceil(total * level / 100))
