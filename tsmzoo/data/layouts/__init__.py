"""Datasets as users have them: the official ones, list files of MIT and mmaction2, and a folder a class.

A layout is told by the list that lies in the folder under its official name, there or one folder deeper; the videos
may lie in the folder or below. `LAYOUTS` has a row for each, to which another is added.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tsmzoo.data.dataset import LABELS, Dataset, Video, writable
from tsmzoo.data.layouts import detect, locate
from tsmzoo.data.layouts.detect import LAYOUTS, Layout
from tsmzoo.data.layouts.locate import matcher
from tsmzoo.data.layouts.rows import Asked, Listed, Part, Row, names, short, split_of
from tsmzoo.errors import DataError
from tsmzoo.system import files

__all__ = ["LAYOUTS", "Layout", "Part", "joined", "matcher", "notes", "read"]


def read(
    folder: Path,
    list_file: Path | None = None,
    layout: str | None = None,
    split: int = 1,
    part: Part = "val",
    *,
    option: str = "--list",
    images: str | None = None,
) -> Dataset:
    """Read the labelled videos of `folder`, told by what lies there, or as `layout` says.

    `list_file` takes the place of the list under its official name; `split` is that of UCF101 and HMDB51; `part` is
    for training or for validation, where the layout has a list for each; `images` is what the images of folders are
    called, where that is not told by what lies there. The videos themselves are not opened, but for
    some whose frames the list counts, and may be missing one by one. Raises DataError that says what was expected and
    what was found, and names the `option` by which a list is given.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: is no folder; give the folder of the data")
    if list_file is not None and not os.path.exists(list_file):
        raise DataError(f"{list_file}: does not exist; give the list itself with {option}")
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"no layout is called {layout!r}; there are {', '.join(LAYOUTS)}")
    asked = Asked(folder, split, part)
    if list_file is not None:
        name, path = layout or detect.by_list(list_file, asked, option), list_file
    else:
        name, path = detect.by_folder(layout, asked, option)
    kind = LAYOUTS[name]
    listed = _opened(path, kind, asked)
    classes = listed.classes if listed.classes is not None else _class_names(folder, path)
    if not listed.rows:
        raise DataError(f"{path}: lists no video; expected {kind.expected(asked)}")
    for written in (*(text for row in listed.rows for text in (row.name, str(row.label))), *(classes or ())):
        if _UNWRITABLE.search(written):
            raise DataError(f"{path}: {short(written)} has characters that cannot be written down; rename it")
    videos = (
        _in_folders(path, listed) if name == "folders" else locate.videos(folder, path, listed.rows, classes, images)
    )
    return Dataset(
        videos=videos,
        repeated=len(listed.rows) - len(videos),
        classes=tuple(classes) if classes is not None else None,
        list_sha256=_digest(path, listed.rows),
        of=kind.of,
        layout=name,
        name=writable(folder.resolve().name),
        list_path=path,
        split=split if kind.many else split_of(path) if name in ("list", "ucf101") else None,
        part=part if kind.many else detect.part_of(name, path),
        left_out=listed.left_out,
    ).named(images)


def joined(first: Dataset, second: Dataset) -> tuple[Dataset, Dataset]:
    """Return two parts of Kinetics with the classes of both: its lists name no class that they have no video of."""
    if not first.layout == second.layout == "kinetics" or first.classes == second.classes:
        return first, second
    classes = tuple(sorted({*(first.classes or ()), *(second.classes or ())}))
    index = {name: number for number, name in enumerate(classes)}

    def relabelled(part: Dataset) -> Dataset:
        own = part.classes or ()
        videos = tuple(replace(video, label=index[own[video.label]]) for video in part.videos)
        return replace(part, videos=videos, classes=classes)

    return relabelled(first), relabelled(second)


def notes(dataset: Dataset) -> list[str]:
    """Return what a user should know of how a dataset was read."""
    found = []
    if dataset.repeated:
        found.append(f"note: {dataset.repeated} lines of {dataset.list_path} name a video again; each counts once")
    if count := len(dataset.left_out):
        files_ = "1 file" if count == 1 else f"{count} files"
        found.append(
            f"note: {files_} in folders of classes left out, as no video of a class: {_some(dataset.left_out)}"
        )
    if dataset.layout == "folders" and dataset.classes:
        used = {video.label for video in dataset.videos}
        empty = [name for index, name in enumerate(dataset.classes) if index not in used]
        if empty:
            found.append(f"note: no video is in the folder of the class {_some([repr(name) for name in empty])}")
    return found


#: Half characters, as bytes that are no UTF-8 become, and those that steer a terminal or end a line.
_UNWRITABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")


def _some(names: Sequence[str], most: int = 5) -> str:
    return f"{', '.join(names[:most])}{f' and {len(names) - most} more' if len(names) > most else ''}"


def _opened(path: Path, kind: Layout, asked: Asked) -> Listed:
    try:
        return kind.read(path, asked)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except (LookupError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise DataError(
            f"{path}: is not laid out as expected ({type(error).__name__}: {error}); expected {kind.expected(asked)}"
        ) from None


def _in_folders(base: Path, listed: Listed) -> tuple[Video, ...]:
    index = {name: number for number, name in enumerate(listed.classes or ())}
    return tuple(Video(row.name, base / row.name, index[str(row.label)]) for row in listed.rows)


def _class_names(folder: Path, path: Path) -> list[str] | None:
    """Return the class names that lie beside a list without names, or in the folder of the data."""
    places = [place / name for place in (path.parent, folder) for name in (LABELS, "category.txt")]
    found = next((place for place in places if os.path.lexists(place)), None)
    if found is None:
        return None
    listed = names(found)
    if twice := [name for name, count in Counter(listed).items() if count > 1]:
        raise DataError(f"{found}: names {_some([repr(name) for name in twice])} again; a class has a name of its own")
    return listed


def _digest(path: Path, rows: list[Row]) -> str:
    """Return the sha256 of a list; of several files, or none, that of what they say."""
    said = files.read(path) if path.is_file() else "".join(f"{row.name} {row.label}\n" for row in rows).encode()
    return hashlib.sha256(said).hexdigest()
