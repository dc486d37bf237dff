"""Latency and memory of exported files and networks side by side: who runs when, and what the times say.

Each has a process of its own (worker.py). They take turns, round by round, on the same cores, so that what else
the machine does hits all alike, and ratios are taken round by round.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from tsmzoo.artifact.converter import converter_of
from tsmzoo.errors import ZooError
from tsmzoo.formats import Format, format_of, is_artifact
from tsmzoo.registry import ShiftName

#: A turn is as many passes as fill so many seconds, one at least: the first of them finds the caches full of others'.
TURN_SECONDS = 0.02
#: Rows of a profile that are shown.
_TOP = 12


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to run: an exported file, or a model of the registry, in torch, with its options."""

    subject: str
    threads: int = 1
    weights: str | None = None
    seed: int = 0
    weights_format: str | None = None
    shift: ShiftName | None = None
    allow_shift_mismatch: bool = False
    classes: int | None = None
    labels: tuple[str, ...] | None = None
    frames: int | None = None
    size: int | None = None
    registries: tuple[str, ...] = ()
    #: To hold the file against its contract, as every other command does, and run nothing.
    check: bool = False

    @property
    def kind(self) -> str:
        """The format of a file, or `torch`."""
        return str(format_of(Path(self.subject))) if is_artifact(self.subject) else "torch"


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says once it is ready."""

    runtime: str
    model: str
    mode: Literal["offline", "online"]
    precision: str
    weights: str
    #: With the axes of the file.
    input_shape: tuple[int, ...]
    #: Most memory that the process held before it loaded anything: Python, NumPy and the runtime itself.
    before_mb: float = 0.0


class Operator(msgspec.Struct, frozen=True):
    """Milliseconds a pass of one node, or of all nodes of a kind, and how many calls a pass they are."""

    kind: str
    name: str | None
    ms: float
    calls: int


class Profile(msgspec.Struct, frozen=True):
    """Where the time goes, slowest first; operators that call others count without these, modules with them."""

    passes: int
    kinds: tuple[Operator, ...]
    nodes: tuple[Operator, ...]


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one job: seconds of each pass of each round."""

    job: Job
    loaded: Loaded
    rounds: tuple[tuple[float, ...], ...]
    peak_mb: float
    profile: Profile | None = None


_T = TypeVar("_T")


def encoded(value: Any) -> bytes:
    """Return a line of JSON, which may hold a file's name that is not UTF-8, as msgspec's own may not."""
    return json.dumps(msgspec.to_builtins(value)).encode() + b"\n"


class Worker:
    """A process that holds one job; it ends with the block."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __enter__(self) -> Worker:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tsmzoo.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # torch's idle threads spin into the turns of others.
            env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
            # Ctrl-C is for us alone, who end them.
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, request: Any, kind: type[_T]) -> _T:
        """Send `request` and return the answer. Raises ZooError where it is an error, or none comes."""
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
            raise ZooError(f"{self.job.subject}: the process that ran it {how}{memory}; try it alone")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise ZooError(answer["error"])
        return msgspec.convert(answer, kind)


def check(jobs: Sequence[Job], *, progress: Callable[[str, int, int], None] = lambda *_: None) -> None:
    """Hold each file among `jobs` against its contract, in a process that is not measured.

    Raises ZooError naming the first that does not fit.
    """
    for index, job in enumerate(jobs):
        if job.kind != "torch":
            progress(f"checking {job.subject}", index, len(jobs))
            with Worker(msgspec.structs.replace(job, check=True)) as worker:
                worker.ask(worker.job, type(None))


def run_benchmark(
    jobs: Sequence[Job],
    *,
    runs: int = 30,
    profile: bool = False,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Timing]:
    """Load every job, let them take turns in `runs` rounds, and return what was measured, in their order.

    Raises ZooError naming the first that cannot be run, or on Windows, where memory is read in no way known here.
    """
    if sys.platform == "win32":
        raise ZooError("bench does not run on Windows; run it in WSL")
    with ExitStack() as stack:
        workers: list[Worker] = []
        loaded: list[Loaded] = []
        for job in jobs:
            progress(f"loading {job.subject}", len(workers), len(jobs))
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
            progress(f"profiling {worker.job.subject}", index, len(workers))
            # A library that falls over its own profiler must not cost what was measured.
            with suppress(ZooError):
                profiles[index] = worker.ask({"profile": passes[index]}, Profile | None)  # type: ignore[arg-type]
    measured = zip(jobs, loaded, rounds, peaks, profiles, strict=True)
    return [
        Timing(job=job, loaded=what, rounds=tuple(times), peak_mb=peak, profile=profiled)
        for job, what, times, peak, profiled in measured
    ]


def _passes(worker: Worker) -> int:
    """Warm a worker up; return how many of its passes make a turn."""
    worker.ask({"passes": 1}, tuple[float, ...])
    fastest = min(worker.ask({"passes": 2}, tuple[float, ...]))
    passes = max(1, round(TURN_SECONDS / fastest))
    if passes > 1:
        worker.ask({"passes": passes}, tuple[float, ...])
    return passes


def ratio(timing: Timing, first: Timing) -> float:
    """Return how many times as long as `first` a pass of `timing` takes: the median over the rounds."""
    return median(median(a) / median(b) for a, b in zip(timing.rounds, first.rounds, strict=True))


def document(timings: Sequence[Timing]) -> list[dict[str, Any]]:
    """Return what `bench --json` prints; times are of one clip, or of one frame of an online model."""
    return [_row(timing, timings[0]) for timing in timings]


def _row(timing: Timing, first: Timing) -> dict[str, Any]:
    times = [seconds for round_ in timing.rounds for seconds in round_]
    middle, same = median(times), timing.loaded.mode == first.loaded.mode
    online = timing.loaded.mode == "online"
    row: dict[str, Any] = {
        "artifact": timing.job.subject,
        "model": timing.loaded.model,
        "runtime": timing.loaded.runtime,
        "precision": timing.loaded.precision,
        "weights": timing.loaded.weights,
        "input_shape": list(timing.loaded.input_shape),
        "threads": None if _chooses_threads(timing.job) else timing.job.threads,
        "runs": len(timing.rounds),
        "passes": len(times),
        "per": "frame" if online else "clip",
        "median_ms": round(middle * 1e3, 4),
        "p95_ms": round(float(np.percentile(times, 95)) * 1e3, 4),
        "fps" if online else "clips_per_s": round(1 / middle, 2),
        # A clip and a frame do not compare.
        "ratio": round(ratio(timing, first), 4) if same else None,
        "peak_mb": round(timing.peak_mb, 1),
        "before_mb": round(timing.loaded.before_mb, 1),
    }
    if timing.profile:
        total = sum(operator.ms for operator in timing.profile.kinds)
        for key, operators in (("operators", timing.profile.kinds), ("nodes", timing.profile.nodes)):
            row[key] = [
                {
                    "kind": o.kind,
                    "name": o.name,
                    "calls": o.calls,
                    "ms": round(o.ms, 4),
                    # LiteRT's times of a very small file may all be 0.
                    "share": round(o.ms / total, 4) if total else 0.0,
                }
                for o in operators
            ]
    return row


def _chooses_threads(job: Job) -> bool:
    """Return whether the runtime takes as many threads as it likes."""
    return job.kind != "torch" and converter_of(Format(job.kind)).chooses_threads


def interpreted(runtime: str) -> bool:
    """Say whether tsmzoo's own interpreter ran a file, in place of what runs it on a phone."""
    return runtime.startswith("tsmzoo's ")


COLUMNS = {
    "artifact": "left",
    "runtime": "left",
    "threads": "right",
    "per": "left",
    "ms": "right",
    "p95": "right",
    "per second": "right",
    "time, of the first": "right",
    "peak MB": "right",
}
_KINDS = {"operator": "left", "calls": "right", "ms": "right", "share": "right"}
_NODES = {"node": "left", "operator": "left", "ms": "right", "share": "right"}

MEMORY = "peak MB: what the process held at most, less what it held once the runtime was imported"


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the table."""
    return [
        row["artifact"],
        row["runtime"],
        "–" if row["threads"] is None else str(row["threads"]),
        row["per"],
        figures(row["median_ms"]),
        figures(row["p95_ms"]),
        figures(1e3 / row["median_ms"]),
        "–" if row["ratio"] is None else f"{row['ratio']:.2f}",
        f"{row['peak_mb']:.0f}",
    ]


def profiles(row: dict[str, Any], table: Callable[[dict[str, str], list[list[str]]], str]) -> list[str]:
    """Return the paragraphs of a row's profile: by operator, then the slowest nodes."""
    if "operators" not in row:
        return [f"{row['artifact']}\n{row['runtime']}: its Python does not tell the times of operators"]
    total = sum(operator["ms"] for operator in row["operators"])
    kinds = [[o["kind"], str(o["calls"]), *_times(o)] for o in row["operators"]]
    nodes = [[o["name"] or "", o["kind"], *_times(o)] for o in row["nodes"]]
    return [
        f"{row['artifact']}: {figures(total)} ms a {row['per']} by the profiler, of which shares compare, times do not",
        table(_KINDS, kinds[:_TOP]) + _more(kinds),
        f"nodes of the network as it ran, slowest first\n{table(_NODES, nodes[:_TOP])}{_more(nodes)}",
    ]


def _times(operator: dict[str, Any]) -> list[str]:
    return [f"{operator['ms']:.3f}", f"{operator['share']:.1%}"]


def _more(rows: Sequence[object]) -> str:
    return f"\nand {len(rows) - _TOP} more (--json)" if len(rows) > _TOP else ""


def figures(value: float) -> str:
    """Return a number to read, with three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.1 else f"{value:.3f}"
