"""Check that a model can be trained on one list of videos and measured on the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tsmzoo.data.dataset import Dataset, Video
from tsmzoo.data.layouts import LAYOUTS
from tsmzoo.errors import TrainingError
from tsmzoo.registry import Entry
from tsmzoo.registry.recipes import Training
from tsmzoo.system import files
from tsmzoo.text import some

#: Bytes at the start by which two files of one name and size are taken to be copies.
_HEAD = 2**16


def check(entry: Entry, recipe: Training, videos: Dataset, held_out: Dataset) -> list[str]:
    """Return warnings about lists that make the accuracy doubtful.

    `entry` is the model that training starts from. Raises TrainingError if the lists differ in their classes or share
    videos, or if a class, or all but one, has no video to train on.
    """
    _check_same_classes(videos, held_out)
    warnings = _check_filled(videos, held_out)
    _check_apart(videos, held_out)
    if copies := _copies(videos, held_out):
        warnings.append(
            f"{_count(copies)} to be measured on, first {copies[0].name}, seem to be copies of videos that are trained "
            "on; the accuracy will be too high"
        )
    for part, wrong, purpose in ((videos, "val", "validation"), (held_out, "train", "training")):
        if part.part == wrong:
            warnings.append(f"{part.list_path} is by its name a list for {purpose}")
    if recipe.weights == "published" and entry.split and held_out.split not in (None, entry.split):
        warnings.append(
            f"{entry.id} was trained on split {entry.split}, videos of which are in the list of split "
            f"{held_out.split} to be measured on; the accuracy will be too high"
        )
    return warnings


def _check_same_classes(videos: Dataset, held_out: Dataset) -> None:
    if held_out.classes in (None, videos.classes):
        return
    said = "the classes of the validation data are not those of the training data"
    if videos.classes is None or held_out.classes is None:
        raise TrainingError(f"{said}, which come without names; put a labels.txt beside {videos.list_path}")
    only = [name for name in videos.classes if name not in held_out.classes]
    other = [name for name in held_out.classes if name not in videos.classes]
    if not only and not other:
        raise TrainingError(f"{said}: they stand in another order; give both lists one labels.txt")
    differ = [
        f"only {where} has {_names(names)}" for names, where in ((only, "training"), (other, "validation")) if names
    ]
    raise TrainingError(f"{said}: {'; '.join(differ)}; give both the same labels.txt, or the same folders of classes")


def _check_filled(videos: Dataset, held_out: Dataset) -> list[str]:
    """Raise TrainingError if a class has no video to train on; for lists of Kinetics return a warning."""
    used = {video.label for video in videos.videos}

    def name(label: int) -> str:
        return videos.classes[label] if videos.classes else f"class {label}"

    if len(used) == 1:
        raise TrainingError(
            f"{videos.list_path}: all {len(videos)} videos to train on are of one class, {name(*used)!r}; "
            "a classifier needs two at least"
        )
    count = (
        len(videos.classes) if videos.classes else 1 + max(video.label for video in (*videos.videos, *held_out.videos))
    )
    empty = [name(label) for label in range(count) if label not in used]
    if not empty:
        return []
    if videos.layout == "kinetics":
        return [f"no video to train on is of {_names(empty)}; the videos of it to measure on cannot be right"]
    raise TrainingError(
        f"{videos.list_path}: no video to train on is of {_names(empty)}; add some, or leave the class out"
    )


def _check_apart(videos: Dataset, held_out: Dataset) -> None:
    """Raise TrainingError if a video is in both lists: by the name its publisher gave, or as the same file."""
    trained = set(_identities(videos.videos))
    same_ids = videos.layout == held_out.layout and LAYOUTS[videos.layout].official
    ids = {video.name for video in videos.videos} if same_ids else set()
    identities = _identities(held_out.videos)
    shared = [
        v.name for v, identity in zip(held_out.videos, identities, strict=True) if identity in trained or v.name in ids
    ]
    if shared:
        raise TrainingError(
            f"{'1 video is' if len(shared) == 1 else f'{len(shared)} videos are'} in both the list to train on and the "
            f"list to measure on, first {shared[0]}; a model is measured on videos that it never saw: name others with "
            "--train-list, --val-list or --val"
        )


def _identities(videos: Iterable[Video]) -> Iterator[tuple[int, int] | str]:
    """Yield an identity of each video that two names of one file share."""
    for video in videos:
        try:
            status = os.stat(video.path)
        except (OSError, ValueError):  # not there
            yield os.path.abspath(video.path)
        else:
            yield (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(video.path)


def _copies(videos: Dataset, held_out: Dataset) -> list[Video]:
    """Return the videos that the training list has elsewhere, with the same name, size and start."""
    trained: dict[tuple[str, int], list[Path]] = {}
    for video in videos.videos:
        if key := _name_and_size(video.path):
            trained.setdefault(key, []).append(video.path)
    found = []
    for video in held_out.videos:
        others = trained.get(key, []) if (key := _name_and_size(video.path)) else []
        if others and (head := _head(video.path)) and any(_head(other) == head for other in others):
            found.append(video)
    return found


def _name_and_size(path: Path) -> tuple[str, int] | None:
    with suppress(OSError, ValueError):
        if path.is_file():
            return path.name, path.stat().st_size
    return None


def _head(path: Path) -> bytes:
    with suppress(OSError), files.opened(path) as file:
        return file.read(_HEAD)
    return b""


def _names(names: list[str]) -> str:
    return some([repr(name) for name in names], 4)


def _count(videos: list[Video]) -> str:
    return "1 video" if len(videos) == 1 else f"{len(videos)} videos"
