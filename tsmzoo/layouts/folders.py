"""Folders around a dataset, and what lies in them."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

#: Folders that are looked into for lists and videos.
MOST = 512
#: What systems and archivers leave among a user's folders and files.
_STRAY_FOLDERS = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
_STRAY_FILES = frozenset({"Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r"})


def is_stray(name: str) -> bool:
    """Say whether a file or folder is none of the user's: hidden, or left by a system."""
    return name.startswith(".") or name in _STRAY_FOLDERS or name in _STRAY_FILES


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Say whether an entry is a folder, or a link to one: a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def inside(folder: Path) -> list[Path]:
    """Return the folders in `folder` that may be read, by name."""
    return [place for place in subfolders(folder) if os.access(place, os.R_OK | os.X_OK)]


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in `folder`, by name."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not is_stray(entry.name) and is_folder(entry))
    except PermissionError:
        return []
    return [folder / name for name in names]


def below(folder: Path, depth: int = 1) -> list[Path]:
    """Return `folder` and the folders in it, the first few hundred by name, `depth` deep."""
    found = [folder]
    if depth:
        for place in inside(folder)[:MOST]:
            found += below(place, depth - 1)
    return found


def near(path: Path, folder: Path, *names: str) -> Path | None:
    """Return the first file called one of `names` around a list, or in the data's folder or a folder in it."""
    places = [*below(path.parent), path.parent.parent, *below(folder)]
    return next((place / name for place in places for name in names if os.path.lexists(place / name)), None)


def contents(folder: Path) -> str:
    """Return some of the names in a folder, for messages."""
    with os.scandir(folder) as entries:
        names = sorted(f"{entry.name}/" if is_folder(entry) else entry.name for entry in itertools.islice(entries, 999))
    return f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}" if names else "nothing"
