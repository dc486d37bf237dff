"""Dropout and batch norms of a network while it is trained."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def set_dropout(net: nn.Module, share: float) -> None:
    """Set the share of features that is dropped in front of the classifier."""
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = share


def freeze_batch_norms(net: nn.Module) -> None:
    """Freeze mean, variance, scale and offset of every batch norm but the first (partial BN: TSN, § 3.2)."""
    for norm in _batch_norms(net)[1:]:
        norm.eval().requires_grad_(False)


@torch.no_grad()
def recompute_bn_stats(net: nn.Module, model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Compute mean and variance of every batch norm of `net` anew, over `batches` of clips, N, T, C, H, W.

    During training they are moving averages of momentum 0.1, so that an answer would depend on the last few batches
    (precise BN: Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv 2105.07576, § 3).
    """
    norms = _batch_norms(net)
    momenta = [norm.momentum for norm in norms]
    model.eval()  # no dropout
    for norm in norms:
        norm.train().reset_running_stats()
        norm.momentum = None  # the mean of all batches
    for clips in batches:
        model(clips)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _batch_norms(net: nn.Module) -> list[nn.BatchNorm2d | nn.BatchNorm3d]:
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)]
