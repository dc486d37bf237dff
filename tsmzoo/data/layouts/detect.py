"""Detect the layout of a dataset by the official name of its list."""

from __future__ import annotations

import itertools
import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tsmzoo.data.dataset import ANNOTATIONS
from tsmzoo.data.layouts import class_folders, readers
from tsmzoo.data.layouts.folders import below, contents, is_stray, near
from tsmzoo.data.layouts.rows import Part, Reader, Request, first_line
from tsmzoo.errors import DataError


@dataclass(frozen=True)
class Layout:
    """How one kind of dataset is laid out on disk."""

    #: What a folder must hold for validation, for messages; `{split}` as in `lists`.
    expects: str
    #: Patterns of the names of lists for validation; `{split}` is the number of --split.
    lists: tuple[str, ...]
    read: Reader
    #: The same two for training, if they differ.
    expects_train: str = ""
    train_lists: tuple[str, ...] = ()
    #: The dataset that the layout belongs to, as registry entries name it; None if class names identify it.
    of: str | None = None
    #: The list is all files that match the pattern; their folder stands for it.
    many: bool = False
    #: Names of videos are the publisher's: the same name is the same video, in any folder.
    official: bool = True

    def expected(self, request: Request) -> str:
        """Return what a folder must hold for the requested part, for messages."""
        expects = self.expects_train if request.part == "train" and self.expects_train else self.expects
        return expects.format(split=request.split)

    def names(self, part: Part) -> tuple[str, ...]:
        """Return the patterns of the lists for a part of the data."""
        return self.train_lists if part == "train" and self.train_lists else self.lists


_SUFFIXES = ("list_videos", "list_rawframes", "split_{split}_videos", "split_{split}_rawframes", "split_{split}")

LAYOUTS: dict[str, Layout] = {
    "list": Layout(
        f"{ANNOTATIONS} or another list of `path label` or `path frames label` lines",
        (ANNOTATIONS, "val_videofolder.txt", *(f"*_val_{suffix}.txt" for suffix in _SUFFIXES)),
        readers.paths,
        f"{ANNOTATIONS}, train_videofolder.txt or another list of `path label` or `path frames label` lines",
        (ANNOTATIONS, "train_videofolder.txt", *(f"*_train_{suffix}.txt" for suffix in _SUFFIXES)),
        official=False,
    ),
    "something-v2": Layout(
        "validation.json and labels.json of Something-Something V2",
        ("validation.json", "something-something-v2-validation.json"),
        readers.something_v2,
        "train.json and labels.json of Something-Something V2",
        ("train.json", "something-something-v2-train.json"),
        of="somethingv2",
    ),
    "something-v1": Layout(
        "something-something-v1-validation.csv and …-labels.csv",
        ("something-something-v1-validation.csv",),
        readers.ids_and_labels("something-something-v1-labels.csv"),
        "something-something-v1-train.csv and …-labels.csv",
        ("something-something-v1-train.csv",),
        of="somethingv1",
    ),
    "jester": Layout(
        "jester-v1-validation.csv and …-labels.csv",
        ("jester-v1-validation.csv",),
        readers.ids_and_labels("jester-v1-labels.csv"),
        "jester-v1-train.csv and …-labels.csv",
        ("jester-v1-train.csv",),
        of="jester",
    ),
    "kinetics": Layout(
        "validate.csv or val.csv of Kinetics-400, with columns label, youtube_id, time_start and time_end",
        ("validate.csv", "val.csv", "kinetics*_val.csv", "kinetics*_validate.csv"),
        readers.kinetics,
        "train.csv of Kinetics-400, with columns label, youtube_id, time_start and time_end",
        ("train.csv", "kinetics*_train.csv"),
    ),
    "ucf101": Layout(
        "testlist{split:02d}.txt and classInd.txt of UCF101",
        ("testlist{split:02d}.txt",),
        readers.ucf101,
        "trainlist{split:02d}.txt and classInd.txt of UCF101",
        ("trainlist{split:02d}.txt",),
        of="ucf101",
    ),
    "hmdb51": Layout(
        "the 51 files *_test_split{split}.txt of HMDB51",
        ("*_test_split{split}.txt",),
        readers.hmdb51,
        of="hmdb51",
        many=True,
    ),
    "folders": Layout("a folder a class, of videos or of folders of images", (), class_folders.read, official=False),
}
_PURPOSES: dict[Part, str] = {"train": "training", "val": "validation"}
_OTHER: dict[Part, Part] = {"train": "val", "val": "train"}


def by_folder(layout: str | None, request: Request, option: str) -> tuple[str, Path]:
    """Return the layout of a folder, and its list; for class folders, the folder that holds them.

    `option` is the command-line option that gives a list, for messages. Raises DataError if there is no layout, or more
    than one.
    """
    folder = request.folder
    names = [layout] if layout else list(LAYOUTS)
    found = {name: lists for name in names if (lists := _lists(LAYOUTS[name], request, request.part))}
    if layout is None and "kinetics" in found and not any(map(_may_be_kinetics, found["kinetics"])):
        # Any file may be called val.csv: it is reported only if nothing else is there.
        if len(found) > 1:
            del found["kinetics"]
        else:
            with suppress(DataError):
                if (base := class_folders.base(folder, request.part, beside=option)) is not None:
                    return "folders", base
    if len(found) > 1:
        choices = "; ".join(f"{name} ({lists[0].name})" for name, lists in found.items())
        raise DataError(f"{folder}: holds several datasets: {choices}; choose one with --format")
    if found:
        name, lists = next(iter(found.items()))
        lists = _of_part(lists, request.part)
        if len(lists) > 1:
            raise DataError(
                f"{folder}: holds several lists, {', '.join(str(path) for path in lists[:4])}; choose with {option}"
            )
        return name, lists[0]
    for name, part, split in itertools.product(names, (request.part, _OTHER[request.part]), (request.split, 1, 2, 3)):
        others = _lists(LAYOUTS[name], replace(request, split=split), part)
        if name == "kinetics":
            others = [path for path in others if _may_be_kinetics(path)]
        if others:
            what = f"for {_PURPOSES[part]}" if split == request.split else f"of split {split}"
            wanted = f"for {_PURPOSES[request.part]}" if split == request.split else f"of split {request.split}"
            raise DataError(
                f"{folder}: holds a list {what}, {others[0].relative_to(folder)}, and none {wanted}; expected "
                f"{LAYOUTS[name].expected(request)}, or name one with {option} FILE"
            )
    if (
        "folders" in names
        and (base := class_folders.base(folder, request.part, beside=None if layout else option)) is not None
    ):
        return "folders", base
    if layout == "folders":
        return layout, folder
    expected = "; or ".join(LAYOUTS[name].expected(request) for name in names)
    raise DataError(
        f"{folder}: holds {contents(folder)}; expected {expected}; "
        f"name the list with {option} FILE where it is called otherwise"
    )


def _may_be_kinetics(path: Path) -> bool:
    """Say whether the name or the columns of a list are those of Kinetics, or it cannot be read (reported later)."""
    if path.name.startswith("kinetics"):
        return True
    try:
        return "youtube_id" in first_line(path)
    except DataError:
        return True


def _of_part(lists: list[Path], part: Part) -> list[Path]:
    """Of several lists of one name return those in a folder named like the part; all if there is none."""
    if len({path.name for path in lists}) > 1:
        return lists
    of = ([path for path in lists if path.parent.name.casefold() == folder] for folder in class_folders.PARTS[part])
    return next(filter(None, of), lists)


def by_list(path: Path, request: Request, option: str) -> str:
    """Return the layout of a list by its content, whatever its name. Raises DataError if that does not decide."""
    if path.is_dir():
        return "hmdb51"
    if path.suffix == ".json":
        return "something-v2"
    if re.fullmatch(r".+_test_split[123]\.txt", path.name):
        raise DataError(f"{path}: is one of the 51 lists of HMDB51; give their folder with {option}")
    head = first_line(path)
    if path.suffix == ".csv" and "youtube_id" in head:
        return "kinetics"
    if path.suffix == ".csv" and re.match(r"\d+;", head):
        labels = {"something-v1": "something-something-v1-labels.csv", "jester": "jester-v1-labels.csv"}
        found = [name for name, file in labels.items() if near(path, request.folder, file)]
        if len(found) == 1:
            return found[0]
        raise DataError(
            f"{path}: is a list of Something-Something V1 or of Jester, and the labels of "
            f"{'both lie' if found else 'neither lies'} beside it; say which with --format"
        )
    if re.fullmatch(r"\S+/v_\S+\.avi(\s+\d+)?", head) and near(path, request.folder, "classInd.txt"):
        return "ucf101"
    return "list"


def part_of(layout: str, path: Path) -> Part | None:
    """Return the part of the data that the official name of a list stands for; None if it may be either."""
    kind = LAYOUTS[layout]
    if kind.many or path.name == ANNOTATIONS:
        return None
    for part in _PURPOSES:
        # Of any split.
        patterns = (pattern.replace("{split:02d}", "0?").replace("{split}", "?") for pattern in kind.names(part))
        if any(path.match(pattern) for pattern in patterns):
            return part
    return None


def _lists(kind: Layout, request: Request, part: Part) -> list[Path]:
    patterns = [pattern.format(split=request.split) for pattern in kind.names(part)]
    found: list[Path] = []
    for place in below(request.folder) if patterns else ():
        for pattern in patterns:
            matches = sorted(place.glob(pattern)) if "*" in pattern else [place / pattern]
            # Anything of that name is taken; a pipe or a folder is reported when it is read.
            hits = [path for path in matches if os.path.lexists(path) and not is_stray(path.name)]
            found += [place] if kind.many and hits else hits
    return found
