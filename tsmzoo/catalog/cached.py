"""The files of the cache: what lies there, whether it still is what was published, what can go."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Literal

import msgspec

from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.errors import DownloadError
from tsmzoo.registry import Entry, Registry, compiled
from tsmzoo.registry.paths import cache_dir
from tsmzoo.system import files
from tsmzoo.text import one_line
from tsmzoo.weights import download
from tsmzoo.weights.cache import Pin, local_paths, pin

State = Literal["whole", "wrong", "partial", "quarantined", "orphan", "copy", "stale"]
#: What nobody misses.
_USELESS = ("partial", "quarantined", "stale")
#: What a file is, by the ending that `download` adds to the published name; None: not listed, since it is small and of
#: use as long as the model is (the record of a first download, a lock, the reason of a quarantine).
_BY_ENDING: dict[str, State | None] = {
    r"": "whole",
    r"\.part(\.json|\.hub)?": "partial",
    r"\.[0-9a-f]{8}\.bad": "quarantined",
    r"\.(sha256|lock|[0-9a-f]{8}\.bad\.txt)": None,
}


class CachedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file in the cache."""

    #: The model that it is of; of an orphan, its folder; null for a copy of a YAML file.
    id: str | None
    path: str
    #: What it occupies; an interrupted download from the hub may be a folder.
    bytes: int
    #: When it was last written, in UTC, such as 2026-01-31T12:00:00Z.
    modified: str
    #: `whole`: has its name, which it gets once verified. `wrong`: is not what was published (only `cache verify`
    #: says so). `partial`: an interrupted download. `quarantined`: was downloaded, and not what was published.
    #: `orphan`: of no model that the registry has. `copy`, `stale`: a copy of a YAML file, current or outdated.
    state: State
    #: Why it is wrong, quarantined or an orphan; null if there is nothing to say, or it was not kept.
    why: str | None = None
    #: What it was held to by `cache verify`.
    pin: Pin | None = None
    #: What `cache verify` found.
    sha256: str | None = None


def find(zoo: Registry, pattern: str | None = None) -> list[CachedFile]:
    """Return the files of all models, or of those whose id or alias fits `pattern`, or of the folder of this name.

    Raises RegistryError if `pattern` is no wildcard and nothing has this name; DownloadError if the cache cannot be
    read.
    """
    with _usable("read"):
        found = [file for folder in _folders(zoo, pattern) for file in _in_folder(zoo.by_id.get(folder.name), folder)]
        if pattern is None:
            for copy in sorted((cache_dir() / "compiled").glob("*.json")):
                if (current := compiled.is_current(copy)) is not None:
                    found += _described(copy, None, "copy" if current else "stale")
    return found


def verify(zoo: Registry, pattern: str | None = None, progress: Progress = silent) -> list[CachedFile]:
    """Hold each whole file to its pin, as `download` does. Raises as `find` does."""
    whole = [file for file in find(zoo, pattern) if file.state == "whole"]
    checked = []
    for number, file in enumerate(whole):
        progress(f"verifying {file.id}", number, len(whole))
        checked.append(_verified(zoo.by_id[str(file.id)], file))
    return checked


def prune(
    zoo: Registry, pattern: str | None = None, *, dry_run: bool = False, notify: Notify = silent
) -> list[CachedFile]:
    """Remove what nobody misses; with `pattern` all files of these models. Return what was removed, or would be.

    Orphans are removed if `pattern` is the name of their folder: they may be of a registry that was not given. Left
    alone are models with a download in progress, and linked folders, which lie elsewhere. Raises as `find` does.
    """
    chosen = [
        file
        for file in find(zoo, pattern)
        if file.state in _USELESS or (pattern is not None and (file.state != "orphan" or file.id == pattern))
    ]
    removed: list[CachedFile] = []
    for folder, group in groupby(chosen, lambda file: Path(file.path).parent):
        if folder.is_symlink():
            notify(f"{folder}: is a link to another folder; left as it is")
            continue
        with _usable("changed"), _lock(folder) as idle:
            if not idle:
                notify(f"{folder}: a download is in progress; left as it is")
                continue
            removed += [file for file in group if dry_run or _removed(Path(file.path), notify)]
    return removed


def _folders(zoo: Registry, pattern: str | None) -> list[Path]:
    try:
        folders = sorted(each for each in (cache_dir() / "checkpoints").iterdir() if each.is_dir())
    except FileNotFoundError:
        folders = []
    if pattern is None:
        return folders
    ids = {entry.id for entry in zoo.match(pattern)}
    chosen = [folder for folder in folders if folder.name in ids or folder.name == pattern]
    if not chosen and not ids and not set("*?[") & set(pattern):
        zoo.find(pattern)  # raises the error that suggests ids
    return chosen


def _in_folder(entry: Entry | None, folder: Path) -> Iterator[CachedFile]:
    names = [] if entry is None or entry.file is not None else [path.name for path in local_paths(entry)]
    for path in sorted(folder.iterdir()):
        states = [
            state
            for name in names
            for ending, state in _BY_ENDING.items()
            if re.fullmatch(re.escape(name) + ending, path.name)
        ]
        if states == ["whole"] and path.is_dir():
            yield from _described(path, folder.name, "orphan", "it is a folder in the place of the file")
        elif states == ["quarantined"]:
            yield from _described(path, folder.name, "quarantined", _reason(path))
        elif states and states[0] is not None:
            yield from _described(path, folder.name, states[0])
        elif not states and not path.name.endswith(".lock"):
            what = "no model of the registry is called so" if entry is None else "it is no file of this model"
            yield from _described(path, folder.name, "orphan", what)


def _described(path: Path, id: str | None, state: State, why: str | None = None) -> Iterator[CachedFile]:
    with suppress(FileNotFoundError):  # a download may have ended meanwhile
        about = os.lstat(path)
        size = about.st_size
        if stat.S_ISDIR(about.st_mode):
            size = sum(os.lstat(Path(at, name)).st_size for at, _, names in os.walk(path) for name in names)
        modified = datetime.fromtimestamp(about.st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield CachedFile(id=id, path=str(path), bytes=size, modified=modified, state=state, why=why)


def _reason(bad: Path) -> str | None:
    """Return why a file is quarantined, which `download` wrote beside it."""
    try:
        return one_line(files.read(Path(f"{bad}.txt"), 10_000).decode(errors="replace").strip())
    except OSError:
        return None


def _verified(entry: Entry, file: CachedFile) -> CachedFile:
    path, digest = Path(file.path), None
    try:
        digest = files.sha256(path).hexdigest()
        why = download.mismatch(entry, path, digest)
    except OSError as error:
        why = f"it cannot be read ({files.reason(error)})"
    except DownloadError as error:
        why = str(error)
    held_to: Pin = "recorded" if os.path.isfile(f"{path}.sha256") else "none"
    if path.name == entry.filename:
        held_to = pin(entry)
    elif entry.pinned is not None and path.name in entry.pinned.beside:
        held_to = "sha256"
    return msgspec.structs.replace(
        file,
        state="wrong" if why else "whole",
        why=why,
        pin=held_to,
        sha256=digest,
    )


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Keep downloads out of `folder`; give False if one is in progress there.

    The locks stay: without its file, a process that waits for one would lock nothing.
    """
    from filelock import FileLock, Timeout

    with ExitStack() as held:
        try:
            for lock in folder.glob("*.lock"):
                if lock.is_file() and not lock.is_symlink():  # else it is none of a download's
                    held.enter_context(FileLock(lock, timeout=0))
        except Timeout:
            yield False
        else:
            yield True


def _removed(path: Path, notify: Notify) -> bool:
    files.remove(path)
    if os.path.lexists(path):
        notify(f"{path}: cannot be removed")
        return False
    if path.name.endswith(".bad"):
        files.remove(Path(f"{path}.txt"))
    return True


@contextmanager
def _usable(how: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DownloadError(
            f"the cache {cache_dir()} cannot be {how} ({files.reason(error)}); set TSMZOO_CACHE to another folder"
        ) from None
