"""Run a model over a video as its frames go by."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from tsmzoo.artifact.contract import Contract
from tsmzoo.data.seek import SelectedFrames
from tsmzoo.inference.model import Model
from tsmzoo.inference.smoothing import Smoothing
from tsmzoo.inference.stream import Stream
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


def whole(model: Model, pick: Callable[[Callable[[int], list[int]]], SelectedFrames], smoothing: Smoothing) -> Answer:
    """Return the answer of an offline model for a whole video, whose frames `pick` gives by index.

    It sees T frames as it was trained to, spread over the video or dense in its middle. Raises VideoError, or DataError
    if a logit is no finite number.
    """
    chosen = pick(model.sample)
    begun, indices, stream = time.perf_counter(), model.sample(chosen.total), model.stream(smoothing=smoothing)
    for index in indices:
        stream.add(chosen.images[index])
    return _answer(stream, chosen.times[max(indices)], begun)


def _answer(stream: Stream, seconds: float, begun: float) -> Answer:
    asked = time.perf_counter()
    shown = stream.answer()
    now = time.perf_counter()
    return Answer(seconds, shown, stream.top(), ms=1000 * (now - asked), latency_ms=1000 * (now - begun))


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
    contract, pacer = model.contract, FramePacer(fps)
    stream = model.stream(smoothing=smoothing)
    asks = FramePacer(1 / every if contract.mode == "offline" else None)
    before: Array | None = None
    frame, is_reset = None, False
    clock: deque[float] = deque(maxlen=_SPEED)

    def answer(at: Frame, begun: float) -> Answer:
        nonlocal is_reset
        made = _answer(stream, at.time, begun)
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
            is_reset = True
        before = seen
        stream.add(image)
        yield frame, answer(frame, begun) if stream.is_full and asks.takes(frame.time) else None
    if frame is not None and not clock:  # too short for a clip
        yield frame, answer(frame, time.perf_counter())
