"""A folder a class, of videos or of folders of images, one or several folders deep."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tsmzoo.dataset import NUMBERED, VIDEO_ENDINGS
from tsmzoo.errors import DataError
from tsmzoo.layouts.folders import inside, is_folder, is_stray, subfolders
from tsmzoo.layouts.rows import Asked, Listed, Part, Row, nfc

#: Names of the folders that hold the classes of a part of the data, in the order they are looked for.
PARTS: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "test", "testing"),
}
_PART_NAMES = frozenset(name for names in PARTS.values() for name in names)
#: Endings of what people keep beside videos: a folder of nothing else is no class.
_DOCUMENTS = frozenset(
    (".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".py", ".sh", ".ipynb", ".log", ".pdf")
)
#: Folders in each other in which the videos of a class are looked for.
_DEEPEST = 32
_LISTS = frozenset({".txt", ".csv", ".json"})
#: Names of text that lies beside folders of classes.
_NO_LISTS = ("readme", "license", "licence", "labels", "classes", "notes", "class_names", "requirements")


def base(folder: Path, part: Part) -> Path | None:
    """Return the folder whose folders are classes, `folder` or one below; None where there is none.

    Raises DataError where there are classes of the other part of the data alone, or parts without classes.
    """
    holding = {place: direct for place in inside(folder) if (direct := _holds_videos(place)) is not None}
    if not holding:
        return None
    names = {place.name.casefold(): place for place in holding}
    if names.keys() <= _PART_NAMES:
        with_classes = [name for name in PARTS[part] if name in names and not holding[names[name]]]
        if with_classes:
            return base(names[with_classes[0]], part) or names[with_classes[0]]
        if len(names) > 1 and all(holding.values()):
            raise DataError(
                f"{folder}: holds {_named(names)} of videos, which are parts of the data and no classes; make a folder "
                "a class in each, or ask for --format folders"
            )
        if not any(holding[names[name]] for name in names):
            wanted = " or ".join(f"{name}/" for name in PARTS[part])
            raise DataError(
                f"{folder}: holds classes in {_named(names)} and none for {_PURPOSES[part]}; expected {wanted}, "
                "or give another folder"
            )
    if len(holding) == 1:
        # With a list of an unknown name beside it, what is in the list is meant.
        if _has_list(folder):
            return None
        ((place, direct),) = holding.items()
        return folder if direct else base(place, part)
    return folder


_PURPOSES: dict[Part, str] = {"train": "training", "val": "validation"}


def _named(names: dict[str, Path]) -> str:
    return ", ".join(f"{place.name}/" for _, place in sorted(names.items()))


def _has_list(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(
            os.path.splitext(entry.name)[1].lower() in _LISTS
            and not is_stray(entry.name)
            and not entry.name.lower().startswith(_NO_LISTS)
            for entry in entries
        )


def _holds_videos(place: Path) -> bool | None:
    """Say whether videos lie in a folder itself (True), only in folders of it (False), or nowhere in it (None)."""
    found = _Class(place)
    first = next(iter(_walk(place, "", found, ())), None)
    return None if first is None else "/" not in first


def read(folder: Path, _: Asked) -> Listed:
    """Return the videos of each class, classes in the order of the alphabet.

    Raises DataError where a class has files and none of them is a video.
    """
    rows: list[Row] = []
    left_out: list[str] = []
    classes: set[str] = set()
    broken: list[str] = []
    around = _identity(folder)
    for place in subfolders(folder):
        found = _Class(place)
        members = sorted(_walk(place, "", found, (around,)))
        others = sorted(found.others)
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
            f"{folder}: no video can be read in the class {', '.join(broken[:5])}"
            f"{f' and {len(broken) - 5} more' if len(broken) > 5 else ''}; convert its files, for instance to .mp4, "
            "or move it away"
        )
    for row in rows:
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in row.name):  # such as bytes that are no UTF-8
            raise DataError(f"{folder}: {row.name!r} cannot be written down; rename it")
    with os.scandir(folder) as entries:
        beside = sorted(entry.name for entry in entries if _is_video(entry.name) and not is_folder(entry))
    return Listed(rows, sorted(classes), (*left_out, *beside))


def _counted(names: list[str]) -> str:
    return f"{len(names)} file{'s' * (len(names) > 1)}, such as {names[0]}"


@dataclass
class _Class:
    """What lies in a class' folder beside its videos."""

    place: Path
    others: list[str] = field(default_factory=list)


def _walk(place: Path, prefix: str, found: _Class, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Yield the names of videos and folders of images in a folder, those directly in it first; note other files.

    A link to a folder around it is not followed, and what lies too deep is noted.
    """
    try:
        here = _identity(place)
        with os.scandir(place) as entries:
            inside_ = sorted((entry for entry in entries if not is_stray(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror}); check its permissions") from None
    if here in above:
        return
    if len(above) > _DEEPEST:
        found.others.append(prefix)
        return
    videos, folders = set(), []
    for entry in inside_:
        if is_folder(entry):
            folders.append(entry)
        elif _is_video(entry.name):
            videos.add(os.path.splitext(entry.name)[0])
            yield prefix + entry.name
        else:
            found.others.append(prefix + entry.name)
    deeper = []
    for entry in folders:
        if not _holds_images(entry.path):
            deeper.append(entry)
        elif entry.name in videos:  # the images of a video that is there
            found.others.append(f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name
    for entry in deeper:
        yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", found, (*above, here))


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_video(name: str) -> bool:
    return not is_stray(name) and os.path.splitext(name)[1].lower() in VIDEO_ENDINGS


def _holds_images(folder: str) -> bool:
    """Say whether a folder is a video in images: images directly in it, and no video."""
    images = False
    try:
        with os.scandir(folder) as inside_:
            for entry in inside_:
                if _is_video(entry.name) and not is_folder(entry):
                    return False
                images = images or (not is_stray(entry.name) and NUMBERED.fullmatch(entry.name) is not None)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from None
    return images
