"""What the sections of BENCHMARKS.md share: commands that are timed, files that take turns, tables."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from tsmzoo.artifact import store
from tsmzoo.artifact.contract import Contract, StatePair, Tensor, contract_path
from tsmzoo.artifact.converter import converter_of
from tsmzoo.benchmarking.run import Job, Timing, figures, ratio, run_benchmark
from tsmzoo.formats import format_of
from tsmzoo.inference.reference import ModelReference
from tsmzoo.typing import Array

#: How often each process of a race is started.
STARTS = 4


@dataclass(frozen=True)
class Done:
    """A command that ended well: what it printed, and its seconds."""

    out: str
    seconds: float


class Failed(Exception):
    """A command that did not; its last line."""


def run(command: Sequence[str | Path], limit: float = 600, *, cwd: Path | str | None = None) -> float:
    """Run a command in one thread and return its seconds, `limit` at most. Raises Failed."""
    began = time.monotonic()
    words = [str(word) for word in command]
    # Programs of its environment are found, as if that were active.
    path = f"{Path(words[0]).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        done = subprocess.run(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd,
            timeout=limit,
            check=False,
            errors="replace",
            env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": path},
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"not done after {limit:.0f} s") from None
    if done.returncode:
        raise Failed((done.stdout.strip().splitlines() or [f"ended with {done.returncode}"])[-1])
    return time.monotonic() - began


def tsmzoo(*words: str | Path) -> Done:
    """Run the command line; stop all where it fails."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tsmzoo", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    if done.returncode:
        sys.exit(f"tsmzoo {' '.join(map(str, words))}: {done.stderr}")
    return Done(done.stdout, time.monotonic() - began)


def export(model: str, out: Path, *options: str) -> dict[str, Any]:
    """Export `model` to `out`; return what `export --json` tells, with the seconds of the whole command."""
    done = tsmzoo("export", model, "--to", format_of(out), "-o", out, "--json", *options)
    report: dict[str, Any] = json.loads(done.out)
    return report | {"seconds": done.seconds}


def race(paths: Sequence[Path], runs: int = 30) -> list[Timing]:
    """Let exported files take turns, one thread each, in so many rounds all in all.

    Their processes are started anew, in the other order, for a share of the rounds each: where a process's memory came
    to lie is worth a hundredth or two.
    """
    jobs = [Job(ModelReference(str(path))) for path in paths]
    races = []
    for start in range(STARTS):
        turn = -1 if start % 2 else 1
        races.append(run_benchmark(jobs[::turn], runs=-(-runs // STARTS))[::turn])
    return [
        msgspec.structs.replace(
            timings[0],
            rounds=tuple(itertools.chain.from_iterable(timing.rounds for timing in timings)),
            peak_mb=median(timing.peak_mb for timing in timings),
        )
        for timings in zip(*races, strict=True)
    ]


def spread(timing: Timing, first: Timing) -> str:
    """Return how many times as long as `first` a pass takes, and the least and most that one start gave."""
    rounds = len(timing.rounds) // STARTS
    starts = [
        ratio(*(msgspec.structs.replace(t, rounds=t.rounds[i * rounds :][:rounds]) for t in (timing, first)))
        for i in range(STARTS)
    ]
    return f"{ratio(timing, first):.2f} ({min(starts):.2f}–{max(starts):.2f})"


def answer(path: Path, contract: Contract, clip: Array) -> Array:
    """Return the logits of a file for normalised frames, T, C, H, W, from zero states. Raises Failed."""
    main = contract.main_input
    states = {tensor.name: np.zeros(tensor.lengths(), tensor.dtype) for tensor in contract.inputs[1:]}
    # Axes go by their lengths: onnx2tf puts T last, where C should be.
    clip = clip.squeeze()
    left, order = list(range(clip.ndim)), []
    for n in [n for n in main.lengths() if n > 1]:
        axis = next((axis for axis in left if clip.shape[axis] == n), None)
        if axis is None:
            raise Failed(f"takes {main.lengths()}")
        left.remove(axis)
        order.append(axis)
    runner = converter_of(format_of(path)).load(path, contract, 1)
    frames = clip.transpose(order).reshape(main.lengths())
    return runner.run({main.name: frames, **states})[contract.outputs[0].name]


def adopt(path: Path, like: Contract) -> Contract:
    """Write a contract of a file that has none, for `bench`; states are paired by shape, where one has it."""
    inputs, outputs = _tensors(path)
    inputs.sort(key=lambda tensor: -int(np.prod(tensor.shape)))
    frame = inputs[0]
    answer = next(tensor for tensor in outputs if tensor.shape == like.outputs[0].shape)
    rest = [tensor for tensor in outputs if tensor is not answer]
    pairs = []
    for state in inputs[1:]:
        # onnx2tf gives some states channels first that it takes channels last: an app would have to turn those.
        for output in [tensor for tensor in rest if tensor.shape == state.shape][:1]:
            rest.remove(output)
            pairs.append(StatePair(input=state.name, output=output.name))
    sha256, size = store.digest(path)
    contract = msgspec.structs.replace(
        like,
        format=path.suffix.removeprefix("."),
        inputs=(frame, *inputs[1:]),
        outputs=(answer, *(tensor for tensor in outputs if tensor is not answer)),
        states=tuple(pairs),
        artifact=path.name,
        sha256=sha256,
        bytes=size,
        verification=None,
    )
    store.write_contract(contract, contract_path(path))
    return contract


def _tensors(path: Path) -> tuple[list[Tensor], list[Tensor]]:
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        types = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
        both = (session.get_inputs(), session.get_outputs())
        sides = [[(item.name, item.shape, types[item.type]) for item in side] for side in both]
    else:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
        signature = interpreter.get_signature_runner()
        both = (signature.get_input_details(), signature.get_output_details())
        sides = [[(name, d["shape"], np.dtype(d["dtype"]).name) for name, d in side.items()] for side in both]
    named = [
        [Tensor(name=n, shape=tuple(map(int, s)), dtype=d, layout="NCHW", meaning="") for n, s, d in side]
        for side in sides
    ]
    return named[0], named[1]


def ms(timing: Timing) -> float:
    """Return the median of a pass, in milliseconds."""
    return median(seconds for round_ in timing.rounds for seconds in round_) * 1e3


def table(columns: dict[str, str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown; `columns` are headings, and `-` for left or `>` for right."""
    marks = "|".join({"-": "---", ">": "--:"}[side] for side in columns.values())
    first, *others = (f"| {' | '.join(map(str, line))} |" for line in (list(columns), *rows))
    return "\n".join([first, f"|{marks}|", *others])


def figure(value: float) -> str:
    """Return a number with three digits."""
    return figures(value)


def alone(section: Callable[[Path], str]) -> None:
    """Measure one section and print its table."""
    with tempfile.TemporaryDirectory() as folder:
        print(section(Path(folder)))
