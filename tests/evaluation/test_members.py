"""Several models whose scores are added."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

#: The smallest networks of the zoo.
TSN, TSM, ONLINE = "tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online"


def test_models_add_up_live_as_saved_and_by_hand(
    clips: Path, tmp_path: Path, answer: Callable[..., Any], lines: Callable[..., Any]
) -> None:
    path, options = tmp_path / "both.jsonl", ("--weights-of-scores", "1,1.5")
    given = ("--data", clips, "--weights", "random", "--predictions", path)
    live = answer(TSM, TSN, *given, *options)
    parts = [tmp_path / "both.1.jsonl", tmp_path / "both.2.jsonl"]
    assert not path.exists()
    saved_ = answer(*parts, *options)
    assert saved_ | {"videos_per_s": None} == live | {"videos_per_s": None}
    assert (live["model"], saved_["videos_per_s"]) == (f"{TSM} + 1.5 x {TSN}", None)
    rows = list(zip(*map(lines, parts), strict=True))
    sums = [np.add(first["logits"][0], np.multiply(1.5, second["logits"][0])) for first, second in rows]
    labels = np.array([first["label"] for first, _ in rows])
    assert live["top1"] == round(100 * (np.argmax(sums, 1) == labels).mean(), 2)
    assert live["top5"] == round(100 * (np.argsort(sums, 1)[:, -5:] == labels[:, None]).any(1).mean(), 2)
    assert [(member["model"], member["factor"]) for member in live["members"]] == [(TSM, 1), (TSN, 1.5)]
    assert [member["top1"] for member in live["members"]] == [answer(part)["top1"] for part in parts]
    assert live["published"] == []
    mixed = answer(parts[0], TSN, "--data", clips, "--weights", "random", *options)
    assert mixed | {"videos_per_s": None} == live | {"videos_per_s": None}


def test_logits_and_probabilities_add_up_as_probabilities(
    saved: Callable[..., Path], answer: Callable[..., Any], lines: Callable[..., Any]
) -> None:
    paths = saved(TSM, "--weights", "random"), saved(TSN, "--weights", "random", "--protocol", "mm-val")
    document = answer(*paths, "--weights-of-scores", "1,3")
    assert document["protocol"] == "uniform8_center_1clip + mm_tsm_uniform8_crop1x224"
    odds = [np.exp([row["logits"][0] for row in lines(path)]) for path in paths]
    shares = [each / each.sum(1, keepdims=True) for each in odds]
    labels = np.array([row["label"] for row in lines(paths[0])])
    assert document["top1"] == round(100 * ((shares[0] + 3 * shares[1]).argmax(1) == labels).mean(), 2)


@pytest.mark.slow
def test_a_factor_of_nought_leaves_a_model_out(saved: Callable[..., Path], answer: Callable[..., Any]) -> None:
    paths = saved(TSM, "--weights", "random"), saved(TSN, "--weights", "random")
    assert answer(*paths, "--weights-of-scores", "0,2")["top1"] == answer(paths[1])["top1"]


@pytest.mark.parametrize("factors", ["1", "1,2,3", "1,x", "1,", "nan,1", "1,inf"])
def test_factors_must_be_a_number_for_each_model(
    factors: str, saved: Callable[..., Path], invoke: Callable[..., Any]
) -> None:
    paths = saved(TSM, "--weights", "random"), saved(TSN, "--weights", "random")
    assert invoke("eval", *paths, "--weights-of-scores", factors).exit_code == 2


def test_only_predictions_of_the_same_videos_add_up(
    clips: Path,
    few: Path,
    tmp_path: Path,
    saved: Callable[..., Path],
    answer: Callable[..., Any],
    lines: Callable[..., Any],
    refusal: Callable[..., Any],
) -> None:
    whole = saved(TSM, "--weights", "random")
    answer(TSN, "--data", clips, "--list", few, "--weights", "random", "--predictions", tmp_path / "few.jsonl")
    assert "predict over one list" in refusal(whole, tmp_path / "few.jsonl")
    assert "predict over one list" in refusal(tmp_path / "few.jsonl", whole)
    other = tmp_path / "other.jsonl"
    other.with_suffix(".json").write_bytes(whole.with_suffix(".json").read_bytes())
    other.write_text("".join(json.dumps(row | {"label": 13 - row["label"]}) + "\n" for row in lines(whole)))
    assert "says another class of videos/0" in refusal(whole, other)
    header = json.loads(whole.with_suffix(".json").read_text())
    other.with_suffix(".json").write_text(json.dumps(header | {"classes": header["classes"][::-1]}))
    assert "has other classes, or another order of them" in refusal(whole, other)


def test_predictions_that_are_not_there_are_named(tmp_path: Path, clips: Path, refusal: Callable[..., Any]) -> None:
    assert "none.json" in refusal(tmp_path / "none.jsonl")
    assert "must end in .jsonl" in refusal(TSM, "--data", clips, "--predictions", tmp_path / "p.json")


@pytest.mark.parametrize("part", [0.3, 0.5])
def test_predictions_of_half_a_list_are_not_scored_as_the_whole(
    part: float, tmp_path: Path, saved: Callable[..., Path], refusal: Callable[..., Any]
) -> None:
    """A run that was stopped left them; their figure would be that of the first classes."""
    whole, half = saved(TSM, "--weights", "random"), tmp_path / "half.jsonl"
    half.with_suffix(".json").write_bytes(whole.with_suffix(".json").read_bytes())
    kept = whole.read_bytes().splitlines(keepends=True)[: int(28 * part)]
    half.write_bytes(b"".join(kept))
    error = refusal(half)
    assert f"{len(kept)} of 28" in error
