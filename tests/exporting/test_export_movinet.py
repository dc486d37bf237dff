"""MoViNet's streams in files: the publisher's logits, what phones' processors take, and the rewrite by itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

import tsmzoo
from tests.exporting.conftest import FILES
from tests.exporting.exports import invoke
from tsmzoo import models, registry
from tsmzoo.exporting.compare import compare
from tsmzoo.exporting.graph.fold_batchnorm import fold_batch_norm
from tsmzoo.exporting.graph.fold_gates import fold_gates
from tsmzoo.inference.model import Model
from tsmzoo.models.wrappers import StreamStep, state_shapes


@pytest.mark.slow
@pytest.mark.parametrize("to", FILES)
def test_a_stream_gives_the_publishers_logits(to: str, exported_case: Callable[..., Any]) -> None:
    model, clip, case = exported_case("movinet_a0_stream", to, "movinet_a0_stream_k600")
    frames = [255 * clip[:, :, step] for step in range(case["input"]["shape"][2])]
    found = np.concatenate([outputs["logits"] for outputs in model.run_stream(frames)])
    wanted = np.array(case["logits"])
    assert np.abs(found[:, :: case["logits_every"]] - wanted).max() <= 1e-4 * np.ptp(wanted)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A network whose batch norms and scalars are none that a rewrite could leave out unseen."""
    entry = msgspec.structs.replace(registry.load().find("movinet_a0_stream"), classes=7)
    net = models.build(entry, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in net.state_dict().items():
        if name.endswith(("norm.weight", "running_var", "alpha")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.3, generator=generator)
    return net


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [64, 76])  # sides of pools: all even, some odd
def test_folding_changes_no_number(network: nn.Module, size: int, *, channels_last: bool) -> None:
    plain, form = StreamStep(network), StreamStep(network, channels_last=channels_last)
    folded = fold_gates(fold_batch_norm(form), channels_last=channels_last)
    wanted_states = [torch.zeros(shape) for shape in state_shapes(network, 3, size)]
    states = [state.clone() for state in wanted_states]
    generator = torch.Generator().manual_seed(2)
    with torch.inference_mode():
        for _ in range(7):
            frame = torch.rand(1, 3, size, size, generator=generator)
            wanted, *wanted_states = plain(frame, *wanted_states)
            found, *states = folded(frame, *states)
            for one, other in zip((found, *states), (wanted, *wanted_states), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def test_nothing_of_a_gate_is_left_but_its_clip(network: nn.Module) -> None:
    """A phone's GPU knows RELU6, no clip to 1; factors would be operators of their own."""
    step = fold_gates(fold_batch_norm(StreamStep(network, channels_last=True)), channels_last=True)
    states = [torch.zeros(shape) for shape in state_shapes(network, 3, 64)]
    program = torch.export.export(step, (torch.zeros(1, 3, 64, 64), *states), strict=False)
    kinds = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert kinds.count("aten.relu6.default") == 15
    # A mean has one product, a gate one, a convolution over time one.
    assert kinds.count("aten.mul.Tensor") == 16 + 15 + 11


class Rounding:
    """A network whose states are handed on in halves."""

    runtime = "a network in halves"

    def __init__(self, model: tsmzoo.Model) -> None:
        self.model = model

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = self.model.runner.run(inputs)
        return {name: value.astype("float16").astype("float32") for name, value in outputs.items()}


def test_a_mean_that_is_rounded_is_noticed() -> None:
    """It agrees with the network for as long as a verification lasts, but stands still in a long stream."""
    model = tsmzoo.load("movinet_a0_stream", weights="random", size=64)
    assert compare(model, model, tolerance=1e-6, steps=2).status == "passed"
    rounding = Model(Rounding(model), model.contract)
    report = compare(model, rounding, tolerance=1e-2, steps=16)
    assert report.status == "failed"
    assert re.fullmatch(r"state_\d+, a mean, is \d+% off its way after 1000 frames: it is rounded", str(report.reason))


@pytest.mark.slow
@pytest.mark.parametrize(("to", "precision"), [("onnx", "int8"), ("tflite", "int8"), ("coreml", "fp16")])
def test_means_move_in_every_precision(to: str, precision: str, tmp_path: Path) -> None:
    options = ["--weights", "random", "--size", 64, "--precision", precision, "-o", tmp_path / FILES[to][0]]
    if precision == "int8":
        assert invoke("data", "motion", tmp_path / "videos", "--videos", 28).exit_code == 0
        options += ["--calibrate", tmp_path / "videos"]
    result = invoke("export", "movinet_a0_stream", "--to", to, *options)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(("to", "state", "why"), [("onnx", "packed", "they copy"), ("coreml", "implicit", "half")])
def test_only_explicit_states_are_for_means(to: str, state: str, why: str, tmp_path: Path) -> None:
    arguments = ("--to", to, "--state", state, "--weights", "random", "-o", tmp_path / FILES[to][0])
    result = invoke("export", "movinet_a0_stream", *arguments)
    assert result.exit_code == 1
    assert f"takes no {state} states: " in result.stderr
    assert why in result.stderr
    assert result.stderr.count("\n") == 1
