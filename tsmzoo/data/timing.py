"""When each frame of a video is shown: its own timestamps, mended where they are damaged."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import av

#: Seconds by which a frame's time may be early: containers round to a millisecond.
CLOCK_SLACK = 2e-3
#: Frames a second of a video that does not say.
DEFAULT_RATE = Fraction(30)
#: The most that are believed.
_FASTEST = 1000
#: Frames by which it shows what their times are worth.
LOOKAHEAD = 8
#: Seconds that times may jump back or ahead and still be meant.
_BACK, _GAP = 1.0, 3600.0
#: Of a format whose files hold no times (AVFMT_NOTIMESTAMPS).
NO_TIMESTAMPS = 0x80


# --- times -----------------------------------------------------------------------------------------------------------


class Clock:
    """Turns the times that frames say into such as begin at 0 and only grow."""

    def __init__(self, rate: Fraction) -> None:
        self._step = self._pace = float(1 / rate)
        self._begun: float | None = None
        self._last: float | None = None

    def at(self, said: float | None) -> float:
        """Return the time of the next frame, which says `said`, or nothing."""
        next_ = 0.0 if self._last is None else self._last + self._pace
        now = next_
        if said is not None:
            if self._begun is None:
                self._begun = said - next_
            now = said - self._begun
            if self._last is not None and not self._last < now < self._last + _GAP:
                if not self._last - _BACK < now < self._last + _GAP:
                    self._begun = said - next_  # files that were joined, or a clock that was set
                now = next_
        if self._last is not None:
            self._pace = min(self._step, now - self._last)
        self._last = now
        return now


def time_source(head: Sequence[av.VideoFrame]) -> Callable[[av.VideoFrame], float | None] | None:
    """Return how the frames of a video, of which the first are given, say their times; None where they do not."""

    def decoding(frame: av.VideoFrame) -> float | None:
        return None if frame.dts is None or frame.time_base is None else float(frame.dts * frame.time_base)

    def display(frame: av.VideoFrame) -> float | None:
        return None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)

    def grow(times: Iterable[float | None]) -> bool:
        there = [time for time in times if time is not None]
        return bool(there) and all(one < other for one, other in itertools.pairwise(there))

    if all(display(frame) is None for frame in head):
        return decoding if grow(map(decoding, head)) else None
    # A container that keeps the order of decoding alone (AVI) gives frames that are shown in another no times of
    # display, and FFmpeg makes some up that go to and fro.
    return decoding if not grow(map(display, head)) and grow(map(decoding, head)) else display


def clock(stream: av.VideoStream) -> Clock:
    """Return a clock for a stream's frames."""
    return Clock(nominal_rate(stream))


def nominal_rate(stream: av.VideoStream) -> Fraction:
    rates = (stream.guessed_rate, stream.average_rate)
    return next((rate for rate in rates if rate and 1 <= rate <= _FASTEST), DEFAULT_RATE)
