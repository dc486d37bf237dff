"""Read datasets with one folder per class, which holds videos or folders of images, at any depth."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from pathlib import Path

from tsmzoo.data.layouts.folders import identity, inside, is_folder, is_stray, is_video, subfolders, videos, walk
from tsmzoo.data.layouts.rows import ListContent, Part, Request, Row, nfc
from tsmzoo.errors import DataError
from tsmzoo.text import some

#: Names of the folders that hold the classes of a part of the data, in order of preference.
PARTS: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "test", "testing"),
}
_PART_NAMES = frozenset(name for names in PARTS.values() for name in names)
#: Extensions of documents beside videos: a folder of nothing else is not a class.
_DOCUMENTS = frozenset(
    (".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".py", ".sh", ".ipynb", ".log", ".pdf")
)
#: Names, without digits and dashes, of folders whose images show one video in several modalities.
_MODALITY = re.compile(
    r"(?:rgb|img|image|frame|colou?r|(?:optical)?flow[xyuv]?|[xyuv]|depth|ir|nir|infrared|thermal|mask|seg|segmentation|"
    r"skeleton|pose|heatmap)s?"
)
_LISTS = frozenset({".txt", ".csv", ".json"})
#: Beginnings of the names of text files that are not lists.
_NO_LISTS = ("readme", "license", "licence", "labels", "classes", "notes", "class_names", "requirements")


def base(folder: Path, part: Part, *, beside: str | None) -> Path | None:
    """Return the folder whose subfolders are classes, `folder` or one below; None if there is none.

    Raises DataError if only the other part of the data has classes, if the parts have no classes, or if a list lies
    beside the only folder and `beside` names the option that would give that list.
    """
    holding = {place: direct for place in inside(folder) if (direct := _holds_videos(place)) is not None}
    if not holding:
        return None
    names = {place.name.casefold(): place for place in holding}
    # A folder that holds videos directly may be a class with such a name.
    parts = {name: place for name, place in names.items() if name in _PART_NAMES and not holding[place]}
    if parts:
        if (wanted := next((parts[name] for name in PARTS[part] if name in parts), None)) is not None:
            return base(wanted, part, beside=beside) or wanted
        expected = " or ".join(f"{name}/" for name in PARTS[part])
        raise DataError(
            f"{folder}: holds classes in {_named(parts)} and none for {_PURPOSES[part]}; expected {expected}, "
            "or give another folder"
        )
    if len(names) > 1 and names.keys() <= _PART_NAMES:
        raise DataError(
            f"{folder}: holds {_named(names)} of videos, which are parts of the data and no classes; make a folder "
            "a class in each, or ask for --format folders"
        )
    if len(holding) == 1:
        ((place, direct),) = holding.items()
        if beside is not None and (list_ := _list_in(folder)) is not None:
            if direct:
                return None  # what is in the list is meant
            raise DataError(
                f"{folder}: holds videos in {place.name}/ and {list_}, which may say their classes; give it with "
                f"{beside} FILE, or have the folders for classes with --format folders"
            )
        return folder if direct else base(place, part, beside=beside)
    return folder


_PURPOSES: dict[Part, str] = {"train": "training", "val": "validation"}


def _named(names: dict[str, Path]) -> str:
    return ", ".join(f"{place.name}/" for _, place in sorted(names.items()))


def _list_in(folder: Path) -> str | None:
    """Return the name of a file that may be a list of videos, or None."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not is_stray(entry.name))
    lists = (name for name in names if os.path.splitext(name)[1].lower() in _LISTS)
    return next((name for name in lists if not name.lower().startswith(_NO_LISTS)), None)


def _holds_videos(place: Path) -> bool | None:
    """Return True if videos lie directly in a folder, False if only in its subfolders, None if there are none."""
    first = next((name for kind, name in walk(place) if kind != "other"), None)
    return None if first is None else "/" not in first


def read(folder: Path, request: Request) -> ListContent:
    """Return the videos of each class, classes in alphabetical order.

    Raises DataError if a class has files and none of them is a video.
    """
    rows: list[Row] = []
    left_out: list[str] = []
    classes: set[str] = set()
    broken: list[str] = []
    around = (identity(folder),)
    for place in subfolders(folder):
        found = videos(place, around)
        _check_parts(place, found.images)
        members, others = sorted((*found.files, *found.images)), sorted(found.others)
        left_out += [f"{place.name}/{name}" for name in others]
        if not members and others:
            if all(os.path.splitext(name)[1].lower() in _DOCUMENTS for name in others):
                continue
            broken.append(f"{place.name!r} ({_counted(others)})")
        label = nfc(place.name)
        classes.add(label)
        rows += [Row(f"{place.name}/{name}", label, (f"{place.name}/{name}",)) for name in members]
    if broken:
        raise DataError(
            f"{folder}: no video can be read in the class {some(broken, 5)}; convert its files, for instance to .mp4, "
            "or move it away"
        )
    with os.scandir(folder) as entries:
        beside = sorted(entry.name for entry in entries if is_video(entry.name) and not is_folder(entry))
    return ListContent(rows, sorted(classes), (*left_out, *beside, *_passed(folder, request.folder)))


def _passed(folder: Path, data: Path) -> list[str]:
    """Return the folders of videos that were skipped: neither a part of the data nor above the classes' folder."""
    found: list[str] = []
    while folder != data and data in folder.parents:
        folder, on_the_way = folder.parent, folder
        others = [place for place in inside(folder) if place != on_the_way and place.name.casefold() not in _PART_NAMES]
        found += [f"{place.relative_to(data)}/" for place in others if _holds_videos(place) is not None]
    return found


def _check_parts(place: Path, images: list[str]) -> None:
    """Raise DataError if image folders of a class show one video in several modalities, such as color and depth."""
    within: dict[str, set[str]] = defaultdict(set)
    for name in images:
        above, _, last = name.rpartition("/")
        within[above].add(re.sub(r"[\d _.-]+", "", last).casefold())
    repeated = Counter(frozenset(kinds) for above, kinds in within.items() if above)
    for above, kinds in within.items():
        known = sum(_MODALITY.fullmatch(kind) is not None for kind in kinds)
        if known > 1 or (above and len(kinds) > 1 and repeated[frozenset(kinds)] > 1):
            shown = sorted(f"{name.rpartition('/')[2]}/" for name in images if name.rpartition("/")[0] == above)
            raise DataError(
                f"{place / above}: holds several folders of images, {', '.join(shown[:4])}, which show one "
                "video as far as can be told; keep those of one kind there, or list the videos and give the list"
            )


def _counted(names: list[str]) -> str:
    return f"{len(names)} file{'s' * (len(names) > 1)}, such as {names[0]}"
