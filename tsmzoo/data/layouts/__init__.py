"""Read labelled datasets: the official ones, list files of MIT and mmaction2, and one folder per class.

The layout is detected by the official name of its list, in the folder or one folder deeper; the videos may lie in the
folder or below. `LAYOUTS` has one row for each layout: to add one, add a row.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tsmzoo.data.dataset import LABELS, Dataset, Video, writable
from tsmzoo.data.layouts import detect, locate
from tsmzoo.data.layouts.detect import LAYOUTS, Layout
from tsmzoo.data.layouts.locate import matcher
from tsmzoo.data.layouts.rows import ListContent, Part, Request, Row, names, short, split_of
from tsmzoo.errors import DataError
from tsmzoo.system import files
from tsmzoo.text import some

__all__ = ["LAYOUTS", "Layout", "Part", "matcher", "notes", "read", "share_classes"]


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
    """Read the labelled videos of `folder`.

    `layout` is a name of `LAYOUTS` (default: detected). `list_file` replaces the list with the official name. `split`
    is 1, 2 or 3 of UCF101 and HMDB51. `part` selects the list for training or for validation, if the layout has both.
    `images` is the template of images in folders (default: detected). `option` is the command-line option that gives a
    list, for messages. Videos are not opened, except some whose frames the list counts, and may be missing.

    Raises DataError, which says what was expected and what was found.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: is no folder; give the folder of the data")
    if list_file is not None and not os.path.exists(list_file):
        raise DataError(f"{list_file}: does not exist; give the list itself with {option}")
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"no layout is called {layout!r}; there are {', '.join(LAYOUTS)}")
    request = Request(folder, split, part)
    if list_file is not None:
        name, path = layout or detect.by_list(list_file, request, option), list_file
    else:
        name, path = detect.by_folder(layout, request, option)
    kind = LAYOUTS[name]
    listed = _opened(path, kind, request)
    classes = listed.classes if listed.classes is not None else _class_names(folder, path)
    if not listed.rows:
        raise DataError(f"{path}: lists no video; expected {kind.expected(request)}")
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


def share_classes(first: Dataset, second: Dataset) -> tuple[Dataset, Dataset]:
    """Return two parts of Kinetics with the classes of both: each list names only the classes of its own videos."""
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
    """Return notes for the user on how a dataset was read: repeated lines, files left out, empty classes."""
    found = []
    if dataset.repeated:
        found.append(f"note: {dataset.repeated} lines of {dataset.list_path} name a video again; each counts once")
    if count := len(dataset.left_out):
        files_ = "1 file" if count == 1 else f"{count} files"
        found.append(
            f"note: {files_} in folders of classes left out, as no video of a class: {some(dataset.left_out, 5)}"
        )
    if dataset.layout == "folders" and dataset.classes:
        used = {video.label for video in dataset.videos}
        empty = [name for index, name in enumerate(dataset.classes) if index not in used]
        if empty:
            found.append(f"note: no video is in the folder of the class {some([repr(name) for name in empty], 5)}")
    return found


#: Control characters, and the surrogates that Python makes of bytes that are not UTF-8.
_UNWRITABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")


def _opened(path: Path, kind: Layout, request: Request) -> ListContent:
    try:
        return kind.read(path, request)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except (LookupError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise DataError(
            f"{path}: is not laid out as expected ({type(error).__name__}: {error}); expected {kind.expected(request)}"
        ) from None


def _in_folders(base: Path, listed: ListContent) -> tuple[Video, ...]:
    index = {name: number for number, name in enumerate(listed.classes or ())}
    return tuple(Video(row.name, base / row.name, index[str(row.label)]) for row in listed.rows)


def _class_names(folder: Path, path: Path) -> list[str] | None:
    """Return the class names in the file beside a list without names, or in the folder of the data."""
    places = [place / name for place in (path.parent, folder) for name in (LABELS, "category.txt")]
    found = next((place for place in places if os.path.lexists(place)), None)
    if found is None:
        return None
    listed = names(found)
    if twice := [name for name, count in Counter(listed).items() if count > 1]:
        raise DataError(
            f"{found}: names {some([repr(name) for name in twice], 5)} again; a class has a name of its own"
        )
    return listed


def _digest(path: Path, rows: list[Row]) -> str:
    """Return the sha256 of the list file, or of the rows if the layout has several files or none."""
    content = files.read(path) if path.is_file() else "".join(f"{row.name} {row.label}\n" for row in rows).encode()
    return hashlib.sha256(content).hexdigest()
