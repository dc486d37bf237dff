"""`eval`: predictions as the network gives them, figures from them, broken videos, and runs that were killed."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from tsmzoo import models, registry
from tsmzoo.artifact.contract import Contract
from tsmzoo.cli import app
from tsmzoo.data import decode, layouts, motion
from tsmzoo.data.dataset import Dataset, Video
from tsmzoo.errors import DataError
from tsmzoo.evaluation import evaluate
from tsmzoo.inference.describe import describe
from tsmzoo.models.wrappers import ClipModel, StreamStep, state_shapes
from tsmzoo.typing import Array
from tsmzoo.weights import checkpoint
from tsmzoo.weights.load import Network

ZOO = registry.load()
#: The smallest networks of the zoo.
TSN, TSM, ONLINE = "tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online"
MEAN, STD = np.reshape([0.485, 0.456, 0.406], (3, 1, 1)), np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
#: Most tests are about one process.
HERE = ("--workers", "0")

pytestmark = pytest.mark.usefixtures("one_registry")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> dict[str, Any]:
    """Return the document of an `eval` that succeeds."""
    result = invoke("eval", *arguments, *HERE, "--json")
    assert result.exit_code == 0, f"{result.output}{result.exception!r}"
    return json.loads(result.stdout)


def refusal(*arguments: object) -> str:
    """Return the one line of an `eval` that a user got wrong."""
    result = invoke("eval", *arguments, *HERE)
    assert isinstance(result.exception, SystemExit), f"a traceback: {result.exception!r}"
    assert result.exit_code == 1, result.output
    *notes, error = result.stderr.splitlines()
    assert all(note.startswith("warning: ") and "RANDOM" in note for note in notes), result.stderr
    assert error.startswith("error: ")
    assert result.stdout == ""
    return error


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@functools.cache
def network(model: str, seed: int = 3) -> Network:
    """Return a model of random weights."""
    entry = ZOO.find(model)
    return Network(entry, models.build(entry, seed=seed).eval(), "random", seed=seed)


@functools.cache
def contract(model: str) -> Contract:
    return describe(ZOO, network(model))


def listed(folder: Path, items: Sequence[tuple[str, int]], classes: Sequence[str] | None = motion.CLASSES) -> Path:
    """Write a list of videos, the first of which is there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / items[0][0]).touch()
    (folder / "annotations.txt").write_text("".join(f"{name} {label}\n" for name, label in items), encoding="utf-8")
    if classes is not None:
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    return folder


def own_registry(path: Path, names: Sequence[str] = motion.CLASSES, **changes: Any) -> Path:
    """Write a registry with `mine`, an entry as that of the offline model."""
    plain = {"id": "mine", "classes": len(names), "labels": "own", "results": [], "urls": []}
    entry = msgspec.to_builtins(ZOO.find(TSM)) | plain | changes
    labels = {"own": {"classes": len(names), "order": "here", "names": list(names)}}
    # JSON is YAML.
    path.write_text(json.dumps({"models": [entry], "labels": labels}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give two clips of each of the 14 classes."""
    folder = tmp_path_factory.mktemp("evaluate") / "clips"
    motion.write(folder, 28, 5)
    return folder


@pytest.fixture(scope="module")
def few(clips: Path) -> Path:
    """Give a list of three of them."""
    path = clips.parent / "few.txt"
    path.write_text("".join((clips / "annotations.txt").read_text().splitlines(keepends=True)[:3]))
    return path


@pytest.fixture(scope="module")
def saved(clips: Path) -> Callable[..., Path]:
    """Give a function from a model and options to its predictions of the clips, computed once."""

    @functools.cache
    def predict(model: str, *options: str) -> Path:
        path = clips.parent / f"{len(list(clips.parent.iterdir()))}.jsonl"
        answer(model, "--data", clips, "--predictions", path, *options)
        return path

    return predict


# --- the document --------------------------------------------------------------------------------------------------

KEYS = {
    *("model", "protocol", "dataset", "videos", "skipped", "top1", "top5", "mean_class", "ci95", "published"),
    *("videos_per_s", "weights_sha256", "list_sha256", "decoder"),
}


@pytest.mark.parametrize("model", [TSN, TSM, ONLINE])
def test_a_bundled_model_is_measured(model: str, clips: Path) -> None:
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


def test_figures_are_those_of_the_predictions(clips: Path, saved: Callable[..., Path]) -> None:
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


def test_text_says_the_same(saved: Callable[..., Path]) -> None:
    path = saved(TSM, "--weights", "random")
    document, text = answer(path), invoke("eval", path).stdout
    assert f"top-1 {document['top1']:.2f} %" in text
    assert f"top-5 {document['top5']:.2f} %" in text
    assert "28 videos of clips, 0 skipped" in text
    assert "uniform8_center_1clip: 1 clip of 8 frames, uniform; short side 73, 1 crop of 64; mean of logits" in text
    assert f"published: top-1 {document['published'][0]['top1']} under {document['published'][0]['protocol']}" in text
    assert f"differs: the weights of {TSM} are random, not the published ones" in text
    assert document["worst_classes"][0]["class"] in text


def test_a_figure_is_held_against_the_published_ones(clips: Path, tmp_path: Path) -> None:
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


def test_ones_own_weights_are_named_by_their_digest(clips: Path, few: Path, tmp_path: Path) -> None:
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


# --- predictions, by hand ------------------------------------------------------------------------------------------


def resized(image: Image.Image, side: int = 73) -> Array:
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def cut(image: Array, top: int, left: int) -> torch.Tensor:
    square = image[top : top + 64, left : left + 64].transpose(2, 0, 1)
    return torch.from_numpy((square / 255 - MEAN) / STD).float()


def clip(path: Path, frames: Sequence[int], top: int = 4, left: int = 4) -> torch.Tensor:
    """Return the frames of a square video as the network sees them: T, C, H, W."""
    images = [image for _, image in decode.decode(path)]
    return torch.stack([cut(resized(images[index]), top, left) for index in frames])


def close(got: object, wanted: torch.Tensor, tolerance: float = 1e-5) -> bool:
    assert np.shape(got) == tuple(wanted.shape)
    return float(np.abs(np.asarray(got) - wanted.numpy()).max()) <= tolerance * float(np.ptp(wanted.numpy()))


#: Of 17 frames, the centres of 8 segments, and their starts.
CENTRES, STARTS = [1, 3, 5, 7, 9, 11, 13, 15], [0, 2, 4, 6, 8, 10, 12, 14]


@torch.no_grad()
@pytest.mark.parametrize("model", [TSN, TSM])
def test_logits_are_the_networks(model: str, clips: Path, saved: Callable[..., Path]) -> None:
    rows = lines(saved(model, "--weights", "random", "--seed", "3"))
    assert [f"{row['video']} {row['label']}" for row in rows] == (clips / "annotations.txt").read_text().splitlines()
    for row in rows:
        assert row.keys() == {"video", "label", "logits"}
        wanted = ClipModel(network(model).backbone, 8)(clip(clips / row["video"], CENTRES)[None])
        assert close(row["logits"], wanted)
        assert abs(sum(row["logits"][0]) - 1) > 0.1, "before softmax"


@torch.no_grad()
def test_an_online_model_answers_the_mean_over_its_steps(clips: Path, saved: Callable[..., Path]) -> None:
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
def test_an_offline_model_observes_the_first_part_as_a_video_of_its_own(clips: Path, few: Path, tmp_path: Path) -> None:
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
def test_a_row_for_each_view_crop_by_crop(clips: Path, few: Path, tmp_path: Path) -> None:
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


def test_too_few_frames_for_a_network_are_one_line(clips: Path, few: Path, tmp_path: Path) -> None:
    own = own_registry(tmp_path / "own.yaml", family="i3d", backbone="resnet50_i3d", width=1.0, frames=8)
    options = ("--registry", own, "--data", clips, "--list", few, "--weights", "random", "--frames", "4")
    assert "this model needs clips of 5 frames at least, not of 4" in refusal("mine", *options)


def test_what_one_should_know_of_a_protocol_is_told(clips: Path, few: Path) -> None:
    options = ("--data", clips, "--list", few, "--weights", "random")
    told = "of mit_sth_fullres_2clip: the README's table says full resolution"
    found = answer(TSM, *options, "--protocol", "accurate", "--crops", "1")["differences"]
    assert any(line.startswith(told) for line in found)
    assert not any("README" in line for line in answer(TSM, *options)["differences"])


def test_a_blind_model_answers_a_scene_backwards_alike(saved: Callable[..., Path]) -> None:
    """Clips come in twins, one the other backwards: TSN cannot tell them apart, TSM can."""
    # motion.write names the clips in this order, twins side by side.
    twins = np.random.default_rng(5).permutation(28).reshape(-1, 2)
    for model, alike in ((TSN, True), (TSM, False)):
        rows = {row["video"]: row["logits"][0] for row in lines(saved(model, "--weights", "random", "--seed", "3"))}
        logits = np.array([[rows[f"videos/{number:06d}.mp4"] for number in pair] for pair in twins])
        difference = np.abs(logits[:, 0] - logits[:, 1]).max(1) / np.ptp(logits)
        assert (difference < 1e-5).all() if alike else (difference > 1e-4).all()


# --- protocols -----------------------------------------------------------------------------------------------------


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
    options: tuple[str, ...], protocol: str, plan: dict[str, Any], clips: Path, few: Path, tmp_path: Path
) -> None:
    path = tmp_path / "p.jsonl"
    document = answer(TSM, "--data", clips, "--list", few, "--predictions", path, "--weights", "random", *options)
    assert document["protocol"] == protocol
    assert plan.items() <= document["plan"].items()
    assert json.loads(path.with_suffix(".json").read_text())["plan"] == document["plan"]
    views = document["plan"]["clips"] * document["plan"]["crops"]
    assert [np.shape(row["logits"]) for row in lines(path)] == [(views, 14)] * 3


@torch.no_grad()
def test_whole_videos_are_of_any_length(tmp_path: Path) -> None:
    """Two of a length and others between them, each answered as if alone; one too long, from its middle."""
    lengths = {"a.mov": 9, "b.mov": 3, "c.mov": 9, "d.mov": 1, "e.mov": 302}
    for name, frames in lengths.items():
        encode(tmp_path / name, noise(frames))
    listed(tmp_path, [(name, 0) for name in lengths])
    options = ("--protocol", "deepmind_test", "--weights", "random", "--seed", "3", "--observe", "50")
    document = answer(TSM, "--data", tmp_path, "--predictions", tmp_path / "p.jsonl", *options)
    assert (document["protocol"], document["plan"]["sampling"]) == ("deepmind_test", "whole")
    assert (document["plan"]["frames"], document["plan"]["stride"]) == (300, 1)

    def wanted(pictures: Array) -> torch.Tensor:
        resized = (cv2.resize(picture, (73, 73), interpolation=cv2.INTER_LINEAR) for picture in pictures)
        return ClipModel(network(TSM).backbone, len(pictures))(torch.stack([cut(each, 4, 4) for each in resized])[None])

    for row in lines(tmp_path / "p.jsonl"):
        pictures = noise(lengths[row["video"]])
        assert close(row["logits"], wanted(pictures[1:301] if len(pictures) > 300 else pictures)), row["video"]
        assert close(row["observed"]["50"], wanted(pictures[: (len(pictures) + 1) // 2])), row["video"]


def test_the_frames_of_an_online_model_can_be_chosen(clips: Path, few: Path) -> None:
    options = ("--data", clips, "--list", few, "--weights", "random")
    assert answer(ONLINE, *options, "--frames", "4")["protocol"] == "uniform8_center_1clip with frames 4"
    assert "leaves the frames to the model" in refusal(ONLINE, *options, "--protocol", "efficient")


def test_a_protocol_that_cannot_be_followed_is_refused(clips: Path) -> None:
    assert "2 clips at most" in refusal(TSM, "--data", clips, "--weights", "random", "--clips", "3")
    assert "did you mean" in refusal(TSM, "--data", clips, "--weights", "random", "--protocol", "acurate")


# --- several models ------------------------------------------------------------------------------------------------


def test_models_add_up_live_as_saved_and_by_hand(clips: Path, tmp_path: Path) -> None:
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


def test_logits_and_probabilities_add_up_as_probabilities(saved: Callable[..., Path]) -> None:
    paths = saved(TSM, "--weights", "random"), saved(TSN, "--weights", "random", "--protocol", "mm-val")
    document = answer(*paths, "--weights-of-scores", "1,3")
    assert document["protocol"] == "uniform8_center_1clip + mm_tsm_uniform8_crop1x224"
    odds = [np.exp([row["logits"][0] for row in lines(path)]) for path in paths]
    shares = [each / each.sum(1, keepdims=True) for each in odds]
    labels = np.array([row["label"] for row in lines(paths[0])])
    assert document["top1"] == round(100 * ((shares[0] + 3 * shares[1]).argmax(1) == labels).mean(), 2)


def test_a_factor_of_nought_leaves_a_model_out(saved: Callable[..., Path]) -> None:
    paths = saved(TSM, "--weights", "random"), saved(TSN, "--weights", "random")
    assert answer(*paths, "--weights-of-scores", "0,2")["top1"] == answer(paths[1])["top1"]


@pytest.mark.parametrize("factors", ["1", "1,2,3", "1,x", "1,", "nan,1", "1,inf"])
def test_factors_must_be_a_number_for_each_model(factors: str, saved: Callable[..., Path]) -> None:
    paths = saved(TSM, "--weights", "random"), saved(TSN, "--weights", "random")
    assert invoke("eval", *paths, "--weights-of-scores", factors).exit_code == 2


def test_only_predictions_of_the_same_videos_add_up(
    clips: Path, few: Path, tmp_path: Path, saved: Callable[..., Path]
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


# --- predictions that were saved -----------------------------------------------------------------------------------


def test_predictions_that_are_not_there_are_named(tmp_path: Path, clips: Path) -> None:
    assert "none.json" in refusal(tmp_path / "none.jsonl")
    assert "must end in .jsonl" in refusal(TSM, "--data", clips, "--predictions", tmp_path / "p.json")


@pytest.mark.parametrize("part", [0.3, 0.5])
def test_predictions_of_half_a_list_are_not_scored_as_the_whole(
    part: float, tmp_path: Path, saved: Callable[..., Path]
) -> None:
    """A run that was stopped left them; their figure would be that of the first classes."""
    whole, half = saved(TSM, "--weights", "random"), tmp_path / "half.jsonl"
    half.with_suffix(".json").write_bytes(whole.with_suffix(".json").read_bytes())
    kept = whole.read_bytes().splitlines(keepends=True)[: int(28 * part)]
    half.write_bytes(b"".join(kept))
    error = refusal(half)
    assert f"{len(kept)} of 28" in error


def test_answers_that_are_no_numbers_are_told(clips: Path, few: Path, tmp_path: Path) -> None:
    path, backbone = tmp_path / "huge.safetensors", models.build(ZOO.find(TSM), seed=0)
    with torch.no_grad():
        list(backbone.parameters())[-2].fill_(3e38)  # finite, but what comes of it is not
    checkpoint.save(backbone, ZOO.find(TSM), path)
    error = refusal(TSM, "--data", clips, "--list", few, "--weights", path)
    assert TSM in error
    assert "finite" in error or "NaN" in error


def test_levels_must_be_whole_percents(saved: Callable[..., Path]) -> None:
    path = saved(TSM, "--weights", "random")
    for levels in ("0", "100", "-5", "x", "nan", "50,,60", "12.5"):
        assert invoke("eval", path, "--observe", levels).exit_code == 2, levels


# --- classes -------------------------------------------------------------------------------------------------------


def read(folder: Path, *arguments: Any) -> Dataset:
    return layouts.read(listed(folder, *arguments))


def test_classes_are_told_by_their_names(tmp_path: Path) -> None:
    """Their order, capitals and underscores may be others than the model's."""
    names = [name.replace(" ", "_").title() for name in reversed(motion.CLASSES)]
    videos = read(tmp_path, [("a.mp4", 0), ("b.mp4", 13), ("c.mp4", 4)], names)
    fitted = evaluate.fitted(ZOO, videos, contract(TSM))
    assert [each.label for each in fitted.videos] == [13, 0, 9]
    assert [each.label for each in videos.videos] == [0, 13, 4]


def test_classes_of_the_model_without_a_video_are_fine(tmp_path: Path) -> None:
    fitted = evaluate.fitted(ZOO, read(tmp_path, [("a.mp4", 1)], ("closing", "opening")), contract(TSM))
    assert [each.label for each in fitted.videos] == [motion.CLASSES.index("opening")]


def test_names_may_be_missing_on_either_side(tmp_path: Path) -> None:
    nameless = msgspec.structs.replace(contract(TSM), labels=None)
    videos = read(tmp_path / "a", [("a.mp4", 13)], None)
    for each in (contract(TSM), nameless):
        assert evaluate.fitted(ZOO, videos, each) == videos
    videos = read(tmp_path / "b", [("a.mp4", 13)])
    assert evaluate.fitted(ZOO, videos, nameless) == videos
    videos = read(tmp_path / "c", [("a.mp4", 1)], ("x", "y"))
    with pytest.raises(DataError, match=f"the data have 2 classes, {TSM} has 14"):
        evaluate.fitted(ZOO, videos, nameless)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    listed(tmp_path / "names", [("a.mp4", 0), ("b.mp4", 1)], ("opening", "spinning"))
    error = refusal(TSM, "--data", tmp_path / "names", "--weights", "random")
    assert f"not those of {TSM}: it has no 'spinning'" in error
    listed(tmp_path / "indices", [("a.mp4", 3), ("b.mp4", 14)], None)
    error = refusal(ONLINE, "--data", tmp_path / "indices", "--weights", "random")
    assert f"the list has class 14, but {ONLINE} answers 14 classes" in error


def something_v1(folder: Path) -> Path:
    """Write two folders of images in the layout of Something-Something V1."""
    labels = ("Closing something", "Opening something")
    (folder / "something-something-v1-labels.csv").write_text("".join(f"{label}\n" for label in labels))
    (folder / "something-something-v1-validation.csv").write_text(f"1;{labels[1]}\n2;{labels[0]}\n")
    for name in "12":
        (folder / name).mkdir()
        for number in range(1, 9):
            Image.new("RGB", (32, 24), (30 * number, 0, 0)).save(folder / name / f"{number:05d}.jpg")
    return folder


def test_the_first_edition_is_not_scored_with_weights_of_the_second(tmp_path: Path) -> None:
    """Both have 174 classes, whose names all but agree."""
    error = refusal("tsm_r50_sthv2", "--data", something_v1(tmp_path), "--weights", "random")
    assert "the data are somethingv1" in error
    assert "trained on somethingv2" in error
    assert "tsmzoo list --dataset somethingv1" in error


def test_a_folder_of_images_is_a_video(tmp_path: Path) -> None:
    own = own_registry(tmp_path / "own.yaml", ("Closing something", "Opening something"), dataset="somethingv1")
    (tmp_path / "v1").mkdir()
    options = ("--registry", own, "--weights", "random", "--predictions", tmp_path / "p.jsonl")
    document = answer("mine", "--data", something_v1(tmp_path / "v1"), *options)
    assert (document["dataset"], document["videos"], document["skipped"]) == ("somethingv1", 2, 0)
    assert [(row["video"], row["label"]) for row in lines(tmp_path / "p.jsonl")] == [("1", 1), ("2", 0)]


def test_a_model_of_flow_sees_no_video(clips: Path, few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A ResNet-50 that is never asked.
    monkeypatch.setattr(models, "build", lambda *_, **__: torch.nn.Identity())
    listing = few.with_name("nameless")
    listing.mkdir()
    (listing / "few.txt").write_text(few.read_text())
    (listing / "videos").symlink_to(clips / "videos")
    options = ("--data", listing, "--list", listing / "few.txt", "--weights", "random")
    error = refusal("tsm_r50_k400_flow", *options)
    assert "is no folder of flow images; extract them, or choose an RGB model" in error


def test_mistakes_are_one_line(clips: Path, tmp_path: Path) -> None:
    assert "did you mean" in refusal("tsm_mbv2_motio", "--data", clips)
    assert "annotations.txt" in refusal(TSM, "--data", tmp_path, "--weights", "random")
    assert "none.txt" in refusal(TSM, "--data", clips, "--list", tmp_path / "none.txt", "--weights", "random")
    assert "does not exist" in refusal(tmp_path / "none.onnx", "--data", clips)
    assert "does not exist" in refusal(TSM, "--data", clips, "--weights", tmp_path / "none.safetensors")
    assert "leave out --weights" in refusal(tmp_path / "m.onnx", "--data", clips, "--weights", "random")
    assert "no layout is called" in refusal(TSM, "--data", clips, "--format", "kinetix")
    for wrong in ((), ("--data", clips, "--frames", "0"), ("--data", clips, "--crops", "2"), ("--data", clips, "-x")):
        assert invoke("eval", TSM, *wrong).exit_code == 2, wrong


# --- broken videos -------------------------------------------------------------------------------------------------


def encode(path: Path, frames: Array, codec: str = "png", times: Sequence[int] | None = None) -> None:
    """Write frames, T, H, W, 3, without loss, at `times` in hundredths of a second."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=100)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24" if codec == "png" else "bgr0"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 100)
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = times[index] if times else 10 * index, Fraction(1, 100)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def audio(path: Path) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


def turned(path: Path, frames: Array) -> None:
    """Write frames lying on their side, and beside them that a player is to turn them by a quarter clockwise."""
    encode(path, np.rot90(frames, axes=(1, 2)))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # of a header of version 0
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def noise(frames: int, height: int = 96, width: int = 96) -> Array:
    """Return pictures unlike each other, the same ones for the same shape."""
    coarse = np.random.default_rng(frames).integers(0, 256, (frames, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((width, height))) for each in coarse])


#: Name, and how it comes about; then why it is skipped, or None where it is scored.
FAULTS: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "empty.mp4": (lambda path: path.write_bytes(b""), "is empty"),
    "truncated.mp4": (lambda path: halved(path), "cannot be decoded"),
    "truncated.mkv": (lambda path: halved(path, "ffv1"), None),
    "audio.mp4": (audio, "has no video stream"),
    "text.mp4": (lambda path: path.write_text("no video\n" * 99), "cannot be decoded"),
    "playlist.mp4": (lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/\n"), "cannot be decoded"),
    "one frame.mov": (lambda path: encode(path, noise(1)), None),
    "three frames.mov": (lambda path: encode(path, noise(3)), None),
    "odd.mov": (lambda path: encode(path, noise(9, 97, 131)), None),
    "tall.mov": (lambda path: encode(path, noise(9, 131, 97)), None),
    "tiny.mov": (lambda path: encode(path, noise(9, 3, 5)), None),
    "turned.mov": (lambda path: turned(path, noise(17, 96, 130)), None),
    "upright.mov": (lambda path: encode(path, noise(17, 96, 130)), None),
    "steady.mkv": (lambda path: encode(path, noise(16), "ffv1"), None),
    "unsteady.mkv": (lambda path: encode(path, noise(16), "ffv1", [n * n for n in range(16)]), None),
    "missing.mp4": (lambda _: None, "is missing"),
    "no images": (lambda path: path.mkdir(), "holds no images"),
    "one image": (lambda path: (path.mkdir(), Image.new("RGB", (99, 80)).save(path / "1.png")), None),
    "torn image": (lambda path: (path.mkdir(), (path / "1.png").write_bytes(b"\x89PNG")), "cannot be decoded"),
}


def halved(path: Path, codec: str = "png") -> None:
    encode(path, noise(17), codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> Path:
    """Give a dataset of all of FAULTS, and sound clips between them."""
    folder = tmp_path_factory.mktemp("broken") / "data"
    folder.mkdir()
    items = []
    for number, (name, (write, _)) in enumerate(FAULTS.items()):
        write(folder / name)
        sound = f"sound {number}.mp4"
        os.link(clips / "videos" / f"{number:06d}.mp4", folder / sound)
        items += [(name, number % 14), (sound, 3)]
    return listed(folder, items)


@pytest.fixture(scope="module")
def survived(broken: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Give the document of its evaluation, and the predictions by name."""
    path = broken.parent / "p.jsonl"
    document = answer(TSM, "--data", broken, "--weights", "random", "--seed", "3", "--predictions", path)
    return document, {row["video"]: row for row in lines(path)}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_video_is_scored_or_skipped(name: str, survived: Any) -> None:
    document, rows = survived
    why = FAULTS[name][1]
    told = [row["why"] for row in document["skipped_videos"] if row["video"] == name]
    if why is None:
        assert told == []
        assert np.shape(rows[name]["logits"]) == (1, 14)
        assert "skipped" not in rows[name]
    else:
        assert rows[name]["logits"] == []
        assert told == [rows[name]["skipped"]]
        assert why in told[0]
        assert "\n" not in told[0]


def test_what_is_skipped_is_counted_and_the_rest_keeps_its_answers(survived: Any, saved: Callable[..., Path]) -> None:
    document, rows = survived
    skipped = [name for name, (_, why) in FAULTS.items() if why is not None]
    assert [row["video"] for row in document["skipped_videos"]] == skipped
    assert (document["videos"], document["skipped"]) == (2 * len(FAULTS) - len(skipped), len(skipped))
    assert f"{len(skipped)} of {2 * len(FAULTS)} listed videos were skipped" in document["differences"]
    alone = {row["video"]: row["logits"] for row in lines(saved(TSM, "--weights", "random", "--seed", "3"))}
    for number in range(len(FAULTS)):
        assert close(rows[f"sound {number}.mp4"]["logits"], torch.tensor(alone[f"videos/{number:06d}.mp4"]))


@torch.no_grad()
def test_odd_videos_are_seen_as_they_are_shown(survived: Any) -> None:
    rows = survived[1]
    for name, frames in (("one frame.mov", [0] * 8), ("three frames.mov", [0, 0, 0, 1, 1, 2, 2, 2])):
        images = [Image.fromarray(picture) for picture in noise(max(frames) + 1)]
        views = torch.stack([cut(resized(images[index]), 4, 4) for index in frames])
        assert close(rows[name]["logits"], ClipModel(network(TSM).backbone, 8)(views[None])), name
    assert rows["turned.mov"]["logits"] == rows["upright.mov"]["logits"]
    assert rows["unsteady.mkv"]["logits"] == rows["steady.mkv"]["logits"], "frames count, not their times"


def test_text_names_the_first_of_the_skipped(broken: Path, survived: Any) -> None:
    assert survived
    text = invoke("eval", broken.parent / "p.jsonl").stdout
    assert "8 skipped" in text
    assert text.count("  skipped ") == 5
    assert "… and 3 more; --json names all" in text


@pytest.mark.parametrize("name", [name for name, (_, why) in FAULTS.items() if why is not None])
def test_strict_stops_with_one_line(name: str, broken: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text(f"sound 1.mp4 3\n{name} 0\nsound 2.mp4 3\n")
    error = refusal(TSM, "--data", broken, "--list", few, "--weights", "random", "--strict")
    assert str(FAULTS[name][1]) in error
    assert name in error


def test_nothing_that_can_be_decoded_is_one_line(broken: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("empty.mp4 0\naudio.mp4 1\nmissing.mp4 2\n")
    error = refusal(TSM, "--data", broken, "--list", few, "--weights", "random")
    assert "none of the 3 videos could be scored; empty.mp4: is empty" in error


def test_a_video_that_must_not_be_read_is_skipped(clips: Path, few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, opened = clips / few.read_text().split()[0], Path.open

    def locked(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == first:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", locked)
    document = answer(TSM, "--data", clips, "--list", few, "--weights", "random")
    assert (document["videos"], document["skipped"]) == (2, 1)
    assert "Permission denied" in document["skipped_videos"][0]["why"]


# --- the page ------------------------------------------------------------------------------------------------------


def page(*arguments: object, at: Path) -> str:
    answer(*arguments, "--html", at)
    return at.read_text(encoding="utf-8")


def test_the_page_holds_all_that_it_shows(clips: Path, few: Path, tmp_path: Path) -> None:
    options = ("--data", clips, "--list", few, "--weights", "random", "--observe", "25,50")
    document = answer(TSM, *options)
    text = page(TSM, *options, at=tmp_path / "page.html")
    assert text.startswith("<!doctype html>")
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'> ]{0,30})""", text)
    assert len(sources) == 2, "early recognition and the confusion matrix"
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert not re.search(r"<script|<link|<iframe|@import|url\(", text)
    for said in (TSM, f"top-1 {document['top1']:.2f} %", document["list_sha256"], document["decoder"], "Early"):
        assert said in text
    assert f"{document['ci95'][0]:.2f}…{document['ci95'][1]:.2f}" in text
    for row in document["worst_classes"]:
        assert f"<td>{row['class']}</td>" in text


def test_the_page_escapes_what_it_is_given(broken: Path, tmp_path: Path) -> None:
    bad = ["<script>alert(1)</script>", "a & b", *motion.CLASSES[2:]]
    own = own_registry(tmp_path / "own.yaml", bad)
    listing = tmp_path / "lists" / "few.txt"
    listing.parent.mkdir()
    (broken / "<i>.mp4").touch()
    listing.write_text("sound 0.mp4 0\nsound 1.mp4 1\n<i>.mp4 1\n")
    listing.with_name("labels.txt").write_text("".join(f"{name}\n" for name in bad))
    text = page(
        *("mine", "--registry", own, "--data", broken, "--list", listing, "--weights", "random"),
        at=tmp_path / "page.html",
    )
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a &amp; b" in text
    assert "<i>" not in text
    assert "&lt;i&gt;.mp4" in text


@pytest.mark.parametrize(
    "names",
    [
        ("$", "$$"),
        ("$\\frac$", "$x_$"),
        ("开门", "关门"),
        ("Pretending to close something without actually closing it", "x"),
        ("a\\b", "%s {0}"),
    ],
    ids=["dollars", "formula", "Chinese", "long", "signs"],
)
def test_the_page_draws_any_class_name(names: tuple[str, str], clips: Path, few: Path, tmp_path: Path) -> None:
    classes = [*names, *motion.CLASSES[2:]]
    own = own_registry(tmp_path / "own.yaml", classes)
    videos = [line.split()[0] for line in few.read_text().splitlines()]
    listing = listed(tmp_path / "lists", [("none.mp4", 0)], classes) / "few.txt"
    listing.write_text("".join(f"{name} {label}\n" for label, name in enumerate(videos)))
    options = ("--registry", own, "--data", clips, "--list", listing, "--weights", "random")
    assert "<img" in page("mine", *options, at=tmp_path / "page.html")


def test_the_page_of_several_models_names_all(tmp_path: Path, saved: Callable[..., Path]) -> None:
    paths = saved(TSM, "--weights", "random"), saved(TSN, "--weights", "random")
    text = page(*paths, "--weights-of-scores", "1,1.5", at=tmp_path / "page.html")
    assert f"{TSM} + 1.5 x {TSN}" in text


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path, saved: Callable[..., Path]) -> None:
    error = refusal(saved(TSM, "--weights", "random"), "--html", tmp_path / "none" / "page.html")
    assert "page.html: cannot be written" in error


# --- runs that were stopped, and several processes -----------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> Path:
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
def undisturbed(many: Path) -> bytes:
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


def test_a_run_that_was_killed_goes_on(many: Path, undisturbed: bytes, tmp_path: Path) -> None:
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


def test_workers_write_the_same(clips: Path, tmp_path: Path, saved: Callable[..., Path]) -> None:
    result = invoke(*command(clips, tmp_path / "p.jsonl", "--weights", "random", "--workers", "2", "--json"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "p.jsonl").read_bytes() == saved(TSM, "--weights", "random").read_bytes()


def test_a_run_of_something_else_is_not_continued(clips: Path, few: Path, tmp_path: Path) -> None:
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


def test_what_differs_of_a_plan_is_told(clips: Path, few: Path, tmp_path: Path) -> None:
    options = ("--data", clips, "--list", few, "--weights", "random", "--predictions", tmp_path / "p.jsonl")
    answer(TSM, *options)
    assert "clips" in refusal(TSM, *options, "--clips", "2").partition("holds predictions")[2].replace("_1clip", "")


def test_several_processes_need_a_file(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "several processes need --predictions" in refusal(TSM, "--data", clips, "--weights", "random")


def torchrun(*arguments: str, restarts: int = 0) -> subprocess.Popen[str]:
    """Start two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--master-addr", "127.0.0.1", "--master-port", str(port), "--max-restarts", str(restarts)]
    return started("torch.distributed.run", "--nproc-per-node", "2", *options, "-m", "tsmzoo", *arguments)


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
    rank: int, many: Path, undisturbed: bytes, tmp_path: Path
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
def test_a_worker_that_dies_is_one_line(many: Path, undisturbed: bytes, tmp_path: Path) -> None:
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


# --- exported files ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Give a function from model and format to an exported file of random weights."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def export(model: str, to: str) -> Path:
        pytest.importorskip({"onnx": "onnxscript", "tflite": "litert_torch"}[to])
        path = folder / f"{model}.{to}"
        result = invoke("export", model, "--to", to, "-o", path, "--weights", "random", "--seed", 3)
        assert result.exit_code == 0, result.output
        return path

    return export


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "tflite"])
@pytest.mark.parametrize("model", [TSN, TSM, ONLINE])
def test_a_file_answers_as_torch(
    model: str, to: str, exported: Callable[[str, str], Path], clips: Path, tmp_path: Path
) -> None:
    """To a ten-thousandth: same frames, same states, same mean; and so to the same figures."""
    options, file = ("--data", clips, "--observe", "50"), exported(model, to)
    wanted = answer(model, *options, "--weights", "random", "--seed", "3", "--predictions", tmp_path / "torch.jsonl")
    found = answer(file, *options, "--predictions", tmp_path / "file.jsonl")
    assert (found["model"], found["format"], found["precision"]) == (model, to, "fp32")
    assert found["artifact_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    for key in ("top1", "top5", "mean_class", "ci95", "observed", "protocol", "plan", "list_sha256", "dataset"):
        assert found[key] == wanted[key], key
    assert f"{model} ran as {to} fp32, not in torch" in found["differences"]
    for ours, theirs in zip(lines(tmp_path / "file.jsonl"), lines(tmp_path / "torch.jsonl"), strict=True):
        assert close(ours["logits"], torch.tensor(theirs["logits"]), 1e-4)
        assert close(ours["observed"]["50"], torch.tensor(theirs["observed"]["50"]), 1e-4)
    assert "RANDOM" in invoke("eval", file, *options, *HERE).stderr


@pytest.mark.slow
def test_a_file_adds_up_with_a_model(exported: Callable[[str, str], Path], clips: Path, tmp_path: Path) -> None:
    answer(TSN, "--data", clips, "--weights", "random", "--predictions", tmp_path / "p.jsonl")
    document = answer(exported(TSM, "onnx"), tmp_path / "p.jsonl", "--data", clips)
    assert document["model"] == f"{TSM} + {TSN}"


@pytest.mark.slow
def test_what_a_file_does_not_take_is_refused(exported: Callable[[str, str], Path], clips: Path) -> None:
    for options in (("--frames", "4"), ("--protocol", "accurate")):
        error = refusal(exported(TSM, "onnx"), "--data", clips, *options)
        assert "8 frames of 64 px" in error


# --- what a library user sees --------------------------------------------------------------------------------------


def test_progress_is_told_by_videos(clips: Path, few: Path, tmp_path: Path) -> None:
    from tsmzoo.inference.reference import ModelReference

    seen: list[tuple[str, int, int]] = []
    notes: list[str] = []
    speed = evaluate.evaluate(
        ZOO,
        ModelReference(TSM, "random"),
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
