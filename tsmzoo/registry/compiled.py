"""Copies of the project's YAML files in the user's cache, as JSON.

`tsmzoo list` and `info` would wait for PyYAML longer than for everything else that they do.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from tsmzoo.errors import DownloadError
from tsmzoo.registry import paths

T = TypeVar("T")


class _Compiled(msgspec.Struct, Generic[T]):
    #: What the copy was made of.
    sources: list[tuple[str, int, int]]
    value: T


def load(path: Path, kind: type[T], read: Callable[[], T]) -> T:
    """Return the value of the file at `path` from its copy if that is current, else from `read`; then write the copy.

    It is current if the file, this package and the names of the protocols are as they were. If the cache cannot be
    written, no copy is made.
    """
    copy = None
    with suppress(DownloadError, OSError, ValueError, msgspec.MsgspecError):
        code = sorted(Path(__file__).parent.glob("*.py"))
        sources = [_state(each) for each in (path, paths.DATA / "recipes" / "eval", *code)]
        # One for each place that tsmzoo is installed in.
        copy = paths.cache_dir() / "compiled" / f"{path.stem}-{zlib.crc32(bytes(path)):08x}.json"
        compiled = msgspec.json.decode(copy.read_bytes(), type=_Compiled[kind])  # type: ignore[valid-type]
        if compiled.sources == sources:
            return compiled.value
    value = read()
    if copy is not None:
        from tsmzoo.system import files

        with suppress(OSError):
            copy.parent.mkdir(parents=True, exist_ok=True)
            files.write(copy, msgspec.json.encode(_Compiled(sources, value)))
    return value


def is_current(copy: Path) -> bool | None:
    """Say whether the files that `copy` was made of are as they were; None if it is no copy."""
    try:
        compiled = msgspec.json.decode(copy.read_bytes(), type=_Compiled[Any])
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    try:
        return all(_state(Path(source[0])) == source for source in compiled.sources)
    except (OSError, ValueError):
        return False


def _state(path: Path) -> tuple[str, int, int]:
    """Return what changes if a file does; Python's own compiled modules rely on the same: time and size."""
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size
