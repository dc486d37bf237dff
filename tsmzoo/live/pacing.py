"""Select frames at a lower rate than they come."""

from __future__ import annotations

import math

from tsmzoo.data.timing import CLOCK_SLACK


class FramePacer:
    """Selects the frames that a stream of `fps` frames a second would have; all of them if `fps` is None."""

    def __init__(self, fps: float | None) -> None:
        self._step = 1 / fps if fps else 0.0
        self._due = -math.inf

    def takes(self, time: float) -> bool:
        """Return True if the frame at `time` is the first at or after the next turn; call it once a frame, in order."""
        if not self._step:
            return True
        # If time jumps back, as in files that were joined, the clock goes on from there.
        if self._due - self._step - CLOCK_SLACK <= time < self._due - CLOCK_SLACK:
            return False
        # The clock keeps its rate, whatever that of the frames; after a gap it starts anew.
        kept = self._due <= time + CLOCK_SLACK and time < self._due + self._step
        self._due = (self._due if kept else time) + self._step
        return True
