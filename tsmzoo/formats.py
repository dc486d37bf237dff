"""The file formats, by name and by ending."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from tsmzoo.errors import ExportError

if TYPE_CHECKING:
    from pathlib import Path


class Format(StrEnum):
    """A file format; one folder `converters/<name>/` each."""

    ONNX = "onnx"
    TFLITE = "tflite"
    COREML = "coreml"

    @property
    def suffix(self) -> str:
        """Ending of a file's name; a Core ML package is a folder."""
        return ".mlpackage" if self is Format.COREML else f".{self}"


def is_artifact(name: str) -> bool:
    """Say whether `name` ends as one of the formats does, behind which an address on the hub may have a revision."""
    if name.startswith("hf://"):
        name = name.partition("@")[0].rstrip("/")
    return name.endswith(tuple(format_.suffix for format_ in Format))


def is_saved(name: str) -> bool:
    """Say whether `name` is that of saved predictions."""
    return name.endswith(".jsonl")


def format_of(path: Path) -> Format:
    """Return the format that a file's ending names.

    Raises ExportError on another ending, or where no runtime could open the file: they take names of text alone.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ExportError(f"{path}: its name is not UTF-8, so that no runtime can open it; call it otherwise") from None
    for format_ in Format:
        if path.suffix == format_.suffix:
            return format_
    endings = ", ".join(format_.suffix for format_ in Format)
    raise ExportError(f"{path}: ends in none of {endings}; give an exported file")
