"""Files read so that nothing hangs, and written so that none is ever half there.

A file being written lies beside its place as `.NAME.HOST-PROCESS.part` and takes its name once it is whole and on the
disk. What a process that was killed left so is swept away by the next that writes the same name. Only where the system
cannot exchange two folders, the older one lies as `.NAME.old` for a moment; `recover` gives it back its name.
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

#: Bytes that a file of text or data may have, which is read at once; checkpoints and videos are not.
MOST = 256 * 2**20

_WINDOWS = os.name == "nt"
#: Seconds to wait for a folder that another process changes: it reads files of any size meanwhile.
_PATIENCE = 120.0
#: Folders that other processes are kept out of here.
_entered: ContextVar[frozenset[str]] = ContextVar("_entered", default=frozenset())


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Raises OSError where it cannot be read, or is none: a pipe or a device may never end.
    """
    # Without O_NONBLOCK a pipe that nobody writes to would hold the call; regular files know no such thing.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield file


def read(path: Path, most: int = MOST) -> bytes:
    """Return what a regular file holds. Raises OSError where it cannot be read, is none, or has over `most` bytes."""
    with opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return content


def read_text(path: Path, most: int = MOST) -> str:
    """Return the UTF-8 text that a regular file holds. Raises OSError as `read` does, or UnicodeDecodeError."""
    return read(path, most).decode("utf-8")


def sha256(path: Path) -> hashlib._Hash:
    """Return the sha256 of a regular file of any size. Raises OSError where it cannot be read, or is none."""
    import hashlib  # which `list` and `info` need not wait for

    with opened(path) as file:
        return hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # it is buffered


def write(path: Path, content: bytes | str) -> None:
    """Write a file at once: a reader sees the old one or the new. Raises OSError; `path` is then as it was."""
    with replacing(path) as part, open(part, "xb") as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a file, or folder, to be made; after the block it takes the place of `path`, on the disk.

    Where the block fails nothing of it stays, and `path` is as it was. Raises OSError where that is not possible, a
    folder that lies there is not empty, or a pipe or a device lies there.
    """
    path = Path(os.path.realpath(path))  # of a link, what it points to
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    with beside(path) as part:
        yield part
        sync(part)
        if _WINDOWS and part.is_dir() and path.is_dir():  # where no folder is replaced, not even an empty one
            path.rmdir()
        os.replace(part, path)
        _sync_one(path.parent)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a name beside `path`, for a file or folder that is not there after the block. Raises OSError."""
    recover(path)
    sweep(path)
    part = _part(path, f"{_host()}-{os.getpid()}")
    remove(part)  # of a process that was killed and had the same number; or a link, which must not be followed
    try:
        yield part
    finally:
        remove(part)


def supplant(part: Path, path: Path) -> None:
    """Give `part`, which is on the disk, the name `path`, even of a full folder, which is then `part` or gone.

    At every moment one of the two has the name, or else the older one is where `recover` finds it. Raises OSError.
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
    """Give a folder its name back that a killed process had moved aside, to put another there."""
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
    """Keep other processes out of such a block of `folder`, where the system and its disk know how.

    A block within another of the same folder is one with it. Raises TimeoutError where another process stays in.
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
    """Say whether no other process has the lock, as of a disk that knows none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def temporary() -> Iterator[Path]:
    """Give a new folder among the system's temporary ones, until the block ends. Raises OSError."""
    import tempfile

    made = Path(tempfile.mkdtemp(prefix="tsmzoo-"))
    try:
        yield made
    finally:
        remove(made)


def sweep(path: Path) -> None:
    """Remove what processes of this machine that are no more left of `path`."""
    pattern = re.compile(re.escape(_part(path, f"{_host()}-PID").name).replace("PID", r"(\d+)"))
    with suppress(OSError), os.scandir(path.parent) as entries:
        left = [entry.name for entry in entries if (found := pattern.fullmatch(entry.name)) and not _lives(found[1])]
        for name in left:
            remove(path.with_name(name))


def reason(error: OSError) -> str:
    """Return in a few words what failed."""
    if isinstance(error, shutil.Error):  # of several files: the first, what it was to be and why it is not
        return str(error.args[0][0][-1])
    return error.strerror or str(error)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there; never what a link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Bring a file, or a folder and all in it, onto the disk. Raises OSError."""
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
        )  # Windows brings to the disk what it may write
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Some disks know no such thing of a folder, and one may be closed to reading: what is in it is there.
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
    """Exchange the names of two files or folders at once; say whether the system can. Raises OSError."""
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
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):  # of the kernel, or of this file system
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
