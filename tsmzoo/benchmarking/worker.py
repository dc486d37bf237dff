"""The process in which `tsmzoo bench` runs one exported file or network."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from tsmzoo.artifact import store
from tsmzoo.artifact.converter import Session, converter_of
from tsmzoo.artifact.session import timed
from tsmzoo.benchmarking.run import Job, Loaded, encoded
from tsmzoo.benchmarking.sessions import TorchSession
from tsmzoo.errors import ArtifactError, ZooError
from tsmzoo.formats import Format
from tsmzoo.inference.model import check_file
from tsmzoo.system.quiet import quiet
from tsmzoo.text import of_error


def peak() -> float:
    """Return the peak resident memory of this process so far, in millions of bytes."""
    try:
        # Not ru_maxrss, which on Linux is never less than the parent's at the start.
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
    except (OSError, StopIteration):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most * (1 if sys.platform == "darwin" else 1024) / 1e6


def cores(threads: int, allowed: Iterable[int]) -> set[int]:
    """Return the processor cores on which a job of so many threads runs; the same for every job.

    The system would keep each process on one core for long, and cores differ: on a shared machine of two, a file
    against itself measured 0.83 to 1.20, on one core 0.985 to 1.004. The first core is avoided: it serves interrupts.
    If cores are of several kinds, `taskset` selects: only allowed cores are used.
    """
    ordered = sorted(allowed)
    return set((ordered[1:] if threads < len(ordered) else ordered)[:threads])


def load(job: Job) -> tuple[Session, Loaded]:
    """Load the file or model of `job`; return it ready to run, and its description. Raises ZooError."""
    # The runtime is imported before the memory is first read.
    session: Session
    if job.kind == "torch":
        for library in ("torch", "tsmzoo.inference.torch_runner"):
            importlib.import_module(library)
        before = peak()
        session = TorchSession(job)
        loaded = session.loaded
    else:
        path, converter = Path(job.name), converter_of(Format(job.kind))
        converter.require("session")
        contract = store.opened(path)  # as late as can be: this is the file that runs
        before = peak()
        session = converter.session(path, contract, job.threads)
        loaded = Loaded(
            runtime=session.runtime,
            model=contract.model,
            mode=contract.mode,
            precision=contract.precision,
            weights=contract.weights,
            input_shape=contract.main_input.lengths(),
            state_bytes=contract.state_bytes,
        )
    return session, msgspec.structs.replace(loaded, before_mb=before)


@contextmanager
def _as_its_contract_says(job: Job) -> Iterator[None]:
    """Turn any other error of a file into ArtifactError: its tensors differ from its contract.

    Errors of a network keep their traceback: it has no contract.
    """
    try:
        yield
    except ZooError:
        raise
    except Exception as error:  # each runtime raises its own kinds
        if job.kind == "torch":
            raise
        raise ArtifactError(f"{job.name}: is not what its contract says ({of_error(error)}); export it again") from None


def main() -> None:
    # Answers go to a handle of their own: what libraries print goes to stderr.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def answer(value: Any) -> None:
        answers.write(encoded(value))

    job = msgspec.convert(json.loads(sys.stdin.buffer.readline()), Job)
    if sys.platform == "linux":
        # Before the runtime starts threads, which inherit the affinity. A sandbox may refuse it.
        with suppress(OSError):
            os.sched_setaffinity(0, cores(job.threads, os.sched_getaffinity(0)))
    try:
        if job.check:
            check_file(Path(job.name))
            answer(None)
            return
        with quiet(), _as_its_contract_says(job):
            session, loaded = load(job)
        answer(loaded)
        for line in sys.stdin.buffer:
            request = json.loads(line)
            measured: Any
            with _as_its_contract_says(job):
                if "passes" in request:
                    measured = timed(session, request["passes"])
                elif "profile" in request:
                    measured = session.profile(request["profile"])
                else:
                    measured = peak() - loaded.before_mb
            answer(measured)
    except ZooError as error:
        answer({"error": str(error)})


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # the parent process is gone
        main()
