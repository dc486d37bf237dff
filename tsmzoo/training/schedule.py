"""The learning rate over time, and the multiple of it that each parameter takes."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from tsmzoo import models
from tsmzoo.registry.recipes import Training
from tsmzoo.training.layers import freeze_batch_norms


def learning_rate(recipe: Training, epoch: float) -> float:
    """Return the learning rate at a moment of training, `epoch` being 0…epochs."""
    if epoch < recipe.warmup or recipe.epochs <= recipe.warmup:
        return recipe.lr * epoch / recipe.warmup
    if recipe.schedule == "steps":
        return recipe.lr * 0.1 ** sum(epoch >= step for step in recipe.steps)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (epoch - recipe.warmup) / (recipe.epochs - recipe.warmup)))


def parameter_groups(net: nn.Module, recipe: Training) -> list[dict[str, Any]]:
    """Return the parameter groups of the optimizer: network and classifier, each with and without weight decay.

    `scale` is the multiple of the learning rate. Weights decay; biases, scales and offsets of batch norms do not. What
    partial batch norm freezes is left out.
    """
    if recipe.partial_bn:
        freeze_batch_norms(net)
    _, classifier = models.classifier(net)
    last = {id(parameter) for parameter in classifier.parameters()}
    learned = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return [
        {
            "params": [p for p in learned if (id(p) in last) is is_last and (p.dim() > 1) is decays],
            "scale": recipe.classifier_rate if is_last else 1.0,
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for is_last in (False, True)
        for decays in (True, False)
    ]
