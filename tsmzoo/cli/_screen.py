"""What `run` prints: the label and the top-5 of a video as it goes by, and a summary at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tsmzoo.cli._terminal import say
from tsmzoo.text import CELL, joined, one_line

if TYPE_CHECKING:
    from tsmzoo.live.answer import Answer, Summary

_BAR = 30


@contextmanager
def screen(*, live: bool) -> Iterator[Callable[[Answer, Summary], None]]:
    """Give a function that shows an answer: in a view that changes in place if `live`, else as lines."""
    if live:
        from rich.live import Live
        from rich.text import Text

        with Live(refresh_per_second=12, transient=True) as display:
            # As text: brackets in a label are no markup.
            yield lambda answer, summary: display.update(Text(view(answer, summary)))
        return
    last: tuple[int, str | None] | None = None

    def line(answer: Answer, _: Summary) -> None:
        """Print a line a second, and one where the label changes."""
        nonlocal last
        now = (int(answer.time), answer.label)
        if now != last or answer.reset:
            last = now
            say(_line(answer))

    yield line


def _line(answer: Answer) -> str:
    top = ", ".join(f"{one_line(each.label, CELL)} {each.probability:.0%}" for each in answer.top)
    return f"{answer.time:7.2f} s  {answer.text}{'  (new scene)' if answer.reset else ''}  [{top}]"


def view(answer: Answer, summary: Summary) -> str:
    """Return the view on a terminal after an answer."""
    speed = f"{answer.fps:.1f} fps   " if answer.fps else ""
    resets = f"   {_count(summary.resets, 'reset')}" if summary.resets else ""
    return joined(
        [
            f"  {answer.text}",
            *_bars(answer),
            f"  {answer.time:.2f} s   {speed}{answer.ms:.1f} ms   {_count(summary.steps, 'step')}{resets}",
            "  r: begin anew   Ctrl-C: end",
        ]
    )


def _bars(answer: Answer) -> list[str]:
    return [
        f"  {each.probability:6.1%} {'█' * round(each.probability * _BAR):<{_BAR}} {one_line(each.label, CELL)}"
        for each in answer.top
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def summary_line(head: str, unit: str, runtime: str, summary: Summary) -> str:
    """Return the summary of a run in a line."""
    resets = f", {_count(summary.resets, 'reset')}" if summary.resets else ""
    return f"{head}: {_count(summary.steps, unit)}{resets}, {summary.median_ms:.1f} ms per {unit} (median, {runtime})"


def text(head: str, unit: str, runtime: str, summary: Summary) -> str:
    """Return the summary of a run as lines: counts and speed, the last decision and its top-5."""
    assert summary.last is not None
    top = [f"  {each.probability:6.1%}  {one_line(each.label, CELL)}" for each in summary.last.top]
    return joined([summary_line(head, unit, runtime, summary), f"  {summary.last.text}", *top])
