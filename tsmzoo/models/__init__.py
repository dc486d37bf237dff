"""Build the network of a registry entry.

One file holds one family of backbones. A backbone (`resnet.py`, `mobilenet_v2.py`, …) maps frames to logits of each
frame, I3D (`i3d.py`) and X3D (`x3d.py`) to those of each clip; `wrappers.py` makes a model of clips or of a stream of
it. Offline and online models hold the same backbone and weights.

To add a backbone, write its file, add its row to `BACKBONES` and its name to `registry/schema.py`; published files of
it need key rules in `weights/key_maps.py`. `forward(x, frames, shift)` takes normalized frames, (N·T, C, H, W), the
number of frames per clip, and the shift as a function. A block whose random weights need more than the rules of
`_init_weights` has a method `init_weights`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from tsmzoo.models.bninception import BNInception
from tsmzoo.models.densenet import DenseNet
from tsmzoo.models.i3d import VARIANTS, I3DResNet, InceptionI3D
from tsmzoo.models.mobilenet_v2 import MobileNetV2
from tsmzoo.models.mobileone import MobileOne
from tsmzoo.models.movinet import SIZES, MoViNetBase, MoViNetStream
from tsmzoo.models.resnet import ResNet
from tsmzoo.models.x3d import VARIANTS as X3D_VARIANTS
from tsmzoo.models.x3d import X3D
from tsmzoo.registry import Entry

#: One row for each backbone that the registry may name.
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
    **{variant: partial(X3D, variant) for variant in X3D_VARIANTS},
    **{f"movinet_{size}_base": partial(MoViNetBase, size) for size in SIZES},
    **{f"movinet_{size}_stream": partial(MoViNetStream, size) for size in SIZES},
}


def build(entry: Entry, *, seed: int | None = None) -> nn.Module:
    """Return the backbone of `entry` in evaluation mode.

    With `seed` its weights are random and reproducible. By default they stay on the `meta` device, to be counted or
    replaced.
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
        _init_weights(net, seed)
    return net.eval()


def classifier(net: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name and the module of the layer that gives the logits: the last linear layer."""
    return [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1]


def replace_classifier(net: nn.Module, classes: int, seed: int) -> None:
    """Replace the classifier of `net` by one of `classes` rows, with random and reproducible weights."""
    name, old = classifier(net)
    new = nn.Linear(old.in_features, classes)
    nn.init.normal_(new.weight, 0, 0.01, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(new.bias)
    net.set_submodule(name, new)


def _init_weights(net: nn.Module, seed: int) -> None:
    """Set random weights by the type of each layer, then let each block that has `init_weights` adjust its own."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            # By fan-in, so that features keep their size though no batch has been normalized yet.
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01, generator=generator)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in net.modules():
        if (init_weights := getattr(module, "init_weights", None)) is not None:
            init_weights()
