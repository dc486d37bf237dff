"""The command line itself: its errors, its version, its start."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer
import typer.core

from tsmzoo import __version__
from tsmzoo.cli import _terminal as terminal
from tsmzoo.errors import ZooError
from tsmzoo.system import streams
from tsmzoo.text import one_line

#: What the place of a file may do to any command; each says so itself where it knows more of it.
_OF_PLACES = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EIO),
    *(errno.ENOTDIR, errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.ESTALE),
}
#: Of these the system may name no file; what to do about them is no question of the place.
_OF_THE_SYSTEM = {
    errno.ENOSPC: "make room",
    errno.EMFILE: "allow more (ulimit -n)",
    errno.ENFILE: "end other programs",
}


@contextmanager
def _short() -> Iterator[None]:
    """Cut what is told of wrong usage: an argument may have 100,000 characters."""
    try:
        yield
    except typer.TyperException as error:
        error.message = one_line(error.message)
        raise


class _Commands(typer.core.TyperGroup):
    """Turns what a user can cause into one line and exit 1; everything else keeps its traceback."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            try:
                return super().main(*args, **options)
            finally:
                sys.stdout.flush()  # a full disk is found now: Python itself would find it too late to say so
        except ZooError as error:
            said = str(error)
        except OSError as error:
            if error.errno not in _OF_PLACES or not (error.filename or error.errno in _OF_THE_SYSTEM):
                raise
            where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            said = f"{where}{error.strerror}; {_OF_THE_SYSTEM.get(error.errno, 'choose another place')}"
        terminal.note(f"error: {said}")
        sys.exit(1)

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _short():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _short():
            return super().invoke(ctx)


#: Commands that no library is needed for that looks for the folder it runs in.
_ANYWHERE = {"list", "info"}

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
    streams.prepare()
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is not None and not re.fullmatch(r"\s*0*[1-9]\d{0,8}\s*(,\s*0*[1-9]\d{0,8}\s*)*", threads, re.ASCII):
        # What torch computes with would say so itself, once in each process.
        del os.environ["OMP_NUM_THREADS"]
        terminal.note(f"note: OMP_NUM_THREADS is {threads!r}, which is no number of threads; it is left out")
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
        terminal.say(f"tsmzoo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback prints it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand not in _ANYWHERE:
        try:
            os.getcwd()
        except OSError as error:  # torch ends the process over it
            raise ZooError(f"the folder that this runs in is gone ({error.strerror}); go to another (cd)") from None
