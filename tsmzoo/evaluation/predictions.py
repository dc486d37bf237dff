"""Predictions on disk: one line for each video, appended as they come; a stopped run is resumed from them.

FILE.jsonl        {"video", "label", "logits": [[…] one row a view]}, in the order of the list
FILE.json         what they are predictions of: model, protocol, list
FILE.jsonl.N      those of process N, until all are in FILE.jsonl
FILE.jsonl.lock   held while a run writes them
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from filelock import FileLock, Timeout

from tsmzoo.artifact.arrays import probabilities
from tsmzoo.errors import DataError
from tsmzoo.evaluation.protocol import EvaluationPlan
from tsmzoo.system import files
from tsmzoo.typing import Array

#: Version of how files are read as pictures: 2 is upright, images of a folder in the order of their numbers.
READING = 2


class VideoLogits(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of a model to a video: logits of each view, before softmax and before they are averaged."""

    video: str
    label: int
    logits: list[list[float]]
    #: The same after so many percent of the video.
    observed: dict[str, list[list[float]]] = {}
    #: The mean of the answers after each frame, where `logits` are those after the last.
    averaged: list[list[float]] = []
    #: Why there are none: the video could not be decoded.
    skipped: str | None = None


class Header(msgspec.Struct, frozen=True):
    """What predictions were made of: model, protocol and list. Two files with equal headers hold the same."""

    model: str
    format: str
    precision: str
    #: Of an exported file; None for a network.
    artifact_sha256: str | None
    #: Normalization of an input on the scale 0…1.
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: str
    weights_sha256: str | None
    seed: int | None
    plan: EvaluationPlan
    observe: tuple[int, ...]
    list_sha256: str
    #: Of names and labels of the videos, in the order of the list.
    videos_sha256: str
    dataset: str
    #: Its classes have names, by which they were matched; if not, indices were taken in the model's order.
    named: bool
    videos: int
    #: In the order of the logits.
    classes: tuple[str, ...] | None
    decoder: str
    runtime: str
    #: Version of tsmzoo.
    tsmzoo: str
    #: Name of the list, and its official split, for reports; the digests decide whether two lists are the same.
    list_file: str | None = None
    split: int | None = None
    #: Version of how files are read as pictures (READING); older headers lack it.
    reading: int = 1


def rows(values: Array) -> list[list[float]]:
    """Return float32 numbers, V, classes, as the shortest decimals that read back the same."""
    return [[float(text) for text in row] for row in np.asarray(values, np.float32).astype(str).tolist()]


def scores(logits: list[list[float]], plan: EvaluationPlan) -> Array:
    """Return the score of each class, the mean over the views of what the protocol averages, in float64."""
    values = np.asarray(logits, np.float32).astype(np.float64)
    if plan.average == "probabilities":
        values = probabilities(values, "softmax")
    return np.asarray(values.mean(0))


def header_path(path: Path) -> Path:
    """Return the path of the header of the predictions in `path`."""
    return path.with_suffix(".json")


def read_header(path: Path) -> Header:
    """Read the header of the predictions in `path`. Raises DataError if it is missing or damaged."""
    try:
        return msgspec.json.decode(files.read(header_path(path)), type=Header)
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(
            f"{header_path(path)}: says what {path.name} holds and cannot be read ({error}); predict again"
        ) from None


def read(path: Path, header: Header | None = None) -> Iterator[VideoLogits]:
    """Yield the predictions of a file one at a time, checked against `header`.

    Raises DataError that names a line that is no prediction.
    """
    rule = _Rule(header) if header else None
    for number, (_, prediction) in enumerate(_each(path, VideoLogits), start=1):
        if rule and (fault := rule.fault(prediction)):
            raise _refused(path, number, fault)
        yield prediction


def _refused(path: Path, number: int, fault: object) -> DataError:
    return DataError(f"{path}: line {number} is no prediction ({fault}); predict again")


class _Rule:
    """Checks a prediction against the header of its run."""

    def __init__(self, header: Header) -> None:
        self._header = header
        #: Logits of a view; if the classes have no names, as many as in the first line.
        self._width = None if header.classes is None else len(header.classes)

    def fault(self, prediction: VideoLogits) -> str | None:
        """Return why `prediction` cannot be of the run; None if it can."""
        views, levels, width = self._header.plan.views, self._header.observe, self._width
        if prediction.label < 0 or (width is not None and prediction.label >= width):
            return f"class {prediction.label}" + ("" if width is None else f" of {width}")
        if prediction.skipped is not None:
            return None
        if missing := [level for level in levels if str(level) not in prediction.observed]:
            return f"nothing after {missing[0]} % of the video"
        averaged = [prediction.averaged] if self._header.plan.answer == "last" else []
        if width is None and prediction.logits:
            width = len(prediction.logits[0])
        if not width:
            return "no logits"
        for logits in (prediction.logits, *(prediction.observed[str(level)] for level in levels), *averaged):
            if not logits or len(logits) != views:
                return f"logits of {len(logits)} views, not of {views}"
            if odd := {len(row) for row in logits} - {width}:
                return f"{min(odd)} logits of {width} classes"
            with np.errstate(over="ignore"):
                if not np.isfinite(np.asarray(logits, np.float32)).all():
                    return "a logit beyond float32"
        if prediction.label >= width:
            return f"class {prediction.label} of {width}"
        self._width = width
        return None


class _Name(msgspec.Struct):
    video: str


_Line = TypeVar("_Line")


def _each(path: Path, kind: type[_Line]) -> Iterator[tuple[int, _Line]]:
    """Yield offset and content of each line of a file. Raises DataError that names a line that is no `kind`."""
    number, start = 0, 0
    try:
        with files.opened(path) as file:
            for line in file:
                number += 1
                yield start, msgspec.json.decode(line, type=kind)
                start += len(line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a file that --predictions wrote") from None
    except msgspec.MsgspecError as error:
        raise _refused(path, number, error) from None


@contextmanager
def exclusive(path: Path, rank: int) -> Iterator[None]:
    """Lock `path` against other runs within the block. Raises DataError if another run holds it."""
    if rank:  # rank 0 locks for all processes of a run
        yield
        return
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(f"{path}.lock", timeout=0))
        except Timeout:
            raise DataError(f"{path}: another run writes it; wait for it, or give another file") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}); give another file") from None
        yield


class Index:
    """Finds the prediction of a video in a file by its offset: two numbers a video are held in memory.

    Raises DataError that names a line that is no prediction.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._path, self._rule = path, _Rule(header)
        self._starts: dict[str, tuple[int, int]] = {}
        for number, (start, line) in enumerate(_each(path, _Name), start=1):
            if line.video in self._starts:
                raise DataError(f"{path}: has {line.video} twice; predict again")
            self._starts[line.video] = number, start

    def __len__(self) -> int:
        return len(self._starts)

    def get(self, video: str) -> VideoLogits | None:
        """Return the prediction of a video, None if there is none."""
        if (place := self._starts.get(video)) is None:
            return None
        number, start = place
        try:
            with files.opened(self._path) as file:
                file.seek(start)
                prediction = msgspec.json.decode(file.readline(), type=VideoLogits)
        except (OSError, msgspec.MsgspecError) as error:
            raise _refused(self._path, number, error) from None
        if fault := self._rule.fault(prediction):
            raise _refused(self._path, number, fault)
        return prediction


class Store:
    """Writes the predictions of a run chunk by chunk; `chunks` are the names of the videos predicted together.

    A chunk counts once it is complete: what a killed process left of one, or a line that cannot be of this run, is cut
    off with all that follows it, and predicted again. Each of `count` processes writes a file of its own; all files are
    read, whatever the number of processes was before.
    """

    def __init__(self, path: Path, header: Header, chunks: list[list[str]], rank: int, count: int) -> None:
        self._path, self._rank, self._count, self._chunks = path, rank, count, chunks
        self._header = header
        self._mine = path if count == 1 else path.with_name(f"{path.name}.{rank}")
        self._first = {chunk[0]: number for number, chunk in enumerate(chunks)}
        for place in (path, self._mine):
            if os.path.exists(place) and not place.is_file():
                raise DataError(f"{place}: is no file; give another one with --predictions")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._claim(header)
            self._cut()
            self.done = {number for part in self._parts() for number, _, _ in self._whole(part)}
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}); give another file") from None

    def _claim(self, header: Header) -> None:
        """Write the header. Raises DataError if the file holds predictions of another run."""
        beside = header_path(self._path)
        stray = self._parts()  # before the header is read: every process writes the header first
        if stray and not beside.exists():
            raise DataError(f"{stray[0]}: is in the way and nothing says of what; delete it or give another file")
        if not stray and (not beside.exists() or self._is_stale(beside, header)):
            files.write(beside, msgspec.json.format(msgspec.json.encode(header), indent=2) + b"\n")
        try:
            found, wanted = (_flat(msgspec.to_builtins(each)) for each in (read_header(self._path), header))
        except DataError:
            raise DataError(f"{beside}: is in the way and not of predictions; give another file") from None
        for key in [key for key in wanted | found if key not in _INFORMATIVE]:
            if (was := found.get(key)) != (now := wanted.get(key)):
                if key == "reading":
                    raise DataError(
                        f"{self._path}: was begun by another version of tsmzoo, which reads pictures otherwise; "
                        "predict again, into another file"
                    )
                what = f"({key} was {was}, now is {now})" if key != "classes" else "(of other classes)"
                raise DataError(f"{self._path}: holds predictions of another run {what}; give another file")

    def _is_stale(self, beside: Path, header: Header) -> bool:
        """Return True if a header is left of deleted predictions of another run."""
        try:
            return read_header(self._path) != header
        except DataError:
            raise DataError(f"{beside}: is in the way and not of predictions; give another file") from None

    def _parts(self) -> list[Path]:
        beside = self._path.parent.glob(f"{self._path.name}.*")
        parts = [path for path in beside if path.name[len(self._path.name) + 1 :].isdecimal()]
        return [path for path in (self._path, *sorted(parts)) if path.is_file()]

    def _whole(self, path: Path) -> Iterator[tuple[int, int, bytes]]:
        """Yield each complete chunk of a file: its number, the offset of its end, and its lines."""
        end, lines = 0, b""
        names: Iterator[str] = iter(())
        number: int | None = None
        rule = _Rule(self._header)
        with path.open("rb") as file:
            for line in file:
                try:
                    prediction = msgspec.json.decode(line, type=VideoLogits)
                except msgspec.MsgspecError:
                    return
                if rule.fault(prediction):
                    return
                video = prediction.video
                if number is None:
                    if (number := self._first.get(video)) is None:
                        return
                    names, lines = iter(self._chunks[number]), b""
                if video != next(names, None) or not line.endswith(b"\n"):
                    return
                lines, end = lines + line, end + len(line)
                if video == self._chunks[number][-1]:
                    yield number, end, lines
                    number = None

    def _cut(self) -> None:
        """Truncate the file after its last complete chunk."""
        if self._mine.is_file():
            end = max((end for _, end, _ in self._whole(self._mine)), default=0)
            if end < self._mine.stat().st_size:
                os.truncate(self._mine, end)

    def append(self, predictions: Iterable[VideoLogits]) -> None:
        """Append a chunk."""
        text = b"".join(msgspec.json.encode(prediction) + b"\n" for prediction in predictions)
        try:
            with self._mine.open("ab") as file:
                file.write(text)
        except OSError as error:
            raise DataError(f"{self._mine}: cannot be written ({error.strerror}); make room and go on") from None

    def finish(self) -> None:
        """Merge all chunks into one file, in the order of the list, and delete the others.

        Raises DataError if chunks of another process are missing, or the file cannot be written.
        """
        try:
            parts = self._parts()
            found = [(number, part, end, len(lines)) for part in parts for number, end, lines in self._whole(part)]
            if parts == [self._path] and [number for number, *_ in found] == list(range(len(self._chunks))):
                return
            where = {number: (part, end - size, size) for number, part, end, size in reversed(found)}
            if len(where) < len(self._chunks):
                raise DataError(f"{self._path}: lacks videos of other processes; give all of them the same folder")
            with files.replacing(self._path) as merged, open(merged, "xb") as file:
                for number in range(len(self._chunks)):
                    part, start, size = where[number]
                    with part.open("rb") as source:
                        source.seek(start)
                        file.write(source.read(size))
            for part in parts:
                if part != self._path:
                    part.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written ({error.strerror}); make room and go on") from None


#: Keys of a header that may differ when a run is continued: what an older one lacks, and the version that began it,
#: since `reading` says whether both read pictures alike.
_INFORMATIVE = {"list_file", "split", "tsmzoo"}


def _flat(header: dict[str, Any]) -> dict[str, Any]:
    """Return a header with the keys of its plan beside the others."""
    followed = header.pop("plan")
    return header | {f"plan.{key}": value for key, value in (followed | followed.pop("changes")).items()}
