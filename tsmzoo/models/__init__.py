"""From a registry entry to a network, and from a network to the forms that are run and exported.

A backbone (`resnet.py`, `mobilenet_v2.py`, …) maps frames to logits of each frame, I3D (`i3d.py`) to those of each
clip; `forms.py` wraps it as a model of clips or of a stream. Offline and online models hold the same backbone and
weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from tsmzoo.models.bninception import BNInception
from tsmzoo.models.densenet import DenseNet
from tsmzoo.models.i3d import VARIANTS, Bottleneck3d, I3DResNet, InceptionI3D
from tsmzoo.models.mobilenet_v2 import MobileNetV2
from tsmzoo.models.mobileone import Gate, MobileOne, MobileOneBlock
from tsmzoo.models.resnet import BasicBlock, Bottleneck, NonLocal, ResNet
from tsmzoo.registry import Entry

#: One row per backbone that the registry may name.
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "resnet18": partial(ResNet, 18),
    "resnet50": partial(ResNet, 50),
    "resnet101": partial(ResNet, 101),
    "resnext101_32x4d": partial(ResNet, 101, groups=32, group_width=4),
    "mobilenet_v2": MobileNetV2,
    "mobileone_s4": MobileOne,
    "bninception": BNInception,
    "densenet161": DenseNet,
    "inception_v1_i3d": InceptionI3D,
    **{variant: partial(I3DResNet, variant) for variant in VARIANTS},
}


def build(entry: Entry, *, seed: int | None = None) -> nn.Module:
    """Return the backbone of `entry` in evaluation mode.

    With `seed` its weights are random and reproducible; without, they are left on the `meta` device,
    to be counted or replaced.
    """
    options: dict[str, Any] = {"channels": entry.channels}
    if entry.shift:
        options |= {"shift_div": entry.shift_div, "shift_place": entry.shift_place}
    if entry.non_local:
        options |= {"non_local": entry.non_local, "non_local_bias": entry.non_local_bias}
    if entry.width != 1:
        options["width"] = entry.width
    with torch.device("meta"):
        net = BACKBONES[entry.backbone](entry.classes, **options)
    if seed is not None:
        net.to_empty(device="cpu")
        _fill_at_random(net, seed)
    return net.eval()


def classifier(net: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name and the module of the layer that gives the logits: the last linear one."""
    return [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1]


def replace_classifier(net: nn.Module, classes: int, seed: int) -> None:
    """Give `net` a classifier of `classes` rows, random and reproducible, in place of its own."""
    name, old = classifier(net)
    new = nn.Linear(old.in_features, classes)
    nn.init.normal_(new.weight, 0, 0.01, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(new.bias)
    net.set_submodule(name, new)


def _fill_at_random(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            # By fan-in, so that features keep their size though no batch has been normalised yet.
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01, generator=generator)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in net.modules():
        if isinstance(module, Bottleneck | Bottleneck3d):  # else each of 33 blocks would double the features' variance
            nn.init.constant_(module.bn3.weight, 0.3)
        if isinstance(module, BasicBlock):
            nn.init.constant_(module.bn2.weight, 0.3)
        if isinstance(module, MobileOneBlock):  # the branches' sum is to be as large as one
            for norm in (part for part in module.modules() if isinstance(part, nn.BatchNorm2d)):
                nn.init.constant_(norm.weight, len(module.branches()) ** -0.5)
        if isinstance(module, Gate):  # nearly open: a dozen gates half open leave a thousandth
            assert module.fc2.bias is not None
            nn.init.constant_(module.fc2.bias, 2)
        if isinstance(module, NonLocal):
            # Training starts a block at nothing, too (Wang et al., § 4.1); products of features would else explode,
            # or saturate a softmax, where no two runtimes agree.
            nn.init.constant_(module.bn.weight, 0.1)
            for conv in (module.theta, module.phi) if module.mode != "gaussian" else ():
                with torch.no_grad():
                    conv.weight *= 0.1 if module.mode == "embedded_gaussian" else 0.01
