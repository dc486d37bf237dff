"""Latency and memory of exported files and networks, measured side by side.

Each runs in a process of its own (worker.py). They take turns, round by round, on the same cores, so that other load on
the machine slows all of them alike. Ratios are computed round by round.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from tsmzoo.artifact.converter import Operator, Profile, converter_of
from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.errors import ZooError
from tsmzoo.formats import Format, format_of
from tsmzoo.inference.reference import ModelReference, frames_of
from tsmzoo.registry import Registry
from tsmzoo.text import Column, table
from tsmzoo.weights import download

#: A turn is as many passes as fill this time, at least one. The first pass of a turn finds the caches filled by others.
TURN_SECONDS = 0.02
#: Rows of a profile that the text shows.
_TOP = 12


class Job(msgspec.Struct, frozen=True):
    """What a worker runs: an exported file, or a model of the registry in torch."""

    model: ModelReference
    threads: int = 1
    registries: tuple[str, ...] = ()
    #: Only compare the file with its contract, as every other command does.
    check: bool = False

    @property
    def kind(self) -> str:
        """The format of a file, or `torch`."""
        return str(format_of(Path(self.name))) if self.model.is_file else "torch"

    @property
    def name(self) -> str:
        """The file or model, as it was given."""
        return self.model.model


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's answer when it is ready."""

    runtime: str
    model: str
    mode: Literal["offline", "online"]
    precision: str
    weights: str
    #: With the axes of the file.
    input_shape: tuple[int, ...]
    #: Of one stream, in float32.
    state_bytes: int = 0
    #: Peak memory of the process before it loaded a model: Python, NumPy and the runtime itself.
    before_mb: float = 0.0


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements of one job: seconds of each pass of each round."""

    job: Job
    loaded: Loaded
    rounds: tuple[tuple[float, ...], ...]
    peak_mb: float
    profile: Profile | None = None


_T = TypeVar("_T")


def encoded(value: Any) -> bytes:
    """Return a line of JSON. Unlike msgspec's encoder it accepts file names that are not UTF-8."""
    return json.dumps(msgspec.to_builtins(value)).encode() + b"\n"


class Worker:
    """A process that runs one job; a context manager that ends it."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __enter__(self) -> Worker:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tsmzoo.benchmarking.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # torch's idle threads spin into the turns of others.
            env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
            # Ctrl-C must reach only this process, which ends the workers.
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, request: Any, kind: type[_T]) -> _T:
        """Send `request` and return the answer. Raises ZooError if the answer is an error or the process ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(encoded(request))
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            code = self._process.wait()
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            memory = "; it may need more memory than there is" if code == -signal.SIGKILL else ""
            raise ZooError(f"{self.job.name}: the process that ran it {how}{memory}; try it alone")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise ZooError(answer["error"])
        return msgspec.convert(answer, kind)


def benchmark(
    zoo: Registry,
    models: Sequence[ModelReference],
    *,
    runs: int,
    threads: int,
    profile: bool,
    registries: tuple[str, ...],
    progress: Progress,
    notify: Notify,
) -> list[BenchmarkRow]:
    """Measure `models`, those of the registry with the weights that they name, and return a row of each.

    `zoo` is tsmzoo's registry with `registries`. Raises ZooError if a name is no model, or a process died.
    """
    if threads > (cores := os.cpu_count() or threads):
        notify(f"{threads} threads on {cores} cores wait for each other; take --threads {cores}")
    for model in models:
        if model.is_file:
            continue
        if Path(model.model).exists():
            raise ZooError(
                f"{model.model}: is neither a model nor a file that export wrote (.onnx, .tflite, .mlpackage)"
            )
        entry = zoo.find(model.model)
        frames_of(entry, model.frames)
        if model.weights is None:
            download.fetch(entry, progress=progress, notify=notify)
    jobs = [Job(model, threads, () if model.is_file else registries) for model in models]
    check(jobs, progress=progress)
    measured = rows(run_benchmark(jobs, runs=runs, profile=profile, progress=progress))
    for row in measured:
        if interpreted(row.runtime):
            notify(f"{row.artifact}: an interpreter ran it; its times say nothing of a phone")
    return measured


def check(jobs: Sequence[Job], *, progress: Progress = silent) -> None:
    """Compare each file among `jobs` with its contract, in a process that is not measured.

    Raises ZooError for the first that differs.
    """
    for index, job in enumerate(jobs):
        if job.kind != "torch":
            progress(f"checking {job.name}", index, len(jobs))
            with Worker(msgspec.structs.replace(job, check=True)) as worker:
                worker.ask(worker.job, type(None))


def run_benchmark(
    jobs: Sequence[Job], *, runs: int = 30, profile: bool = False, progress: Progress = silent
) -> list[Timing]:
    """Load every job, run them in turns for `runs` rounds, and return the measurements in the order of the jobs.

    Raises ZooError for the first that cannot run, and on Windows, where reading the memory is not implemented.
    """
    if sys.platform == "win32":
        raise ZooError("bench does not run on Windows; run it in WSL")
    with ExitStack() as stack:
        workers: list[Worker] = []
        loaded: list[Loaded] = []
        for job in jobs:
            progress(f"loading {job.name}", len(workers), len(jobs))
            workers.append(stack.enter_context(Worker(job)))
            loaded.append(workers[-1].ask(job, Loaded))
        progress("warming up", 0, runs)
        passes = [_passes(worker) for worker in workers]
        rounds: list[list[tuple[float, ...]]] = [[] for _ in workers]
        for turn in range(runs):
            progress("running", turn, runs)
            for worker, count, times in zip(workers, passes, rounds, strict=True):
                times.append(worker.ask({"passes": count}, tuple[float, ...]))
        # Before the profile, whose records take memory too.
        peaks = [worker.ask({"peak": True}, float) for worker in workers]
        profiles: list[Profile | None] = [None for _ in workers]
        for index, worker in enumerate(workers if profile else ()):
            progress(f"profiling {worker.job.name}", index, len(workers))
            # A runtime that crashes in its profiler must not lose the measurements.
            with suppress(ZooError):
                profiles[index] = worker.ask({"profile": passes[index]}, Profile | None)  # type: ignore[arg-type]
    measured = zip(jobs, loaded, rounds, peaks, profiles, strict=True)
    return [
        Timing(job=job, loaded=what, rounds=tuple(times), peak_mb=peak, profile=profiled)
        for job, what, times, peak, profiled in measured
    ]


def _passes(worker: Worker) -> int:
    """Warm a worker up and return the number of passes of a turn."""
    worker.ask({"passes": 1}, tuple[float, ...])
    fastest = min(worker.ask({"passes": 2}, tuple[float, ...]))
    passes = max(1, round(TURN_SECONDS / fastest))
    if passes > 1:
        worker.ask({"passes": passes}, tuple[float, ...])
    return passes


def ratio(timing: Timing, first: Timing) -> float:
    """Return the time of a pass divided by that of `first`: the median over the rounds."""
    return median(median(a) / median(b) for a, b in zip(timing.rounds, first.rounds, strict=True))


class OperatorRow(msgspec.Struct, frozen=True):
    """An operator in a profile."""

    kind: str
    #: Of one node; null for all nodes of the kind.
    name: str | None
    #: Per pass.
    calls: int
    #: Milliseconds per pass.
    ms: float
    #: Of the time of all operators, 0…1.
    share: float


class BenchmarkRow(msgspec.Struct, frozen=True, kw_only=True):
    """Latency and memory of a file or model."""

    #: The file or model, as it was given.
    artifact: str
    #: Id of the model.
    model: str
    runtime: str
    precision: str
    #: `published`, `local` or `random`.
    weights: str
    #: With the axes of the file.
    input_shape: list[int]
    #: null for Core ML, which chooses the number itself.
    threads: int | None
    #: Rounds in which each took its turn.
    runs: int
    #: Passes in all rounds.
    passes: int
    #: What a pass computes: a frame if the model is online.
    per: Literal["clip", "frame"]
    #: Milliseconds per pass: the median.
    median_ms: float
    #: Milliseconds per pass: the 95th percentile.
    p95_ms: float
    #: Frames per second; online models only.
    fps: float | UnsetType = UNSET
    #: Bytes of the states of one stream; online models only.
    state_bytes: int | UnsetType = UNSET
    #: Clips per second; offline models only.
    clips_per_s: float | UnsetType = UNSET
    #: Time divided by that of the first row, the median over the rounds; null between a clip and a frame.
    ratio: float | None
    #: Peak memory of the process, in millions of bytes, above `before_mb`.
    peak_mb: float
    #: Peak memory before the model was loaded.
    before_mb: float
    #: Time by kind of operator, slowest first; only with --profile, if the runtime reports it.
    operators: list[OperatorRow] | UnsetType = UNSET
    #: Time by node, slowest first; likewise.
    nodes: list[OperatorRow] | UnsetType = UNSET


def rows(timings: Sequence[Timing]) -> list[BenchmarkRow]:
    """Return the result of each measurement; ratios are relative to the first."""
    return [_row(timing, timings[0]) for timing in timings]


def _row(timing: Timing, first: Timing) -> BenchmarkRow:
    times = [seconds for round_ in timing.rounds for seconds in round_]
    middle, same = median(times), timing.loaded.mode == first.loaded.mode
    online = timing.loaded.mode == "online"
    rate, profile = round(1 / middle, 2), timing.profile
    total = sum(operator.ms for operator in profile.kinds) if profile else 0.0
    return BenchmarkRow(
        artifact=timing.job.name,
        model=timing.loaded.model,
        runtime=timing.loaded.runtime,
        precision=timing.loaded.precision,
        weights=timing.loaded.weights,
        input_shape=list(timing.loaded.input_shape),
        threads=None if _chooses_threads(timing.job) else timing.job.threads,
        runs=len(timing.rounds),
        passes=len(times),
        per="frame" if online else "clip",
        median_ms=round(middle * 1e3, 4),
        p95_ms=round(float(np.percentile(times, 95)) * 1e3, 4),
        fps=rate if online else UNSET,
        state_bytes=timing.loaded.state_bytes if online else UNSET,
        clips_per_s=UNSET if online else rate,
        ratio=round(ratio(timing, first), 4) if same else None,
        peak_mb=round(timing.peak_mb, 1),
        before_mb=round(timing.loaded.before_mb, 1),
        operators=_operators(profile.kinds, total) if profile else UNSET,
        nodes=_operators(profile.nodes, total) if profile else UNSET,
    )


def _operators(operators: Sequence[Operator], total: float) -> list[OperatorRow]:
    # LiteRT's times of a very small file may all be 0.
    return [
        OperatorRow(o.kind, o.name, o.calls, round(o.ms, 4), round(o.ms / total, 4) if total else 0.0)
        for o in operators
    ]


def _chooses_threads(job: Job) -> bool:
    """Return whether the runtime takes as many threads as it likes."""
    return job.kind != "torch" and converter_of(Format(job.kind)).chooses_threads


def interpreted(runtime: str) -> bool:
    """Return whether tsmzoo's own interpreter ran a file, instead of a phone's runtime."""
    return runtime.startswith("tsmzoo's ")


COLUMNS: list[Column[BenchmarkRow]] = [
    ("artifact", "left", lambda row: row.artifact),
    ("runtime", "left", lambda row: row.runtime),
    ("threads", "right", lambda row: "–" if row.threads is None else row.threads),
    ("per", "left", lambda row: row.per),
    ("ms", "right", lambda row: figures(row.median_ms)),
    ("p95", "right", lambda row: figures(row.p95_ms)),
    ("per second", "right", lambda row: figures(1e3 / row.median_ms)),
    ("time, of the first", "right", lambda row: "–" if row.ratio is None else f"{row.ratio:.2f}"),
    ("states MB", "right", lambda row: f"{row.state_bytes / 1e6:.2f}" if row.state_bytes else "–"),
    ("peak MB", "right", lambda row: f"{row.peak_mb:.0f}"),
]
_TIMES: list[Column[OperatorRow]] = [
    ("ms", "right", lambda operator: f"{operator.ms:.3f}"),
    ("share", "right", lambda operator: f"{operator.share:.1%}"),
]
_KINDS: list[Column[OperatorRow]] = [
    ("operator", "left", lambda operator: operator.kind),
    ("calls", "right", lambda operator: operator.calls),
    *_TIMES,
]
_NODES: list[Column[OperatorRow]] = [
    ("node", "left", lambda operator: operator.name or ""),
    ("operator", "left", lambda operator: operator.kind),
    *_TIMES,
]

MEMORY = "peak MB: what the process held at most, less what it held once the runtime was imported"


def profiles(row: BenchmarkRow) -> list[str]:
    """Return the paragraphs of a row's profile: by operator, then the slowest nodes."""
    if not row.operators or not row.nodes:
        return [f"{row.artifact}\n{row.runtime}: its Python does not tell the times of operators"]
    total = sum(operator.ms for operator in row.operators)
    return [
        f"{row.artifact}: {figures(total)} ms a {row.per} by the profiler, of which shares compare, times do not",
        table(_KINDS, row.operators[:_TOP]) + _more(row.operators),
        f"nodes of the network as it ran, slowest first\n{table(_NODES, row.nodes[:_TOP])}{_more(row.nodes)}",
    ]


def _more(rows: Sequence[object]) -> str:
    return f"\nand {len(rows) - _TOP} more (--json)" if len(rows) > _TOP else ""


def figures(value: float) -> str:
    """Return a number with three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.1 else f"{value:.3f}"
