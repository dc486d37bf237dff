"""The command line itself: its errors, its version, its start."""

from __future__ import annotations

import io
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer
import typer.core

from tsmzoo import __version__, terminal
from tsmzoo.errors import ZooError


class _Commands(typer.core.TyperGroup):
    """Turns what a user can cause into one line and exit 1; everything else keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ZooError as error:
            terminal.note(f"error: {error}")
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    help="Pretrained TSN, TSM and I3D video models: find, download, count, measure, train, convert, verify, run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows another
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as in the background
        signal.signal(signal.SIGINT, interrupt)
    try:
        app(prog_name="tsmzoo")
    except Exception:
        # Libraries make errors of their own of a Ctrl-C: torch, amid its imports.
        if not interrupted:
            raise
        sys.exit(130)


def _version(show: bool) -> None:
    if show:
        print(f"tsmzoo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
