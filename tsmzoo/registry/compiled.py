"""A copy of the project's registry in the user's cache, as JSON.

Reading registry.yaml takes longer than everything else that `tsmzoo list` does.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from tsmzoo.errors import DownloadError
from tsmzoo.registry import paths
from tsmzoo.registry.schema import Registry


class _Compiled(msgspec.Struct):
    #: What the copy was made of.
    sources: list[tuple[str, int, int]]
    registry: Registry


def load(path: Path, read: Callable[[], Registry]) -> Registry:
    """Return the registry at `path` from its copy if that is current, else from `read`; then write the copy.

    It is current if registry.yaml, this package and the names of the protocols are as they were. If the cache cannot be
    written, no copy is made.
    """
    code = sorted(Path(__file__).parent.glob("*.py"))
    sources = [_state(each) for each in (path, paths.DATA / "recipes" / "eval", *code)]
    copy = None
    with suppress(DownloadError, OSError, msgspec.MsgspecError):
        # One for each place that tsmzoo is installed in.
        copy = paths.cache_dir() / f"registry-{zlib.crc32(bytes(path)):08x}.json"
        compiled = msgspec.json.decode(copy.read_bytes(), type=_Compiled)
        if compiled.sources == sources:
            return compiled.registry
    registry = read()
    if copy is not None:
        from tsmzoo.system import files

        with suppress(OSError):
            copy.parent.mkdir(parents=True, exist_ok=True)
            files.write(copy, msgspec.json.encode(_Compiled(sources, registry)))
    return registry


def _state(path: Path) -> tuple[str, int, int]:
    """Return what changes if a file does; Python's own compiled modules rely on the same: time and size."""
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size
