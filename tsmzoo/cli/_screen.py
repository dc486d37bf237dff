"""What `run` prints: the label and the running top-5 of a video as it goes by, and the sum of it at the end."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tsmzoo.cli._terminal import say
from tsmzoo.text import CELL, joined, one_line

if TYPE_CHECKING:
    from tsmzoo.live.watch import Answer

_BAR = 30
#: Times that the median is of: a camera has no end, memory has.
_TIMES = 10_000


@dataclass
class Tally:
    """What is kept of the answers so far."""

    steps: int = 0
    resets: int = 0
    last: Answer | None = None
    #: Milliseconds of the model; the first call pays for allocations that no other does.
    first: float = 0.0
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES))

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        if self.steps:
            self.times.append(answer.ms)
        else:
            self.first = answer.ms
        self.steps, self.resets, self.last = self.steps + 1, self.resets + answer.reset, answer

    @property
    def median_ms(self) -> float:
        return statistics.median(self.times or [self.first])


def document(answer: Answer) -> dict[str, Any]:
    """Return a decision as JSON has it."""
    return {
        "time": round(answer.time, 3),
        "label": answer.label,
        "index": answer.shown,
        "probability": None if answer.probability is None else round(answer.probability, 4),
        "top5": [
            {"label": answer.names[index], "index": index, "probability": round(value, 4)}
            for index, value in answer.top
        ],
        "reset": answer.reset,
        "latency_ms": round(answer.latency_ms, 2),
        "model_ms": round(answer.ms, 2),
    }


@contextmanager
def screen(*, live: bool) -> Iterator[Callable[[Answer, Tally], None]]:
    """Give a function that shows an answer: a view that changes in place where `live`, else lines."""
    if live:
        from rich.live import Live
        from rich.text import Text

        with Live(refresh_per_second=12, transient=True) as display:
            # As text: brackets in a label are no markup.
            yield lambda answer, tally: display.update(Text(view(answer, tally)))
        return
    last: tuple[int, int | None] | None = None

    def line(answer: Answer, _: Tally) -> None:
        """Print a line a second, and one where the label changes."""
        nonlocal last
        now = (int(answer.time), answer.shown)
        if now != last or answer.reset:
            last = now
            say(_line(answer))

    yield line


def _decision(answer: Answer) -> str:
    return "no decision" if answer.label is None else f"{one_line(answer.label, CELL)} {answer.probability:.0%}"


def _line(answer: Answer) -> str:
    top = ", ".join(f"{one_line(answer.names[index], CELL)} {value:.0%}" for index, value in answer.top)
    return f"{answer.time:7.2f} s  {_decision(answer)}{'  (new scene)' if answer.reset else ''}  [{top}]"


def view(answer: Answer, tally: Tally) -> str:
    """Return what stands on a terminal after an answer."""
    speed = f"{answer.fps:.1f} fps   " if answer.fps else ""
    resets = f"   {_count(tally.resets, 'reset')}" if tally.resets else ""
    return joined(
        [
            f"  {_decision(answer)}",
            *_bars(answer),
            f"  {answer.time:.2f} s   {speed}{answer.ms:.1f} ms   {_count(tally.steps, 'step')}{resets}",
            "  r: begin anew   Ctrl-C: end",
        ]
    )


def _bars(answer: Answer) -> list[str]:
    return [
        f"  {value:6.1%} {'█' * round(value * _BAR):<{_BAR}} {one_line(answer.names[index], CELL)}"
        for index, value in answer.top
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def summary(head: str, unit: str, runtime: str, tally: Tally) -> str:
    """Return the end of a video in a line."""
    resets = f", {_count(tally.resets, 'reset')}" if tally.resets else ""
    return f"{head}: {_count(tally.steps, unit)}{resets}, {tally.median_ms:.1f} ms per {unit} (median, {runtime})"


def text(head: str, unit: str, runtime: str, tally: Tally) -> str:
    """Return the end of a video to read: the line, and what the model last held it to be."""
    assert tally.last is not None
    top = [f"  {value:6.1%}  {one_line(tally.last.names[index], CELL)}" for index, value in tally.last.top]
    return joined([summary(head, unit, runtime, tally), f"  {_decision(tally.last)}", *top])
