"""MoViNet on clips of one's own: whole ones, and as a stream that is trained by its answer after the last frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tsmzoo
from tsmzoo import models, registry
from tsmzoo.models.wrappers import ClipModel, StreamStep

KINDS = ("base", "stream")
BASE, STREAM = (f"tiny_movinet_{kind}" for kind in KINDS)


@pytest.mark.parametrize("model", [pytest.param(BASE, marks=pytest.mark.slow), STREAM])
def test_it_learns_and_resumes_as_if_nothing_had_been(
    model: str,
    zoo: registry.Registry,
    data: Path,
    val: Path,
    tmp_path: Path,
    fit: Callable[..., Any],
    made: Callable[..., Any],
    metrics: Callable[..., Any],
    timeless: Callable[..., Any],
) -> None:
    recipe = made(model=model, frames=3, epochs=2, lr=0.02, dropout=0.2, partial_bn=True)
    fit(zoo, recipe, data, val, tmp_path / "one")
    lines = metrics(tmp_path / "one")
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    with pytest.raises(KeyboardInterrupt):
        fit(zoo, recipe, data, val, tmp_path / "stopped", stop=4)
    fit(zoo, recipe, data, val, tmp_path / "stopped")
    assert timeless(tmp_path / "stopped") == timeless(tmp_path / "one")
    one, stopped = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "stopped"))
    assert all(torch.equal(one[key], stopped[key]) for key in one)


def test_weights_of_the_command_line_win(
    train: Callable[..., Any], tmp_path: Path, succeeded: Callable[..., Any], assert_fails: Callable[..., Any]
) -> None:
    options = {"model": STREAM, "weights": "published", "frames": 2, "batch": 24, "lr": 1e-9}
    assert_fails(train("--weights", str(tmp_path / "none.pth"), **options), "none.pth")
    succeeded(train("--weights", "random", **options))
    model = tsmzoo.load("mine", registry=tmp_path / "out" / "registry.yaml")
    # As a clip is answered, so it was trained: after its last frame.
    clip = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    assert model.module is not None
    form = ClipModel(model.module.backbone, 3, online=True)
    with torch.inference_mode():
        wanted = form(torch.from_numpy(model.normalize(clip[None])))[0].numpy()
    np.testing.assert_allclose(model(clip), wanted, rtol=1e-5)
    np.testing.assert_allclose(model(clip), model.frame_logits(clip[None])[0, -1], rtol=1e-5)
    assert len(model.sample(200)) == 50


def test_a_stream_does_not_start_from_a_network_of_clips(
    zoo: registry.Registry, train: Callable[..., Any], tmp_path: Path, assert_fails: Callable[..., Any]
) -> None:
    save_file(models.build(zoo.find(BASE), seed=0).state_dict(), tmp_path / "base.safetensors")
    recipe: dict[str, Any] = {"model": STREAM, "weights": str(tmp_path / "base.safetensors"), "frames": 2}
    assert_fails(train(**recipe), "base.safetensors")


@pytest.mark.slow
def test_the_steps_of_a_stream_give_the_answers_of_a_clip(zoo: registry.Registry) -> None:
    net = models.build(zoo.find(STREAM), seed=1).eval()
    clip = torch.rand(2, 5, 3, 32, 32)
    states = [torch.zeros(2, *state.shape[1:]) for state in models.wrappers.states_of(net, 3, 32)]
    with torch.inference_mode():
        for frame in clip.unbind(1):
            logits, *states = StreamStep(net)(frame, *states)
        torch.testing.assert_close(ClipModel(net, 5, online=True)(clip), logits)
