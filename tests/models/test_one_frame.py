"""Clips of one, two and three frames: nothing comes from outside, and no operator sees a tensor of no frames."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typer.testing import CliRunner

from tsmzoo import models, registry
from tsmzoo.cli import app
from tsmzoo.exporting.graph.conv3d_to_2d import conv3d_to_2d
from tsmzoo.exporting.graph.fold_batchnorm import fold_batch_norm
from tsmzoo.exporting.graph.split_channels import split_channels
from tsmzoo.models.shift import shift_clip, shift_clips, shift_clips_forward
from tsmzoo.models.wrappers import ClipModel, SingleClip

#: A model of each family and of each kind of block that mixes frames.
MODELS = [
    "tsn_mbv2_motion",
    "tsm_mbv2_motion",
    "tsm_bninception_k400_8f",
    "tsm_r50_nl_k400_8f_dense_mit",
    "tsm_r50_nl_gaussian_k400_8f",
    "tsm_r50_nl_dot_product_k400_8f",
    "i3d_r50_replace_8f",
    "i3d_inception_k400_flow_deepmind",
]
ZOO = registry.load()


class NothingIsEmpty(TorchDispatchMode):
    """Fails where an operator joins, pads or computes with a tensor of no elements."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        assert all(value.numel() for value in given), function
        return function(*args, **(kwargs or {}))


def test_a_lone_frame_gets_zeros() -> None:
    x = torch.arange(1.0, 2 * 8 + 1).reshape(2, 8, 1, 1)
    both = torch.cat([torch.zeros(2, 4, 1, 1), x[:, 4:]], 1)
    with NothingIsEmpty():
        assert torch.equal(shift_clips(1)(x, 2), both)
        assert torch.equal(shift_clip(x, 2, group=1), both)
        assert torch.equal(shift_clip(x[:1], 2), both[:1])
        assert torch.equal(shift_clip(x[:1, :4], 2), torch.zeros(1, 4, 1, 1))  # all of them move
        assert torch.equal(shift_clips_forward(1)(x, 2), torch.cat([torch.zeros(2, 2, 1, 1), x[:, 2:]], 1))


@pytest.mark.parametrize("name", [*MODELS[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS[2:])])
@pytest.mark.slow
def test_the_forms_of_short_clips_agree(name: str) -> None:
    entry = ZOO.find(name)
    net = models.build(entry, seed=1).eval()
    for frames in (1, 2, 3):
        clip = torch.randn(1, frames, entry.channels, 64, 64, generator=torch.Generator().manual_seed(frames))
        with torch.inference_mode():
            wanted = ClipModel(net, frames, entry.shift_frames)(clip)
            one: list[nn.Module] = [ClipModel(net, frames, entry.shift_frames)]
            for last in (False, True):
                form = fold_batch_norm(SingleClip(net, frames, entry.shift_frames, channels_last=last))
                one.append(conv3d_to_2d(split_channels(form), channels_last=last))
            for form in one:
                with NothingIsEmpty():
                    found = form(clip)
                torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
    # Alone, a frame answers as it does where it is shown twice only if nothing mixes frames.
    same = clip[:, :1].repeat(1, 2, 1, 1, 1)
    with torch.inference_mode():
        alike = torch.allclose(ClipModel(net, 1)(clip[:, :1]), ClipModel(net, 2)(same), rtol=1e-3, atol=1e-4)
    assert alike == name.startswith("tsn")


@pytest.fixture
def _collected() -> Iterator[None]:
    """coremltools leaves folders behind, of which Python warns when it drops them: while nobody minds."""
    yield
    gc.collect()


@pytest.mark.slow
@pytest.mark.usefixtures("_collected")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("options", [["onnx"], ["onnx", "--dynamic-batch"], ["tflite"], ["coreml"]], ids=" ".join)
@pytest.mark.parametrize("model", ["tsm_mbv2_motion", "tsm_r50_nl_k400_8f_dense_mit", "i3d_r50_replace_8f"])
def test_clips_of_one_frame_are_exported_and_verified(model: str, options: list[str], tmp_path: Path) -> None:
    ending = {"coreml": "mlpackage"}.get(options[0], options[0])
    arguments = ["export", model, "--weights", "random", "--size", "64", "--frames", "1", "--precision", "fp32"]
    result = CliRunner().invoke(app, [*arguments, "--to", *options, "-o", str(tmp_path / f"m.{ending}"), "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["passed"]
    assert document["max_rel_error"] <= 1e-4


@pytest.mark.parametrize(
    ("model", "reason"),
    [("i3d_r50_k400", "needs clips of 5 frames at least"), ("tsm_mobileone_s4_k400_16f", "do not divide into the 8")],
)
@pytest.mark.parametrize("to", ["onnx", pytest.param("tflite", marks=pytest.mark.slow)])
def test_a_model_that_cannot_says_so(model: str, reason: str, to: str, tmp_path: Path) -> None:
    pytest.importorskip({"onnx": "onnxscript", "tflite": "litert_torch"}[to])
    path = tmp_path / f"m.{to}"
    arguments = ["export", model, "--to", to, "--weights", "random", "--size", "32", "--frames", "1", "-o", str(path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert reason in result.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
