"""Find the videos of a list on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tsmzoo.data import images
from tsmzoo.data.dataset import VIDEO_ENDINGS, Video
from tsmzoo.data.layouts import folders
from tsmzoo.data.layouts.rows import Row, nfc
from tsmzoo.errors import DataError, VideoError

#: Rows that are looked up in each folder to find the one that holds the videos.
_PROBES = 32
#: Videos whose frames are counted to check the numbers of a list.
_COUNTED = 64
#: Order of preference among videos that differ in the extension only.
_RANK = {ending: rank for rank, ending in enumerate(VIDEO_ENDINGS)}


def videos(
    folder: Path, path: Path, rows: list[Row], classes: Sequence[str] | None, template: str | None = None
) -> tuple[Video, ...]:
    """Return the videos of a list, each once, with the index of its class.

    `template` is that of the images in folders, for counting them. Raises DataError if a class is unknown, or a video
    is listed with two classes.
    """
    index = _FolderIndex()
    root = _root(folder, path, rows, index)
    rows = _resolve_readings(path, rows, root, index, template)
    index_of = matcher(classes or ())
    found: dict[str, Video] = {}
    for row in rows:
        label = row.label if isinstance(row.label, int) else index_of(row.label)
        if label is None:
            raise DataError(f"{path}: {row.name} is of class {row.label!r}, which the labels beside it lack")
        if classes is not None and label >= len(classes):
            raise DataError(f"{path}: {row.name} has class {label}, but only {len(classes)} are named")
        place = index.find(root, row) or root / row.places[0]
        # A publisher's name identifies a video; in other lists the normalized path does.
        key = os.path.normpath(place) if len(row.places) == 1 else row.name
        first = found.setdefault(key, Video(row.name, place, label, row.frames))
        if (first.label, first.frames) != (label, row.frames):
            listed_as = row.name if row.name == first.name else f"{first.name} and again as {row.name},"
            raise DataError(
                f"{path}: lists {listed_as} twice, and not alike; one class a video can be scored, "
                "several need mean average precision"
            )
    return tuple(found.values())


@dataclass(frozen=True)
class _Entries:
    """The entries of a folder by name, and its videos by name without extension, both in Unicode form NFC."""

    names: dict[str, str]
    stems: dict[str, str]


_NOTHING = _Entries({}, {})


class _FolderIndex:
    """Looks up files, listing each folder once: a list of 20,000 videos has a dozen candidate places for each."""

    def __init__(self) -> None:
        self._folders: dict[str, tuple[str, _Entries]] = {}

    def begins(self, folder: Path) -> set[str]:
        """Return the first parts that a place in `folder` may have."""
        _, entries = self._folder(str(folder))
        return entries.names.keys() | entries.stems.keys()

    def find(self, root: Path, row: Row) -> Path | None:
        """Return the path of a row's video, or None."""
        return next((found for place in row.places if (found := self.at(root, place, bare=row.bare))), None)

    def at(self, root: Path, place: str, *, bare: bool) -> Path | None:
        """Return the path at a place, in any Unicode form and any case of the extension; or None."""
        folder, name = os.path.split(os.path.normpath(os.path.join(root, place)))
        folder, entries = self._folder(folder)
        name = nfc(name)
        found = entries.names.get(name) or entries.names.get(_lowered(name))
        if found is None and bare:
            found = entries.stems.get(name)
        return None if found is None else Path(folder, found)

    def _folder(self, path: str) -> tuple[str, _Entries]:
        """Return the path of a folder as it is written on disk, and its entries: none if it does not exist."""
        if path not in self._folders:
            self._folders[path] = path, _NOTHING  # until it is known: the lookup of a parent may ask
            entries = _entries(path)
            if entries is not None:
                self._folders[path] = path, entries
            elif not path.isascii():
                parent, name = os.path.split(path)
                actual, siblings = self._folder(parent)
                if (other := siblings.names.get(nfc(name))) is not None and os.path.join(actual, other) != path:
                    self._folders[path] = self._folder(os.path.join(actual, other))
        return self._folders[path]


def _entries(folder: str) -> _Entries | None:
    found: list[str] = []
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries)
    except (OSError, ValueError):  # not there, not to be read, or no name that a system knows
        return None
    names = {nfc(name): name for name in found}
    stems: dict[str, str] = {}
    ranked = []
    for name in found:
        stem, ending = os.path.splitext(name)
        if (rank := _RANK.get(ending.lower())) is not None and not name.startswith("."):
            ranked.append((rank, stem, name))
    for _, stem, name in sorted(ranked):
        names.setdefault(_lowered(nfc(name)), name)
        stems.setdefault(nfc(stem), name)
    return _Entries(names, stems)


def _lowered(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return stem + ending.lower()


def _root(folder: Path, path: Path, rows: list[Row], index: _FolderIndex) -> Path:
    """Return the folder, `folder` or one below, that holds most of the list's videos; ties go to the list's own."""
    roots = folders.below(folder, depth=2)[: 2 * folders.MOST]
    roots.sort(key=lambda root: root != path.parent)  # names such as 000001.mp4 lie in other folders, too
    # First parts of all places, so that a folder of other things is skipped at once.
    begins = {nfc(os.path.normpath(place).split("/")[0]) for row in rows for place in _places(row)}
    begins |= {_lowered(begin) for begin in begins}
    roots = [root for root in roots if "" in begins or ".." in begins or begins & index.begins(root)]
    probes = rows[:: max(1, len(rows) // _PROBES)][:_PROBES]
    for sample in (probes, rows):  # all rows if only a small part of a dataset is there
        hits = [
            sum(any(index.at(root, place, bare=row.bare) for place in _places(row)) for row in sample) for root in roots
        ]
        if any(hits):
            return roots[hits.index(max(hits))]
    raise DataError(
        f"{folder}: no video of {path.name} is there; expected for instance "
        f"{rows[0].places[0]} in it or in a folder of it, found {folders.contents(folder)}"
    )


def _places(row: Row) -> tuple[str, ...]:
    return row.places + tuple(name for name, _ in row.readings if name not in row.places)


# --- numbers at the end of a line ----------------------------------------------------------------------------------


def _resolve_readings(path: Path, rows: list[Row], root: Path, index: _FolderIndex, template: str | None) -> list[Row]:
    """Resolve the numbers at the end of each line by what is on disk: part of the path, frames, class.

    Raises DataError if a line has several classes, or a number of frames that is wrong.
    """
    several = [row for row in rows if row.readings]
    if not several:
        return rows
    resolved: dict[int, tuple[str, tuple[int, ...]]] = {}
    for row in several:
        there_is = (reading for reading in row.readings if index.at(root, reading[0], bare=row.bare))
        # A name with the extension of a video is one, even if the file is missing.
        if reading := next(there_is, row.readings[0] if not row.bare else None):
            resolved[row.number] = reading
    counts = {len(numbers) for _, numbers in resolved.values()} | ({1} if len(several) < len(rows) else set())
    most_numbers = 2 if counts == {2} else 1
    found, counted = [], []
    for row in rows:
        if row.readings:
            reading = resolved.get(row.number) or next((r for r in row.readings if len(r[1]) == most_numbers), None)
            if reading is None:
                raise DataError(f"{path}: line {row.number} has no number of frames as the others; mend the list")
            name, numbers = reading
            if len(numbers) > 2 or (len(numbers) == 2 and most_numbers != 2):
                raise several_classes(path, row.number, numbers)
            frames = numbers[0] if len(numbers) == 2 else None
            row = replace(row, name=name, places=(name,), label=numbers[-1], frames=frames)
            if frames is not None:
                counted.append(row)
        found.append(row)
    for row in counted[:: max(1, len(counted) // _COUNTED)][:_COUNTED]:
        place = index.find(root, row)
        if place is not None and (actual := _other_count(place, row.frames or 0, template)) is not None:
            raise DataError(
                f"{path}: line {row.number} says that {row.name} has {row.frames} frames, and it has {actual}; mend "
                "the number. If both numbers are classes: several of one video need mean average precision, which is "
                "not computed; keep one a line"
            )
    return found


def several_classes(path: Path, number: int, classes: Sequence[int | str]) -> DataError:
    """Return the error of a line with several classes."""
    first_few = ", ".join(str(each) for each in classes[:8])
    return DataError(
        f"{path}: line {number} has several classes of one video ({first_few}); they need mean average precision, "
        "which is not computed: keep one a line, for a model of one class"
    )


def _other_count(place: Path, listed: int, template: str | None) -> int | None:
    """Return the number of frames of a video or folder of images if it clearly differs from `listed`; else None.

    A decoder's count may be off by one. Too few images are reported when the folder is read.
    """
    if place.is_dir():
        counts = []
        for flow in (False, True):  # which of them a model sees is not known here
            with suppress(VideoError):  # which is told where it is read
                counts.append(len(images.sequence(place, template, flow=flow)))
                # MIT's lists of flow count x and y.
                if _alike(listed, counts[-1]) or (flow and listed == 2 * counts[-1]):
                    return None
        most = max(counts, default=0)
        return most if listed < most else None
    from tsmzoo.data import seek

    try:
        total = seek.pick(place, lambda _: ()).total
    except VideoError:
        return None  # which is told where it is read
    return None if _alike(listed, total) else total


def _alike(listed: int, count: int) -> bool:
    return abs(listed - count) <= max(1, count // 20)


# --- classes -------------------------------------------------------------------------------------------------------


def matcher(names: Sequence[str]) -> Callable[[str], int | None]:
    """Return a function from a class name to its index in `names`, or None.

    An exact match comes first. Else punctuation, spaces and case are ignored, unless two names differ in these alone.
    """
    exact = {nfc(name): index for index, name in enumerate(names)}
    loose: dict[str, int | None] = {}
    for index, name in enumerate(names):
        loose[_bare(name)] = None if _bare(name) in loose else index
    return lambda name: exact.get(nfc(name), loose.get(_bare(name)))


def _bare(name: str) -> str:
    return re.sub(r"[\s_\[\]().,'\"-]", "", nfc(name).casefold())
