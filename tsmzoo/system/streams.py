"""Standard streams that are always open, and whose write errors give no traceback."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import IO, TYPE_CHECKING, NoReturn

from tsmzoo.errors import ZooError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_WINDOWS = os.name == "nt"
#: Exit code of a program that a closed pipe ended (128 + SIGPIPE).
CLOSED_PIPE = 141


class _Descriptor(io.FileIO):
    """A descriptor for writing; after an error it leads to the null device."""

    def __init__(self, descriptor: int, *, ours: bool = False) -> None:
        super().__init__(descriptor, "w", closefd=ours)

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])  # set by someone else not to block
        except OSError as error:
            # Buffered text must not fail again when Python ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            self.failed(error)
            return memoryview(data).nbytes
        return written

    def failed(self, error: OSError) -> None:
        """Do nothing: stderr has no results."""


class _Result(_Descriptor):
    def failed(self, error: OSError) -> NoReturn:
        """Exit quietly if the pipe is closed, as other programs do. Raises ZooError for other errors."""
        if error.errno == errno.EPIPE:
            raise SystemExit(CLOSED_PIPE)
        raise ZooError(f"stdout: cannot be written ({error.strerror}); send the output elsewhere")


def prepare() -> None:
    """Open missing standard streams, and handle write errors of stdout and stderr."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: else the next opened file would get its number, and what is printed
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open for as long as the process runs
    if _WINDOWS:  # whose console takes characters, by a way of its own
        return
    if _is(sys.stdout, 1):
        sys.stdout = _text(sys.stdout, _Result(1))
    if _is(sys.stderr, 2):
        sys.stderr = _text(sys.stderr, _Descriptor(2))


def own_stderr() -> IO[str]:
    """Return a separate handle on stderr, which stays while the output of a converter is redirected."""
    return _text(sys.stderr, _Descriptor(os.dup(2), ours=True))


def _is(stream: IO[str] | None, number: int) -> bool:
    """Say whether `stream` is Python's own on a descriptor, not a replacement."""
    try:
        return stream is None or stream.fileno() == number
    except (OSError, ValueError):  # it has none, or is closed
        return False


def _text(like: IO[str] | None, descriptor: _Descriptor) -> IO[str]:
    """Return a text stream with the encoding of `like`; characters outside it are replaced."""
    if isinstance(like, io.TextIOWrapper):
        like.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(descriptor),
        encoding=getattr(like, "encoding", None) or "utf-8",
        errors="replace",
        line_buffering=any(getattr(like, name, True) for name in ("line_buffering", "write_through")),
    )
