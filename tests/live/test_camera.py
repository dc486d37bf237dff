"""A camera as the source."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from tsmzoo.artifact.contract import Contract


class Camera:
    """Stands in for OpenCV's: 30 pictures a second for as long as there are any, then it is gone."""

    pictures: ClassVar[list[np.ndarray]] = []
    there = True
    released = 0
    #: The clock, by which frames are taken.
    now = 100.0

    def __init__(self, number: int) -> None:
        self.number, self.left = number, list(self.pictures)

    def isOpened(self) -> bool:
        return self.there and self.number == 1

    def set(self, *_: object) -> bool:
        return False

    def read(self) -> tuple[bool, np.ndarray | None]:
        if not self.left:
            return False, None
        Camera.now += 1 / 30
        return True, self.left.pop(0)[..., ::-1]

    def release(self) -> None:
        Camera.released += 1


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch, moving: Callable[..., Any]) -> type[Camera]:
    import cv2

    from tsmzoo.live import source as live_source

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(live_source.time, "monotonic", lambda: Camera.now)
    monkeypatch.setattr(Camera, "pictures", moving(24))
    monkeypatch.setattr(Camera, "released", 0)
    return Camera


def test_a_camera_is_answered_till_it_goes(
    toy: Path,
    camera: type[Camera],
    tmp_path: Path,
    assert_top: Callable[..., Any],
    decoded: Callable[..., Any],
    invoke: Callable[..., Any],
    logits_of: Callable[..., Any],
    moving: Callable[..., Any],
) -> None:
    saved = tmp_path / "saved.mp4"
    result = invoke("run", toy, "1", "--json", "--save", saved)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error: camera 1: went away after 0.8 s; check its cable, and that no other program uses it"
    ]
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(found) == 12
    assert_top(found[-1]["top5"], logits_of([Image.fromarray(frame) for frame in moving(24)[::2]]).mean(0))
    assert len(decoded(saved)) == 24
    assert camera.released == 1


def test_an_offline_model_answers_a_camera_every_second(
    save: Callable[[Contract], Path],
    camera: type[Camera],
    monkeypatch: pytest.MonkeyPatch,
    contract: Callable[..., Any],
    invoke: Callable[..., Any],
    moving: Callable[..., Any],
) -> None:
    monkeypatch.setattr(camera, "pictures", moving(90))
    result = invoke("run", save(contract("offline", sampling="dense", stride=3)), "1", "--json")
    times = [json.loads(line)["time"] for line in result.stdout.splitlines()]
    assert times == pytest.approx([10 / 30, 40 / 30, 70 / 30], abs=0.04)


def test_a_camera_that_is_absent_is_told_in_one_line(
    toy: Path,
    camera: type[Camera],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    invoke: Callable[..., Any],
    refusal: Callable[..., Any],
) -> None:
    assert "camera 0: is not there" in refusal(invoke("run", toy, "0"))
    assert "camera 3: is not there" in refusal(invoke("run", toy, "/dev/video3", "--save", tmp_path / "v.mp4"))
    monkeypatch.setattr(camera, "pictures", [])
    assert "camera 1: gives no picture" in refusal(invoke("run", toy, "1", "--save", tmp_path / "v.mp4"))
    assert {entry.name for entry in tmp_path.iterdir()} == {"toy.onnx", "toy.json"}


def test_a_file_whose_name_is_a_number_is_no_camera(
    toy: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top: Callable[..., Any]
) -> None:
    (tmp_path / "0").write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert top(toy, "0") == top(toy, clip)


def test_a_real_camera_that_is_absent_chatters_not(toy: Path) -> None:
    # OpenCV tells on stderr, past Python, of all the drivers that it tries.
    command = [sys.executable, "-m", "tsmzoo", "run", str(toy), "97"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: camera 97: is not there")
