"""The models in the package: what they are, and on clips drawn here what they know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tsmzoo import registry
from tsmzoo.cli import _story as story
from tsmzoo.cli import app
from tsmzoo.data import layouts, motion
from tsmzoo.evaluation import evaluate, metrics, predictions
from tsmzoo.evaluation.evaluate import Settings
from tsmzoo.evaluation.predictions import VideoLogits
from tsmzoo.inference.reference import ModelReference
from tsmzoo.models.flops import count
from tsmzoo.registry.recipes import training
from tsmzoo.weights import download

ZOO = registry.load()
TSN, TSM, ONLINE = story.MODELS
#: Nobody trained on it, nor chose by it.
VIDEOS, SEED = 112, 77


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[VideoLogits]]:
    """Give what each model answers to the same clips."""
    folder = tmp_path_factory.mktemp("bundled")
    motion.write(folder / "clips", VIDEOS, SEED)
    clips = layouts.read(folder / "clips")
    for name in story.MODELS:
        evaluate.save_predictions(ZOO, ModelReference(name), clips, Settings(workers=0), folder / f"{name}.jsonl")
    return {name: list(predictions.read(folder / f"{name}.jsonl")) for name in story.MODELS}


def top1(answers: list[VideoLogits]) -> float:
    return float(np.mean([np.argmax(answer.logits[0]) == answer.label for answer in answers]))


@pytest.mark.parametrize("name", story.MODELS)
def test_a_file_is_small_and_the_one_that_the_registry_names(name: str) -> None:
    path = download.fetch(ZOO.find(name))
    assert path.stat().st_size <= 2e6
    assert path.parent.name == "bundled"


def test_the_three_cost_the_same_to_the_last_multiplication() -> None:
    macs, params = set(), set()
    for name in story.MODELS:
        entry = ZOO.find(name)
        counted = count(entry)
        macs.add(round(counted.gmacs * 1e9) * 8 // entry.frames)
        params.add(round(counted.mparams * 1e6))
        assert round(counted.gmacs * 1e9) == round(entry.gmacs * 1e9)
    assert len(macs) == len(params) == 1


def test_the_three_were_trained_alike_but_for_the_shift() -> None:
    plans: list[dict[str, Any]] = []
    for name in story.MODELS:
        recipe = training(name)
        assert (recipe.name, recipe.model) == (name, name)
        plans.append({key: getattr(recipe, key) for key in recipe.__struct_fields__ if key not in ("name", "model")})
    assert plans[0] == plans[1] == plans[2]


@pytest.mark.parametrize("name", story.MODELS)
@pytest.mark.slow
def test_the_figure_in_the_registry_holds_on_fresh_clips(name: str, answers: dict[str, list[VideoLogits]]) -> None:
    claimed = ZOO.find(name).headline
    assert claimed is not None
    right = round(top1(answers[name]) * VIDEOS)
    low, high = metrics.interval(right, VIDEOS)
    assert 100 * low <= claimed.top1 <= 100 * high


@pytest.mark.slow
def test_the_order_of_frames_is_worth_half_of_the_clips(answers: dict[str, list[VideoLogits]]) -> None:
    assert top1(answers[TSN]) <= 0.5
    assert top1(answers[TSM]) >= 0.97
    assert top1(answers[ONLINE]) >= 0.97


@pytest.mark.slow
def test_the_blind_one_answers_twins_alike(answers: dict[str, list[VideoLogits]]) -> None:
    # motion.write names the clips in this order, twins side by side.
    twins = np.random.default_rng(SEED).permutation(VIDEOS).reshape(-1, 2)
    for name, alike in ((TSN, True), (TSM, False), (ONLINE, False)):
        logits = np.array([answer.logits[0] for answer in answers[name]])[
            twins
        ]  # scenes, forwards and backwards, classes
        difference = np.abs(logits[:, 0] - logits[:, 1]).max(1) / np.ptp(logits)
        assert (difference < 1e-5).all() if alike else (difference > 1e-2).all()


@pytest.mark.slow
def test_the_demo_tells_its_story(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--videos", "56", "--keep", str(tmp_path / "kept")])
    assert result.exit_code == 0, result.output
    assert "PASSED" in result.stdout
    assert (tmp_path / "kept" / f"{ONLINE}.tflite").is_file()
    document = json.loads(CliRunner().invoke(app, ["demo", "--videos", "28", "--json"]).stdout)
    tsn, tsm, online = document["models"]
    assert tsn["macs_per_clip"] == tsm["macs_per_clip"] == online["macs_per_clip"]
    assert tsn["top1"] <= 50 < min(tsm["top1"], online["top1"])
    assert [answers[-1] for answers in document["streamed"]] == ["opening", "closing"]
