"""Labelled videos on disk, in the layout that `eval` and `train` read and `data` writes.

DIR/annotations.txt    a video a line: its path, from DIR, and the index of its class
DIR/labels.txt         a class a line, in the order of the indices; may be left out
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tsmzoo.errors import DataError

ANNOTATIONS = "annotations.txt"
LABELS = "labels.txt"


@dataclass(frozen=True)
class Dataset:
    """Videos and the index of each one's class, in the order of the list."""

    videos: tuple[Path, ...]
    labels: tuple[int, ...]
    #: Class names, or None where the folder has no labels.txt.
    classes: tuple[str, ...] | None
    #: Of the list's bytes: it says which videos a figure was measured on.
    list_sha256: str
    #: Of the folder.
    name: str = ""

    def __len__(self) -> int:
        return len(self.videos)


def read(folder: Path, list_file: Path | None = None) -> Dataset:
    """Read the list of `folder`, or `list_file`, whose paths are relative to `folder`.

    The videos themselves are not opened. Raises DataError naming file and line.
    """
    path, names = list_file or folder / ANNOTATIONS, folder / LABELS
    text = _text(path)
    classes = tuple(_text(names).rstrip().splitlines()) if names.is_file() else None
    videos, labels = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, *rest = line.strip().rsplit(maxsplit=1)  # a path may hold spaces
        label = "".join(rest)
        if not label.isdecimal():
            raise DataError(f"{path}: line {number} is {line!r}; it must be a path and the index of its class")
        if classes is not None and int(label) >= len(classes):
            raise DataError(f"{path}: line {number} has class {label}, but {names} names {len(classes)} classes")
        videos.append(folder / name)
        labels.append(int(label))
    if not videos:
        raise DataError(f"{path}: lists no video; a line is a path and the index of its class")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Dataset(tuple(videos), tuple(labels), classes, digest, folder.resolve().name)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors put a byte order mark in front
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give a folder with {ANNOTATIONS}, a line `path index` a "
            "video, or the list itself with --list"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not text; write it anew as UTF-8") from None


def write(folder: Path, items: Sequence[tuple[str, int]], classes: Sequence[str]) -> None:
    """Write the lists of `folder`: `items` are paths, relative to it, and class indices."""
    lines = [f"{name} {label}\n" for name, label in items]
    (folder / LABELS).write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    (folder / ANNOTATIONS).write_text("".join(lines), encoding="utf-8")
