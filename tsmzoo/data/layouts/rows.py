"""Types that the readers of lists share, and functions that read text from a list."""

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
class Request:
    """Which part of a dataset to read, and where it lies."""

    #: Folder of the data.
    folder: Path
    #: Number of the official split of UCF101 and HMDB51.
    split: int
    part: Part


@dataclass(frozen=True)
class Row:
    """A line of a list."""

    name: str
    #: A class name or, where the list comes without names, an index.
    label: str | int
    #: Candidate paths of the video, relative to the folder of the videos.
    places: tuple[str, ...]
    #: The places lack the extension of a video file.
    bare: bool = False
    frames: int | None = None
    #: Line number in the list, from 1.
    number: int = 0
    #: If several numbers end the line: each way to split it into name and numbers, longest name first.
    readings: tuple[tuple[str, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class ListContent:
    """The content of a list."""

    rows: list[Row]
    #: Class names in the order of their indices; None if the list has none.
    classes: Sequence[str] | None = None
    #: Files among the videos that are not videos, relative to the folder.
    left_out: tuple[str, ...] = ()


#: Reads the list at a path.
Reader = Callable[[Path, Request], ListContent]


def nfc(name: str) -> str:
    """Return a name in Unicode form NFC, in which names are compared: macOS writes é as two characters."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def short(text: str, most: int = 80) -> str:
    """Return a text quoted and truncated, for a message."""
    return repr(text if len(text) <= most else f"{text[:most]}…")


def text(path: Path) -> str:
    """Return the text of a list. Raises DataError if it cannot be read or is not text."""
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
    """Yield the number, from 1, and the content of each line that is not blank."""
    for number, line in enumerate(io.StringIO(text(path), newline=None), 1):
        if len(line) > _LONGEST:
            raise DataError(f"{path}: line {number} has {len(line)} characters; no path is so long")
        if line.strip():
            yield number, line.strip()


def lines(path: Path) -> list[str]:
    """Return the lines of a list that are not blank."""
    return [line for _, line in numbered_lines(path)]


def first_line(path: Path) -> str:
    """Return the first line of a list that is not blank, or an empty string."""
    return next((line for _, line in numbered_lines(path)), "")


def names(path: Path) -> list[str]:
    """Return the class names in a file, one on each line."""
    return [nfc(line) for line in lines(path)]


def parsed_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises DataError if it is not JSON."""
    try:
        return json.loads(text(path))
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}); fetch it again") from None
    except RecursionError:
        raise DataError(f"{path}: is nested too deeply; fetch it again") from None


def split_of(path: Path) -> int | None:
    """Return the split in the name of a list, 1 to 9, or None: `testlist02.txt`, `ucf101_val_split_2_videos.txt`."""
    found = re.search(r"(?:trainlist|testlist)0*([1-9])\.|split_?([1-9])(?!\d)", path.name)
    return int(found[1] or found[2]) if found else None
