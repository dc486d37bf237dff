"""The models in the package: what they are, and on clips drawn here what they know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tsmzoo import dataset, demo, download, evaluate, motion, registry, weights
from tsmzoo.cli import app
from tsmzoo.describe import describe
from tsmzoo.evaluate import Scores
from tsmzoo.flops import count
from tsmzoo.recipe import training
from tsmzoo.runner import TorchRunner

ZOO = registry.load()
TSN, TSM, ONLINE = demo.MODELS
#: Nobody trained on it, nor chose by it.
VIDEOS, SEED = 210, 77


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dataset.Dataset:
    folder = tmp_path_factory.mktemp("bundled") / "clips"
    motion.write(folder, VIDEOS, SEED)
    return dataset.read(folder)


@pytest.fixture(scope="module")
def scores(clips: dataset.Dataset) -> dict[str, Scores]:
    found = {}
    for name in demo.MODELS:
        network = weights.obtain(ZOO.find(name))
        contract = describe(ZOO, network)
        found[name] = evaluate.score(TorchRunner(network, contract), contract, clips, 8, lambda *_: None)
    return found


def top1(scores: Scores) -> float:
    return float((np.stack(scores.logits).argmax(1) == scores.labels).mean())


@pytest.mark.parametrize("name", demo.MODELS)
def test_a_file_is_small_and_the_one_that_the_registry_names(name: str) -> None:
    path = download.fetch(ZOO.find(name))
    assert path.stat().st_size <= 2e6
    assert path.parent.name == "bundled"


def test_the_three_cost_the_same_to_the_last_multiplication() -> None:
    macs, params = set(), set()
    for name in demo.MODELS:
        entry = ZOO.find(name)
        counted = count(entry)
        macs.add(round(counted.gmacs * 1e9) * 8 // entry.frames)
        params.add(round(counted.mparams * 1e6))
        assert round(counted.gmacs * 1e9) == round(entry.gmacs * 1e9)
    assert len(macs) == len(params) == 1


def test_the_three_were_trained_alike_but_for_the_shift() -> None:
    plans: list[dict[str, Any]] = []
    for name in demo.MODELS:
        recipe = training(name)
        assert (recipe.name, recipe.model) == (name, name)
        plans.append({key: getattr(recipe, key) for key in recipe.__struct_fields__ if key not in ("name", "model")})
    assert plans[0] == plans[1] == plans[2]


@pytest.mark.parametrize("name", demo.MODELS)
def test_the_figure_in_the_registry_holds_on_fresh_clips(name: str, scores: dict[str, Scores]) -> None:
    claimed = ZOO.find(name).headline
    assert claimed is not None
    right = round(top1(scores[name]) * VIDEOS)
    low, high = evaluate.interval(right, VIDEOS)
    assert 100 * low <= claimed.top1 <= 100 * high


def test_the_order_of_frames_is_worth_half_of_the_clips(scores: dict[str, Scores]) -> None:
    assert top1(scores[TSN]) <= 0.5
    assert top1(scores[TSM]) >= 0.85
    assert top1(scores[ONLINE]) >= 0.85


def test_the_blind_one_answers_twins_alike(scores: dict[str, Scores]) -> None:
    # motion.write names the clips in this order, twins side by side.
    twins = np.random.default_rng(SEED).permutation(VIDEOS).reshape(-1, 2)
    for name, alike in ((TSN, True), (TSM, False), (ONLINE, False)):
        logits = np.stack(scores[name].logits)[twins]  # scenes, forwards and backwards, classes
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
