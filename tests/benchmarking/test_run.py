"""Processes of `bench`: turns, cores, memory, how they end, and what a user can do wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from typer.testing import Result

from tsmzoo.artifact import store
from tsmzoo.artifact.contract import Contract
from tsmzoo.benchmarking import run, worker
from tsmzoo.benchmarking.run import Job, Loaded, Timing
from tsmzoo.errors import ZooError
from tsmzoo.inference.reference import ModelReference

MODEL = "tsm_mbv2_motion_online"
Toy = Callable[..., Path]
Bench = Callable[..., Result]
KEYS = {"artifact", "runtime", "threads", "median_ms", "p95_ms", "peak_mb", "ratio", "per", "runs", "profile"}


def test_peak_is_that_of_this_process_from_here_on() -> None:
    script = (
        "import numpy as np; from tsmzoo.benchmarking.worker import peak; before = peak();"
        "kept = np.ones(10_000_000); print(before, peak() - before)"
    )
    ballast = np.ones(50_000_000)  # 400 MB of a parent that the child must not be charged with
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    before, more = map(float, answer.stdout.split())
    assert ballast.nbytes / 1e6 > before
    assert 78 < more < 100


@pytest.mark.parametrize(
    ("threads", "allowed", "expected"),
    [(1, {0, 1}, {1}), (1, {0}, {0}), (2, {0, 1}, {0, 1}), (2, {4, 0, 5, 6}, {4, 5}), (8, {0, 1}, {0, 1})],
)
def test_cores_of_a_job(threads: int, allowed: set[int], expected: set[int]) -> None:
    assert worker.cores(threads, allowed) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are not held to cores")
def test_every_file_runs_on_the_same_cores(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = started(monkeypatch)
    expected = worker.cores(1, os.sched_getaffinity(0))
    with run.Worker(Job(ModelReference(str(toy("a"))))) as a, run.Worker(Job(ModelReference(str(toy("b"))))) as b:
        for each in (a, b):
            each.ask(each.job, Loaded)
        assert [os.sched_getaffinity(process.pid) for process in processes] == [expected] * 2


class Fake(run.Worker):
    """Answers as a worker would whose pass takes as many milliseconds as its subject says."""

    asked: ClassVar[list[tuple[str, Any]]] = []

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append((self.job.name, "ended"))

    def ask(self, request: Any, kind: Any) -> Any:  # noqa: ARG002 - as a worker's
        self.asked.append((self.job.name, request))
        if isinstance(request, Job):
            return Loaded(
                runtime="r 1", model="m", mode="online", precision="fp32", weights="random", input_shape=(1, 3, 8, 8)
            )
        return (float(self.job.name) / 1e3,) * request["passes"] if "passes" in request else 1.0


def test_all_take_turns_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "Worker", Fake)
    monkeypatch.setattr(Fake, "asked", [])
    subjects = ["50", "4"]  # milliseconds: one pass fills a turn, five do
    timings = run.run_benchmark([Job(ModelReference(subject)) for subject in subjects], runs=3)
    assert [[len(round_) for round_ in timing.rounds] for timing in timings] == [[1, 1, 1], [5, 5, 5]]
    turns = [subject for subject, request in Fake.asked if request in ({"passes": 1}, {"passes": 5})]
    assert turns[-6:] == ["50", "4"] * 3
    assert [subject for subject, request in Fake.asked if request == "ended"] == ["4", "50"]


def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    processes: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(popen(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(run.subprocess, "Popen", start)
    return processes


def test_a_profile_that_fails_costs_nothing_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Falls(Fake):
        def ask(self, request: Any, kind: Any) -> Any:
            if isinstance(request, dict) and "profile" in request:
                raise ZooError("the process that ran it was ended by SIGSEGV")
            return super().ask(request, kind)

    monkeypatch.setattr(run, "Worker", Falls)
    (timing_,) = run.run_benchmark([Job(ModelReference("4"))], runs=2, profile=True)
    assert len(timing_.rounds) == 2
    assert timing_.profile is None


def test_interruption_leaves_no_process(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = started(monkeypatch)

    def interrupt(text: str, done: int, _: int) -> None:
        if text == "running" and done == 1:
            assert [process.poll() for process in processes] == [None, None]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run_benchmark([Job(ModelReference(str(toy("a")))), Job(ModelReference(str(toy("b"))))], progress=interrupt)
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 2


def test_a_worker_ends_with_its_stdin(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does when who started it is killed."""
    processes = started(monkeypatch)
    with run.Worker(Job(ModelReference(str(toy())))) as worker:
        worker.ask(worker.job, Loaded)
        stdin, processes[0].stdin = processes[0].stdin, None
        assert stdin is not None
        stdin.close()
        assert processes[0].wait(60) == 0


def test_a_worker_that_is_killed_is_named(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = started(monkeypatch)
    with run.Worker(Job(ModelReference(str(toy())))) as worker:
        worker.ask(worker.job, Loaded)
        os.kill(processes[0].pid, signal.SIGKILL)
        with pytest.raises(ZooError, match=r"toy\.onnx: .*SIGKILL; it may need more memory"):
            worker.ask({"passes": 1}, tuple[float, ...])


def test_side_by_side_from_the_command_line(toy: Toy, bench: Bench) -> None:
    small, large = toy("small"), toy("large", 128)
    result = bench(small, large, "--runs", 3, "--profile", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = json.loads(result.stdout)
    assert [row["artifact"] for row in rows] == [str(small), str(large)]
    assert [row["threads"] for row in rows] == [1, 1]
    for row in rows:
        assert row.keys() >= (KEYS - {"profile"}) | {"operators", "nodes", "fps"}
        assert 0 < row["median_ms"] <= row["p95_ms"]
        assert row["runs"] == 3


def test_profile_of_tflite_from_the_command_line(
    convolutions: Path, monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    monkeypatch.setattr(run, "check", lambda *_, **__: None)  # made by hand: no file of ours has a CUMSUM
    result = bench(convolutions, "--runs", 2, "--profile", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    (row,) = json.loads(result.stdout)
    kinds = {operator["kind"]: operator for operator in row["operators"]}
    assert kinds["CUMSUM"]["calls"] == 1
    assert all(operator["name"] is None for operator in row["operators"])
    assert {node["kind"] for node in row["nodes"]} == kinds.keys()
    assert sum(operator["share"] for operator in row["operators"]) == pytest.approx(1, abs=1e-3)


def test_who_starts_the_workers_imports_no_runtime(toy: Toy) -> None:
    script = (
        "import sys\nfrom tsmzoo.cli import main\nsys.argv = ['tsmzoo', *sys.argv[1:]]\n"
        "try:\n    main()\nfinally:\n    print('\\n', *sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "bench", path := str(toy()), "--runs", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert not {"torch", "onnx", "onnxruntime", "rich"} & set(result.stderr.split())
    table = result.stdout.splitlines()
    assert table[2].split()[:2] == [path, "onnxruntime"]
    assert table[-1] == run.MEMORY


def test_a_file_that_the_runtime_rejects(toy: Toy, bench_error: Callable[..., str]) -> None:
    path = toy()
    path.write_bytes(b"no graph")
    contract = store.read_contract(path)
    store.write_contract(msgspec.structs.replace(contract, sha256=store.digest(path)[0]), path.with_suffix(".json"))
    with pytest.raises(ZooError, match=r"toy\.onnx: ONNX Runtime rejects it"):
        run.run_benchmark([Job(ModelReference(str(path)))])
    line = bench_error(path)
    assert f"{path}: is no valid ONNX file" in line


def test_a_changed_file_is_refused(toy: Toy, bench_error: Callable[..., str]) -> None:
    path = toy()
    path.write_bytes(path.read_bytes() + b"\0")
    line = bench_error(path)
    assert f"{path}: was changed since its export" in line


def renamed(contract: Contract) -> Contract:
    logits = msgspec.structs.replace(contract.outputs[0], name="lgits")
    return msgspec.structs.replace(contract, outputs=(logits, *contract.outputs[1:]))


def reshaped(contract: Contract) -> Contract:
    state = msgspec.structs.replace(contract.inputs[1], shape=(1, 2, 1, 1))
    return msgspec.structs.replace(contract, inputs=(contract.inputs[0], state))


@pytest.mark.parametrize("change", [renamed, reshaped])
def test_a_contract_that_does_not_fit(
    change: Callable[[Contract], Contract],
    toy: Toy,
    capfd: pytest.CaptureFixture[str],
    bench_error: Callable[..., str],
    put: Callable[[Path, Contract], Path],
) -> None:
    path = toy()
    put(path, change(store.read_contract(path)))
    with pytest.raises(ZooError, match=r"toy\.onnx: is not what its contract says \("):
        run.run_benchmark([Job(ModelReference(str(path)))], profile=True)
    line = bench_error(path, "--profile")
    assert f"{path}: its contract contradicts itself" in line
    assert capfd.readouterr().err == ""  # nor does the worker say anything


def test_a_networks_bug_keeps_its_traceback() -> None:
    with pytest.raises(KeyError), worker._as_its_contract_says(Job(ModelReference(MODEL))):
        raise KeyError


def test_missing_runtime_names_the_extra(toy: Toy) -> None:
    """In a process of its own: in this one the runtime may have been imported before."""
    job = f"Job(ModelReference({str(toy())!r}))"
    script = f"""
import sys
sys.modules["onnxruntime"] = None
from tsmzoo.benchmarking import worker
from tsmzoo.benchmarking.run import Job
from tsmzoo.inference.reference import ModelReference
worker.load({job})
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 1
    assert re.search(r"ExportError: .*pip install 'tsmzoo\[onnx\]'", ran.stderr)


def test_a_missing_file_and_an_unknown_model(tmp_path: Path, bench_error: Callable[..., str]) -> None:
    assert "does not exist" in bench_error(tmp_path / "no.onnx")
    assert "did you mean" in bench_error("tsm_mbv2_motion_onlin")
    assert "leave out --frames" in bench_error(MODEL, "--frames", 8)
    (tmp_path / "notes.txt").write_text("")
    assert "is neither a model nor a file that export wrote" in bench_error(tmp_path / "notes.txt")


def test_more_threads_than_cores_are_told(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, timing: Callable[..., Timing]
) -> None:
    monkeypatch.setattr(run, "run_benchmark", lambda *_, **__: [timing([[1.0]])])
    monkeypatch.setattr(run, "check", lambda *_, **__: None)
    cores = os.cpu_count() or 1
    assert bench("m.onnx", "--threads", cores).stderr == ""
    assert f"take --threads {cores}" in bench("m.onnx", "--threads", cores + 1).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["m.onnx", "--size", "64"],
        ["m.onnx", "--weights", "random"],
        ["tsm_mbv2_motion", "tsn_mbv2_motion", "--weights", "w.pth"],
        ["m.onnx", "--runs", "0"],
        [],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str], bench: Bench) -> None:
    assert bench(*arguments).exit_code == 2
