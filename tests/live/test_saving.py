"""The video with the answers on it, and runs that are ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tsmzoo.artifact.contract import Contract
from tsmzoo.data import decode
from tsmzoo.live import video_writer
from tsmzoo.live.answer import Answer


@pytest.mark.parametrize("rate", [30, 12, Fraction(30000, 1001)])
def test_what_is_saved_has_the_frames_and_the_rate_of_the_source(
    rate: Any,
    toy: Path,
    tmp_path: Path,
    decoded: Callable[..., Any],
    invoke: Callable[..., Any],
    moving: Callable[..., Any],
    write: Callable[..., Any],
) -> None:
    path = write(tmp_path / "v.mp4", moving(31), rate=rate)
    saved = tmp_path / "saved.mp4"
    result = invoke("run", toy, path, "--save", saved)
    assert result.exit_code == 0, result.output
    assert f"saved {saved}" in result.stderr
    with av.open(str(saved)) as container, av.open(str(path)) as source:
        assert container.streams.video[0].average_rate == source.streams.video[0].average_rate
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([time for time, _ in decode.decode(path)], abs=1e-4)
    # The bar at the foot is written on; what stands above it is the source's.
    for ours, theirs in zip(decoded(saved), decoded(path), strict=True):
        difference = np.abs(np.asarray(ours, float) - np.asarray(theirs, float)).mean(axis=(1, 2))
        assert difference[:60].mean() < 8
        assert difference[-8:].mean() > 20
    assert {entry.name for entry in tmp_path.iterdir()} == {"toy.onnx", "toy.json", "v.mp4", "saved.mp4"}


def test_what_is_saved_keeps_uneven_times(
    toy: Path, tmp_path: Path, invoke: Callable[..., Any], moving: Callable[..., Any], write: Callable[..., Any]
) -> None:
    times = [0, 20, 40, 100, 400, 410, 1000, 1033]
    path = write(tmp_path / "uneven.mkv", moving(8), times=times)
    assert invoke("run", toy, path, "--save", tmp_path / "saved.mp4").exit_code == 0
    found = [time for time, _ in decode.decode(tmp_path / "saved.mp4")]
    assert found == pytest.approx(np.array(times) / 1000, abs=1e-3)


@pytest.mark.parametrize("size", [(97, 33), (16, 16), (3, 200)])
def test_odd_sizes_are_saved_even(
    size: tuple[int, int],
    toy: Path,
    tmp_path: Path,
    decoded: Callable[..., Any],
    invoke: Callable[..., Any],
    lossless: Callable[..., Any],
) -> None:
    width, height = size
    frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype="uint8")
    path = lossless(tmp_path / "odd.mkv", frames)
    result = invoke("run", toy, path, "--save", tmp_path / "saved.mp4")
    assert result.exit_code == 0, result.output
    assert decoded(tmp_path / "saved.mp4")[0].size == (width // 2 * 2, height // 2 * 2)


def test_a_clips_answer_is_on_all_that_is_saved(
    save: Callable[[Contract], Path],
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: Callable[..., Any],
    contract: Callable[..., Any],
) -> None:
    labels: list[str] = []

    def texts(answer: Answer) -> tuple[str, str]:
        labels.append(str(answer.label))
        return "", ""

    monkeypatch.setattr(video_writer, "texts", texts)
    (found,) = answers(save(contract("offline")), clip, "--threshold", "0", "--save", tmp_path / "saved.mp4")
    assert labels == [found["label"]] * 24


def test_wrong_places_to_save_are_refused(
    toy: Path, clip: Path, tmp_path: Path, invoke: Callable[..., Any], refusal: Callable[..., Any]
) -> None:
    before = clip.read_bytes()
    assert "ends in .mp4" in refusal(invoke("run", toy, clip, "--save", tmp_path / "v.avi"))
    assert "the video itself" in refusal(invoke("run", toy, clip, "--save", clip))
    assert "its folder" in refusal(invoke("run", toy, clip, "--save", tmp_path / "none" / "v.mp4"))
    assert clip.read_bytes() == before


def test_a_disk_that_is_full_is_told_and_leaves_nothing(
    toy: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Any]
) -> None:
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    result = invoke("run", toy, clip, "--save", tmp_path / "saved.mp4")
    assert result.exit_code == 1
    assert "error: " in result.stderr
    assert "No space left on device" in result.stderr
    assert {entry.name for entry in tmp_path.iterdir()} == {"toy.onnx", "toy.json"}


def test_ctrl_c_ends_a_run_and_keeps_what_was_saved(
    toy: Path, tmp_path: Path, decoded: Callable[..., Any], moving: Callable[..., Any], write: Callable[..., Any]
) -> None:
    path = write(tmp_path / "long.mp4", moving(3000))
    command = [sys.executable, "-m", "tsmzoo", "run", str(toy), str(path), "--json", "--save", str(tmp_path / "s.mp4")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    steps = [json.loads(line) for line in [first, *rest.splitlines()]]
    assert 0 < len(steps) < 1500
    assert "Traceback" not in errors
    # Two frames a step, and the last may stand at either.
    assert len(decoded(tmp_path / "s.mp4")) in (2 * len(steps) - 1, 2 * len(steps))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_r_begins_anew_and_ctrl_c_ends_on_a_terminal(
    toy: Path, tmp_path: Path, moving: Callable[..., Any], write: Callable[..., Any]
) -> None:
    path = write(tmp_path / "long.mp4", moving(6000))
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-m", "tsmzoo", "run", str(toy), str(path), "--cut", "0"])
    shown = b""
    sent = set()
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
        if b" fps" in shown and "r" not in sent:
            sent.add("r")
            os.write(terminal, b"r")
        if b"1 reset" in shown and "c" not in sent:
            sent.add("c")
            os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert sent == {"r", "c"}
    end = shown.decode().rpartition("toy on")[2]
    assert " frames, 1 reset, " in end
    assert "Traceback" not in shown.decode()
