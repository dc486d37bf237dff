"""Datasets as users have them: the official ones, list files of MIT and mmaction2, and a folder a class.

A layout is told by the list that lies in the folder under its official name, there or one folder deeper; the videos
may lie in the folder or below. `LAYOUTS` has a row for each, to which another is added.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsmzoo.dataset import ANNOTATIONS, LABELS, NUMBERED, Dataset, Video
from tsmzoo.errors import DataError

_VIDEO_ENDINGS = (".mp4", ".webm", ".avi", ".mkv", ".mov")
#: What may follow a name: nothing, of a folder of images.
_ENDINGS = (*_VIDEO_ENDINGS, "")
#: Folders that are looked into for lists and videos.
_MOST_FOLDERS = 512
#: Videos of a list by which the folder they lie in is found.
_PROBES = 32


@dataclass(frozen=True)
class _Row:
    """A line of a list."""

    name: str
    #: A class name or, where the list comes without names, an index.
    label: str | int
    #: Where the video may lie, from the folder of the videos.
    places: tuple[str, ...]
    frames: int | None = None


#: What a list holds: its rows, and the class names in the order of their indices, if it comes with names.
_Listed = tuple[list[_Row], Sequence[str] | None]


@dataclass(frozen=True)
class Layout:
    """How one kind of dataset lies on disk."""

    #: What a folder must hold, for messages; `{split}` as in `lists`.
    expects: str
    #: Patterns of the list's name; `{split}` is the number of --split.
    lists: tuple[str, ...]
    #: From the list's path, the data's folder and the split to what it holds.
    read: Callable[[Path, Path, int], _Listed]
    #: The dataset, as registry entries name it, where the layout is its own and names do not tell it from another.
    of: str | None = None
    #: The list is all files of the pattern, and known by their folder.
    many: bool = False


def read(folder: Path, list_file: Path | None = None, layout: str | None = None, split: int = 1) -> Dataset:
    """Read the labelled videos of `folder`, told by what lies there, or as `layout` says.

    `list_file` takes the place of the list under its official name; `split` is that of UCF101 and HMDB51.
    The videos themselves are not opened, and may be missing one by one. Raises DataError that says what was
    expected and what was found.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: is no folder; give the folder of the data")
    if list_file is not None and not os.path.exists(list_file):
        raise DataError(f"{list_file}: does not exist; give the list itself with --list")
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"no layout is called {layout!r}; there are {', '.join(LAYOUTS)}")
    if list_file is not None:
        name = layout or _told_by_list(folder, list_file)
        path = list_file
    else:
        name, path = _told_by_folder(folder, layout, split)
    kind = LAYOUTS[name]
    rows, classes = _opened(path, folder, kind, split)
    if classes is None:
        classes = _class_names(folder, path)
    if not rows:
        raise DataError(f"{path}: lists no video; expected {kind.expects.format(split=split)}")
    videos = _videos(folder, path, rows, classes)
    return Dataset(
        videos=videos,
        repeated=len(rows) - len(videos),
        classes=tuple(classes) if classes is not None else None,
        list_sha256=_digest(path, rows),
        of=kind.of,
        layout=name,
        name=folder.resolve().name,
    )


def _opened(path: Path, folder: Path, kind: Layout, split: int) -> _Listed:
    try:
        return kind.read(path, folder, split)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not text; write it anew as UTF-8") from None
    except (LookupError, TypeError, ValueError, csv.Error) as error:
        expects = kind.expects.format(split=split)
        raise DataError(
            f"{path}: is not laid out as expected ({type(error).__name__}: {error}); expected {expects}"
        ) from None


def _class_names(folder: Path, path: Path) -> list[str] | None:
    """Return the class names that lie beside a list without names, or in the folder of the data."""
    places = [place / name for place in (path.parent, folder) for name in (LABELS, "category.txt")]
    names = next((place for place in places if place.is_file()), None)
    return _lines(names) if names else None


def _digest(path: Path, rows: list[_Row]) -> str:
    """Return the sha256 of a list; of several files, or none, that of what they say."""
    said = path.read_bytes() if path.is_file() else "".join(f"{row.name} {row.label}\n" for row in rows).encode()
    return hashlib.sha256(said).hexdigest()


# --- which layout --------------------------------------------------------------------------------------------------


def _told_by_folder(folder: Path, layout: str | None, split: int) -> tuple[str, Path]:
    found = {
        name: lists
        for name in ([layout] if layout else [name for name in LAYOUTS if name != "folders"])
        if (lists := _lists(folder, LAYOUTS[name], split))
    }
    if layout == "folders" or (not found and layout is None and _class_folders(folder)):
        return "folders", folder
    if not found:
        wanted = [LAYOUTS[layout]] if layout else list(LAYOUTS.values())
        raise DataError(
            f"{folder}: holds {_contents(folder)}; expected "
            f"{'; or '.join(kind.expects for kind in wanted).format(split=split)}; "
            "name the list with --list FILE where it is called otherwise"
        )
    if len(found) > 1:
        names = "; ".join(f"{name} ({lists[0].name})" for name, lists in found.items())
        raise DataError(f"{folder}: holds several datasets: {names}; choose one with --format")
    name, lists = next(iter(found.items()))
    if len(lists) > 1:
        raise DataError(
            f"{folder}: holds several lists, {', '.join(str(path) for path in lists[:4])}; choose with --list"
        )
    return name, lists[0]


def _told_by_list(folder: Path, path: Path) -> str:
    """Return the layout that a list of any name is in."""
    if path.is_dir():
        return "hmdb51"
    if path.suffix == ".json":
        return "something-v2"
    if re.fullmatch(r".+_test_split[123]\.txt", path.name):
        raise DataError(f"{path}: is one of the 51 lists of HMDB51; give their folder with --list")
    head = _lines(path)[:1]
    if path.suffix == ".csv" and head and "youtube_id" in head[0]:
        return "kinetics"
    if path.suffix == ".csv" and head and re.fullmatch(r"\d+;.*", head[0]):
        labels = {"something-v1": "something-something-v1-labels.csv", "jester": "jester-v1-labels.csv"}
        near = [name for name, file in labels.items() if _near(path, folder, file)]
        if len(near) == 1:
            return near[0]
        raise DataError(
            f"{path}: is a list of Something-Something V1 or of Jester, and the labels of "
            f"{'both lie' if near else 'neither lies'} beside it; say which with --format"
        )
    if head and re.fullmatch(r"\S+/v_\S+\.avi(\s+\d+)?", head[0]) and _near(path, folder, "classInd.txt"):
        return "ucf101"
    return "list"


def _lists(folder: Path, kind: Layout, split: int) -> list[Path]:
    patterns = [pattern.format(split=split) for pattern in kind.lists]
    found: list[Path] = []
    for place in _folders(folder):
        for pattern in patterns:
            matches = sorted(place.glob(pattern)) if "*" in pattern else [place / pattern]
            hits = [path for path in matches if path.is_file()]
            found += [place] if kind.many and hits else hits
    return found


def _folders(folder: Path, depth: int = 1) -> list[Path]:
    """Return `folder` and the folders in it, the first few hundred by name, `depth` deep."""
    found = [folder]
    if depth:
        for place in _inside(folder)[:_MOST_FOLDERS]:
            found += _folders(place, depth - 1)
    return found


def _inside(folder: Path) -> list[Path]:
    """Return the folders in `folder` that may be read, by name."""
    names: list[str] = []
    with suppress(PermissionError), os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    return [folder / name for name in names if os.access(folder / name, os.R_OK | os.X_OK)]


def _class_folders(folder: Path) -> bool:
    """Say whether `folder` holds a folder a class: folders of videos, or of folders of images."""
    places = _inside(folder)
    return len(places) > 1 and all(_members(place) for place in places[:8])


def _contents(folder: Path) -> str:
    with os.scandir(folder) as entries:
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in itertools.islice(entries, 999))
    return f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}" if names else "nothing"


# --- where the videos lie ------------------------------------------------------------------------------------------


def _videos(folder: Path, path: Path, rows: list[_Row], classes: Sequence[str] | None) -> tuple[Video, ...]:
    there = _There()
    root = _root(folder, path, rows, there)
    index_of = matcher(classes or ())
    videos: dict[str, Video] = {}
    for row in rows:
        label = row.label if isinstance(row.label, int) else index_of(row.label)
        if label is None:
            raise DataError(f"{path}: {row.name} is of class {row.label!r}, which the labels beside it lack")
        if classes is not None and label >= len(classes):
            raise DataError(f"{path}: {row.name} has class {label}, but only {len(classes)} are named")
        place = next((place for place in row.places if there.has(root, place)), row.places[0])
        video = Video(row.name, root / place, label, row.frames)
        if videos.setdefault(row.name, video) != video:
            raise DataError(f"{path}: lists {row.name} twice, and not alike; one class a video can be scored")
    return tuple(videos.values())


class _There:
    """What lies where, each folder listed once: a list of 20,000 videos has a dozen places for each."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """Return the names in a folder, none where it is not there or may not be read."""
        if folder not in self._names:
            found: frozenset[str] = frozenset()
            with suppress(OSError), os.scandir(folder) as entries:
                found = frozenset(entry.name for entry in entries)
            self._names[folder] = found
        return self._names[folder]

    def has(self, root: Path, place: str) -> bool:
        folder, name = os.path.split(os.path.normpath(os.path.join(root, place)))
        return name in self.names(folder)


def _root(folder: Path, path: Path, rows: list[_Row], there: _There) -> Path:
    """Return the folder, `folder` or one below, that most of the list's videos are in; first the list's own."""
    roots = _folders(folder, depth=2)[: 2 * _MOST_FOLDERS]
    roots.sort(key=lambda root: root != path.parent)  # names such as 000001.mp4 lie in other folders, too
    # What places begin with, so that a folder of other things is passed over at once.
    begins = {os.path.normpath(place).split("/")[0] for row in rows for place in row.places}
    roots = [root for root in roots if "" in begins or ".." in begins or begins & there.names(str(root))]
    probes = rows[:: max(1, len(rows) // _PROBES)][:_PROBES]
    for asked in (probes, rows):  # all of them, where only a small part of a dataset is there
        hits = [sum(any(there.has(root, place) for place in row.places) for row in asked) for root in roots]
        if any(hits):
            return roots[hits.index(max(hits))]
    raise DataError(
        f"{folder}: no video of {path.name} is there; expected for instance "
        f"{rows[0].places[0]} in it or in a folder of it, found {_contents(folder)}"
    )


def matcher(names: Sequence[str]) -> Callable[[str], int | None]:
    """Return a function from a class name to its index in `names`, however it is written; None where there is none.

    Where no name is the same to the letter, brackets, underscores, spaces and capitals do not count, unless two names
    differ in these alone.
    """
    exact = {name: index for index, name in enumerate(names)}
    loose: dict[str, int | None] = {}
    for index, name in enumerate(names):
        loose[_bare(name)] = None if _bare(name) in loose else index
    return lambda name: exact.get(name, loose.get(_bare(name)))


def _bare(name: str) -> str:
    return re.sub(r"[\s_\[\]().,'\"-]", "", name.casefold())


# --- the lists -----------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors put a byte order mark in front
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not text; write it anew as UTF-8") from None


def _lines(path: Path) -> list[str]:
    """Return the lines of a list that hold something."""
    return [line for line in _text(path).splitlines() if line.strip()]


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}); fetch it again") from None


def _near(path: Path, folder: Path, *names: str) -> Path | None:
    """Return the first file called one of `names` around a list, or in the data's folder or a folder in it."""
    places = [*_folders(path.parent), path.parent.parent, *_folders(folder)]
    return next((place / name for place in places for name in names if (place / name).is_file()), None)


def _list(path: Path, _folder: Path, _split: int) -> _Listed:
    """Lines `path label` (mmaction2, and `tsmzoo data`) or `path frames label` (MIT, mmaction2's raw frames)."""
    parts = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(.+?)(?:[\s,]+(\d+))?[\s,]+(\d+)", line.strip())
        if match is None:
            raise DataError(f"{path}: line {number} is {line!r}; it must be a path and the index of its class")
        parts.append(match.groups())
    counted = all(frames is not None for _, frames, _ in parts)
    rows = []
    for name, frames, label in parts:
        if frames is not None and not counted:  # a number at the end of a path
            name = f"{name} {frames}"
        bare = os.path.splitext(name)[1].lower() not in _VIDEO_ENDINGS
        places = tuple(name + ending for ending in ("", *_VIDEO_ENDINGS)) if bare else (name,)
        rows.append(_Row(name, int(label), places, int(frames) if counted and frames else None))
    return rows, None


def _something_v2(path: Path, folder: Path, _split: int) -> _Listed:
    labels = _near(path, folder, "labels.json", "something-something-v2-labels.json")
    if labels is None:
        raise DataError(f"{path}: needs labels.json (or something-something-v2-labels.json) beside it")
    indices: dict[str, str] = _json(labels)
    rows = [_Row(str(item["id"]), str(item["template"]), _endings(str(item["id"]))) for item in _json(path)]
    try:
        return rows, sorted(indices, key=lambda name: int(indices[name]))
    except (TypeError, ValueError):
        raise DataError(f"{labels}: is no mapping from a class to its index; fetch it again") from None


def _id_label(named: str) -> Callable[[Path, Path, int], _Listed]:
    """Lines `id;label`, and in the file `named` the labels, a line each (Something-Something V1, Jester)."""

    def read_(path: Path, folder: Path, _split: int) -> _Listed:
        labels = _near(path, folder, named)
        if labels is None:
            raise DataError(f"{path}: needs {named} beside it")
        rows = []
        for line in _lines(path):
            id_, _, label = line.partition(";")
            if not label:
                raise DataError(f"{path}: line {line!r} must be `id;label`")
            rows.append(_Row(id_, label, _endings(id_)))
        return rows, _lines(labels)

    return read_


def _kinetics(path: Path, _folder: Path, _split: int) -> _Listed:
    rows = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        for line in csv.DictReader(file):
            label, id_ = line["label"], line["youtube_id"]
            clip = f"{id_}_{int(float(line['time_start'])):06d}_{int(float(line['time_end'])):06d}"
            folders = ("", f"{label}/", f"{label.replace(' ', '_')}/")
            places = [f"{folder}{name}" for name in (clip, id_) for folder in folders]
            rows.append(_Row(clip, label, tuple(place + ending for place in places for ending in _ENDINGS)))
    return rows, sorted({str(row.label) for row in rows})


def _ucf101(path: Path, folder: Path, _split: int) -> _Listed:
    named = _near(path, folder, "classInd.txt")
    if named is None:
        raise DataError(f"{path}: needs classInd.txt beside it")
    # The official numbers are 1, 2 … in the order of the names.
    names = [line.partition(" ")[2].strip() for line in _lines(named)]
    if not all(names):
        raise DataError(f"{named}: must hold a number and a class a line; fetch it again")
    rows = []
    for line in _lines(path):
        name = line.split()[0]
        bare = name.removesuffix(".avi")
        places = tuple(place + ending for place in (bare, bare.split("/")[-1]) for ending in _ENDINGS)
        rows.append(_Row(name, name.split("/")[0], (name, *places)))
    return rows, names


def _hmdb51(lists: Path, _folder: Path, split: int) -> _Listed:
    """One list a class; of the number behind each video, 1 is for training, 2 for testing, 0 for neither."""
    rows, names = [], []
    for path in sorted(lists.glob(f"*_test_split{split}.txt")):
        label = path.name.removesuffix(f"_test_split{split}.txt")
        names.append(label)
        for line in _lines(path):
            name, use = line.rsplit(maxsplit=1)
            if use == "2":
                places = (f"{label}/{name}", name, *_endings(f"{label}/{name.removesuffix('.avi')}"))
                rows.append(_Row(f"{label}/{name}", label, places))
    return rows, names


def _class_list(folder: Path, _folder: Path, _split: int) -> _Listed:
    """A folder a class, in the order of the alphabet."""
    rows = [
        _Row(f"{place.name}/{name}", place.name, (f"{place.name}/{name}",))
        for place in _inside(folder)
        for name in _members(place)
    ]
    for row in rows:
        if not row.name.isprintable():  # such as bytes that are no UTF-8
            raise DataError(f"{folder}: {row.name!r} cannot be written down; rename it")
    return rows, sorted({str(row.label) for row in rows})


def _members(place: Path) -> list[str]:
    """Return the names of videos, and of folders of images, in a class' folder."""
    with os.scandir(place) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".")
            and (os.path.splitext(entry.name)[1].lower() in _VIDEO_ENDINGS or _holds_images(entry))
        )


def _holds_images(entry: os.DirEntry[str]) -> bool:
    if not entry.is_dir() or not os.access(entry.path, os.R_OK | os.X_OK):
        return False
    with os.scandir(entry.path) as inside:
        return any(NUMBERED.fullmatch(image.name) for image in itertools.islice(inside, 9))


def _endings(name: str) -> tuple[str, ...]:
    return tuple(name + ending for ending in _ENDINGS)


LAYOUTS: dict[str, Layout] = {
    "list": Layout(
        f"{ANNOTATIONS} or another list of `path label` or `path frames label` lines",
        (ANNOTATIONS, "val_videofolder.txt", "*_val_list_videos.txt", "*_val_list_rawframes.txt"),
        _list,
    ),
    "something-v2": Layout(
        "validation.json and labels.json of Something-Something V2",
        ("validation.json", "something-something-v2-validation.json"),
        _something_v2,
        "somethingv2",
    ),
    "something-v1": Layout(
        "something-something-v1-validation.csv and …-labels.csv",
        ("something-something-v1-validation.csv",),
        _id_label("something-something-v1-labels.csv"),
        "somethingv1",
    ),
    "jester": Layout(
        "jester-v1-validation.csv and …-labels.csv",
        ("jester-v1-validation.csv",),
        _id_label("jester-v1-labels.csv"),
        "jester",
    ),
    "kinetics": Layout(
        "validate.csv or val.csv of Kinetics-400, with columns label, youtube_id, time_start and time_end",
        ("validate.csv", "val.csv", "kinetics_val.csv"),
        _kinetics,
    ),
    "ucf101": Layout(
        "testlist{split:02d}.txt and classInd.txt of UCF101",
        ("testlist{split:02d}.txt",),
        _ucf101,
        "ucf101",
    ),
    "hmdb51": Layout(
        "the 51 files *_test_split{split}.txt of HMDB51",
        ("*_test_split{split}.txt",),
        _hmdb51,
        "hmdb51",
        many=True,
    ),
    "folders": Layout("a folder a class, of videos or of folders of images", (), _class_list),
}
