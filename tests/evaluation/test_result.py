"""`eval`: the result, as JSON and as text, and what a user of the library sees."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tsmzoo import registry
from tsmzoo.data import layouts, motion
from tsmzoo.data.dataset import Video
from tsmzoo.evaluation import evaluate
from tsmzoo.weights import checkpoint

ZOO = registry.load()


#: The smallest networks of the zoo.
TSN, TSM, ONLINE = "tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online"


#: Most tests are about one process.
HERE = ("--workers", "0")


KEYS = {
    *("model", "protocol", "dataset", "videos", "skipped", "top1", "top5", "mean_class", "ci95", "published"),
    *("videos_per_s", "weights_sha256", "list_sha256", "decoder"),
}


@pytest.mark.parametrize("model", [TSN, TSM, ONLINE])
def test_a_bundled_model_is_measured(model: str, clips: Path, answer: Callable[..., Any]) -> None:
    document = answer(model, "--data", clips)
    assert document.keys() >= KEYS
    assert (document["model"], document["dataset"], document["videos"], document["skipped"]) == (model, "clips", 28, 0)
    assert (document["format"], document["weights"]) == ("torch", "published")
    assert document["weights_sha256"] == ZOO.find(model).sha256
    assert document["list_sha256"] == hashlib.sha256((clips / "annotations.txt").read_bytes()).hexdigest()
    assert document["protocol"] == "uniform8_center_1clip"
    assert (document["plan"]["frames"], document["plan"]["clips"], document["plan"]["crops"]) == (8, 1, 1)
    assert 0 <= document["ci95"][0] <= document["top1"] <= document["ci95"][1] <= 100
    assert document["top1"] <= document["top5"] <= 100
    assert document["mean_class"] == pytest.approx(document["top1"], abs=0.01), "as many videos of each class"
    assert document["videos_per_s"] > 0
    for word in ("PyAV", "FFmpeg", "Pillow"):
        assert word in document["decoder"]
    assert [row["top1"] for row in document["published"]] == [row.top1 for row in ZOO.find(model).results]
    assert document["published"][0]["inside"] is not None, "the same protocol"


def test_figures_are_those_of_the_predictions(
    clips: Path, saved: Callable[..., Path], answer: Callable[..., Any], lines: Callable[..., Any]
) -> None:
    path = saved(TSM, "--weights", "random")
    document, rows = answer(path), lines(path)
    labels = np.array([row["label"] for row in rows])
    order = np.argsort([-np.mean(row["logits"], axis=0) for row in rows], axis=1)
    right = order[:, 0] == labels
    assert document["top1"] == round(100 * right.mean(), 2)
    assert document["top5"] == round(100 * (order[:, :5] == labels[:, None]).any(1).mean(), 2)
    assert document["mean_class"] == round(100 * np.mean([right[labels == label].mean() for label in range(14)]), 2)
    worst = [right[labels == label].mean() for label in range(14)]
    assert [row["top1"] for row in document["worst_classes"]] == [100 * share for share in sorted(worst)[:5]]
    assert all(row["videos"] == 2 for row in document["worst_classes"])
    wrong = [(label, found) for label, found in zip(labels.tolist(), order[:, 0].tolist(), strict=True)]
    for row in document["confusions"]:
        pair = (motion.CLASSES.index(row["class"]), motion.CLASSES.index(row["taken_for"]))
        assert row["videos"] == wrong.count(pair)
    live = answer(TSM, "--data", clips, "--weights", "random")
    assert live["videos_per_s"] > 0
    assert document == live | {"videos_per_s": None}


def test_text_says_the_same(saved: Callable[..., Path], answer: Callable[..., Any], invoke: Callable[..., Any]) -> None:
    path = saved(TSM, "--weights", "random")
    document, text = answer(path), invoke("eval", path).stdout
    assert f"top-1 {document['top1']:.2f} %" in text
    assert f"top-5 {document['top5']:.2f} %" in text
    assert "28 videos of clips, 0 skipped" in text
    assert "uniform8_center_1clip: 1 clip of 8 frames, uniform; short side 73, 1 crop of 64; mean of logits" in text
    assert f"published: top-1 {document['published'][0]['top1']} under {document['published'][0]['protocol']}" in text
    assert f"differs: the weights of {TSM} are random, not the published ones" in text
    assert document["worst_classes"][0]["class"] in text


def test_a_figure_is_held_against_the_published_ones(
    clips: Path,
    tmp_path: Path,
    answer: Callable[..., Any],
    invoke: Callable[..., Any],
    own_registry: Callable[..., Any],
) -> None:
    own = own_registry(tmp_path / "own.yaml")
    given = ("--registry", own, "--data", clips, "--weights", "random", "--predictions", tmp_path / "p.jsonl")
    options = (*given, "--protocol", "uniform8_center_1clip")
    document = answer("mine", *options)
    assert document["published"] == []
    found, (low, high) = document["top1"], document["ci95"]
    figures = [found, low, high, round(high + 0.01, 2), 100]
    results = [{"top1": top1, "protocol": "uniform8_center_1clip", "source": "x"} for top1 in figures]
    own_registry(own, results=[*results, {"top1": found, "protocol": "mit_uniform_10crop", "source": "y"}])
    document = answer("mine", *options)
    assert [row["inside"] for row in document["published"]] == [True, True, True, False, False, None]
    assert [row["same_protocol"] for row in document["published"]] == [True] * 5 + [False]
    assert document["differences"] == ["the weights of mine are random, not the published ones"]
    text = invoke("eval", "mine", *options, *HERE).stdout
    assert text.count("OUTSIDE the interval") == 2
    assert text.count("inside the interval") == 3
    assert text.count("not this protocol") == 1


def test_ones_own_weights_are_named_by_their_digest(
    clips: Path,
    few: Path,
    tmp_path: Path,
    answer: Callable[..., Any],
    network: Callable[..., Any],
    own_registry: Callable[..., Any],
    refusal: Callable[..., Any],
) -> None:
    """Saved, they answer as they did; in a registry beside them, they are a model like any other."""
    path, options = tmp_path / "mine.safetensors", ("--data", clips, "--list", few)
    checkpoint.save(network(TSM, 4).backbone, network(TSM, 4).entry, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    answer(TSM, *options, "--weights", "random", "--seed", "4", "--predictions", tmp_path / "random.jsonl")
    document = answer(TSM, *options, "--weights", path, "--predictions", tmp_path / "local.jsonl")
    assert (document["weights"], document["weights_sha256"]) == ("local", digest)
    own = own_registry(tmp_path / "own.yaml", file="mine.safetensors", sha256=digest)
    document = answer("mine", *options, "--registry", own, "--predictions", tmp_path / "own.jsonl")
    assert (document["model"], document["weights"], document["weights_sha256"]) == ("mine", "published", digest)
    wanted = (tmp_path / "random.jsonl").read_bytes()
    assert (tmp_path / "local.jsonl").read_bytes() == (tmp_path / "own.jsonl").read_bytes() == wanted
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert digest in refusal("mine", *options, "--registry", own)


def test_levels_must_be_whole_percents(saved: Callable[..., Path], invoke: Callable[..., Any]) -> None:
    path = saved(TSM, "--weights", "random")
    for levels in ("0", "100", "-5", "x", "nan", "50,,60", "12.5"):
        assert invoke("eval", path, "--observe", levels).exit_code == 2, levels


def test_progress_is_told_by_videos(clips: Path, few: Path, tmp_path: Path) -> None:
    from tsmzoo.inference.reference import ModelReference

    seen: list[tuple[str, int, int]] = []
    notes: list[str] = []
    speed = evaluate.save_predictions(
        ZOO,
        ModelReference(TSM, weights="random"),
        layouts.read(clips, few),
        evaluate.Settings(workers=0),
        tmp_path / "p.jsonl",
        progress=lambda *step: seen.append(step),
        notify=notes.append,
    )
    assert speed > 0
    assert seen == [(TSM, 3, 3)]
    assert len(notes) == 1
    assert "RANDOM" in notes[0]


def test_a_list_says_which_videos_there_are(clips: Path, few: Path) -> None:
    found = layouts.read(clips, few)
    assert found.videos[0] == Video(
        few.read_text().split()[0], clips / few.read_text().split()[0], found.videos[0].label
    )
    assert found.list_sha256 == hashlib.sha256(few.read_bytes()).hexdigest()
