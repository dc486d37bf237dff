"""Keep the output of converter libraries off the terminal."""

from __future__ import annotations

import atexit
import errno
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO

from tsmzoo.errors import ZooError

#: Errors of a disk, a folder or their limits, rather than of the code in the block.
_PLACES = {
    getattr(errno, name)
    for name in (
        *("EACCES", "EDQUOT", "EFBIG", "EIO", "EMFILE", "ENAMETOOLONG", "ENFILE", "ENODEV", "ENOSPC", "ENXIO"),
        *("EPERM", "EROFS", "ESTALE", "ETXTBSY"),
    )
    if hasattr(errno, name)  # the system's own
}


@cache
def _log() -> IO[str]:
    # One file for the whole process: a library may keep a handle on sys.stderr and write to it later.
    try:  # in memory, independent of a full or read-only disk
        log: IO[str] = os.fdopen(os.memfd_create("chatter"), "w+", encoding="utf-8", errors="replace")
    except (AttributeError, OSError):  # systems other than Linux, and some sandboxes
        log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - as long as the process
    atexit.register(log.close)
    return log


#: The streams are the process's: a second thread would take the log for the terminal, and leave it in its place.
_lock = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Discard everything that Python or C++ code prints, warns or logs within the block, whichever thread it is in.

    One thread at a time is in such a block. If the block fails for another reason than a user's mistake or a disk, the
    output is shown: it may say why.
    """
    with _lock, _quiet():
        yield


def _flush(stream: IO[str] | None) -> None:
    if hasattr(stream, "flush"):  # None in a service; an object that has `write` alone, in place of it
        stream.flush()  # type: ignore[union-attr]


def _duplicate(descriptor: int) -> int | None:
    """Return another descriptor of the same; None if it is closed."""
    try:
        return os.dup(descriptor)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    log = _log()
    log.seek(0)
    log.truncate()
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        _flush(stream)
    descriptors = (_duplicate(1), _duplicate(2))

    def restore() -> None:
        log.flush()
        for stream in streams:  # a handler made before may have written to one of these: that goes into the log
            _flush(stream)
        sys.stdout, sys.stderr = streams
        for target, saved in enumerate(descriptors, start=1):
            if saved is None:
                os.close(target)
            else:
                os.dup2(saved, target)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.stdout = sys.stderr = log
            yield
    except (ZooError, KeyboardInterrupt):
        restore()
        raise
    except BaseException as error:
        restore()
        if not (isinstance(error, OSError) and error.errno in _PLACES):
            log.seek(0)
            if sys.stderr is not None:
                sys.stderr.write(log.read())
        raise
    else:
        restore()
    finally:
        for saved in descriptors:
            if saved is not None:
                os.close(saved)
