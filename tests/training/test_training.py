"""Training: schedule and sampling by hand, clips by search, one step by hand, runs interrupted, resumed and split."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner, Result

from tsmzoo import models, registry
from tsmzoo.cli import app
from tsmzoo.data import dataset, decode, layouts, sampling, transforms
from tsmzoo.data.dataset import Dataset, Video
from tsmzoo.data.encode import encode
from tsmzoo.models.wrappers import ClipModel
from tsmzoo.registry import Entry
from tsmzoo.registry.recipes import Training
from tsmzoo.training import layers, loop, schedule
from tsmzoo.training import train as training_train
from tsmzoo.training.clips import ClipSet
from tsmzoo.weights import checkpoint, key_maps

ZOO = registry.load()
CLASSES = ("red", "blue")
#: An entry's, of a model that nobody published.
NO_FILE: dict[str, Any] = {
    **{"urls": (), "beside": (), "file": None, "format": "tsmzoo"},
    **{"sha256": None, "sha256_prefix": None, "git_blob_sha1": None},
}
STEPS = 3  # of an epoch, where a test does not say otherwise: 24 videos in batches of 8


def made(**changes: Any) -> Training:
    """Return a recipe for the tiny model; it learns in seconds."""
    plain = {
        **{"name": "mine", "model": "tiny", "weights": "random", "epochs": 1, "batch": 8, "lr": 0.05},
        **{"schedule": "cosine", "dropout": 0.0, "scales": (1.0,), "hflip": False},
    }
    return Training(**(plain | changes))


def written(path: Path, **changes: Any) -> str:
    """Write a recipe; what `changes` sets to None is left out."""
    content = {key: value for key, value in (msgspec.to_builtins(made()) | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def record(folder: Path, videos: int, seed: int, classes: tuple[str, ...] | None = CLASSES) -> Path:
    """Write short noisy videos whose colour is their class, and their lists."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    count = len(classes or CLASSES)
    items = []
    for number in range(videos):
        label = number % count
        colour = np.full(3, 60.0)
        colour[2 * label % 3] = 180
        frames = colour + rng.normal(0, 30, (6, 40, 48, 3))
        encode(folder / f"{number} of {videos}.mp4", frames.clip(0, 255).astype(np.uint8), 8)
        items.append((f"{number} of {videos}.mp4", label))
    dataset.write(folder, items, classes or ())
    if classes is None:
        (folder / dataset.LABELS).unlink()
    return folder


@pytest.fixture(scope="module")
def zoo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a registry of tiny models, without weights."""
    changes: dict[str, Any] = {"size": 32, "width": 0.25, "classes": 2, "labels": "colours", "file": "no.safetensors"}
    offline = msgspec.structs.replace(ZOO.find("tsm_mbv2_motion"), **changes, id="tiny", frames=4, results=())
    online = msgspec.structs.replace(ZOO.find("tsm_mbv2_motion_online"), **changes, id="tiny_online", results=())
    changes = {"width": 1.0, "results": (), "sampling": "uniform", "stride": None, "frames": 5}
    small = {"size": 32, "classes": 2, "labels": "colours", **changes}
    volumes = [
        msgspec.structs.replace(ZOO.find(model), **small, id=name, **NO_FILE)
        for name, model in (("tiny_i3d", "i3d_inception_k400_rgb"), ("tiny_i3d_r50", "i3d_r50_k400"))
    ]
    several = msgspec.structs.replace(offline, id="tiny_several", multi_label=True)
    content = {
        "models": [
            {key: value for key, value in msgspec.to_builtins(entry).items() if value is not None}
            for entry in (offline, online, several, *volumes)
        ],
        "labels": {"colours": {"classes": 2, "order": "here", "names": list(CLASSES)}},
    }
    path = tmp_path_factory.mktemp("zoo") / "zoo.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def zoo(zoo_file: Path) -> registry.Registry:
    return registry.load(zoo_file)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("data") / "train", 24, 1)


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("data") / "val", 10, 2)


Train = Callable[..., Result]


@pytest.fixture
def train(zoo_file: Path, data: Path, val: Path, tmp_path: Path) -> Train:
    """Give a function that runs `tsmzoo train` on the tiny model, into tmp_path/out."""

    def run(*more: str, recipe: str | None = None, **changes: Any) -> Result:
        recipe = recipe or written(tmp_path / "mine.yaml", **changes)
        # What comes later overrides.
        options = ["--data", str(data), "--val", str(val), "-o", str(tmp_path / "out"), "--registry", str(zoo_file)]
        return CliRunner().invoke(app, ["train", recipe, *options, *more], prog_name="tsmzoo")

    return run


def fit(zoo: registry.Registry, recipe: Training, data: Path, val: Path, out: Path, stop: int | None = None) -> None:
    """Train, and be interrupted as step `stop` begins."""

    def progress(_: str, done: int, __: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    training_train.train(zoo, recipe, layouts.read(data), layouts.read(val), out, progress=progress, notify=print)


def succeeded(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def assert_fails(result: Result, *words: str) -> None:
    """One line on stderr, `error: …`, nothing on stdout, exit 1."""
    assert isinstance(result.exception, SystemExit), f"a traceback: {result.exception!r}"
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def bits(out: Path) -> dict[str, bytes]:
    """Return the weights that a run left, bit by bit."""
    return {key: tensor.numpy().tobytes() for key, tensor in load_file(out / "model.safetensors").items()}


def timeless(out: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in metrics(out)]


# --- the rate, and what it applies to ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({}, {0: 0.4, 5: 0.2, 10: 0}),
        ({"warmup": 2}, {0: 0, 0.5: 0.1, 1: 0.2, 2: 0.4, 4: 0.2 * (1 + math.sqrt(0.5)), 6: 0.2, 10: 0}),
        ({"schedule": "steps"}, {0: 0.4, 9.99: 0.4}),
        (
            {"schedule": "steps", "steps": (4, 8), "warmup": 1},
            {0: 0, 0.25: 0.1, 1: 0.4, 3.99: 0.4, 4: 0.04, 7.99: 0.04, 8: 0.004, 10: 0.004},
        ),
    ],
    ids=["cosine", "cosine, warm-up", "steps, none", "steps, warm-up"],
)
def test_the_rate_is_as_by_hand(changes: dict[str, Any], rates: dict[float, float]) -> None:
    recipe = made(lr=0.4, epochs=10, **changes)
    assert {epoch: pytest.approx(rate, abs=1e-12) for epoch, rate in rates.items()} == {
        epoch: schedule.learning_rate(recipe, epoch) for epoch in rates
    }


@pytest.mark.parametrize("warmup", [1.0, 2.5])
def test_a_run_may_be_warm_up_alone(warmup: float) -> None:
    recipe = made(lr=0.4, epochs=1, warmup=warmup)
    assert [schedule.learning_rate(recipe, epoch) for epoch in (0, 0.5, 1)] == pytest.approx(
        [0, 0.2 / warmup, 0.4 / warmup]
    )


@pytest.mark.parametrize("partial", [False, True], ids=["all norms", "partial"])
@pytest.mark.parametrize("model", ["tsm_mbv2_motion", "tsm_r50_jester_8f_mm0", "tsm_r50_nl_k400_8f_dense_mit"])
def test_every_learned_parameter_is_in_the_group_it_belongs_to(model: str, partial: bool) -> None:
    net = models.build(ZOO.find(model))
    norms = [name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
    frozen = {f"{norm}.{part}" for norm in norms[1:] for part in ("weight", "bias")} if partial else set()
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    groups = schedule.parameter_groups(net, made(partial_bn=partial, classifier_rate=0.25, weight_decay=0.125))
    found = {
        names[id(parameter)]: (group["scale"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert sum(len(group["params"]) for group in groups) == len(found), "one is in two groups"
    assert found == {
        name: (
            0.25 if name.startswith(("fc.", "classifier.")) else 1.0,
            0.125 if len(parameter.shape) > 1 else 0.0,
        )
        for name, parameter in net.named_parameters()
        if name not in frozen
    }
    assert {name for name, parameter in net.named_parameters() if not parameter.requires_grad} == frozen


def test_the_first_norm_is_that_of_the_first_convolution() -> None:
    for model, first in (("tsm_mbv2_motion", "features.0.1"), ("tsm_r50_jester_8f_mm0", "bn1")):
        net = models.build(ZOO.find(model))
        net.train()
        layers.freeze_batch_norms(net)
        norms = {name: module for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
        assert [name for name, module in norms.items() if module.training] == [first]
        assert len(norms) > 50


# --- sampling ------------------------------------------------------------------------------------------------------

totals = st.integers(1, 3000)
counts = st.integers(1, 64)
strides = st.integers(1, 16)
seeds = st.integers(0, 2**32)


def segments(total: int, count: int) -> Iterator[tuple[Fraction, Fraction]]:
    return ((Fraction(total * index, count), Fraction(total * (index + 1), count)) for index in range(count))


@given(total=totals, count=counts, seed=seeds)
def test_segments_give_one_frame_each(total: int, count: int, seed: int) -> None:
    for chosen in (sampling.centres(total, count), sampling.jittered(total, count, np.random.default_rng(seed))):
        assert len(chosen) == count
        assert chosen == sorted(chosen)
        assert all(0 <= frame < total for frame in chosen)
        # A frame lasts from its index to the next: some of it lies in the segment.
        assert all(
            frame < end and frame + 1 > start
            for frame, (start, end) in zip(chosen, segments(total, count), strict=True)
        )


@given(total=totals, count=counts)
def test_centres_are_in_the_middle(total: int, count: int) -> None:
    for frame, (start, end) in zip(sampling.centres(total, count), segments(total, count), strict=True):
        assert abs((start + end) / 2 - frame) <= 1 + Fraction(1, 10**9)


@given(total=totals, count=counts, stride=strides, seed=seeds)
def test_a_window_is_evenly_spaced_and_starts_anew_where_the_video_ends(
    total: int, count: int, stride: int, seed: int
) -> None:
    for rng in (None, np.random.default_rng(seed)):
        chosen = sampling.window(total, count, stride, rng)
        assert len(chosen) == count
        assert all(0 <= frame < total for frame in chosen)
        assert all((b - a - stride) % total == 0 for a, b in itertools.pairwise(chosen))
        if stride * count <= total:
            assert chosen == list(range(chosen[0], chosen[0] + stride * count, stride))
        else:
            assert chosen[0] == 0


@given(total=totals, count=counts, stride=st.none() | strides, seed=seeds)
def test_a_clip_is_drawn_by_its_seed_alone(total: int, count: int, stride: int | None, seed: int) -> None:
    one, two = (sampling.clip(total, count, stride, np.random.default_rng(seed)) for _ in range(2))
    assert one == two
    assert sampling.clip(total, count, stride) == (
        sampling.centres(total, count) if stride is None else sampling.window(total, count, stride)
    )


def test_sampling_is_as_by_hand() -> None:
    assert sampling.centres(16, 8) == [1, 3, 5, 7, 9, 11, 13, 15]
    assert sampling.centres(10, 4) == [1, 3, 6, 8]  # 1.25, 3.75, 6.25, 8.75
    assert sampling.centres(3, 8) == [0, 0, 0, 1, 1, 2, 2, 2]  # 0.1875 and every 0.375
    assert sampling.window(20, 4, 3) == [5, 8, 11, 14]  # from first to last 10 of 20 frames, 10 to spare
    assert sampling.window(5, 4, 2) == [0, 2, 4, 1]
    assert sampling.window(1, 3, 2) == [0, 0, 0]


def test_every_frame_of_a_segment_and_every_place_of_a_window_is_drawn() -> None:
    drawn = [sampling.jittered(6, 3, np.random.default_rng(seed)) for seed in range(60)]
    assert {tuple(clip) for clip in drawn} == {(a, b, c) for a in (0, 1) for b in (2, 3) for c in (4, 5)}
    starts = [sampling.window(10, 3, 2, np.random.default_rng(seed))[0] for seed in range(60)]
    assert set(starts) == {0, 1, 2, 3, 4, 5}


# --- clips ---------------------------------------------------------------------------------------------------------

#: A clip of 28 px comes from a short side of 32 px, which the videos below have: nothing is resized but crops.
SIDE, SIZE, LENGTH = 32, 28, 8  # 32 is the short side for 28
CLIP = msgspec.structs.replace(ZOO.find("tsm_mbv2_motion"), size=SIZE)


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Give videos in which no two squares are alike."""
    folder = tmp_path_factory.mktemp("textures")
    rng = np.random.default_rng(3)
    for number, width in enumerate((SIDE, SIDE + 8)):
        encode(folder / f"{number}.mp4", rng.integers(0, 256, (LENGTH, SIDE, width, 3), np.uint8), 8)
    dataset.write(folder, [("0.mp4", 1), ("1.mp4", 0)], CLASSES)
    return layouts.read(folder)


def shown(clips: ClipSet, index: int, epoch: int = 0) -> np.ndarray:
    """Return clip `index` of an epoch as T, H, W, C."""
    clips.epoch = epoch
    pixels, label = clips[index]
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (clips.frames, 3, clips.entry.size, clips.entry.size)
    assert label == clips.videos.videos[index].label
    return pixels.numpy().transpose(0, 2, 3, 1)


def read(listed: Video) -> np.ndarray:
    """Return all frames of a video, T, H, W, C, their short side at SIDE."""
    return np.stack([transforms.resized(np.asarray(image), SIDE, "mit") for _, image in decode.decode(listed.path)])


def scaled(square: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(square).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def located(clip: np.ndarray, pictures: np.ndarray, side: int) -> tuple[list[int], int, int]:
    """Search squares of `side` for those that the clip shows; return frames, top and left, which all share."""
    found = [
        [
            (index, top, left)
            for index, picture in enumerate(pictures)
            for top in range(picture.shape[0] - side + 1)
            for left in range(picture.shape[1] - side + 1)
            if np.array_equal(scaled(picture[top : top + side, left : left + side]), frame)
        ]
        for frame in clip
    ]
    assert all(len(matches) == 1 for matches in found), found
    places = {(top, left) for [(_, top, left)] in found}
    assert len(places) == 1, "the frames of a clip are cropped alike"
    return [index for [(index, _, _)] in found], *places.pop()


def test_the_middle_clip_is_what_a_deployed_model_is_given(textures: Dataset) -> None:
    for stride, chosen in ((None, [1, 3, 5, 7]), (2, [0, 2, 4, 6]), (1, [2, 3, 4, 5])):
        clips = ClipSet(textures, msgspec.structs.replace(CLIP, stride=stride), 4)
        assert len(clips) == 2
        for index, listed in enumerate(textures.videos):
            images = [image for _, image in decode.decode(listed.path)]
            wanted = np.stack([transforms.prepared(images[frame], SIDE, SIZE) for frame in chosen])
            np.testing.assert_array_equal(clips[index][0].numpy(), wanted)


def test_a_crop_is_one_square_of_frames_one_a_segment(textures: Dataset) -> None:
    pictures = read(textures.videos[1])
    for scale, side in ((0.875, 28), (0.5, 16)):
        clips = ClipSet(textures, CLIP, 2, drawn=made(scales=(scale,)))
        frames, _, _ = located(shown(clips, 1), pictures, side)
        assert 0 <= frames[0] < LENGTH // 2 <= frames[1] < LENGTH


def test_crops_reach_every_edge(textures: Dataset) -> None:
    pictures = read(textures.videos[1])
    clips = ClipSet(textures, CLIP, 1, drawn=made(scales=(0.875,)))
    places = [located(shown(clips, 1, epoch), pictures, 28)[1:] for epoch in range(30)]
    assert {top for top, _ in places} == set(range(5))
    assert {0, 12} <= {left for _, left in places} <= set(range(13))


def test_a_crop_of_scale_one_is_all_of_a_square_video(textures: Dataset) -> None:
    pictures = [scaled(picture) for picture in read(textures.videos[0])]
    clips = ClipSet(textures, CLIP, 4, drawn=made())
    for first, frame in enumerate(shown(clips, 0)):
        assert any(np.array_equal(frame, picture) for picture in pictures[2 * first : 2 * first + 2])


def test_each_of_several_scales_is_drawn(textures: Dataset) -> None:
    clips = ClipSet(textures, CLIP, 1, drawn=made(scales=(1.0, 0.5)))
    pictures = {scaled(picture).tobytes() for picture in read(textures.videos[0])}
    assert 10 < sum(shown(clips, 0, epoch)[0].tobytes() in pictures for epoch in range(40)) < 30


@pytest.mark.parametrize("hflip", [False, True])
def test_clips_are_mirrored_where_the_recipe_says_so(textures: Dataset, hflip: bool) -> None:
    pictures = [scaled(picture) for picture in read(textures.videos[0])]
    clips = ClipSet(textures, CLIP, 2, drawn=made(hflip=hflip))
    mirrored = 0
    for epoch in range(40):
        clip = shown(clips, 0, epoch)
        as_is, mirror = (
            all(any(np.array_equal(frame, picture) for picture in pictures) for frame in way)
            for way in (clip, clip[:, :, ::-1])
        )
        assert as_is != mirror
        mirrored += mirror
    assert 10 < mirrored < 30 if hflip else mirrored == 0


def test_seed_epoch_and_index_give_the_clip(textures: Dataset) -> None:
    twice = Dataset(textures.videos * 2, textures.classes, textures.list_sha256)
    recipes = [made(scales=(0.875, 0.7), hflip=True, seed=seed) for seed in (0, 0, 1)]
    clips = [ClipSet(twice, CLIP, 4, drawn=recipe) for recipe in recipes]
    drawn = [
        {(epoch, index): shown(of, index, epoch).tobytes() for epoch, index in order}
        for of, order in zip(
            clips,
            # The order in which they are asked for is of no account.
            (
                [(epoch, index) for epoch in range(3) for index in range(4)],
                [(epoch, index) for index in (3, 1, 0, 2) for epoch in (2, 0, 1)],
                [(epoch, index) for epoch in range(3) for index in range(4)],
            ),
            strict=True,
        )
    ]
    assert drawn[0] == drawn[1]
    # Another epoch, another index of the same video, another seed: another clip.
    assert len({*drawn[0].values(), *drawn[2].values()}) == 24


def test_in_memory_and_from_disk_are_the_same(textures: Dataset) -> None:
    for recipe in (None, made(scales=(0.8, 0.5), hflip=True)):
        streamed, kept = (ClipSet(textures, CLIP, 3, drawn=recipe) for _ in range(2))
        progress = Mock()
        kept.decode(progress)
        assert [call.args[1:] for call in progress.call_args_list] == [(1, 2), (2, 2)]
        for epoch in range(4):
            for index in range(2):
                np.testing.assert_array_equal(shown(streamed, index, epoch), shown(kept, index, epoch))


# --- the loop ------------------------------------------------------------------------------------------------------


def test_two_colours_are_learned(train: Train, tmp_path: Path) -> None:
    # Frozen norms, since all others' statistics lag a few dozen steps behind.
    changes: dict[str, Any] = {"epochs": 6, "lr": 0.005, "warmup": 0.5, "seed": 2}
    document = json.loads(succeeded(train("--json", **changes, partial_bn=True, dropout=0.2, frames=2)))
    out = tmp_path / "out"
    lines = metrics(out)
    assert document["val_top1"] == lines[-1]["val_top1"] == 100
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert document["weights_sha256"] == hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    # A line a step, since an epoch has three; the rate is the schedule's, top-1 on --val stands where an epoch ends.
    moments = [epoch + step / STEPS for epoch in range(6) for step in (1, 2, 3)]
    assert [line["epoch"] for line in lines] == pytest.approx(moments, abs=1e-3)
    recipe = made(**changes)
    assert [line["lr"] for line in lines] == pytest.approx([schedule.learning_rate(recipe, epoch) for epoch in moments])
    assert ["val_top1" in line for line in lines] == [False, False, True] * 6
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)


def test_an_epoch_leaves_ten_lines(train: Train, tmp_path: Path) -> None:
    succeeded(train(batch=2, frames=2))
    lines = metrics(tmp_path / "out")
    assert len(lines) == 10
    assert lines[-1]["epoch"] == 1
    # 12 steps in 10 lines: of one step or two, on two clips each.
    assert {line["top1"] for line in lines} <= {0, 25, 50, 75, 100}


def test_one_step_is_as_by_hand(zoo: registry.Registry, data: Path, val: Path, tmp_path: Path) -> None:
    recipe = made(batch=24, lr=0.1, weight_decay=0.02, classifier_rate=0.5, clip_gradient=0.3, seed=3, partial_bn=True)
    fit(zoo, recipe, data, val, tmp_path)
    entry, videos = zoo.find("tiny"), layouts.read(data)
    net = models.build(entry, seed=3)
    start = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    form = ClipModel(net, entry.frames).train()
    # Else 50 norms over small batches blow the rounding errors up to a tenth of the first layer's gradient.
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms[1:]:
        norm.eval()
        norm.weight.requires_grad_(False)
        norm.bias.requires_grad_(False)
    net.get_submodule("classifier.0").p = 0
    clips = ClipSet(videos, entry, entry.frames, drawn=recipe)
    pixels = torch.stack([clips[index][0] for index in range(24)]).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    log_p = form((pixels - mean) / std).log_softmax(1)
    loss = -log_p[torch.arange(24), [listed.label for listed in videos.videos]].mean()
    loss.backward()
    learned = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    length = math.sqrt(sum(float(parameter.grad.square().sum()) for parameter in learned.values()))
    assert length > 0.3, "the test is to see the gradient clipped"
    after = load_file(tmp_path / "model.safetensors")
    for name, parameter in learned.items():
        decay = 0.02 * start[name] if parameter.dim() > 1 else 0
        rate = 0.05 if name.startswith("classifier") else 0.1
        change = -rate * (parameter.grad * 0.3 / length + decay)
        slack = 0.01 * float(change.abs().max()) + 1e-6
        torch.testing.assert_close(after[name] - start[name], change, rtol=0.01, atol=slack, msg=name)
    assert metrics(tmp_path)[0]["loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_frozen_norms_stay_and_the_first_moves(zoo: registry.Registry, data: Path, val: Path, tmp_path: Path) -> None:
    before = models.build(zoo.find("tiny"), seed=0).state_dict()
    after = {}
    for partial in (True, False):
        fit(zoo, made(epochs=2, partial_bn=partial), data, val, tmp_path / str(partial))
        after[partial] = load_file(tmp_path / str(partial) / "model.safetensors")
    norms = [key.removesuffix("running_mean") for key in before if key.endswith("running_mean")]
    of_norms = {norm + part for norm in norms for part in ("weight", "bias", "running_mean", "running_var")}
    for partial, moved in ((True, {key for key in of_norms if key.startswith(norms[0])}), (False, of_norms)):
        assert {key for key in of_norms if not torch.equal(before[key], after[partial][key])} == moved
        others = after[partial].keys() - of_norms
        assert not any(torch.equal(before[key], after[partial][key]) for key in others)


@pytest.mark.parametrize("partial", [False, True])
def test_an_interrupted_run_ends_as_one_that_was_not(
    zoo: registry.Registry, data: Path, val: Path, tmp_path: Path, partial: bool
) -> None:
    recipe = made(epochs=2, dropout=0.5, scales=(1.0, 0.7), hflip=True, warmup=0.5, partial_bn=partial, frames=2)
    one, two, stopped = (tmp_path / name for name in ("one", "two", "stopped"))
    fit(zoo, recipe, data, val, one)
    fit(zoo, recipe, data, val, two)
    with pytest.raises(KeyboardInterrupt):
        fit(zoo, recipe, data, val, stopped, stop=STEPS + 2)
    assert len(metrics(stopped)) == STEPS + 2, "the epoch that was begun left lines"
    assert not (stopped / "model.safetensors").exists()
    with pytest.raises(KeyboardInterrupt):  # and once more, as the epoch begins anew
        fit(zoo, recipe, data, val, stopped, stop=STEPS)
    fit(zoo, recipe, data, val, stopped)
    weights = [(out / "model.safetensors").read_bytes() for out in (one, two, stopped)]
    assert weights[0] == weights[1] == weights[2]
    assert timeless(one) == timeless(two) == timeless(stopped)
    assert len(timeless(one)) == 2 * STEPS
    seconds = [line["seconds"] for line in metrics(stopped)]
    assert seconds == sorted(seconds)


def test_the_same_weights_are_the_same_bytes(zoo: registry.Registry, tmp_path: Path) -> None:
    net = models.build(zoo.find("tiny"), seed=0)
    files = set()
    for _ in range(20):
        checkpoint.save(net, zoo.find("tiny"), tmp_path / "w.safetensors")
        files.add((tmp_path / "w.safetensors").read_bytes())
    assert len(files) == 1


def test_another_seed_is_another_run(zoo: registry.Registry, data: Path, val: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        fit(zoo, made(seed=seed, frames=1), data, val, tmp_path / str(seed))
    zero, one = (bits(tmp_path / str(seed)) for seed in (0, 1))
    assert not any(zero[key] == one[key] for key in zero)


def test_a_finished_run_is_not_run_again(zoo: registry.Registry, data: Path, val: Path, tmp_path: Path) -> None:
    fit(zoo, made(frames=1), data, val, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("model.safetensors", "registry.yaml", "metrics.jsonl", "last.pt")
    }
    left, before = [(tmp_path / name).read_bytes() for name in ("metrics.jsonl", "last.pt")], bits(tmp_path)
    fit(zoo, made(frames=1), data, val, tmp_path, stop=0)  # no step begins
    assert [(tmp_path / name).read_bytes() for name in ("metrics.jsonl", "last.pt")] == left
    assert bits(tmp_path) == before


@pytest.mark.slow
def test_workers_and_memory_change_nothing(zoo: registry.Registry, data: Path, val: Path, tmp_path: Path) -> None:
    results = []
    for name, changes in (("plain", {}), ("workers", {"workers": 1}), ("memory", {"in_memory": True})):
        recipe = made(epochs=2, hflip=True, scales=(1.0, 0.7), dropout=0.5, **changes)
        fit(zoo, recipe, data, val, tmp_path / name)
        results.append((bits(tmp_path / name), timeless(tmp_path / name)))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(("model", "partial"), [("tiny_i3d", False), ("tiny_i3d_r50", True)])
def test_an_inflated_network_is_trained_and_measured(
    train: Train, val: Path, tmp_path: Path, model: str, partial: bool
) -> None:
    succeeded(train(model=model, partial_bn=partial, lr=0.002))
    out = tmp_path / "out"
    before = models.build(entry_of(out), seed=0).state_dict()
    after = load_file(out / "model.safetensors")
    norms = [key.removesuffix("running_mean") for key in before if key.endswith("running_mean")]
    statistics = {norm + part for norm in norms for part in ("running_mean", "running_var")}
    moved = {key for key in statistics if not torch.equal(before[key], after[key])}
    assert moved == ({key for key in statistics if key.startswith(norms[0])} if partial else statistics)
    assert not any(torch.equal(before[key], after[key]) for key in after if after[key].dim() == 5)
    options = ["--data", str(val), "--registry", str(out / "registry.yaml"), "--json"]
    measured = json.loads(succeeded(CliRunner().invoke(app, ["eval", "mine", *options])))
    assert measured["top1"] == metrics(out)[-1]["val_top1"]
    assert entry_of(out).params == sum(tensor.numel() for key, tensor in after.items() if key not in statistics)


def test_a_clip_too_short_for_a_network_is_one_line(train: Train) -> None:
    assert_fails(train(model="tiny_i3d_r50", frames=4), "5 frames at least", "not of 4")


def test_validation_takes_as_many_clips_as_their_frames_allow(
    zoo: registry.Registry, data: Path, val: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Mock(wraps=loop.batches)
    monkeypatch.setattr(loop, "batches", batches)
    monkeypatch.setattr(loop, "_FRAMES", 12)
    for frames, size in ((4, 3), (16, 1)):
        fit(zoo, made(frames=frames), data, val, tmp_path / str(frames))
        assert batches.call_args.args[1] == size
        assert len(batches.call_args.args[2]) == 10


def test_a_model_of_several_classes_a_video_is_trained_to_one(train: Train, val: Path, tmp_path: Path) -> None:
    succeeded(train(model="tiny_several"))
    assert not entry_of(tmp_path / "out").multi_label
    options = ["--data", str(val), "--registry", str(tmp_path / "out" / "registry.yaml"), "--json"]
    assert json.loads(succeeded(CliRunner().invoke(app, ["eval", "mine", *options])))["videos"] == 10


# --- what training starts from and leaves --------------------------------------------------------------------------


@pytest.fixture
def base(zoo: registry.Registry, tmp_path: Path) -> Path:
    """Give weights of the tiny model, as training leaves them."""
    path = tmp_path / "base.safetensors"
    checkpoint.save(models.build(zoo.find("tiny"), seed=77), zoo.find("tiny"), path)
    return path


#: Nothing moves but the statistics of the first norm: what is left is what training started from.
STILL = {"lr": 1e-30, "partial_bn": True, "weight_decay": 0.0, "frames": 2}


def kept(base: Path, out: Path) -> dict[str, bool]:
    """Say of each tensor but the first norm's statistics whether it is the one of `base`."""
    before, after = load_file(base), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    return {
        key: before[key].shape == tensor.shape and torch.allclose(before[key], tensor, rtol=0, atol=1e-20)
        for key, tensor in after.items()
        if not key.startswith("features.0.1.running")
    }


CLASSIFIER = {"classifier.1.weight", "classifier.1.bias"}


def test_the_same_classes_keep_the_classifier(train: Train, base: Path, tmp_path: Path) -> None:
    succeeded(train(weights=str(base), **STILL))
    assert all(kept(base, tmp_path / "out").values())


@pytest.mark.parametrize("classes", [("yes", "café: №1", "c"), ("blue", "red"), None], ids=["three", "order", "none"])
def test_other_classes_replace_the_classifier_alone(
    train: Train, base: Path, tmp_path: Path, classes: tuple[str, ...] | None
) -> None:
    folders = [str(record(tmp_path / name, 9, seed, classes)) for seed, name in enumerate(("a", "b"))]
    for seed in (0, 1):
        out = tmp_path / f"seed {seed}"
        where = ("--data", folders[0], "--val", folders[1], "-o", str(out))
        succeeded(train(*where, weights=str(base), seed=seed, **STILL))
        assert {key for key, same in kept(base, out).items() if not same} >= {"classifier.1.weight"}
        assert {key for key, same in kept(base, out).items() if not same} <= CLASSIFIER
    new = load_file(tmp_path / "seed 0" / "model.safetensors")
    count = len(classes or CLASSES)
    assert new["classifier.1.weight"].shape == (count, 1280)
    assert new["classifier.1.weight"].std() == pytest.approx(0.01, rel=0.1)
    assert not torch.equal(
        new["classifier.1.weight"], load_file(tmp_path / "seed 1" / "model.safetensors")["classifier.1.weight"]
    )
    trained = registry.load(tmp_path / "seed 0" / "registry.yaml")
    assert trained.label_names(trained.find("mine")) == (classes or ("class 0", "class 1"))


def entry_of(out: Path) -> Entry:
    """Return the trained model's entry from the registry it left, which must do without any other."""
    return registry.load(out / "registry.yaml").find("mine")


@pytest.mark.parametrize(
    ("model", "frames"),
    [
        ("tiny", None),
        ("tiny_online", 8),
        ("tiny", 2),
    ],
    ids=["offline", "online", "other frames"],
)
def test_eval_gives_what_training_measured(
    train: Train, val: Path, tmp_path: Path, model: str, frames: int | None
) -> None:
    # So few steps that some answers are wrong, and most of them by a little.
    succeeded(train(model=model, frames=frames, lr=0.002, batch=24, epochs=2))
    last = metrics(tmp_path / "out")[-1]
    assert entry_of(tmp_path / "out").frames == (1 if model == "tiny_online" else frames or 4)
    options = ["--data", str(val), "--registry", str(tmp_path / "out" / "registry.yaml"), "--json"]
    measured = json.loads(succeeded(CliRunner().invoke(app, ["eval", "mine", *options])))
    assert measured["top1"] == last["val_top1"]
    assert measured["videos"] == 10
    digest = hashlib.sha256((tmp_path / "out" / "model.safetensors").read_bytes()).hexdigest()
    assert measured["weights_sha256"] == digest


def test_the_model_is_one_of_its_registry(train: Train, tmp_path: Path) -> None:
    said = succeeded(train(frames=2))
    out = tmp_path / "out"
    assert "mine" in said
    assert str(out / "registry.yaml") in said
    entry = entry_of(out)
    net = models.build(entry)
    weights = load_file(out / "model.safetensors")
    assert entry.params == sum(parameter.numel() for parameter in net.parameters())
    assert {key: tensor.shape for key, tensor in weights.items()} == {
        key: tensor.shape for key, tensor in net.state_dict().items() if not key_maps.is_counter(key)
    }
    options = ["--registry", str(out / "registry.yaml"), "--json"]
    card = json.loads(succeeded(CliRunner().invoke(app, ["info", "mine", *options])))
    assert card["labels"]["names"] == list(CLASSES)
    assert card["file"] == {"path": str(out / "model.safetensors"), "cached": True, "max_bytes": entry.max_bytes}
    assert card["sha256"] == hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    assert "mine" in [row["id"] for row in json.loads(succeeded(CliRunner().invoke(app, ["list", *options])))]
    cost = json.loads(succeeded(CliRunner().invoke(app, ["flops", "mine", *options])))
    assert cost["gmacs_per_clip"] == pytest.approx(entry.gmacs, rel=1e-3)


def test_a_normalisation_of_the_users_own_goes_along(train: Train, zoo_file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(zoo_file.read_text(encoding="utf-8"))
    about = {"order": "RGB", "mean": [0.2, 0.2, 0.2], "std": [0.9, 0.9, 0.9], "about": "ours"}
    content["normalisations"] = {"ours": about}
    content["models"][0]["normalisation"] = "ours"
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(content), encoding="utf-8")
    succeeded(train("--registry", str(own), frames=1))
    assert entry_of(tmp_path / "out").normalisation == "ours"


def test_the_files_of_the_base_are_not_those_of_the_model(train: Train, zoo_file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(zoo_file.read_text(encoding="utf-8"))
    del content["models"][0]["file"]
    published = {"urls": ["https://example.org/base.data"], "beside": ["base.index"], "git_blob_sha1": "0" * 40}
    content["models"][0] |= published
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(content), encoding="utf-8")
    succeeded(train("--registry", str(own), frames=1))
    entry = entry_of(tmp_path / "out")
    assert (entry.urls, entry.beside, entry.git_blob_sha1) == ((), (), None)
    assert entry.filename == "model.safetensors"


def test_an_image_network_is_given_a_shift_and_a_classifier(
    train: Train, zoo: registry.Registry, tmp_path: Path
) -> None:
    """Of no rate worth the name, training keeps what it starts from."""
    image = msgspec.structs.replace(zoo.find("tiny"), family="tsn", classes=1000)
    state = {key: tensor.clone() for key, tensor in models.build(image, seed=9).state_dict().items()}
    folder = tmp_path / "of mine"
    folder.mkdir()
    torch.save(state, folder / "image.pth")
    succeeded(train(weights=str(folder / "image.pth"), lr=1e-9, partial_bn=True))
    after = load_file(tmp_path / "out" / "model.safetensors")
    head = {"classifier.1.weight", "classifier.1.bias"}
    first = {key for key in after if key.startswith("features.0.1.")}  # its batch norm is not frozen
    for key in after.keys() - head - first:
        torch.testing.assert_close(after[key], state[key], rtol=0, atol=1e-6, msg=key)
    assert after["classifier.1.weight"].shape == (2, 1280)
    entry = entry_of(tmp_path / "out")
    assert (entry.shift, entry.pretrain) == ("bidirectional", "image.pth")
    assert entry.licence == "yours, on the weights in image.pth"
    assert "of mine" not in (tmp_path / "out" / "registry.yaml").read_text(encoding="utf-8")


def test_a_start_that_is_no_start_is_one_line(train: Train, tmp_path: Path) -> None:
    assert_fails(train(weights=str(tmp_path / "none.pth")), "none.pth", "does not exist")
    other = models.build(
        msgspec.structs.replace(ZOO.find("tsm_r50_k400_8f"), family="tsn", backbone="resnet18"), seed=0
    )
    torch.save(other.state_dict(), tmp_path / "resnet18.pth")
    assert_fails(train(weights=str(tmp_path / "resnet18.pth")), "resnet18", "mobilenet_v2")


@pytest.mark.parametrize("name", ["motion", "tsmzoo", "tsm_r50_jester"], ids=["labels", "source", "alias"])
def test_a_name_that_means_something_else_already_is_refused_or_does_no_harm(
    train: Train, tmp_path: Path, name: str
) -> None:
    result = train(name=name, frames=1)
    if result.exit_code:
        assert_fails(result, name)
        assert not (tmp_path / "out" / "last.pt").exists(), "it was trained in vain"
        return
    left = registry.load(tmp_path / "out" / "registry.yaml")
    assert left.find(name).file == str(tmp_path / "out" / "model.safetensors")
    for entry in ZOO.models:
        assert left.find(entry.id) == entry
        assert left.sources[entry.source] == ZOO.sources[entry.source]
        assert left.labels[entry.labels] == ZOO.labels[entry.labels]


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 0.1}, ("mine.yaml", "learning_rate")),
        ({"lr": None}, ("mine.yaml", "lr")),
        ({"lr": "fast"}, ("mine.yaml", "lr")),
        ({"lr": 0}, ("mine.yaml", "lr")),
        ({"scales": []}, ("mine.yaml", "scales")),
        ({"scales": [1.5]}, ("mine.yaml", "scales")),
        ({"name": "../mine"}, ("mine.yaml", "name")),
        ({"model": "tinny"}, ("tinny", "tiny")),
        ({"model": "tsm_r50_k400_flow"}, ("tsm_r50_k400_flow", "flow")),
        ({"model": "tiny_online"}, ("tiny_online", "frames")),
        ({"batch": 25}, ("24 videos", "25", "batch")),
        ({"weights": "nowhere.pth"}, ("nowhere.pth",)),
        ({"lr": 1e30}, ("loss", "lr")),
    ],
    ids=lambda value: ",".join(f"{key}={word}" for key, word in value.items()) if isinstance(value, dict) else "",
)
def test_a_recipe_that_is_not_possible_is_one_line(
    train: Train, tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    assert_fails(train(**changes), *words)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_recipe_or_list_that_is_missing_is_one_line(train: Train, tmp_path: Path) -> None:
    assert_fails(train(recipe="no_such_recipe"), "no_such_recipe")
    for option in ("--data", "--val"):
        assert_fails(train(option, str(tmp_path / "nowhere")), "nowhere", "no folder")
    for option in ("--list", "--val-list"):
        assert_fails(train(option, str(tmp_path / "no.txt")), "no.txt")
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    assert_fails(train("--list", str(tmp_path / "empty.txt")), "empty.txt", "no video")


def test_the_classes_of_both_lists_must_be_the_same(train: Train, tmp_path: Path) -> None:
    assert_fails(train("--val", str(record(tmp_path / "other", 2, 5, ("blue", "red")))), "classes")


def test_a_list_in_place_of_the_folders_own_is_the_one_trained_on(train: Train, data: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    lines = (data / "annotations.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    short.write_text("".join(lines[:6]), encoding="utf-8")
    assert_fails(train("--list", str(short)), "6 videos")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"in_memory": True}, marks=pytest.mark.slow),
        {"workers": 1},
    ],
    ids=str,
)
def test_a_video_that_is_missing_is_one_line(train: Train, data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    lines = (data / "annotations.txt").read_text(encoding="utf-8") + "gone.mp4 0\n"
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8")
    assert_fails(train("--list", str(tmp_path / "list.txt"), batch=25, frames=1, **changes), "gone.mp4")


def test_a_folder_that_cannot_be_made_is_one_line(train: Train, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert_fails(train("-o", str(tmp_path / "file" / "out")), "file/out", "-o")
    assert_fails(train("-o", str(tmp_path / "file")), "-o")


# --- resuming from what does not fit -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(
    zoo: registry.Registry, data: Path, val: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Give the files of a finished run."""
    out = tmp_path_factory.mktemp("finished")
    fit(zoo, made(frames=1), data, val, out)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def put(out: Path, files: dict[str, bytes]) -> None:
    out.mkdir(exist_ok=True)
    for name, content in files.items():
        (out / name).write_bytes(content)


def test_a_run_of_another_recipe_or_list_is_left_alone(
    train: Train, finished: dict[str, bytes], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    put(out, finished)
    shuffled = tmp_path / "shuffled.txt"
    lines = (data / "annotations.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    shuffled.write_text("".join(reversed(lines)), encoding="utf-8")
    assert_fails(train(frames=1, seed=1), str(out), "another recipe")
    assert_fails(train(frames=1, epochs=2), str(out), "another recipe")
    assert_fails(train("--list", str(shuffled), frames=1), str(out), "list")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == finished
    succeeded(train(frames=1))


def saved(content: Any, path: Path) -> bytes:
    torch.save(content, path)
    return path.read_bytes()


@pytest.mark.parametrize(
    "how",
    [
        *("empty", "text", "cut", "other keys", "other tensors", "a list"),
    ],
)
def test_a_damaged_state_is_one_line(train: Train, finished: dict[str, bytes], tmp_path: Path, how: str) -> None:
    whole, scratch = finished["last.pt"], tmp_path / "scratch.pt"
    if how == "other tensors":
        put(tmp_path, {"scratch.pt": whole})
        content = torch.load(scratch, weights_only=True)
        content["net"] = {"classifier.1.bias": torch.zeros(3)}
    damaged = {
        "empty": lambda: b"",
        "text": lambda: b"not a state\n",
        "cut": lambda: whole[: len(whole) // 2],
        "a list": lambda: saved([1, 2], scratch),
        "other keys": lambda: saved({"epoch": 1}, scratch),
        "other tensors": lambda: saved(content, scratch),
    }[how]()
    put(tmp_path / "out", finished | {"last.pt": damaged})
    assert_fails(train(frames=1), str(tmp_path / "out"), "last.pt")


@pytest.mark.parametrize(
    "damaged",
    [
        *(None, b"{", b"\xff\n", b"", b"3\n", b"{}\n"),
    ],
    ids=str,
)
def test_damaged_metrics_are_one_line(
    train: Train, finished: dict[str, bytes], tmp_path: Path, damaged: bytes | None
) -> None:
    put(tmp_path / "out", finished | {"metrics.jsonl": damaged or b""})
    if damaged is None:
        (tmp_path / "out" / "metrics.jsonl").unlink()
    assert_fails(train(frames=1), str(tmp_path / "out"), "metrics.jsonl")


# --- several processes ---------------------------------------------------------------------------------------------


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module or script in two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture
def alike(tmp_path: Path) -> Path:
    """Give eight copies of one still picture, of which the first of two processes gets those of one class.

    Its first batch norm, which no recipe freezes, sees the same in half a batch as in all of it.
    """
    folder = record(tmp_path / "alike", 1, 4)
    frames = np.repeat(np.random.default_rng(5).integers(0, 256, (1, 40, 40, 3), np.uint8), 4, axis=0)
    order = np.random.default_rng([0, 0]).permutation(8)  # of seed 0, epoch 0
    for number in range(8):
        encode(folder / f"{number}.mp4", frames, 8)
    ones = {order[1], order[3], order[5]}  # all but one of the second process's
    dataset.write(folder, [(f"{number}.mp4", int(number in ones)) for number in range(8)], CLASSES)
    return folder


@pytest.mark.slow
def test_two_processes_take_the_step_of_one(train: Train, alike: Path, zoo_file: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"partial_bn": True, "lr": 0.5, "weight_decay": 0.0}
    one, two = tmp_path / "out", tmp_path / "two"
    lists = ["--data", str(alike), "--val", str(shutil.copytree(alike, tmp_path / "copies"))]
    succeeded(train(*lists, **changes))
    recipe = written(tmp_path / "mine.yaml", **changes)
    options = [*lists, "-o", str(two), "--registry", str(zoo_file)]
    done = torchrun("-m", "tsmzoo", "train", recipe, *options, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["val_top1"] == metrics(two)[-1]["val_top1"], "one of the two speaks"
    before = models.build(registry.load(zoo_file).find("tiny"), seed=0).state_dict()
    after = [load_file(out / "model.safetensors") for out in (one, two)]
    for key, tensor in after[0].items():
        if "running_var" in key:  # unbiased: it depends on how many there are
            continue
        step, same = tensor - before[key], after[1][key] - before[key]
        torch.testing.assert_close(same, step, rtol=0.01, atol=0.01 * float(step.abs().max()) + 1e-6, msg=key)
    moved = after[0]["classifier.1.bias"] - before["classifier.1.bias"]
    assert moved.abs().min() > 0.01
    for [alone], [both] in [(timeless(one), timeless(two))]:
        assert both["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        assert (both["epoch"], both["val_top1"]) == (1, alone["val_top1"])


PROBE = """
import os, sys
import torch
from tsmzoo.cli import main
from tsmzoo.training import loop

measure = loop.validate

def probe(model, *rest):
    torch.save(model.state_dict(), os.path.join(sys.argv[sys.argv.index("-o") + 1], os.environ["RANK"] + ".pt"))
    return measure(model, *rest)

loop.validate = probe
main()
"""


@pytest.mark.slow
def test_both_processes_measure_the_network_that_is_kept(zoo_file: Path, data: Path, val: Path, tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE, encoding="utf-8")
    recipe, out = written(tmp_path / "mine.yaml", epochs=2), tmp_path / "out"
    options = ["--data", str(data), "--val", str(val), "-o", str(out), "--registry", str(zoo_file)]
    done = torchrun(str(tmp_path / "probe.py"), "train", recipe, *options)
    assert done.returncode == 0, done.stderr
    lines = metrics(out)
    assert [line["epoch"] for line in lines] == pytest.approx([step / 3 for step in range(1, 7)], abs=1e-3)
    saved = load_file(out / "model.safetensors")
    for rank in range(2):
        measured = torch.load(out / f"{rank}.pt", weights_only=True)
        assert [k for k, tensor in saved.items() if not torch.equal(tensor, measured[f"backbone.{k}"])] == []
    options = ["--data", str(val), "--registry", str(out / "registry.yaml"), "--json"]
    measured = json.loads(succeeded(CliRunner().invoke(app, ["eval", "mine", *options])))
    assert measured["top1"] == lines[-1]["val_top1"]


# --- batch norms ---------------------------------------------------------------------------------------------------


def test_settled_batch_norms_hold_the_mean_of_all_batches() -> None:
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3, momentum=0.1), torch.nn.Dropout(0.5))
    batches = [torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) + seed for seed in range(4)]
    layers.recompute_bn_stats(net, net, iter(batches))
    norm = net[0]
    assert torch.allclose(
        norm.running_mean, torch.stack([clips.mean((0, 2, 3)) for clips in batches]).mean(0), atol=1e-6
    )
    assert torch.allclose(norm.running_var, torch.stack([clips.var((0, 2, 3)) for clips in batches]).mean(0), atol=1e-5)
    assert norm.momentum == 0.1
