"""Time Core ML packages: in Core ML on a Mac, which takes as many threads as it likes; elsewhere in our interpreter."""

from __future__ import annotations

from pathlib import Path

from tsmzoo.artifact.contract import Contract
from tsmzoo.artifact.session import RunnerSession

from .runtime import load


def session(path: Path, contract: Contract, threads: int) -> RunnerSession:
    return RunnerSession(load(path, contract), contract)
