"""The time of each frame of a video: its timestamps, repaired if they are damaged."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import av

#: Seconds by which a frame's time may be early: containers round to a millisecond.
CLOCK_SLACK = 2e-3
#: Frame rate of a video without one.
DEFAULT_RATE = Fraction(30)
#: The highest frame rate that is believed, per second.
_FASTEST = 1000
#: Number of first frames that decide which timestamps are used.
LOOKAHEAD = 8
#: Jumps of timestamps, back and ahead in seconds, that are taken as real.
_BACK, _GAP = 1.0, 3600.0
#: FFmpeg's flag of formats without timestamps (AVFMT_NOTIMESTAMPS).
NO_TIMESTAMPS = 0x80


class Clock:
    """Converts the timestamps of frames to times that begin at 0 and increase."""

    def __init__(self, rate: Fraction) -> None:
        self._step = self._pace = float(1 / rate)
        self._begun: float | None = None
        self._last: float | None = None

    def at(self, stamp: float | None) -> float:
        """Return the time in seconds of the next frame, whose timestamp is `stamp`, or None if it has none."""
        next_ = 0.0 if self._last is None else self._last + self._pace
        now = next_
        if stamp is not None:
            if self._begun is None:
                self._begun = stamp - next_
            now = stamp - self._begun
            if self._last is not None and not self._last < now < self._last + _GAP:
                if not self._last - _BACK < now < self._last + _GAP:
                    self._begun = stamp - next_  # joined files, or a clock that was set
                now = next_
        if self._last is not None:
            self._pace = min(self._step, now - self._last)
        self._last = now
        return now


def time_source(head: Sequence[av.VideoFrame]) -> Callable[[av.VideoFrame], float | None] | None:
    """Return the function that reads the timestamp of a frame, by the first frames; None if there are no timestamps."""

    def decoding(frame: av.VideoFrame) -> float | None:
        return None if frame.dts is None or frame.time_base is None else float(frame.dts * frame.time_base)

    def display(frame: av.VideoFrame) -> float | None:
        return None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)

    def grow(times: Iterable[float | None]) -> bool:
        known = [time for time in times if time is not None]
        return bool(known) and all(one < other for one, other in itertools.pairwise(known))

    if all(display(frame) is None for frame in head):
        return decoding if grow(map(decoding, head)) else None
    # A container with decoding times alone (AVI) has no display times for reordered frames, and FFmpeg makes up some
    # that jump back and forth.
    return decoding if not grow(map(display, head)) and grow(map(decoding, head)) else display


def clock(stream: av.VideoStream) -> Clock:
    """Return a clock for the frames of a stream."""
    return Clock(nominal_rate(stream))


def nominal_rate(stream: av.VideoStream) -> Fraction:
    """Return the frame rate in the header of a stream, in frames per second, or `DEFAULT_RATE`."""
    rates = (stream.guessed_rate, stream.average_rate)
    return next((rate for rate in rates if rate and 1 <= rate <= _FASTEST), DEFAULT_RATE)
