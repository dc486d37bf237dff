"""The learning rate, what learns at it, and batch norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tsmzoo import models, registry
from tsmzoo.training import layers, schedule

ZOO = registry.load()


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
def test_the_rate_is_as_by_hand(changes: dict[str, Any], rates: dict[float, float], made: Callable[..., Any]) -> None:
    recipe = made(lr=0.4, epochs=10, **changes)
    assert {epoch: pytest.approx(rate, abs=1e-12) for epoch, rate in rates.items()} == {
        epoch: schedule.learning_rate(recipe, epoch) for epoch in rates
    }


@pytest.mark.parametrize("warmup", [1.0, 2.5])
def test_a_run_may_be_warm_up_alone(warmup: float, made: Callable[..., Any]) -> None:
    recipe = made(lr=0.4, epochs=1, warmup=warmup)
    assert [schedule.learning_rate(recipe, epoch) for epoch in (0, 0.5, 1)] == pytest.approx(
        [0, 0.2 / warmup, 0.4 / warmup]
    )


@pytest.mark.parametrize("partial", [False, True], ids=["all norms", "partial"])
@pytest.mark.parametrize("model", ["tsm_mbv2_motion", "tsm_r50_jester_8f_mm0", "tsm_r50_nl_k400_8f_dense_mit"])
def test_every_learned_parameter_is_in_the_group_it_belongs_to(
    model: str, partial: bool, made: Callable[..., Any]
) -> None:
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
