"""Read files without hanging, and write them atomically.

A file is written as `.NAME.HOST-PROCESS.part` in the same folder, and renamed once it is complete and synced to disk.
The next process that writes the same name removes the remains of a killed one. If the system cannot exchange two
folders, the old one is `.NAME.old` for a moment; `recover` renames it back.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import hashlib

#: The most bytes of a text or data file that is read at once (not checkpoints or videos).
MOST = 256 * 2**20

_WINDOWS = os.name == "nt"
#: Seconds to wait for a folder locked by another process, which may read files of any size.
_PATIENCE = 120.0
#: Folders that this context has locked.
_entered: ContextVar[frozenset[str]] = ContextVar("_entered", default=frozenset())


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Raises OSError if it cannot be read or is not a regular file: a pipe or a device may never end.
    """
    # Without O_NONBLOCK, opening a pipe without a writer would block; regular files ignore it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:  # a null byte, or half a surrogate pair
        raise OSError(errno.EINVAL, str(error), ascii(str(path))) from None
    with open(descriptor, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield file


def read(path: Path, most: int = MOST) -> bytes:
    """Return the bytes of a regular file. Raises OSError as `opened` does, or if there are more than `most`."""
    with opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return content


def read_text(path: Path, most: int = MOST) -> str:
    """Return the UTF-8 text of a regular file. Raises OSError as `read` does, or UnicodeDecodeError."""
    return read(path, most).decode("utf-8")


def sha256(path: Path) -> hashlib._Hash:
    """Return the sha256 of a regular file of any size. Raises OSError as `opened` does."""
    import hashlib  # here, so that `list` and `info` start faster

    with opened(path) as file:
        return hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # it is buffered


def write(path: Path, content: bytes | str) -> None:
    """Write a file atomically: a reader sees the old or the new one. Raises OSError and leaves `path` unchanged."""
    with replacing(path) as part, open(part, "xb") as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path for a new file or folder, which replaces `path` after the block and is synced to disk.

    If the block fails, the new file is removed and `path` is unchanged. Raises OSError if `path` cannot be replaced, is
    a folder that is not empty, or a pipe or a device.
    """
    path = Path(os.path.realpath(path))  # the target of a link
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    with beside(path) as part:
        yield part
        sync(part)
        if _WINDOWS and part.is_dir() and path.is_dir():  # where a folder cannot be replaced, not even an empty one
            path.rmdir()
        os.replace(part, path)
        _sync_one(path.parent)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a path beside `path` for a temporary file or folder, removed after the block. Raises OSError."""
    recover(path)
    sweep(path)
    part = _part(path, f"{_host()}-{os.getpid()}")
    remove(part)  # left by a killed process of the same number; or a link, which must not be followed
    try:
        yield part
    finally:
        remove(part)


def supplant(part: Path, path: Path) -> None:
    """Rename `part`, which is synced, to `path`, even if that is a full folder, which is then `part` or removed.

    At every moment one of the two has the name, or the old one is where `recover` finds it. Raises OSError.
    """
    if os.path.lexists(path) and (part.is_dir() or path.is_dir()):
        if not _exchange(part, path):
            aside = _aside(path)
            remove(aside)
            os.rename(path, aside)
            try:
                os.rename(part, path)
            except BaseException:
                os.rename(aside, path)
                raise
            remove(aside)
    else:
        os.replace(part, path)
    _sync_one(path.parent)


def recover(path: Path) -> None:
    """Rename a folder back that a killed process had moved aside to replace it."""
    if not path.name:  # `.` and `/`
        return
    aside = _aside(path)
    if os.path.lexists(aside):
        with exclusive(path.parent):
            if os.path.lexists(path):
                remove(aside)
            else:
                with suppress(OSError):
                    os.rename(aside, path)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lock `folder` against other processes that use this function, if the system and its disk support it.

    Blocks of the same folder may be nested. Raises TimeoutError if another process holds the lock too long.
    """
    place = os.path.realpath(folder)
    if place in _entered.get():
        yield
        return
    descriptor = None
    with suppress(ImportError, OSError):
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    token = _entered.set(_entered.get() | {place})
    try:
        if descriptor is not None:
            until = time.monotonic() + _PATIENCE
            while not _locked(descriptor, fcntl):
                if time.monotonic() > until:
                    raise TimeoutError(errno.ETIMEDOUT, f"another process keeps it for {_PATIENCE:.0f} s", place)
                time.sleep(0.02)
        yield
    finally:
        _entered.reset(token)
        if descriptor is not None:
            os.close(descriptor)


def _locked(descriptor: int, fcntl: ModuleType) -> bool:
    """Take the lock and return True unless another process has it; True on a disk without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def temporary() -> Iterator[Path]:
    """Give a new temporary folder, removed after the block. Raises OSError."""
    import tempfile

    made = Path(tempfile.mkdtemp(prefix="tsmzoo-"))
    try:
        yield made
    finally:
        remove(made)


def sweep(path: Path) -> None:
    """Remove the remains of `path` that ended processes of this machine left."""
    pattern = re.compile(re.escape(_part(path, f"{_host()}-PID").name).replace("PID", r"(\d+)"))
    with suppress(OSError), os.scandir(path.parent) as entries:
        left = [entry.name for entry in entries if (found := pattern.fullmatch(entry.name)) and not _lives(found[1])]
        for name in left:
            remove(path.with_name(name))


def reason(error: OSError) -> str:
    """Return the reason of an error in a few words."""
    if isinstance(error, shutil.Error):  # a list of files with target and reason: the first reason
        return str(error.args[0][0][-1])
    return error.strerror or str(error)


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists; never the target of a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Sync a file, or a folder and everything in it, to disk. Raises OSError."""
    if path.is_dir():
        for folder, _, names in os.walk(path):
            for name in names:
                _sync_one(Path(folder, name))
            _sync_one(Path(folder))
    else:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    folder = path.is_dir()
    if folder and _WINDOWS:  # where folders cannot be opened
        return
    try:
        descriptor = os.open(
            path, os.O_RDWR if _WINDOWS else os.O_RDONLY
        )  # Windows syncs only what is open for writing
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Some disks cannot sync a folder, and a folder may be unreadable: its files are synced.
        if not folder or error.errno in (errno.EIO, errno.ENOSPC):
            raise


@cache
def _host() -> str:
    if hasattr(os, "uname"):
        name = os.uname().nodename
    else:
        import platform

        name = platform.node()
    return f"{zlib.crc32(name.encode()):08x}"


def _part(path: Path, process: str) -> Path:
    return path.with_name(f".{_short(path.name)}.{process}.part")


def _aside(path: Path) -> Path:
    return path.with_name(f".{_short(path.name)}.old")


def _short(name: str) -> str:
    encoded = os.fsencode(name)  # a name may have 255 bytes
    if len(encoded) <= 100:
        return name
    return f"{encoded[:100].decode(errors='ignore')}~{zlib.crc32(encoded):08x}"


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two files or folders atomically; return False if the system cannot. Raises OSError."""
    import ctypes

    if os.name != "posix":
        return False
    system = ctypes.CDLL(None, use_errno=True)
    if sys.platform.startswith("linux") and hasattr(system, "renameat2"):  # glibc 2.28
        result = system.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2)  # AT_FDCWD, RENAME_EXCHANGE
    elif sys.platform == "darwin" and hasattr(system, "renamex_np"):
        result = system.renamex_np(os.fsencode(one), os.fsencode(other), 2)  # RENAME_SWAP
    else:
        return False
    if result == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):  # the kernel or this file system cannot
        return False
    raise OSError(number, os.strerror(number), str(other))


def _lives(process: str) -> bool:
    if _WINDOWS:  # where this would press Ctrl-C
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
