"""Walk the folders of a dataset."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tsmzoo.data.dataset import NUMBERED, VIDEO_ENDINGS
from tsmzoo.errors import DataError
from tsmzoo.text import some

#: The most folders that are searched for lists and videos.
MOST = 512
#: Folders and files that systems and archivers leave behind.
_STRAY_FOLDERS = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
_STRAY_FILES = frozenset({"Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r"})

#: The most levels of folders that are searched for videos.
_DEEPEST = 32
#: Names of folders whose images show the videos beside them.
_SHOWS = re.compile(
    r"(?<![a-z])(?:thumb|thumbnail|preview|cover|poster|still|screenshot|keyframe)s?(?![a-z])", re.IGNORECASE
)


def is_stray(name: str) -> bool:
    """Say whether a file or folder is not the user's: hidden, or left by a system."""
    return name.startswith(".") or name in _STRAY_FOLDERS or name in _STRAY_FILES


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Say whether an entry is a folder or a link to one; False for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def inside(folder: Path) -> list[Path]:
    """Return the readable subfolders of `folder`, sorted by name."""
    return [place for place in subfolders(folder) if os.access(place, os.R_OK | os.X_OK)]


def subfolders(folder: Path) -> list[Path]:
    """Return the subfolders of `folder`, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not is_stray(entry.name) and is_folder(entry))
    except PermissionError:
        return []
    return [folder / name for name in names]


def below(folder: Path, depth: int = 1) -> list[Path]:
    """Return `folder` and its subfolders to `depth` levels, at most `MOST` in each folder."""
    found = [folder]
    if depth:
        for place in inside(folder)[:MOST]:
            found += below(place, depth - 1)
    return found


def near(path: Path, folder: Path, *names: str) -> Path | None:
    """Return the first file with one of `names` near a list, or in the data's folder or a subfolder of it."""
    places = [*below(path.parent), path.parent.parent, *below(folder)]
    return next((place / name for place in places for name in names if os.path.lexists(place / name)), None)


def contents(folder: Path) -> str:
    """Return the first few names in a folder, for messages."""
    with os.scandir(folder) as entries:
        names = sorted(f"{entry.name}/" if is_folder(entry) else entry.name for entry in itertools.islice(entries, 999))
    return some(names, 4) or "nothing"


# --- videos ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FolderContent:
    """Names relative to a folder, at any depth."""

    #: Video files, and folders of images, each of which is a video.
    files: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    #: Everything else, folders with a trailing slash.
    others: list[str] = field(default_factory=list)


def videos(folder: Path, above: tuple[tuple[int, int], ...] = ()) -> FolderContent:
    """Return the videos in a folder, each once, and everything else; `above` as in `walk`. Raises DataError."""
    found = FolderContent()
    images: list[str] = []
    for kind, name in walk(folder, above):
        {"video": found.files, "images": images, "other": found.others}[kind].append(name)
    stems = {os.path.splitext(name)[0] for name in found.files}
    for name in images:
        if stems and _shows(name, stems):
            found.others.append(f"{name}/")
        else:
            found.images.append(name)
    return found


def _shows(name: str, stems: set[str]) -> bool:
    """Say whether a folder of images shows a video beside it, rather than being a video.

    Its name is that of a video in the same folder or the one above, a word for thumbnails, or has no digits.
    """
    *above, last = name.split("/")
    places = ("/".join((*around, called)) for around in (above, above[:-1]) for called in (last, _SUFFIX.sub("", last)))
    return not stems.isdisjoint(places) or not re.search(r"\d", last) or _SHOWS.search(name) is not None


#: The suffix of `1_frames`, and of folders of images named like `1.avi`.
_SUFFIX = re.compile(r"[ _.-]+[^\W\d_]+\Z")


def walk(
    folder: Path, above: tuple[tuple[int, int], ...] = (), prefix: str = ""
) -> Iterator[tuple[Literal["video", "images", "other"], str]]:
    """Yield kind and name of video files, folders of images and other files in a folder, direct ones first.

    A link to one of the folders `above` is not followed; a folder that lies too deep counts as another file. Raises
    DataError if a folder cannot be read.
    """
    try:
        here = identity(folder)
        with os.scandir(folder) as entries:
            visible = sorted((entry for entry in entries if not is_stray(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from None
    if here in above:
        return
    if len(above) > _DEEPEST:
        yield "other", prefix
        return
    places = []
    for entry in visible:
        if is_folder(entry):
            places.append(entry)
        else:
            yield "video" if is_video(entry.name) else "other", prefix + entry.name
    deeper = []
    for entry in places:
        if holds_images(entry.path):
            yield "images", prefix + entry.name
        else:
            deeper.append(entry)
    for entry in deeper:
        yield from walk(Path(entry.path), (*above, here), f"{prefix}{entry.name}/")


def identity(folder: Path) -> tuple[int, int]:
    """Return device and inode, which identify a folder whatever path leads to it. Raises OSError."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def is_video(name: str) -> bool:
    """Say whether the name of a file is that of a video."""
    return not is_stray(name) and os.path.splitext(name)[1].lower() in VIDEO_ENDINGS


def holds_images(folder: str | Path) -> bool:
    """Say whether a folder is a video as images: it holds numbered images and no video. Raises DataError."""
    images = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_video(entry.name) and not is_folder(entry):
                    return False
                images = images or (not is_stray(entry.name) and NUMBERED.fullmatch(entry.name) is not None)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from None
    return images
