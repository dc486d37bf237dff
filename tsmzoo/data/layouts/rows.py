"""What every reader of a list gives, and how text is read from one."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tsmzoo.errors import DataError
from tsmzoo.system import files

Part = Literal["train", "val"]
#: Characters of a line: a path has 4,096 bytes at most.
_LONGEST = 2**16


@dataclass(frozen=True)
class Asked:
    """What of a dataset is read."""

    #: Folder of the data.
    folder: Path
    #: Of UCF101 and HMDB51.
    split: int
    part: Part


@dataclass(frozen=True)
class Row:
    """A line of a list."""

    name: str
    #: A class name or, where the list comes without names, an index.
    label: str | int
    #: Where the video may lie, from the folder of the videos.
    places: tuple[str, ...]
    #: The places come without the ending of a video file.
    bare: bool = False
    frames: int | None = None
    #: Line of the list.
    number: int = 0
    #: Where several numbers end the line: each way to tell the name from them, the longest name first.
    readings: tuple[tuple[str, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class Listed:
    """What a list holds."""

    rows: list[Row]
    #: Class names in the order of their indices; None where the list comes without names.
    classes: Sequence[str] | None = None
    #: Files among the videos that are none, from the folder.
    left_out: tuple[str, ...] = ()


#: From the path of a list to what it holds.
Reader = Callable[[Path, Asked], Listed]


def nfc(name: str) -> str:
    """Return a name in the one Unicode form that names are compared in: a Mac writes é as two characters."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def short(text: str, most: int = 80) -> str:
    """Return a text for a message, quoted and cut."""
    return repr(text if len(text) <= most else f"{text[:most]}…")


def text(path: Path) -> str:
    """Return the text of a list. Raises DataError where it cannot be read or is none."""
    try:
        found = files.read_text(path).removeprefix("\ufeff")  # which some editors put in front
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a list that is a file of text") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not text; write it anew as UTF-8") from None
    if "\0" in found:
        raise DataError(f"{path}: is not text; write it anew as UTF-8")
    return found


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and content of each line of a list that holds something."""
    for number, line in enumerate(io.StringIO(text(path), newline=None), 1):
        if len(line) > _LONGEST:
            raise DataError(f"{path}: line {number} has {len(line)} characters; no path is so long")
        if line.strip():
            yield number, line.strip()


def lines(path: Path) -> list[str]:
    """Return the lines of a list that hold something."""
    return [line for _, line in numbered_lines(path)]


def first_line(path: Path) -> str:
    """Return the first line of a list that holds something, or nothing."""
    return next((line for _, line in numbered_lines(path)), "")


def names(path: Path) -> list[str]:
    """Return the class names of a file, one a line."""
    return [nfc(line) for line in lines(path)]


def parsed_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises DataError where it is none."""
    try:
        return json.loads(text(path))
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}); fetch it again") from None
    except RecursionError:
        raise DataError(f"{path}: is nested too deeply; fetch it again") from None


def split_of(path: Path) -> int | None:
    """Return the split that the name of a list says it is of: `testlist02.txt`, `ucf101_val_split_2_videos.txt`."""
    found = re.search(r"(?:trainlist|testlist)0*([1-9])\.|split_?([1-9])(?!\d)", path.name)
    return int(found[1] or found[2]) if found else None
