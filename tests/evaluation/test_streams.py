"""A stream that is scored by its answer after the last frame: MoViNet's, as published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tsmzoo import registry
from tsmzoo.data import decode, motion
from tsmzoo.models.wrappers import ClipModel, StreamStep, states_of

ZOO = registry.load()
STREAM, BASE = "movinet_a0_stream_k600", "movinet_a0_base_k600"
#: Of 17 frames 50, every fifth: they go on from the start.
FRAMES = [5 * step % 17 for step in range(50)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of Kinetics-600 with a video each."""
    folder = tmp_path_factory.mktemp("streams")
    motion.write(folder / "made", 2, 5)
    for name, video in zip(("archery", "zumba"), sorted((folder / "made").rglob("*.mp4")), strict=True):
        (folder / "data" / name).mkdir(parents=True)
        video.rename(folder / "data" / name / "v.mp4")
    return folder / "data"


def clip(path: Path) -> torch.Tensor:
    """Return the frames of a square video as the network sees them: T, C, H, W."""
    square = slice(10, 182)
    small = [
        cv2.resize(np.asarray(image), (192, 192), interpolation=cv2.INTER_LINEAR)[square, square]
        for _, image in decode.decode(path)
    ]
    assert len(small) == 17
    return torch.from_numpy(np.stack([small[index] for index in FRAMES]).transpose(0, 3, 1, 2) / np.float32(255))


@torch.no_grad()
def test_the_answer_is_that_after_the_last_frame_and_the_mean_beside_it(
    folder: Path, tmp_path: Path, answer: Callable[..., Any], lines: Callable[..., Any], network: Callable[..., Any]
) -> None:
    path = tmp_path / "p.jsonl"
    result = answer(STREAM, "--data", folder, "--weights", "random", "--seed", "3", "--predictions", path)
    net = network(STREAM).backbone
    step, specs = StreamStep(net), states_of(net, 3, 172)
    for row in lines(path):
        states, answers = [torch.zeros(spec.shape) for spec in specs], []
        for frame in clip(folder / row["video"]):
            logits, *states = step(frame[None], *states)
            answers.append(logits[0])
        spread = np.ptp(row["logits"])
        assert np.abs(np.array(row["logits"][0]) - answers[-1].numpy()).max() < 1e-4 * spread
        assert np.abs(np.array(row["averaged"][0]) - torch.stack(answers).mean(0).numpy()).max() < 1e-4 * spread
        assert row["logits"] != row["averaged"]
    assert result["plan"]["answer"] == "last"
    assert result["averaged"].keys() == {"top1", "top5"}
    assert [(row["protocol"], row["same_protocol"]) for row in result["published"]] == [("movinet_1clip_172", True)]


@torch.no_grad()
def test_a_base_network_answers_once(
    folder: Path, tmp_path: Path, answer: Callable[..., Any], lines: Callable[..., Any], network: Callable[..., Any]
) -> None:
    path = tmp_path / "p.jsonl"
    result = answer(BASE, "--data", folder, "--weights", "random", "--seed", "3", "--predictions", path)
    for row in lines(path):
        assert "averaged" not in row
        wanted = ClipModel(network(BASE).backbone, 50)(clip(folder / row["video"])[None])
        assert np.abs(np.array(row["logits"]) - wanted.numpy()).max() < 1e-4 * np.ptp(row["logits"])
    assert (result["plan"]["answer"], result["averaged"]) == ("mean", None)


def test_both_answers_are_scored(tmp_path: Path, folder: Path, answer: Callable[..., Any], invoke: Any) -> None:
    path = tmp_path / "p.jsonl"
    answer(STREAM, "--data", folder, "--weights", "random", "--predictions", path)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    right, wrong = np.zeros(600), np.zeros(600)
    for row in rows:
        right[:], wrong[:] = 0, 0
        right[row["label"]], wrong[row["label"]] = 9, -9
        row |= {"logits": [wrong.tolist()], "averaged": [right.tolist()]}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = json.loads(invoke("eval", path, "--json").stdout)
    assert (result["top1"], result["averaged"]) == (0, {"top1": 100, "top5": 100})
    said = invoke("eval", path).stdout
    assert "after the last frame" in said
    assert "mean of the answers after each frame: top-1 100.00 %" in said

    del rows[0]["averaged"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    refused = invoke("eval", path)
    assert refused.exit_code == 1
    assert "line 1 is no prediction" in refused.stderr
