"""Runs that were stopped, and several processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

#: The smallest networks of the zoo.
TSN, TSM, ONLINE = "tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online"


#: Most tests are about one process.
HERE = ("--workers", "0")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, clips: Path, listed: Callable[..., Any]) -> Path:
    """Give enough videos that a run can be stopped half way: each clip under several names."""
    folder = tmp_path_factory.mktemp("many") / "data"
    folder.mkdir()
    items = []
    for line in (clips / "annotations.txt").read_text().splitlines():
        name, label = line.rsplit(" ", 1)
        for copy in range(6):
            copied = f"{copy} {Path(name).name}"
            os.link(clips / name, folder / copied)
            items.append((copied, int(label)))
    return listed(folder, items)


@pytest.fixture(scope="module")
def undisturbed(many: Path, answer: Callable[..., Any]) -> bytes:
    """Give the predictions of a run that nothing happened to."""
    path = many.parent / "undisturbed.jsonl"
    answer(TSM, "--data", many, "--predictions", path)
    return path.read_bytes()


def command(many: Path, path: Path, *options: str) -> list[str]:
    return ["eval", TSM, "--data", str(many), "--predictions", str(path), *options]


def started(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def await_lines(process: subprocess.Popen[str], *paths: Path) -> None:
    """Wait until there is something in each of `paths`."""
    until = time.monotonic() + 300
    while not all(path.exists() and path.stat().st_size for path in paths):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(
    many: Path, undisturbed: bytes, tmp_path: Path, answer: Callable[..., Any]
) -> None:
    path = tmp_path / "p.jsonl"
    process = started("tsmzoo", *command(many, path, *HERE))
    await_lines(process, path)
    process.kill()
    process.communicate()
    left = path.read_bytes()
    assert 0 < len(left) < len(undisturbed)
    assert undisturbed.startswith(left)
    # Whatever else the crash tore.
    path.write_bytes(left + undisturbed[len(left) : len(left) + 100])
    document = answer(*command(many, path)[1:])
    assert document["videos"] == 168
    assert path.read_bytes() == undisturbed
    again = answer(*command(many, path)[1:])
    assert path.read_bytes() == undisturbed
    assert {key: again[key] for key in ("top1", "videos")} == {key: document[key] for key in ("top1", "videos")}


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(many: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    process = started("tsmzoo", *command(many, path, *HERE))
    await_lines(process, path)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert f"stopped before the last video; run it again to go on from {path}" in stderr
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_workers_write_the_same(
    clips: Path, tmp_path: Path, saved: Callable[..., Path], invoke: Callable[..., Any]
) -> None:
    result = invoke(*command(clips, tmp_path / "p.jsonl", "--weights", "random", "--workers", "2", "--json"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "p.jsonl").read_bytes() == saved(TSM, "--weights", "random").read_bytes()


def test_a_run_of_something_else_is_not_continued(
    clips: Path, few: Path, tmp_path: Path, answer: Callable[..., Any], refusal: Callable[..., Any]
) -> None:
    path = tmp_path / "p.jsonl"
    options = ("--data", clips, "--weights", "random", "--predictions", path)
    answer(TSM, *options, "--list", few)
    before = path.read_bytes()
    for key, other in {
        "plan": (TSM, *options, "--list", few, "--protocol", "efficient"),
        "list_sha256": (TSM, *options),
        "seed": (TSM, *options, "--list", few, "--seed", "1"),
        "observe": (TSM, *options, "--list", few, "--observe", "50"),
        "model": (TSN, *options, "--list", few),
    }.items():
        error = refusal(*other)
        assert f"holds predictions of another run ({key}" in error
        assert "give another file" in error
    assert path.read_bytes() == before


def test_what_differs_of_a_plan_is_told(
    clips: Path, few: Path, tmp_path: Path, answer: Callable[..., Any], refusal: Callable[..., Any]
) -> None:
    options = ("--data", clips, "--list", few, "--weights", "random", "--predictions", tmp_path / "p.jsonl")
    answer(TSM, *options)
    assert "clips" in refusal(TSM, *options, "--clips", "2").partition("holds predictions")[2].replace("_1clip", "")


def test_several_processes_need_a_file(
    clips: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., Any]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "several processes need --predictions" in refusal(TSM, "--data", clips, "--weights", "random")


def torchrun(*arguments: str, restarts: int = 0) -> subprocess.Popen[str]:
    """Start two processes of the command line."""
    return two("-m", "tsmzoo", *arguments, restarts=restarts)


def two(*program: str, restarts: int = 0) -> subprocess.Popen[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--master-addr", "127.0.0.1", "--master-port", str(port), "--max-restarts", str(restarts)]
    return started("torch.distributed.run", "--nproc-per-node", "2", *options, *program)


@pytest.mark.slow
def test_each_process_returns_the_result_of_all(clips: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, tsmzoo\n"
        f"result = tsmzoo.evaluate({TSM!r}, {str(clips)!r}, predictions={str(tmp_path / 'p.jsonl')!r}, workers=0)\n"
        "with open(os.path.join(sys.argv[1], os.environ['RANK']), 'w') as file:\n"
        "    print(result.videos, result.top1, file=file)\n"
    )
    process = two(str(script), str(tmp_path))
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text() == "28 100.0\n"


def children(process: subprocess.Popen[str]) -> Iterator[int]:
    yield from map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_torchrun_writes_the_same(workers: str, many: Path, undisturbed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    process = torchrun(*command(many, path, "--workers", workers, "--json"))
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["videos"] == 168, "one process prints"
    assert path.read_bytes() == undisturbed
    assert sorted(each.name for each in tmp_path.iterdir()) == ["p.json", "p.jsonl", "p.jsonl.lock"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="tells children from /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_goes_on_without_a_process_that_was_killed(
    rank: int, many: Path, undisturbed: bytes, tmp_path: Path, lines: Callable[..., Any]
) -> None:
    path = tmp_path / "p.jsonl"
    process = torchrun(*command(many, path, *HERE, "--json"), restarts=2)
    await_lines(process, *(path.with_name(f"p.jsonl.{each}") for each in (0, 1)))
    victim = next(child for child in children(process) if f"RANK={rank}".encode() in environment(child).split(b"\0"))
    os.kill(victim, signal.SIGKILL)
    assert not path.exists(), "it was half way"
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["videos"] == 168
    assert path.read_bytes() == undisturbed
    names = [row["video"] for row in lines(path)]
    assert len(names) == len(set(names)) == 168


def environment(process: int) -> bytes:
    return Path(f"/proc/{process}/environ").read_bytes()


@pytest.mark.slow
def test_a_worker_that_dies_is_one_line(
    many: Path, undisturbed: bytes, tmp_path: Path, answer: Callable[..., Any]
) -> None:
    path = tmp_path / "p.jsonl"
    process = started("tsmzoo", *command(many, path, "--workers", "2"))
    await_lines(process, path)
    victim = next(child for child in children(process) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes())
    os.kill(victim, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=600)
    assert (process.returncode, stdout) == (1, "")
    assert stderr.startswith("error: a process that decodes and scores died")
    assert stderr.count("\n") == 1
    answer(*command(many, path)[1:])
    assert path.read_bytes() == undisturbed
