"""`run`: what it answers to streams and clips, as lines of JSON and as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

import tsmzoo
from tsmzoo import models, registry
from tsmzoo.artifact.contract import Contract
from tsmzoo.cli import _screen as screen
from tsmzoo.inference.model import Prediction
from tsmzoo.live.answer import Answer, Summary
from tsmzoo.models.wrappers import ClipModel

ZOO = registry.load()


SIZE, RESIZE = 32, 36


NAMES = ("red", "green", "blue", "Grün – ½", "none")


MEAN, STD = np.reshape([0.485, 0.456, 0.406], (3, 1, 1)), np.reshape([0.229, 0.224, 0.225], (3, 1, 1))


def test_a_stream_is_answered_at_its_own_rate_over_a_window(
    toy: Path,
    clip: Path,
    answers: Callable[..., Any],
    assert_top: Callable[..., Any],
    decoded: Callable[..., Any],
    invoke: Callable[..., Any],
    logits_of: Callable[..., Any],
    top: Callable[..., Any],
) -> None:
    result = invoke("run", toy, clip, "--json")
    assert "toy on " + str(clip) + ": 12 frames, " in result.stderr
    assert "onnxruntime" in result.stderr
    logits = logits_of(decoded(clip)[::2])
    found = answers(toy, clip)
    assert len(found) == 12
    assert found[-1]["time"] == pytest.approx(22 / 30, abs=0.001)
    assert_top(found[-1]["top5"], logits.mean(0))
    assert_top(top(toy, clip, "--window", "1"), logits[-1])
    assert_top(top(toy, clip, "--window", "5"), logits[-5:].mean(0))


def test_every_decision_is_a_line_as_it_comes(
    toy: Path,
    clip: Path,
    answers: Callable[..., Any],
    assert_top: Callable[..., Any],
    decoded: Callable[..., Any],
    logits_of: Callable[..., Any],
    softmax: Callable[..., Any],
) -> None:
    logits = logits_of(decoded(clip)[::2])
    found = answers(toy, clip, "--window", "3", "--threshold", "0.55", "--hold", "3")
    assert [one["time"] for one in found] == pytest.approx((np.arange(12) / 15).tolist(), abs=0.001)
    # By hand: what leads with 0.55 for three steps running is shown, and stays.
    shown: int | None = None
    leaders: list[int | None] = []
    for number, one in enumerate(found):
        mean = logits[max(0, number - 2) : number + 1].mean(0)
        odds = softmax(mean)
        assert_top(one["top5"], mean)
        leaders.append(int(odds.argmax()) if odds.max() >= 0.55 else None)
        if leaders[-1] is not None and leaders[-3:] == [leaders[-1]] * 3:
            shown = leaders[-1]
        assert one["index"] == shown
        assert one["label"] == (None if shown is None else NAMES[shown])
        assert one["probability"] == (None if shown is None else pytest.approx(odds[shown], abs=1e-4))
        assert one["reset"] is False
        assert one["latency_ms"] >= one["model_ms"] > 0
    assert [one["index"] for one in found] != [found[-1]["index"]] * 12


def test_a_window_is_as_long_at_every_rate(
    save: Callable[[Contract], Path],
    clip: Path,
    assert_top: Callable[..., Any],
    contract: Callable[..., Any],
    decoded: Callable[..., Any],
    logits_of: Callable[..., Any],
    top: Callable[..., Any],
) -> None:
    logits = logits_of(decoded(clip)[::3])  # 0.8 s at 10 a second are these 8, at 3 they are 2 of 3
    assert_top(top(save(contract("online", target_fps=10.0)), clip, "--cut", "0"), logits.mean(0))
    logits = logits_of(decoded(clip)[::10])
    assert_top(top(save(contract("online", target_fps=3.0)), clip), logits[-2:].mean(0))


def test_without_a_rate_every_frame_is_taken(
    save: Callable[[Contract], Path],
    clip: Path,
    answers: Callable[..., Any],
    assert_top: Callable[..., Any],
    contract: Callable[..., Any],
    decoded: Callable[..., Any],
    logits_of: Callable[..., Any],
) -> None:
    found = answers(save(contract("online", target_fps=None)), clip, "--window", "24")
    assert len(found) == 24
    assert_top(found[-1]["top5"], logits_of(decoded(clip)).mean(0))


def test_classes_without_names_are_numbered(
    save: Callable[[Contract], Path],
    clip: Path,
    assert_top: Callable[..., Any],
    contract: Callable[..., Any],
    decoded: Callable[..., Any],
    logits_of: Callable[..., Any],
    top: Callable[..., Any],
) -> None:
    found = top(save(contract("online", labels=None)), clip)
    logits = logits_of(decoded(clip)[::2]).mean(0)
    assert_top(found, logits, [f"class {index}" for index in range(5)])
    assert [row["index"] for row in found] == np.argsort(-logits).tolist()


def test_a_clip_is_answered_once(
    save: Callable[[Contract], Path],
    clip: Path,
    answers: Callable[..., Any],
    assert_top: Callable[..., Any],
    clip_logits: Callable[..., Any],
    contract: Callable[..., Any],
    decoded: Callable[..., Any],
) -> None:
    (found,) = answers(save(contract("offline")), clip)
    images = decoded(clip)
    assert_top(found["top5"], clip_logits([images[index] for index in (3, 9, 15, 21)]))


def test_a_dense_clip_is_taken_where_the_contract_says(
    save: Callable[[Contract], Path],
    clip: Path,
    answers: Callable[..., Any],
    assert_top: Callable[..., Any],
    clip_logits: Callable[..., Any],
    contract: Callable[..., Any],
    decoded: Callable[..., Any],
) -> None:
    (found,) = answers(save(contract("offline", sampling="dense", stride=3)), clip)
    images = decoded(clip)
    assert_top(found["top5"], clip_logits([images[index] for index in (7, 10, 13, 16)]))


def test_a_clip_slides_over_a_stream(
    save: Callable[[Contract], Path],
    tmp_path: Path,
    answers: Callable[..., Any],
    assert_top: Callable[..., Any],
    clip_logits: Callable[..., Any],
    contract: Callable[..., Any],
    decoded: Callable[..., Any],
    moving: Callable[..., Any],
    write: Callable[..., Any],
) -> None:
    path = write(tmp_path / "long.mp4", moving(70))
    images = decoded(path)
    # 4 frames over 0.8 s are 5 a second: every 6th; the fourth is the first that makes a clip, then one every 0.5 s.
    found = answers(save(contract("offline")), path, "--every", "0.5", "--span", "0.8")
    ends = (18, 36, 48, 66)
    assert [one["time"] for one in found] == pytest.approx([end / 30 for end in ends], abs=1e-3)
    for one, end in zip(found, ends, strict=True):
        assert_top(one["top5"], clip_logits([images[end - back] for back in (18, 12, 6, 0)]))
    # With a stride, every 3rd of 30 a second.
    found = answers(save(contract("offline", sampling="dense", stride=3)), path, "--every", "1")
    ends = (9, 39, 69)
    assert [one["time"] for one in found] == pytest.approx([end / 30 for end in ends], abs=1e-3)
    assert_top(found[1]["top5"], clip_logits([images[index] for index in (30, 33, 36, 39)]))


def test_python_gets_what_the_command_prints(
    save: Callable[[Contract], Path],
    tmp_path: Path,
    answers: Callable[..., Any],
    contract: Callable[..., Any],
    moving: Callable[..., Any],
    write: Callable[..., Any],
) -> None:
    path, artifact = write(tmp_path / "long.mp4", moving(70)), save(contract("offline"))
    printed = answers(artifact, path, "--every", "0.5", "--span", "0.8", "--reset-every", "1.2")
    watched = tsmzoo.watch(tsmzoo.load(artifact), path, every=0.5, span=0.8, reset_every=1.2, save=tmp_path / "on.mp4")
    found = [(round(each.time, 3), each.label, each.reset, [one.index for one in each.top]) for each in watched]
    assert found == [
        (one["time"], one["label"], one["reset"], [each["index"] for each in one["top5"]]) for one in printed
    ]
    assert any(reset for _, _, reset, _ in found)
    assert (tmp_path / "on.mp4").stat().st_size > 0


def test_a_clip_reaches_not_behind_a_reset(
    save: Callable[[Contract], Path],
    tmp_path: Path,
    answers: Callable[..., Any],
    contract: Callable[..., Any],
    moving: Callable[..., Any],
    write: Callable[..., Any],
) -> None:
    path = write(tmp_path / "long.mp4", moving(70))
    every = ("--every", "0.2", "--span", "0.8", "--reset-every", "1.2")  # every 6th frame; resets at the 36th
    found = answers(save(contract("offline")), path, *every)
    ends = (18, 24, 30, 54, 60, 66)  # four frames from 36 on are 36, 42, 48 and 54
    assert [one["time"] for one in found] == pytest.approx([end / 30 for end in ends], abs=1e-3)
    assert [one["reset"] for one in found] == [False] * 3 + [True] + [False] * 2


def test_a_stream_too_short_for_a_clip_is_stretched(
    save: Callable[[Contract], Path],
    clip: Path,
    answers: Callable[..., Any],
    assert_top: Callable[..., Any],
    clip_logits: Callable[..., Any],
    contract: Callable[..., Any],
    decoded: Callable[..., Any],
) -> None:
    (found,) = answers(save(contract("offline")), clip, "--every", "1")  # 4 frames in 4 s: the first alone
    assert_top(found["top5"], clip_logits([decoded(clip)[0]] * 4))


def test_a_model_is_run_in_torch(
    clip: Path,
    tmp_path: Path,
    assert_top: Callable[..., Any],
    decoded: Callable[..., Any],
    invoke: Callable[..., Any],
    prepared: Callable[..., Any],
) -> None:
    entry = msgspec.structs.replace(ZOO.find("tsm_mbv2_k400"), size=SIZE, frames=4, stride=None)
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({"models": [msgspec.to_builtins(entry)]}))  # JSON is YAML
    result = invoke("run", entry.id, clip, "--weights", "random", "--seed", "3", "--registry", own, "--json")
    assert result.exit_code == 0, result.output
    assert f"warning: the weights of {entry.id} are RANDOM (seed 3)" in result.stderr
    document = json.loads(result.stdout)
    assert "torch " in result.stderr
    resize = round(SIZE * 256 / 224)
    images = decoded(clip)
    pixels = np.stack([prepared(images[index], resize=resize) for index in (3, 9, 15, 21)])
    with torch.no_grad():
        normalised = torch.from_numpy((pixels / 255 - MEAN) / STD).float()
        logits = ClipModel(models.build(entry, seed=3), 4)(normalised[None])[0].numpy()
    names = ZOO.label_names(entry)
    assert names is not None
    assert_top(document["top5"], logits, names)


def test_text_ends_with_the_answer(
    toy: Path,
    clip: Path,
    decoded: Callable[..., Any],
    invoke: Callable[..., Any],
    logits_of: Callable[..., Any],
    softmax: Callable[..., Any],
) -> None:
    result = invoke("run", toy, clip)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    logits = logits_of(decoded(clip)[::2]).mean(0)
    last = result.stdout.splitlines()[-5:]
    order = np.argsort(-logits)
    assert [line.split(maxsplit=1)[1] for line in last] == [NAMES[index] for index in order]
    assert f"{softmax(logits).max():.1%}" in last[0]
    assert "12 frames" in result.stdout


def test_a_file_is_checked_against_its_contract_before_it_is_run(
    toy: Path, clip: Path, invoke: Callable[..., Any], refusal: Callable[..., Any]
) -> None:
    beside = toy.with_suffix(".json")
    document = json.loads(beside.read_text())
    beside.write_text(json.dumps(document | {"resize": RESIZE + 1}))
    assert "the contract inside it" in refusal(invoke("run", toy, clip))
    beside.write_text(json.dumps(document))
    toy.write_bytes(toy.read_bytes() + b" ")
    assert "was changed" in refusal(invoke("run", toy, clip))


def test_a_model_of_flow_is_refused(
    save: Callable[[Contract], Path],
    clip: Path,
    contract: Callable[..., Any],
    invoke: Callable[..., Any],
    refusal: Callable[..., Any],
) -> None:
    assert "optical flow" in refusal(invoke("run", save(contract("online", channel_order="flow")), clip))


def test_wrong_arguments_are_refused(
    toy: Path, clip: Path, tmp_path: Path, invoke: Callable[..., Any], refusal: Callable[..., Any]
) -> None:
    assert "did you mean tsm_mbv2_online" in refusal(invoke("run", "tsm_mbv2_onlin", clip))
    assert "does not exist" in refusal(invoke("run", tmp_path / "none.onnx", clip))
    assert "leave out --weights" in refusal(invoke("run", toy, clip, "--weights", "random"))
    assert invoke("run", toy, clip, "--window", "0").exit_code == 2
    assert invoke("run", toy).exit_code == 2


def test_options_that_a_model_does_not_take_are_refused(
    toy: Path,
    save: Callable[[Contract], Path],
    clip: Path,
    contract: Callable[..., Any],
    invoke: Callable[..., Any],
    refusal: Callable[..., Any],
) -> None:
    assert "is online" in refusal(invoke("run", toy, clip, "--every", "1"))
    dense = save(contract("offline", sampling="dense", stride=3))
    assert "leave out --span" in refusal(invoke("run", dense, clip, "--span", "1"))


def test_a_view_says_what_is_there() -> None:
    best, other = Prediction("green", 0.75, 1), Prediction("red [b]", 0.25, 0)
    answer = Answer(1.5, best, [best, other], 3.0, 4.0, True, 12.5)
    summary = Summary()
    summary.add(answer)
    label, *bars, state, _ = screen.view(answer, summary).splitlines()
    assert label.strip() == "green 75%"
    assert [bar.split()[0] for bar in bars] == ["75.0%", "25.0%"]
    assert bars[1].endswith("red [b]")
    assert [bar.count("█") for bar in bars] == [22, 8]  # of 30
    assert state.strip().split("   ") == ["1.50 s", "12.5 fps", "3.0 ms", "1 step", "1 reset"]
