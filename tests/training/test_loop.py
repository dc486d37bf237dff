"""The training loop."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner, Result

from tsmzoo import models, registry
from tsmzoo.cli import app
from tsmzoo.data import layouts
from tsmzoo.models.wrappers import ClipModel
from tsmzoo.training import loop, schedule
from tsmzoo.training.clips import ClipSet
from tsmzoo.weights import checkpoint

STEPS = 3  # of an epoch, where a test does not say otherwise: 24 videos in batches of 8


Train = Callable[..., Result]


def bits(out: Path) -> dict[str, bytes]:
    """Return the weights that a run left, bit by bit."""
    return {key: tensor.numpy().tobytes() for key, tensor in load_file(out / "model.safetensors").items()}


def test_two_colours_are_learned(
    train: Train, tmp_path: Path, made: Callable[..., Any], metrics: Callable[..., Any], succeeded: Callable[..., Any]
) -> None:
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


@pytest.mark.slow
def test_an_epoch_leaves_ten_lines(
    train: Train, tmp_path: Path, metrics: Callable[..., Any], succeeded: Callable[..., Any]
) -> None:
    succeeded(train(batch=2, frames=2))
    lines = metrics(tmp_path / "out")
    assert len(lines) == 10
    assert lines[-1]["epoch"] == 1
    # 12 steps in 10 lines: of one step or two, on two clips each.
    assert {line["top1"] for line in lines} <= {0, 25, 50, 75, 100}


@pytest.mark.slow
def test_one_step_is_as_by_hand(
    zoo: registry.Registry,
    data: Path,
    val: Path,
    tmp_path: Path,
    fit: Callable[..., Any],
    made: Callable[..., Any],
    metrics: Callable[..., Any],
) -> None:
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


@pytest.mark.slow
def test_frozen_norms_stay_and_the_first_moves(
    zoo: registry.Registry, data: Path, val: Path, tmp_path: Path, fit: Callable[..., Any], made: Callable[..., Any]
) -> None:
    before = models.build(zoo.find("tiny"), seed=0).state_dict()
    after = {}
    for partial in (True, False):
        fit(zoo, made(partial_bn=partial, frames=2), data, val, tmp_path / str(partial))
        after[partial] = load_file(tmp_path / str(partial) / "model.safetensors")
    norms = [key.removesuffix("running_mean") for key in before if key.endswith("running_mean")]
    of_norms = {norm + part for norm in norms for part in ("weight", "bias", "running_mean", "running_var")}
    for partial, moved in ((True, {key for key in of_norms if key.startswith(norms[0])}), (False, of_norms)):
        assert {key for key in of_norms if not torch.equal(before[key], after[partial][key])} == moved
        others = after[partial].keys() - of_norms
        assert not any(torch.equal(before[key], after[partial][key]) for key in others)


@pytest.mark.parametrize("partial", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_as_one_that_was_not(
    zoo: registry.Registry,
    data: Path,
    val: Path,
    tmp_path: Path,
    partial: bool,
    fit: Callable[..., Any],
    made: Callable[..., Any],
    metrics: Callable[..., Any],
    timeless: Callable[..., Any],
) -> None:
    recipe = made(epochs=2, dropout=0.5, scales=(1.0, 0.7), hflip=True, warmup=0.5, partial_bn=partial, frames=2)
    one, stopped = tmp_path / "one", tmp_path / "stopped"
    fit(zoo, recipe, data, val, one)
    with pytest.raises(KeyboardInterrupt):
        fit(zoo, recipe, data, val, stopped, stop=STEPS + 2)
    assert len(metrics(stopped)) == STEPS + 2, "the epoch that was begun left lines"
    assert not (stopped / "model.safetensors").exists()
    with pytest.raises(KeyboardInterrupt):  # and once more, as the epoch begins anew
        fit(zoo, recipe, data, val, stopped, stop=STEPS)
    fit(zoo, recipe, data, val, stopped)
    assert (one / "model.safetensors").read_bytes() == (stopped / "model.safetensors").read_bytes()
    assert timeless(one) == timeless(stopped)
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


@pytest.mark.slow
def test_another_seed_is_another_run(
    zoo: registry.Registry, data: Path, val: Path, tmp_path: Path, fit: Callable[..., Any], made: Callable[..., Any]
) -> None:
    for seed in (0, 1):
        fit(zoo, made(seed=seed, frames=1), data, val, tmp_path / str(seed))
    zero, one = (bits(tmp_path / str(seed)) for seed in (0, 1))
    assert not any(zero[key] == one[key] for key in zero)


def test_a_finished_run_is_not_run_again(
    zoo: registry.Registry, data: Path, val: Path, tmp_path: Path, fit: Callable[..., Any], made: Callable[..., Any]
) -> None:
    fit(zoo, made(frames=1), data, val, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("model.safetensors", "registry.yaml", "metrics.jsonl", "last.pt")
    }
    left, before = [(tmp_path / name).read_bytes() for name in ("metrics.jsonl", "last.pt")], bits(tmp_path)
    fit(zoo, made(frames=1), data, val, tmp_path, stop=0)  # no step begins
    assert [(tmp_path / name).read_bytes() for name in ("metrics.jsonl", "last.pt")] == left
    assert bits(tmp_path) == before


@pytest.mark.slow
def test_workers_and_memory_change_nothing(
    zoo: registry.Registry,
    data: Path,
    val: Path,
    tmp_path: Path,
    fit: Callable[..., Any],
    made: Callable[..., Any],
    timeless: Callable[..., Any],
) -> None:
    results = []
    for name, changes in (("plain", {}), ("workers", {"workers": 1}), ("memory", {"in_memory": True})):
        recipe = made(epochs=2, hflip=True, scales=(1.0, 0.7), dropout=0.5, **changes)
        fit(zoo, recipe, data, val, tmp_path / name)
        results.append((bits(tmp_path / name), timeless(tmp_path / name)))
    assert results[0] == results[1] == results[2]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "partial"), [("tiny_i3d", False), ("tiny_i3d_r50", True)])
def test_an_inflated_network_is_trained_and_measured(
    train: Train,
    val: Path,
    tmp_path: Path,
    model: str,
    partial: bool,
    entry_of: Callable[..., Any],
    metrics: Callable[..., Any],
    succeeded: Callable[..., Any],
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


def test_a_clip_too_short_for_a_network_is_one_line(train: Train, assert_fails: Callable[..., Any]) -> None:
    assert_fails(train(model="tiny_i3d_r50", frames=4), "5 frames at least", "not of 4")


@pytest.mark.slow
def test_validation_takes_as_many_clips_as_their_frames_allow(
    zoo: registry.Registry,
    data: Path,
    val: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fit: Callable[..., Any],
    made: Callable[..., Any],
) -> None:
    batches = Mock(wraps=loop.batches)
    monkeypatch.setattr(loop, "batches", batches)
    monkeypatch.setattr(loop, "_FRAMES", 12)
    for frames, size in ((4, 3), (16, 1)):
        fit(zoo, made(frames=frames), data, val, tmp_path / str(frames))
        assert batches.call_args.args[1] == size
        assert len(batches.call_args.args[2]) == 10


@pytest.mark.slow
def test_a_model_of_several_classes_a_video_is_trained_to_one(
    train: Train, val: Path, tmp_path: Path, entry_of: Callable[..., Any], succeeded: Callable[..., Any]
) -> None:
    succeeded(train(model="tiny_several"))
    assert not entry_of(tmp_path / "out").multi_label
    options = ["--data", str(val), "--registry", str(tmp_path / "out" / "registry.yaml"), "--json"]
    assert json.loads(succeeded(CliRunner().invoke(app, ["eval", "mine", *options])))["videos"] == 10
