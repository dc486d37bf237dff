"""Fold batch norms into the convolutions that they follow."""

from __future__ import annotations

import copy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tsmzoo.models.mobileone import MobileOneBlock


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Return a copy of `model` whose batch norms are folded into the convolutions they follow.

    Relies on the backbones' habit to register each batch norm right after its convolution. MobileOne's branches
    become one; DenseNet keeps the norms in front of its ReLUs, which no convolution can take.
    """
    model = copy.deepcopy(model).eval()
    for block in [module for module in model.modules() if isinstance(module, MobileOneBlock)]:
        block.fuse()
    for parent in model.modules():
        children = list(parent.named_children())
        for (name, conv), (bn_name, bn) in pairwise(children):
            if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(bn, nn.BatchNorm2d | nn.BatchNorm3d):
                setattr(parent, name, fuse_conv_bn_eval(conv, bn))
                setattr(parent, bn_name, nn.Identity())
    return model
