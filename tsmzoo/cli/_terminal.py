"""Output of the commands: results on stdout, progress and notes on stderr.

Names, labels and answers of servers may contain anything: control characters are escaped and long lines cut.
"""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

from tsmzoo.system.streams import own_stderr
from tsmzoo.text import BESIDE, UNSEEN, joined, one_line


def say(text: str) -> None:
    """Print a result, at once."""
    print(joined(text.split("\n")), flush=True)


def print_json_line(document: Any) -> None:
    """Print one JSON document on one line and flush it: another program may be waiting for it."""
    print(_json(document), flush=True)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    print(_json(document, indent=2), flush=True)


def _json(document: Any, indent: int | None = None) -> str:
    """Return a struct, or lists and mappings with structs, as JSON.

    Characters that stdout cannot encode or that control a terminal are escaped.
    """
    import json

    import msgspec

    document = msgspec.to_builtins(document)
    try:
        text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:  # JSON has no NaN and no infinity
        text = json.dumps(_finite(document), indent=indent, ensure_ascii=False)

    def escape(match: re.Match[str]) -> str:
        if match[0] == "\n":  # from `indent`: those in strings are escaped already
            return "\n"
        return r"\u007f" if match[0] == "\x7f" else json.dumps(match[0])[1:-1]

    text = UNSEEN.sub(escape, text)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = re.sub(r"[^\x00-\x7f]", escape, text)
    return text


def _finite(document: Any) -> Any:
    """Return a document with null in place of numbers that are not finite."""
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def note(line: str) -> None:
    """Print to stderr."""
    print(one_line(line), file=sys.stderr)


@contextmanager
def stages() -> Iterator[Callable[..., None]]:
    """Give a function that shows the current step with a spinner; silent if stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.text import Text

    with own_stderr() as handle:
        console = Console(file=handle, force_terminal=True)
        with console.status("starting") as status:
            yield lambda text, *_: status.update(Text(one_line(text, BESIDE)))


@contextmanager
def download_bar(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that shows a bar of bytes done and in all; silent if stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = progress.add_task(one_line(title, BESIDE), total=None)

    def show(_: str, done: int, total: int) -> None:
        progress.start()  # with the first bytes: usually the file is in the cache
        progress.update(task, completed=done, total=total or None)

    try:
        yield show
    finally:
        progress.stop()


@contextmanager
def steps_bar(*, of: str = "", show: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that shows the current step with a bar, and how many a second if it says `of` what they are.

    Silent unless `show`, or if stderr is no terminal.
    """
    if not show or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f} {of}/s" if task.speed else "")

    columns = [TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    if of:
        columns.insert(3, Speed())
    with own_stderr() as handle:
        console = Console(file=handle, force_terminal=True)
        # Output goes above the bar, except into a file.
        ours = sys.stdout.isatty()
        with Progress(*columns, console=console, transient=True, redirect_stdout=ours) as progress:
            task = progress.add_task("starting", total=None)
            yield lambda text, done, total: progress.update(
                task, description=one_line(text, BESIDE), completed=done, total=total
            )


class Display(ExitStack):
    """Shows progress: a download as a bar of bytes, everything else as `shown` does; one at a time."""

    def __init__(self, shown: Callable[[], AbstractContextManager[Callable[[str, int, int], None]]]) -> None:
        super().__init__()
        self._shown = shown
        self._show: Callable[[str, int, int], None] | None = None
        self._download = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        download = what.removeprefix("downloading ") if what.startswith("downloading ") else ""
        if self._show is None or self._download != download:
            self.close()
            self._download = download
            if download:
                self._show = self.enter_context(download_bar(download))
            else:
                self._show = self.enter_context(self._shown())
        self._show(what, done, total)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Give a function that returns whether Ctrl-C was pressed, so that work ends between two frames.

    A second Ctrl-C ends it at once.
    """
    pressed = False

    def press(number: int, frame: object) -> None:  # noqa: ARG001 - what a handler is called with
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():  # where no handler can be set
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def keys(*, live: bool) -> Iterator[Callable[[], str]]:
    """Give a function that returns the keys pressed since its last call; none unless `live`.

    None either if the process is in the background or the system has no termios.
    """
    before = None
    with suppress(ImportError, OSError, ValueError):
        import select
        import termios
        import tty

        if live and sys.stdin is not None and sys.stdin.isatty() and os.tcgetpgrp(0) == os.getpgrp():
            with suppress(termios.error):
                before = termios.tcgetattr(0)
                tty.setcbreak(0)  # keys come as they are pressed; Ctrl-C still interrupts
    if before is None:
        yield lambda: ""
        return

    def pressed() -> str:
        with suppress(OSError):  # the terminal may go
            if select.select([0], [], [], 0)[0]:
                return os.read(0, 64).decode(errors="replace")
        return ""

    try:
        yield pressed
    finally:
        with suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, before)
