"""Predictions are what the network gives, and the protocol is followed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tsmzoo import models, registry
from tsmzoo.models.wrappers import ClipModel, StreamStep, state_shapes
from tsmzoo.weights import checkpoint

ZOO = registry.load()


#: The smallest networks of the zoo.
TSN, TSM, ONLINE = "tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online"


#: Of 17 frames, the centres of 8 segments, and their starts.
CENTRES, STARTS = [1, 3, 5, 7, 9, 11, 13, 15], [0, 2, 4, 6, 8, 10, 12, 14]


@torch.no_grad()
@pytest.mark.parametrize("model", [pytest.param(TSN, marks=pytest.mark.slow), TSM])
def test_logits_are_the_networks(
    model: str,
    clips: Path,
    saved: Callable[..., Path],
    clip: Callable[..., Any],
    close: Callable[..., Any],
    lines: Callable[..., Any],
    network: Callable[..., Any],
) -> None:
    rows = lines(saved(model, "--weights", "random", "--seed", "3"))
    assert [f"{row['video']} {row['label']}" for row in rows] == (clips / "annotations.txt").read_text().splitlines()
    for row in rows:
        assert row.keys() == {"video", "label", "logits"}
        wanted = ClipModel(network(model).backbone, 8)(clip(clips / row["video"], CENTRES)[None])
        assert close(row["logits"], wanted)
        assert abs(sum(row["logits"][0]) - 1) > 0.1, "before softmax"


@torch.no_grad()
def test_an_online_model_answers_the_mean_over_its_steps(
    clips: Path,
    saved: Callable[..., Path],
    clip: Callable[..., Any],
    close: Callable[..., Any],
    lines: Callable[..., Any],
    network: Callable[..., Any],
) -> None:
    step = StreamStep(network(ONLINE).backbone)
    for row in lines(saved(ONLINE, "--weights", "random", "--seed", "3", "--observe", "10,50"))[:4]:
        answers = []
        states = [torch.zeros(shape) for shape in state_shapes(network(ONLINE).backbone, 3, 64)]  # of each video anew
        for frame in clip(clips / row["video"], CENTRES).split(1):
            logits, *states = step(frame, *states)
            answers.append(logits[0])
        assert close(row["logits"], torch.stack(answers).mean(0)[None])
        # The first 2 of 17 frames hold frame 1; the first 9 hold frames 1, 3, 5 and 7.
        assert close(row["observed"]["10"], answers[0][None])
        assert close(row["observed"]["50"], torch.stack(answers[:4]).mean(0)[None])


@torch.no_grad()
def test_an_offline_model_observes_the_first_part_as_a_video_of_its_own(
    clips: Path,
    few: Path,
    tmp_path: Path,
    answer: Callable[..., Any],
    clip: Callable[..., Any],
    close: Callable[..., Any],
    invoke: Callable[..., Any],
    lines: Callable[..., Any],
    network: Callable[..., Any],
) -> None:
    path, options = tmp_path / "p.jsonl", ("--weights", "random", "--seed", "3", "--observe", "25,50,90")
    document = answer(TSM, "--data", clips, "--list", few, "--predictions", path, *options)
    # Of 17 frames the first 5, 9 and 16: the centres of eighths of them.
    parts = {"25": [0, 0, 1, 2, 2, 3, 4, 4], "50": [0, 1, 2, 3, 5, 6, 7, 8], "90": [1, 3, 5, 7, 9, 11, 13, 15]}
    rows = lines(path)
    for row in rows:
        assert row["observed"].keys() == parts.keys()
        for level, frames in parts.items():
            wanted = ClipModel(network(TSM).backbone, 8)(clip(clips / row["video"], frames)[None])
            assert close(row["observed"][level], wanted), level
    right = {
        level: 100 * np.mean([np.argmax(row["observed"][level][0]) == row["label"] for row in rows]) for level in parts
    }
    wanted = [{"percent": int(level), "top1": round(right[level], 2)} for level in parts]
    assert document["observed"] == [*wanted, {"percent": 100, "top1": document["top1"]}]
    assert "top-1 after so much of each video: 25 % " in invoke("eval", path).stdout


@torch.no_grad()
def test_a_row_for_each_view_crop_by_crop(
    clips: Path,
    few: Path,
    tmp_path: Path,
    answer: Callable[..., Any],
    clip: Callable[..., Any],
    close: Callable[..., Any],
    lines: Callable[..., Any],
    network: Callable[..., Any],
) -> None:
    path = tmp_path / "p.jsonl"
    options = ("--weights", "random", "--seed", "3", "--clips", "2", "--crops", "3", "--predictions", path)
    document = answer(TSM, "--data", clips, "--list", few, *options)
    assert document["protocol"] == "uniform8_center_1clip with clips 2, crops 3"
    assert (document["plan"]["clips"], document["plan"]["crops"]) == (2, 3)
    assert document["published"][0]["inside"] is None, "another protocol than the published one"
    assert f"the protocol was changed: {document['protocol']}" in document["differences"]
    for row in lines(path):
        # Left, right, centre; of each the centres of segments, and their starts.
        views = [clip(clips / row["video"], frames, 4, left) for left in (0, 8, 4) for frames in (CENTRES, STARTS)]
        assert close(row["logits"], ClipModel(network(TSM).backbone, 8)(torch.stack(views)))


def test_too_few_frames_for_a_network_are_one_line(
    clips: Path, few: Path, tmp_path: Path, own_registry: Callable[..., Any], refusal: Callable[..., Any]
) -> None:
    own = own_registry(tmp_path / "own.yaml", family="i3d", backbone="resnet50_i3d", width=1.0, frames=8)
    options = ("--registry", own, "--data", clips, "--list", few, "--weights", "random", "--frames", "4")
    assert "this model needs clips of 5 frames at least, not of 4" in refusal("mine", *options)


def test_what_one_should_know_of_a_protocol_is_told(clips: Path, few: Path, answer: Callable[..., Any]) -> None:
    options = ("--data", clips, "--list", few, "--weights", "random")
    told = "of mit_sth_fullres_2clip: the README's table says full resolution"
    found = answer(TSM, *options, "--protocol", "accurate", "--crops", "1")["differences"]
    assert any(line.startswith(told) for line in found)
    assert not any("README" in line for line in answer(TSM, *options)["differences"])


def test_a_blind_model_answers_a_scene_backwards_alike(saved: Callable[..., Path], lines: Callable[..., Any]) -> None:
    """Clips come in twins, one the other backwards: TSN cannot tell them apart, TSM can."""
    # motion.write names the clips in this order, twins side by side.
    twins = np.random.default_rng(5).permutation(28).reshape(-1, 2)
    for model, alike in ((TSN, True), (TSM, False)):
        rows = {row["video"]: row["logits"][0] for row in lines(saved(model, "--weights", "random", "--seed", "3"))}
        logits = np.array([[rows[f"videos/{number:06d}.mp4"] for number in pair] for pair in twins])
        difference = np.abs(logits[:, 0] - logits[:, 1]).max(1) / np.ptp(logits)
        assert (difference < 1e-5).all() if alike else (difference > 1e-4).all()


@pytest.mark.parametrize(
    ("options", "protocol", "plan"),
    [
        (("--protocol", "mm-val"), "mm_tsm_uniform8_crop1x224", {"pipeline": "mmaction2", "average": "probabilities"}),
        (("--protocol", "mit_uniform_10crop"), "mit_uniform_10crop", {"crops": 10, "size": 64}),
        (("--protocol", "accurate"), "mit_sth_fullres_2clip", {"clips": 2, "crops": 3, "size": 73}),
        (("--frames", "4"), "uniform8_center_1clip with frames 4", {"frames": 4, "changes": {"frames": 4}}),
        (("--clips", "1", "--crops", "1", "--frames", "8"), "uniform8_center_1clip", {"changes": {}}),
        (
            ("--protocol", "dense", "--clips", "3", "--crops", "1"),
            "mit_dense10_fullres3 with clips 3, crops 1",
            {"sampling": "dense", "stride": 8, "clips": 3, "crops": 1},
        ),
    ],
)
def test_a_protocol_is_followed_and_recorded(
    options: tuple[str, ...],
    protocol: str,
    plan: dict[str, Any],
    clips: Path,
    few: Path,
    tmp_path: Path,
    answer: Callable[..., Any],
    lines: Callable[..., Any],
) -> None:
    path = tmp_path / "p.jsonl"
    document = answer(TSM, "--data", clips, "--list", few, "--predictions", path, "--weights", "random", *options)
    assert document["protocol"] == protocol
    assert plan.items() <= document["plan"].items()
    assert json.loads(path.with_suffix(".json").read_text())["plan"] == document["plan"]
    views = document["plan"]["clips"] * document["plan"]["crops"]
    assert [np.shape(row["logits"]) for row in lines(path)] == [(views, 14)] * 3


def test_the_frames_of_an_online_model_can_be_chosen(
    clips: Path, few: Path, answer: Callable[..., Any], refusal: Callable[..., Any]
) -> None:
    options = ("--data", clips, "--list", few, "--weights", "random")
    assert answer(ONLINE, *options, "--frames", "4")["protocol"] == "uniform8_center_1clip with frames 4"
    assert "leaves the frames to the model" in refusal(ONLINE, *options, "--protocol", "efficient")


def test_a_protocol_that_cannot_be_followed_is_refused(clips: Path, refusal: Callable[..., Any]) -> None:
    assert "2 clips at most" in refusal(TSM, "--data", clips, "--weights", "random", "--clips", "3")
    assert "did you mean" in refusal(TSM, "--data", clips, "--weights", "random", "--protocol", "acurate")


def test_answers_that_are_no_numbers_are_told(
    clips: Path, few: Path, tmp_path: Path, refusal: Callable[..., Any]
) -> None:
    path, backbone = tmp_path / "huge.safetensors", models.build(ZOO.find(TSM), seed=0)
    with torch.no_grad():
        list(backbone.parameters())[-2].fill_(3e38)  # finite, but what comes of it is not
    checkpoint.save(backbone, ZOO.find(TSM), path)
    error = refusal(TSM, "--data", clips, "--list", few, "--weights", path)
    assert TSM in error
    assert "finite" in error or "NaN" in error
