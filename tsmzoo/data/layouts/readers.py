"""Readers of the list files of official datasets, of MIT and of mmaction2."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

from tsmzoo.data.dataset import VIDEO_ENDINGS
from tsmzoo.data.layouts.folders import is_stray, near
from tsmzoo.data.layouts.locate import several_classes
from tsmzoo.data.layouts.rows import (
    ListContent,
    Request,
    Row,
    first_line,
    lines,
    names,
    nfc,
    numbered_lines,
    parsed_json,
    short,
    text,
)
from tsmzoo.errors import DataError

#: The most digits of a class index or a number of frames.
_DIGITS = 7
#: The most numbers at the end of a line.
_MOST_NUMBERS = 8
_TOKEN = re.compile(r"[^\s,]+")
_JOINED = re.compile(r"\d+(?:[;|+&/:]\d+)+")


def paths(path: Path, _: Request) -> ListContent:
    """Read lines `path label` (mmaction2, `tsmzoo data`) or `path frames label` (MIT, mmaction2's raw frames)."""
    _check_columns(path)
    return ListContent([_path_line(path, number, line) for number, line in numbered_lines(path)])


def _path_line(path: Path, number: int, line: str) -> Row:
    tokens = list(_TOKEN.finditer(line))
    count = 0
    while count < len(tokens) - 1 and tokens[-1 - count][0].isdecimal():
        count += 1
    if len(tokens) > 1 and _JOINED.fullmatch(tokens[-1][0]):
        raise several_classes(path, number, re.split(r"\D", tokens[-1][0]))
    if not count or tokens[-1].end() != len(line):
        raise DataError(f"{path}: line {number} is {short(line)}; it must be a path and the index of its class")
    digits = [token[0] for token in tokens[-min(count, _MOST_NUMBERS) :]]
    if any(len(each) > _DIGITS for each in (digits if count > 1 else digits[-1:])) and len(digits[-1]) > _DIGITS:
        raise DataError(
            f"{path}: line {number} has class {short(digits[-1], 20)}; an index has {_DIGITS} digits at most"
        )
    whole = line[: tokens[-1 - count].end()]
    has_extension = _is_video(whole)
    if count > _MOST_NUMBERS or (has_extension and count > 2):
        raise several_classes(path, number, digits)
    readings = []
    for taken in [count] if has_extension else range(1, count + 1):
        name = line[: tokens[-1 - taken].end()]
        if taken == 1 or all(len(each) <= _DIGITS for each in digits[-taken:]):
            readings.append((name, tuple(int(each) for each in digits[-taken:])))
    if not readings:
        raise DataError(f"{path}: line {number} has {short(digits[0], 20)} frames; write the number that the video has")
    name, numbers = readings[0]
    if count == 1:
        return Row(name, numbers[0], (name,), bare=not has_extension, number=number)
    return Row(name, numbers[-1], (name,), bare=not has_extension, number=number, readings=tuple(readings))


def _is_video(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in VIDEO_ENDINGS


def _check_columns(path: Path) -> None:
    """Raise DataError if a list is a table with several classes for each video, like that of Charades."""
    columns = {column.strip().strip('"').lower() for column in re.split(r"[,;\t]", first_line(path))}
    if {"id", "actions"} <= columns:
        raise DataError(
            f"{path}: has several classes a video, as Charades has; they need mean average precision, which is not "
            "computed: write lines of a path and one class"
        )


def something_v2(path: Path, request: Request) -> ListContent:
    """Read a list of objects with `id` and `template`, and the index of each template in a file beside it."""
    labels = near(path, request.folder, "labels.json", "something-something-v2-labels.json")
    if labels is None:
        raise DataError(f"{path}: needs labels.json (or something-something-v2-labels.json) beside it")
    indices: dict[str, str] = parsed_json(labels)
    rows = [_id_row(str(item["id"]), str(item["template"])) for item in parsed_json(path)]
    try:
        return ListContent(rows, [nfc(name) for name in sorted(indices, key=lambda name: int(indices[name]))])
    except (TypeError, ValueError):
        raise DataError(f"{labels}: is no mapping from a class to its index; fetch it again") from None


def _id_row(id_: str, label: str) -> Row:
    return Row(id_, label, (f"{id_}{VIDEO_ENDINGS[0]}", id_), bare=True)


def ids_and_labels(labels_name: str) -> Callable[[Path, Request], ListContent]:
    """Return a reader of lines `id;label`, with labels in the file `labels_name` (Something-Something V1, Jester)."""

    def read(path: Path, request: Request) -> ListContent:
        labels = near(path, request.folder, labels_name)
        if labels is None:
            raise DataError(f"{path}: needs {labels_name} beside it")
        rows = []
        for line in lines(path):
            id_, _, label = line.partition(";")
            if not label:
                raise DataError(f"{path}: line {short(line)} must be `id;label`")
            rows.append(_id_row(id_, label))
        return ListContent(rows, names(labels))

    return read


_KINETICS = ("label", "youtube_id", "time_start", "time_end")


def kinetics(path: Path, _: Request) -> ListContent:
    """Read a table with columns label, youtube_id, time_start and time_end."""
    rows = []
    table = csv.DictReader(io.StringIO(text(path), newline=""))
    if lacking := [name for name in _KINETICS if name not in (table.fieldnames or ())]:
        raise ValueError(f"it has no column {' or '.join(lacking)}")
    for line in table:
        label, id_ = line["label"], line["youtube_id"]
        if label is None or id_ is None:
            raise ValueError("a line without a label")
        label = nfc(label)
        clip = f"{id_}_{int(float(line['time_start'])):06d}_{int(float(line['time_end'])):06d}"
        folders = ("", f"{label}/", f"{label.replace(' ', '_')}/")
        places = [f"{folder}{name}" for name in (clip, id_) for folder in folders]
        rows.append(Row(clip, label, (f"{clip}{VIDEO_ENDINGS[0]}", *places), bare=True))
    return ListContent(rows, sorted({str(row.label) for row in rows}))


def ucf101(path: Path, request: Request) -> ListContent:
    """Read lines `class/video`, in lists for training followed by a class index."""
    class_list = near(path, request.folder, "classInd.txt")
    if class_list is None:
        raise DataError(f"{path}: needs classInd.txt beside it")
    # The official numbers are 1, 2 … in the order of the names.
    classes = [line.partition(" ")[2].strip() for line in names(class_list)]
    if not all(classes):
        raise DataError(f"{class_list}: must hold a number and a class a line; fetch it again")
    rows = []
    for line in lines(path):
        name = line.split()[0]
        bare = name.removesuffix(".avi")
        rows.append(Row(name, name.split("/")[0], (name, bare, bare.split("/")[-1]), bare=True))
    return ListContent(rows, classes)


def hmdb51(folder: Path, request: Request) -> ListContent:
    """Read one list per class; the number after each video is 1 for training, 2 for testing, 0 for neither."""
    rows, classes = [], []
    wanted = "1" if request.part == "train" else "2"
    for path in sorted(folder.glob(f"*_test_split{request.split}.txt")):
        if is_stray(path.name):
            continue
        label = nfc(path.name.removesuffix(f"_test_split{request.split}.txt"))
        classes.append(label)
        for line in lines(path):
            name, use = line.rsplit(maxsplit=1)
            if use == wanted:
                bare = name.removesuffix(".avi")
                places = (f"{label}/{name}", name, f"{label}/{bare}", bare)
                rows.append(Row(f"{label}/{name}", label, places, bare=True))
            elif use not in ("0", "1", "2"):
                raise ValueError(f"{path.name}: {short(line)} must end in 0, 1 or 2")
    return ListContent(rows, classes)
