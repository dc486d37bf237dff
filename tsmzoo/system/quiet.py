"""Keeps the chatter of converter libraries off the terminal."""

from __future__ import annotations

import atexit
import errno
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO

from tsmzoo.errors import ZooError

#: What is said of a disk, a folder or their limits, and not of the code in the block.
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
    # One file for the whole process: a library that keeps a handle on sys.stderr may still write to it.
    try:  # in memory: a full disk, or none to write to, is no reason to fail
        log: IO[str] = os.fdopen(os.memfd_create("chatter"), "w+", encoding="utf-8", errors="replace")
    except (AttributeError, OSError):  # of systems other than Linux, and of some sandboxes
        log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - as long as the process
    atexit.register(log.close)
    return log


@contextmanager
def quiet() -> Iterator[None]:
    """Swallow whatever is printed, warned or logged, by Python or C++ code, within the block.

    When the block fails otherwise than by a user's mistake or by a disk, the chatter is shown: it may say why.
    """
    log = _log()
    log.seek(0)
    log.truncate()
    sys.stdout.flush()
    sys.stderr.flush()
    streams, descriptors = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))

    def restore() -> None:
        log.flush()
        for stream in streams:  # a handler made before may have written to one of these: into the log with it
            stream.flush()
        sys.stdout, sys.stderr = streams
        for target, saved in enumerate(descriptors, start=1):
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
            sys.stderr.write(log.read())
        raise
    else:
        restore()
    finally:
        for saved in descriptors:
            os.close(saved)
