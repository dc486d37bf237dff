"""What `run` prints: the running top-5 of a video as it goes by, and the sum of it at the end."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tsmzoo.live import Answer

_BAR = 30


def summary(answers: Iterable[Answer], show: Callable[[Answer], None]) -> dict[str, Any]:
    """Go through `answers`, showing each; return them and the times."""
    seen = []
    for answer in answers:
        show(answer)
        seen.append(answer)
    # The first call pays for allocations that no other does.
    steady = [answer.ms for answer in seen[1:] or seen]
    return {
        "steps": len(seen),
        "seconds_of_video": round(seen[-1].time, 3),
        "median_ms": round(statistics.median(steady), 2),
        "top": _top(seen[-1]),
        "answers": [{"time": round(a.time, 3), "ms": round(a.ms, 2), "top": _top(a)} for a in seen],
    }


def _top(answer: Answer) -> list[dict[str, Any]]:
    return [{"label": label, "probability": round(value, 4)} for label, value in answer.top]


@contextmanager
def screen(*, live: bool) -> Iterator[Callable[[Answer], None]]:
    """Give a function that shows an answer: bars that change in place where `live`, else a line a second."""
    if live:
        from rich.live import Live
        from rich.text import Text

        with Live(refresh_per_second=12, transient=True) as display:
            # As text: brackets in a label are no markup.
            yield lambda answer: display.update(Text(_bars(answer)))
        return
    last = -1

    def line(answer: Answer) -> None:
        nonlocal last
        if int(answer.time) > last:
            last = int(answer.time)
            print(f"{answer.time:7.2f} s  " + ", ".join(f"{label} {value:.0%}" for label, value in answer.top))

    yield line


def _bars(answer: Answer) -> str:
    rows = [f"{value:6.1%} {'█' * round(value * _BAR):<{_BAR}} {label}" for label, value in answer.top]
    return "\n".join([f"{answer.time:6.2f} s  {answer.ms:6.1f} ms", *rows])


def text(document: dict[str, Any]) -> str:
    """Return the end of a video to read."""
    d = document
    unit = "frame" if d["mode"] == "online" else "clip"
    lines = [
        f"{d['model']} on {d['video']}: {d['steps']} {unit}{'s' if d['steps'] > 1 else ''}, "
        f"{d['median_ms']:.1f} ms per {unit} (median, {d['runtime']})"
    ]
    lines += [f"  {row['probability']:6.1%}  {row['label']}" for row in d["top"]]
    return "\n".join(lines)
