"""What the commands print: tables and text on stdout, progress and notes on stderr, JSON alone where asked for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

#: Wide enough for every column where no terminal sets a width, so that `tsmzoo list | grep` sees whole lines.
_WIDTH_OF_A_PIPE = 240


def print_json(document: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def note(line: str) -> None:
    """Say something beside the result."""
    print(line, file=sys.stderr)


def print_table(columns: dict[str, str], rows: list[list[str]]) -> None:
    """Print `rows` under `columns`, a mapping from heading to "left" or "right"."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table: Table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading, justify in columns.items():
        table.add_column(heading, justify="right" if justify == "right" else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE, highlight=False).print(table)


def _own_stderr() -> IO[str]:
    """A handle of our own on the terminal, which stays there while a converter's chatter is redirected."""
    return os.fdopen(os.dup(2), "w")


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Give a function that shows what is going on, with a spinner; silent where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with _own_stderr() as handle:
        console = Console(file=handle, force_terminal=True)
        with console.status("starting") as status:
            yield lambda text: status.update(text)


@contextmanager
def download_bar(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """Give a function that shows bytes so far of bytes in all; silent where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
