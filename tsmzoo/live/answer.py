"""What a model answers as the frames of a video go by."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

import msgspec

from tsmzoo.inference.model import Prediction
from tsmzoo.text import CELL, one_line

#: Times of which the median is kept: a camera has no end, memory has.
_TIMES = 10_000


@dataclass(frozen=True)
class Answer:
    """The prediction at one point in time.

    Attributes:
        time: Seconds into the video.
        shown: The label to show, and its probability now; None if nothing is decided.
        top: The most probable classes, most probable first.
        ms: Milliseconds of the model, for a frame of a stream or for a clip.
        latency_ms: Milliseconds from the frame to the answer.
        reset: What the model knew of earlier frames was dropped before this one.
        fps: Answers a second, over the last few; None with the first.
    """

    time: float
    shown: Prediction | None
    top: list[Prediction]
    ms: float
    latency_ms: float
    reset: bool = False
    fps: float | None = None

    @property
    def label(self) -> str | None:
        return None if self.shown is None else self.shown.label

    @property
    def text(self) -> str:
        """The label to show and its probability, on one line."""
        if self.shown is None:
            return "no decision"
        return f"{one_line(self.shown.label, CELL)} {self.shown.probability:.0%}"


class RankedClass(msgspec.Struct, frozen=True):
    """A class among the most probable ones."""

    label: str
    index: int
    probability: float


class AnswerRecord(msgspec.Struct, frozen=True):
    """An answer, rounded; a line of `run --json` is its serialization."""

    #: Seconds into the video.
    time: float
    #: The label to show, its class index and its probability, 0…1; None if nothing is decided.
    label: str | None
    index: int | None
    probability: float | None
    #: The most probable classes, most probable first.
    top5: tuple[RankedClass, ...]
    #: What the model knew of earlier frames was dropped before this one.
    reset: bool
    #: Milliseconds from the frame to the answer, and those of the model: normalization, network and smoothing.
    latency_ms: float
    model_ms: float


def record(answer: Answer) -> AnswerRecord:
    """Return an answer as `run --json` prints it."""
    return AnswerRecord(
        time=round(answer.time, 3),
        label=answer.label,
        index=None if answer.shown is None else answer.shown.index,
        probability=None if answer.shown is None else round(answer.shown.probability, 4),
        top5=tuple(RankedClass(each.label, each.index, round(each.probability, 4)) for each in answer.top),
        reset=answer.reset,
        latency_ms=round(answer.latency_ms, 2),
        model_ms=round(answer.ms, 2),
    )


@dataclass
class Summary:
    """The answers so far: how many, how fast, and the last one."""

    steps: int = 0
    resets: int = 0
    last: Answer | None = None
    #: Milliseconds of the model; the first call pays for allocations that no other does.
    first_ms: float = 0.0
    times_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES))

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        if self.steps:
            self.times_ms.append(answer.ms)
        else:
            self.first_ms = answer.ms
        self.steps, self.resets, self.last = self.steps + 1, self.resets + answer.reset, answer

    @property
    def median_ms(self) -> float:
        """Median of the model's milliseconds, without the first call's if there are others."""
        return statistics.median(self.times_ms or [self.first_ms])
