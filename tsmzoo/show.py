"""What `run` prints: the running top-5 of a video, live on a terminal, and the sum of it at the end."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from tsmzoo.live import Answer

_BAR = 30


def collect(answers: Iterable[Answer], *, live: bool) -> dict[str, Any]:
    """Go through `answers`, showing each where `live`; return the last one and the times."""
    last: Answer | None = None
    times: list[float] = []
    if live:
        from rich.live import Live

        with Live(refresh_per_second=12, transient=True) as screen:
            for last in answers:
                times.append(last.ms)
                screen.update(_frame(last))
    else:
        for last in answers:
            times.append(last.ms)
    assert last is not None  # a video without frames is an error before this
    # The first call pays for allocations that no other does.
    steady = times[1:] or times
    return {
        "steps": len(times),
        "seconds_of_video": round(last.time, 3),
        "median_ms": round(statistics.median(steady), 2),
        "top": [{"label": label, "probability": round(value, 4)} for label, value in last.top],
    }


def _frame(answer: Answer) -> str:
    rows = [f"{value:6.1%} {'█' * round(value * _BAR):<{_BAR}} {label}" for label, value in answer.top]
    return "\n".join([f"{answer.time:6.2f} s  {answer.ms:6.1f} ms", *rows])


def text(document: dict[str, Any]) -> str:
    """Return the end of a video to read."""
    d = document
    unit = "frame" if d["steps"] > 1 else "clip"
    lines = [
        f"{d['model']} on {d['video']}: {d['steps']} {unit}{'s' if d['steps'] > 1 else ''}, "
        f"{d['median_ms']:.1f} ms per {unit} (median, {d['runtime']})"
    ]
    lines += [f"  {row['probability']:6.1%}  {row['label']}" for row in d["top"]]
    return "\n".join(lines)
