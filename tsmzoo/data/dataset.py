"""Labelled videos on disk, as the commands see them, and the lists that `data` writes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

ANNOTATIONS = "annotations.txt"
LABELS = "labels.txt"
#: Endings of videos, in lower case: those of what FFmpeg reads, but for pictures, sound and playlists.
VIDEO_ENDINGS = (
    ".mp4", ".webm", ".avi", ".mkv", ".mov",  # first those of the public datasets, which are looked for by name
    ".3g2", ".3gp", ".264", ".265", ".amv", ".asf", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc",
    ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mod", ".mpe", ".mpeg", ".mpg", ".mpv",
    ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".ts", ".vob", ".wmv", ".xvid", ".y4m",
)  # fmt: skip
#: Endings of images, in lower case: those of what Pillow reads, but for documents, animations and drawings.
IMAGE_ENDINGS = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff",  # first those of most datasets
    ".apng", ".avif", ".avifs", ".blp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".ftc", ".ftu", ".gbr", ".icb",
    ".icns", ".ico", ".im", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpf", ".jpx", ".mpo", ".msp", ".pbm",
    ".pcx", ".pfm", ".pgm", ".pnm", ".ppm", ".psd", ".pxr", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".tga", ".vda",
    ".vst", ".xbm", ".xpm",
)  # fmt: skip
#: An image of a sequence: what stands in front of the last number of its name, and the number.
NUMBERED = re.compile(
    rf"((?!\.).*?)(\d+)\D*?(?:{'|'.join(re.escape(ending) for ending in IMAGE_ENDINGS)})", re.IGNORECASE
)


@dataclass(frozen=True)
class Video:
    """A video of a list; whether it is there shows when it is opened."""

    #: As the list has it.
    name: str
    #: A video file, or a folder of numbered images.
    path: Path
    #: Index of its class.
    label: int
    #: Images of the folder, where the list says how many.
    frames: int | None = None
    #: What its images are called, where that is not told by what lies there.
    images: str | None = None


@dataclass(frozen=True)
class Dataset:
    """Labelled videos in the order of their list."""

    videos: tuple[Video, ...]
    #: Class names in the order of the labels, or None where the list comes without them.
    classes: tuple[str, ...] | None
    #: Of the list's bytes: it says which videos a figure was measured on.
    list_sha256: str
    #: The dataset that the layout is official for, as entries name it; None for lists and folders of any origin.
    of: str | None = None
    #: The layout that it was read as (tsmzoo/layouts).
    layout: str = "list"
    #: Of the folder.
    name: str = ""
    #: Lines that list a video again; each video counts once.
    repeated: int = 0
    #: The list, or the folder of the lists or classes.
    list_path: Path | None = None
    #: The official split that it is of, where it is one of several.
    split: int | None = None
    #: What the list's official name says it is for; None where it may be for either.
    part: Literal["train", "val"] | None = None
    #: Files in folders of classes that are no videos, or videos of no class.
    left_out: tuple[str, ...] = ()

    @property
    def list_name(self) -> str | None:
        """How a report names the list: by its own name and that of the folder it lies in."""
        return None if self.list_path is None else writable("/".join(self.list_path.resolve().parts[-2:]))

    def __len__(self) -> int:
        return len(self.videos)

    def named(self, images: str | None) -> Dataset:
        """Return the same with the images of folders called like a template."""
        return replace(self, videos=tuple(replace(video, images=images) for video in self.videos)) if images else self


def writable(name: str) -> str:
    """Return a file's name as it can be written down: bytes that are no UTF-8 become question marks."""
    return os.fsencode(name).decode(errors="replace")


def write(folder: Path, items: Sequence[tuple[str, int]], classes: Sequence[str]) -> None:
    """Write the lists of `folder`: `items` are paths, relative to it, and class indices."""
    lines = [f"{name} {label}\n" for name, label in items]
    (folder / LABELS).write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    (folder / ANNOTATIONS).write_text("".join(lines), encoding="utf-8")
