"""Text of others, of which anything may be expected, as lines: harmless to a terminal, and none endless.

Of others are names, labels, and what servers and libraries say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

#: Characters that a line, a cell of a table and what stands beside a bar may have, and what a library says of an error.
LINE, CELL, BESIDE, ERROR = 2000, 120, 60, 200
#: Control characters, line and paragraph separators, what turns the direction of text, tags, halves of a character,
#: and what is none.
UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_Row = TypeVar("_Row")
#: A column of a table: its heading, the side to which it is flush, and what it shows of a row.
Column = tuple[str, Literal["left", "right"], Callable[[_Row], object]]
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def one_line(text: str, most: int = LINE) -> str:
    """Return `text` as one line that shows its control characters, cut in the middle to `most` characters."""
    return _cut(UNSEEN.sub(_escape, _cut(text, most)), most)


def of_error(error: BaseException, most: int = ERROR) -> str:
    """Return what an error says as one line, its lines joined; the error's kind where it says nothing."""
    return one_line(" ".join(str(error).split()), most) or type(error).__name__


def joined(lines: Iterable[str]) -> str:
    """Return text of these lines, each of which stays one."""
    return "\n".join(map(one_line, lines))


def some(names: Sequence[str], most: int) -> str:
    """Return the first `most` names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def table(columns: Sequence[Column[_Row]], rows: Iterable[_Row]) -> str:
    """Return `rows` as a table, each on one line."""
    # Not by a library: importing rich takes longer than `list` may take.
    lines = [[heading for heading, _, _ in columns]]
    lines += [[one_line(str(cell(row)), CELL) for _, _, cell in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    pads = [str.rjust if side == "right" else str.ljust for _, side, _ in columns]
    return "\n".join(
        "  ".join(pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    ahead = (most - 3) // 2
    return f"{text[:ahead]} … {text[ahead + 3 - most :]}"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte of a file's name that is not UTF-8
        code -= 0xDC00
    wide = f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _NAMED.get(match[0]) or (f"\\x{code:02x}" if code < 0x100 else wide)
