"""Predictions on disk: a line a video, appended as they come, from which a run that was stopped goes on.

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

from tsmzoo.errors import DataError
from tsmzoo.evaluation.protocol import Plan
from tsmzoo.system import files
from tsmzoo.typing import Array

#: Counts the ways in which files were read as pictures: 2 is upright, with images of a folder in the order of numbers.
READING = 2


class Prediction(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model answers to a video: logits of each view, before softmax and before they are averaged."""

    video: str
    label: int
    logits: list[list[float]]
    #: The same after so many percent of the video.
    observed: dict[str, list[list[float]]] = {}
    #: Why there are none.
    skipped: str | None = None


class Header(msgspec.Struct, frozen=True):
    """What predictions are of: two files with equal headers hold the same."""

    model: str
    format: str
    precision: str
    #: Of an exported file.
    artifact_sha256: str | None
    #: Of an input on the scale 0…1.
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: str
    weights_sha256: str | None
    seed: int | None
    plan: Plan
    observe: tuple[int, ...]
    list_sha256: str
    #: Of the videos' names and labels, in the order of the list.
    videos_sha256: str
    dataset: str
    #: Its classes have names, by which they were matched; else indices were taken in the model's order.
    named: bool
    videos: int
    #: In the order of the logits.
    classes: tuple[str, ...] | None
    decoder: str
    runtime: str
    #: Its version.
    tsmzoo: str
    #: Name of the list, and its official split, for reports: their digests say whether two lists are the same.
    list_file: str | None = None
    split: int | None = None
    #: How files become pictures (READING); older headers lack it.
    reading: int = 1


def rows(values: Array) -> list[list[float]]:
    """Return float32 numbers, V, classes, as they are written: the shortest that read back the same."""
    return [[float(text) for text in row] for row in np.asarray(values, np.float32).astype(str).tolist()]


def scores(logits: list[list[float]], plan: Plan) -> Array:
    """Return the score of each class, the mean over the views of what the protocol averages, in float64."""
    values = np.asarray(logits, np.float32).astype(np.float64)
    if plan.average == "probabilities":
        odds = np.exp(values - values.max(1, keepdims=True))
        values = odds / odds.sum(1, keepdims=True)
    return np.asarray(values.mean(0))


def header_path(path: Path) -> Path:
    """Return where the header of `path` is written."""
    return path.with_suffix(".json")


def read_header(path: Path) -> Header:
    """Return what the predictions in `path` are of. Raises DataError where that is not beside them."""
    try:
        return msgspec.json.decode(files.read(header_path(path)), type=Header)
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(
            f"{header_path(path)}: says what {path.name} holds and cannot be read ({error}); predict again"
        ) from None


def read(path: Path, header: Header | None = None) -> Iterator[Prediction]:
    """Yield the predictions of a file, one at a time, of what `header` says.

    Raises DataError naming a line that is none.
    """
    rule = _Rule(header) if header else None
    for number, (_, prediction) in enumerate(_each(path, Prediction), start=1):
        if rule and (fault := rule.fault(prediction)):
            raise _refused(path, number, fault)
        yield prediction


def _refused(path: Path, number: int, fault: object) -> DataError:
    return DataError(f"{path}: line {number} is no prediction ({fault}); predict again")


class _Rule:
    """What all predictions of one run have in common."""

    def __init__(self, header: Header) -> None:
        self._header = header
        #: Logits of a view: those of the first line where the classes have no names.
        self._width = None if header.classes is None else len(header.classes)

    def fault(self, prediction: Prediction) -> str | None:
        """Return why `prediction` is none of the run; None where it may be one."""
        views, levels, width = self._header.plan.views, self._header.observe, self._width
        if prediction.label < 0 or (width is not None and prediction.label >= width):
            return f"class {prediction.label}" + ("" if width is None else f" of {width}")
        if prediction.skipped is not None:
            return None
        if missing := [level for level in levels if str(level) not in prediction.observed]:
            return f"nothing after {missing[0]} % of the video"
        if width is None and prediction.logits:
            width = len(prediction.logits[0])
        if not width:
            return "no logits"
        for logits in (prediction.logits, *(prediction.observed[str(level)] for level in levels)):
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
    """Yield where each line of a file stands, and what it holds. Raises DataError naming a line that is none."""
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
    """Keep other runs off `path` within the block. Raises DataError where one is at it."""
    if rank:  # the first process speaks for all of a run
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
    """Where each video's line stands in a file of predictions of what `header` says: it holds two numbers a video.

    Raises DataError naming a line that is none.
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

    def get(self, video: str) -> Prediction | None:
        """Return the prediction of a video."""
        if (place := self._starts.get(video)) is None:
            return None
        number, start = place
        try:
            with files.opened(self._path) as file:
                file.seek(start)
                prediction = msgspec.json.decode(file.readline(), type=Prediction)
        except (OSError, msgspec.MsgspecError) as error:
            raise _refused(self._path, number, error) from None
        if fault := self._rule.fault(prediction):
            raise _refused(self._path, number, fault)
        return prediction


class Store:
    """The predictions of a run, chunk by chunk: `chunks` are the names of the videos that are predicted together.

    A chunk counts once it is whole: what a killed process left of one, or a line that cannot be of this run, is cut
    off with all that follows it, and predicted again. Process
    `rank` of `count` writes a file of its own; all of them are read, whatever the number was before.
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
        """Write the header; raise DataError where the file holds predictions of something else."""
        beside = header_path(self._path)
        stray = self._parts()  # before the header is looked for: every process claims before it writes
        if stray and not beside.exists():
            raise DataError(f"{stray[0]}: is in the way and nothing says of what; delete it or give another file")
        if not stray and (not beside.exists() or self._is_stale(beside, header)):
            files.write(beside, msgspec.json.format(msgspec.json.encode(header), indent=2) + b"\n")
        try:
            found, wanted = (_flat(msgspec.to_builtins(each)) for each in (read_header(self._path), header))
        except DataError:
            raise DataError(f"{beside}: is in the way and not of predictions; give another file") from None
        for key in [key for key in wanted | found if key not in _TOLD]:
            if (was := found.get(key)) != (now := wanted.get(key)):
                if key == "reading":
                    raise DataError(
                        f"{self._path}: was begun by another version of tsmzoo, which reads pictures otherwise; "
                        "predict again, into another file"
                    )
                what = f"({key} was {was}, now is {now})" if key != "classes" else "(of other classes)"
                raise DataError(f"{self._path}: holds predictions of another run {what}; give another file")

    def _is_stale(self, beside: Path, header: Header) -> bool:
        """Say whether a header is of predictions that were deleted, and not those of this run."""
        try:
            return read_header(self._path) != header
        except DataError:
            raise DataError(f"{beside}: is in the way and not of predictions; give another file") from None

    def _parts(self) -> list[Path]:
        beside = self._path.parent.glob(f"{self._path.name}.*")
        parts = [path for path in beside if path.name[len(self._path.name) + 1 :].isdecimal()]
        return [path for path in (self._path, *sorted(parts)) if path.is_file()]

    def _whole(self, path: Path) -> Iterator[tuple[int, int, bytes]]:
        """Yield each whole chunk of a file: its number, where it ends, and its lines."""
        end, lines = 0, b""
        names: Iterator[str] = iter(())
        number: int | None = None
        rule = _Rule(self._header)
        with path.open("rb") as file:
            for line in file:
                try:
                    prediction = msgspec.json.decode(line, type=Prediction)
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
        """Cut off what a killed process left of a chunk."""
        if self._mine.is_file():
            end = max((end for _, end, _ in self._whole(self._mine)), default=0)
            if end < self._mine.stat().st_size:
                os.truncate(self._mine, end)

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Write a chunk."""
        text = b"".join(msgspec.json.encode(prediction) + b"\n" for prediction in predictions)
        try:
            with self._mine.open("ab") as file:
                file.write(text)
        except OSError as error:
            raise DataError(f"{self._mine}: cannot be written ({error.strerror}); make room and go on") from None

    def finish(self) -> None:
        """Bring all chunks into one file, in the order of the list, and delete the others.

        Raises DataError where another process' chunks are not there, or the file cannot be written.
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
_TOLD = {"list_file", "split", "tsmzoo"}


def _flat(header: dict[str, Any]) -> dict[str, Any]:
    """Return a header with what its plan says beside the rest."""
    followed = header.pop("plan")
    return header | {f"plan.{key}": value for key, value in (followed | followed.pop("changes")).items()}
