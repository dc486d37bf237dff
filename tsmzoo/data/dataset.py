"""Labelled videos on disk, and the lists that `data` writes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

ANNOTATIONS = "annotations.txt"
LABELS = "labels.txt"
#: Extensions of videos, in lower case: of the formats that FFmpeg reads, without pictures, sound and playlists.
VIDEO_ENDINGS = (
    ".mp4", ".webm", ".avi", ".mkv", ".mov",  # those of the public datasets first, which are searched by name
    ".3g2", ".3gp", ".264", ".265", ".amv", ".asf", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc",
    ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mod", ".mpe", ".mpeg", ".mpg", ".mpv",
    ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".ts", ".vob", ".wmv", ".xvid", ".y4m",
)  # fmt: skip
#: Extensions of images, in lower case: of the formats that Pillow reads, without documents, animations and drawings.
IMAGE_ENDINGS = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff",  # those of most datasets first
    ".apng", ".avif", ".avifs", ".blp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".ftc", ".ftu", ".gbr", ".icb",
    ".icns", ".ico", ".im", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpf", ".jpx", ".mpo", ".msp", ".pbm",
    ".pcx", ".pfm", ".pgm", ".pnm", ".ppm", ".psd", ".pxr", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".tga", ".vda",
    ".vst", ".xbm", ".xpm",
)  # fmt: skip
#: The name of an image of a sequence: the text before the last number, and the number.
NUMBERED = re.compile(
    rf"((?!\.).*?)(\d+)\D*?(?:{'|'.join(re.escape(ending) for ending in IMAGE_ENDINGS)})", re.IGNORECASE
)


@dataclass(frozen=True)
class Video:
    """A video of a list; it may be missing, which shows when it is opened."""

    #: As written in the list.
    name: str
    #: A video file, or a folder of numbered images.
    path: Path
    #: Index of its class.
    label: int
    #: Number of images in the folder, if the list has it.
    frames: int | None = None
    #: Template of the names of its images, if names alone do not identify the sequence.
    images: str | None = None


@dataclass(frozen=True)
class Dataset:
    """Labelled videos in the order of their list."""

    videos: tuple[Video, ...]
    #: Class names in the order of the labels, or None where the list comes without them.
    classes: tuple[str, ...] | None
    #: sha256 of the list's bytes: it identifies the videos that a figure was measured on.
    list_sha256: str
    #: The dataset that the layout is official for, as entries name it; None for lists and folders of any origin.
    of: str | None = None
    #: The layout that it was read as (`data/layouts`).
    layout: str = "list"
    #: Name of the folder.
    name: str = ""
    #: Number of lines that list a video again; each video counts once.
    repeated: int = 0
    #: The list, or the folder that holds the lists or classes.
    list_path: Path | None = None
    #: Number of the official split, if there are several.
    split: int | None = None
    #: The part of the data that the list's official name stands for; None if it may be either.
    part: Literal["train", "val"] | None = None
    #: Files in class folders that are not videos, and videos that have no class.
    left_out: tuple[str, ...] = ()

    @property
    def list_name(self) -> str | None:
        """The list's name and that of its folder, for reports."""
        return None if self.list_path is None else writable("/".join(self.list_path.resolve().parts[-2:]))

    def __len__(self) -> int:
        return len(self.videos)

    def named(self, images: str | None) -> Dataset:
        """Return the same dataset with a template for the images in folders."""
        return replace(self, videos=tuple(replace(video, images=images) for video in self.videos)) if images else self


def writable(name: str) -> str:
    """Return a file's name as valid UTF-8: other bytes become question marks."""
    return os.fsencode(name).decode(errors="replace")


def write(folder: Path, items: Sequence[tuple[str, int]], classes: Sequence[str]) -> None:
    """Write the lists of `folder`; `items` are paths relative to it and class indices."""
    lines = [f"{name} {label}\n" for name, label in items]
    (folder / LABELS).write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    (folder / ANNOTATIONS).write_text("".join(lines), encoding="utf-8")
