"""Run a model over a video as its frames go by."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Protocol, cast

import numpy as np

from tsmzoo.artifact.contract import Contract
from tsmzoo.artifact.converter import Runner, StatefulRunner
from tsmzoo.data import sampling, transforms
from tsmzoo.data.seek import SelectedFrames
from tsmzoo.inference.model import Model, States
from tsmzoo.inference.smoothing import Decision, Smoothing, decide
from tsmzoo.live.answer import Answer
from tsmzoo.live.pacing import FramePacer
from tsmzoo.live.scenes import CUT, difference, thumbnail
from tsmzoo.live.source import Frame
from tsmzoo.typing import Array

#: Seconds that a sliding clip spans for a model that was trained on whole videos: the length of Something-Something's.
SPAN = 4.0
#: Frames a second of the videos that dense strides were chosen on; used if the model does not say.
_FILMED = 30.0
#: Answers over which the speed is measured.
_SPEED = 12


class _Timed:
    """A runner that measures how long its last call took, in milliseconds."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self.runtime, self.ms = runner, runner.runtime, 0.0

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        start = time.perf_counter()
        outputs = self._runner.run(inputs)
        self.ms = 1000 * (time.perf_counter() - start)
        return outputs

    def reset(self) -> None:
        cast("StatefulRunner", self._runner).reset()


# --- the whole of a video --------------------------------------------------------------------------------------------


def whole(model: Model, pick: Callable[[Callable[[int], list[int]]], SelectedFrames], smoothing: Smoothing) -> Answer:
    """Return the answer of an offline model for a whole video, whose frames `pick` gives by index.

    It sees T frames as it was trained to, spread over the video or dense in its middle. Raises VideoError, or DataError
    if a logit is no finite number.
    """
    contract, indices = model.contract, list[int]()
    timed = _Timed(model.runner)

    def choose(total: int) -> list[int]:
        indices[:] = sampling.clip(total, contract.frames, contract.stride)
        return indices

    chosen = pick(choose)
    begun = time.perf_counter()
    clip = np.stack([transforms.prepared(chosen.images[index], contract.resize, contract.size) for index in indices])
    logits = replace(model, runner=timed).run_clips(clip[None])["logits"][0]
    decision = decide(smoothing, model.check_finite(logits), activation=contract.activation)
    return _answer(contract, decision, chosen.times[max(indices)], timed.ms, begun)


def _answer(contract: Contract, decision: Decision, seconds: float, ms: float, begun: float) -> Answer:
    order = decision.odds.argsort()[::-1]
    return Answer(
        time=seconds,
        shown=decision.shown,
        probability=None if decision.shown is None else float(decision.odds[decision.shown]),
        top=[(int(index), float(decision.odds[index])) for index in order[:5]],
        names=contract.class_names,
        ms=ms,
        latency_ms=1000 * (time.perf_counter() - begun),
    )


# --- streams ---------------------------------------------------------------------------------------------------------


class _Stream(Protocol):
    """A stream that a model is fed, a frame at a time."""

    def feed(self, pixels: Array, seconds: float) -> Array | None:
        """Return the logits, or None if no answer is due yet."""

    def rest(self) -> Array | None:
        """Return the logits of a stream that ended before there were any, or None."""

    def reset(self) -> None:
        """Forget all frames."""


class _Steps:
    """Feeds an online model: a frame and the states in, logits and the next states out."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.reset()

    def reset(self) -> None:
        self._states: States | None = None

    def feed(self, pixels: Array, seconds: float) -> Array | None:  # noqa: ARG002 - each frame is answered
        outputs, self._states = self._model.run_step(pixels[None], self._states)
        return np.asarray(outputs["logits"][0])

    def rest(self) -> Array | None:
        return None


class _Sliding:
    """Feeds an offline model: every so many seconds the last T frames are a clip."""

    def __init__(self, model: Model, every: float) -> None:
        self._model = model
        self._recent: deque[Array] = deque(maxlen=model.contract.frames)
        self._pacer = FramePacer(1 / every)

    def reset(self) -> None:
        self._recent.clear()

    def feed(self, pixels: Array, seconds: float) -> Array | None:
        self._recent.append(pixels)
        full = len(self._recent) == self._model.contract.frames
        return self.rest() if full and self._pacer.takes(seconds) else None

    def rest(self) -> Array | None:
        if not self._recent:
            return None
        # Too short a stream is stretched, as training stretches too short a video.
        clip = np.stack(
            [self._recent[index] for index in sampling.centres(len(self._recent), self._model.contract.frames)]
        )
        return np.asarray(self._model.run_clips(clip[None])["logits"][0])


def rate(contract: Contract, span: float = SPAN) -> float | None:
    """Return the frames a second that a model is fed from a stream; None for all of them.

    For an offline model T frames span `span` seconds, or as long as its stride makes them if it was trained with one.
    """
    if contract.mode == "online":
        return contract.target_fps
    if contract.stride:
        return (contract.target_fps or _FILMED) / contract.stride
    return contract.frames / span


def watch(
    model: Model,
    frames: Iterable[Frame],
    smoothing: Smoothing,
    *,
    fps: float | None,
    every: float = 1.0,
    cut: float = CUT,
    reset: Callable[[float], bool] = lambda _: False,
) -> Iterator[tuple[Frame, Answer | None]]:
    """Yield each frame, with the answer of the model if there is one.

    The model sees `fps` frames a second; an offline model answers every `every` seconds. It is reset if two frames that
    it sees differ by `cut` (0: never), and if `reset`, given the time, returns True.
    """
    contract, timed, pacer = model.contract, _Timed(model.runner), FramePacer(fps)
    model = replace(model, runner=timed)
    stream: _Stream = _Steps(model) if contract.mode == "online" else _Sliding(model, every)
    decision: Decision | None = None
    before: Array | None = None
    frame, is_reset, answered = None, False, False
    clock: deque[float] = deque(maxlen=_SPEED)

    def answer(logits: Array, at: Frame, begun: float) -> Answer:
        nonlocal decision, is_reset
        decision = decide(smoothing, model.check_finite(logits), decision, contract.activation)
        made = _answer(contract, decision, at.time, timed.ms, begun)
        clock.append(time.perf_counter())
        speed = (len(clock) - 1) / (clock[-1] - clock[0]) if len(clock) > 1 else None
        made, is_reset = replace(made, reset=is_reset, fps=speed), False
        return made

    for frame in frames:
        if not pacer.takes(frame.time):
            yield frame, None
            continue
        begun = time.perf_counter()
        image = frame.image()
        seen = thumbnail(image)
        changed = before is not None and cut > 0 and difference(before, seen) >= cut
        if (reset(frame.time) or changed) and before is not None:
            stream.reset()
            decision, is_reset = None, True
        before = seen
        logits = stream.feed(transforms.prepared(image, contract.resize, contract.size), frame.time)
        answered = answered or logits is not None
        yield frame, None if logits is None else answer(logits, frame, begun)
    if frame is not None and not answered and (logits := stream.rest()) is not None:
        yield frame, answer(logits, frame, time.perf_counter())
