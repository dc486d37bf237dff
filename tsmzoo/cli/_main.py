"""The command line itself: its errors, its version, its start."""

from __future__ import annotations

import errno
import importlib
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
import typer.main

from tsmzoo import __version__
from tsmzoo.cli import _terminal as terminal
from tsmzoo.errors import UsageError, ZooError
from tsmzoo.system import streams
from tsmzoo.text import one_line

#: The commands, in the order of `--help`. Each is a module of this package, which is imported if it is called:
#: the options of all of them take longer to build than `list` may take.
COMMANDS = (
    *("list", "info", "download", "flops", "data", "train", "export", "verify", "eval", "bench", "report", "run"),
    *("demo", "cache", "registry", "doctor", "mirror", "card", "push"),
)
#: Errors of the place of a file, which any command may meet; a command that knows more about one reports it itself.
_OF_PLACES = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EIO),
    *(errno.ENOTDIR, errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.ESTALE),
}
#: For these the system may name no file, and another place would not help.
_OF_THE_SYSTEM = {
    errno.ENOSPC: "make room",
    errno.EMFILE: "allow more (ulimit -n)",
    errno.ENFILE: "end other programs",
}


def _option(argument: str) -> str:
    """Return the option that gives an argument of the Python API."""
    renamed = {"list_file": "list", "layout": "format", "factors": "weights-of-scores"}
    return "--" + renamed.get(argument, argument).replace("_", "-")


@contextmanager
def _short() -> Iterator[None]:
    """Shorten the message about wrong usage: an argument may have 100,000 characters."""
    try:
        yield
    except typer.TyperException as error:
        if type(error).__name__ != "NoArgsIsHelpError":  # that one's message is the help
            error.message = one_line(error.message)
        raise


class _Commands(typer.core.TyperGroup):
    """Loads a command when it is called. Errors that a user can cause become one line and exit 1."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click calls it with one
        self._load(*COMMANDS)
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        self._load(*([cmd_name] if cmd_name in COMMANDS else COMMANDS))
        return super().get_command(ctx, cmd_name)

    def _load(self, *names: str) -> None:
        if missing := [name for name in names if name not in self.commands]:
            for name in missing:
                importlib.import_module(f"tsmzoo.cli.{name}")
            self.commands = typer.main.get_group(app).commands

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            try:
                return super().main(*args, **options)
            finally:
                sys.stdout.flush()  # finds a full disk now: Python itself would find it too late to report it
        except ZooError as error:
            said, code = str(error), 1
            if isinstance(error, UsageError):
                said, code = re.sub(r"`(\w+)`", lambda name: _option(name[1]), said), 2
        except OSError as error:
            if error.errno not in _OF_PLACES or not (error.filename or error.errno in _OF_THE_SYSTEM):
                raise
            where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            code = 1
            said = f"{where}{error.strerror}; {_OF_THE_SYSTEM.get(error.errno, 'choose another place')}"
        terminal.note(f"error: {said}")
        sys.exit(code)

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _short():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _short():
            return super().invoke(ctx)


#: Commands that load no library that asks for the current folder.
_ANYWHERE = {"list", "info"}

app = typer.Typer(
    cls=_Commands,
    help="TSN, TSM, I3D, X3D and MoViNet video models: find, download, count, measure, train, convert, verify, run.",
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
        # torch's OpenMP would print its own message in each process.
        del os.environ["OMP_NUM_THREADS"]
        terminal.note(f"note: OMP_NUM_THREADS is {threads!r}, which is no number of threads; it is left out")
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if it is ignored, as in the background
        signal.signal(signal.SIGINT, interrupt)
    try:
        app(prog_name="tsmzoo")
    except Exception:
        # Some libraries turn Ctrl-C into errors of their own, such as torch during its imports.
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
