"""The keys of published checkpoints: which format a file has, which network, and our name of each tensor.

Rules are data, one table a format and architecture; `checkpoints.py` reads files and fills networks by them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from tsmzoo.errors import CheckpointError

#: (pattern, replacement), applied in turn to each key of a file.
Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

# --- key rules, one table a format and architecture (see the publishers' files named at each) ---------------------


def _nested(match: re.Match[str]) -> str:
    """MIT's flat inverted residual (conv.0, .1, .3, .4, .6, .7) to torchvision's nested one."""
    feature, position = int(match[1]), int(match[2])
    unit, part = divmod(position, 3)
    last = 1 if feature == 1 else 2  # features.1 has no expansion
    inner = f"{unit + part}" if unit == last else f"{unit}.{part}"
    return f"features.{feature}.conv.{inner}."


#: Index of the first block of mmaction2's layer1…7 among torchvision's features.
_FIRST_FEATURE = (1, 2, 4, 7, 11, 14, 17)


def _mmaction_feature(match: re.Match[str]) -> str:
    """mmaction2's layerL.B.conv.J.{conv,bn} to torchvision's features.N.conv.…"""
    layer, block, unit = int(match[1]), int(match[2]), int(match[3])
    part = 0 if match[4] == "conv" else 1
    last = 1 if layer == 1 else 2
    inner = f"{unit + part}" if unit == last else f"{unit}.{part}"
    return f"features.{_FIRST_FEATURE[layer - 1] + block}.conv.{inner}."


# mit-han-lab/temporal-shift-module: main.py (wrapper), ops/models.py, ops/temporal_shift.py, ops/non_local.py
_MIT: Rules = (
    (r"^(module\.)+", ""),
    (r"^base_model\.", ""),
    (r"\.net\.", "."),
)
_MIT_RESNET: Rules = (
    *_MIT,
    (r"^new_fc\.", "fc."),
    (r"^(layer\d\.\d+)\.block\.", r"\1."),
    (r"\.nl\.(g|phi)\.0\.", r".nl.\1."),
    (r"\.nl\.W\.0\.", ".nl.out."),
    (r"\.nl\.W\.1\.", ".nl.bn."),
)
# mit-han-lab/temporal-shift-module: archs/mobilenet_v2.py, online_demo/mobilenet_v2_tsm.py
_MIT_MOBILENET: Rules = (
    *_MIT,
    (r"^(new_fc|fc|classifier|classifier\.1)\.(?=weight|bias)", "classifier.1."),
    (r"^features\.([1-9]|1[0-7])\.conv\.(\d)\.", _nested),
)
# open-mmlab/mmaction2: mmaction/models/backbones, heads; wrapped by mmrazor in distillation runs
_MMACTION: Rules = (
    (r"^architecture\.", ""),
    (r"^data_preprocessor\..*", ""),
)
_MMACTION_RESNET: Rules = (
    *_MMACTION,
    (r"^cls_head\.fc_cls\.", "fc."),
    (r"^backbone\.conv1\.conv\.", "conv1."),
    (r"^backbone\.conv1\.bn\.", "bn1."),
    (r"^backbone\.(layer\d\.\d+)\.(?:block\.)?", r"\1."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
    (r"\.non_local_block\.(g|phi)\.0\.conv\.", r".nl.\1."),
    (r"\.non_local_block\.theta\.conv\.", ".nl.theta."),
    (r"\.non_local_block\.conv_out\.conv\.", ".nl.out."),
    (r"\.non_local_block\.conv_out\.bn\.", ".nl.bn."),
    (r"\.conv(\d)\.conv\.(?:net\.)?", r".conv\1."),
    (r"\.conv(\d)\.bn\.", r".bn\1."),
)
_MMACTION_MOBILENET: Rules = (
    *_MMACTION,
    (r"^cls_head\.fc_cls\.", "classifier.1."),
    (r"^backbone\.conv1\.conv\.", "features.0.0."),
    (r"^backbone\.conv1\.bn\.", "features.0.1."),
    (r"^backbone\.conv2\.conv\.", "features.18.0."),
    (r"^backbone\.conv2\.bn\.", "features.18.1."),
    (r"^backbone\.layer(\d)\.(\d)\.conv\.(\d)\.(?:net\.)?(conv|bn)\.", _mmaction_feature),
)

# facebookresearch/pytorchvideo: models/resnet.py, models/stem.py, models/head.py
_PYTORCHVIDEO: Rules = (
    (r"^blocks\.0\.conv\.", "conv1."),
    (r"^blocks\.0\.norm\.", "bn1."),
    (r"^blocks\.1\.res_blocks\.", "layer1."),
    (r"^blocks\.([345])\.res_blocks\.", lambda match: f"layer{int(match[1]) - 1}."),  # 2 is the pool
    (r"^blocks\.6\.proj\.", "fc."),
    (r"\.branch1_conv\.", ".downsample.0."),
    (r"\.branch1_norm\.", ".downsample.1."),
    (r"\.branch2\.conv_([abc])\.", lambda match: f".conv{'abc'.index(match[1]) + 1}."),
    (r"\.branch2\.norm_([abc])\.", lambda match: f".bn{'abc'.index(match[1]) + 1}."),
)
# piergiaj/pytorch-i3d: pytorch_i3d.py
_PIERGIAJ: Rules = ((r"^logits\.conv3d\.", "logits."),)
# hassony2/kinetics_i3d_pytorch: src/i3dpt.py
_HASSONY2: Rules = (
    (r"^conv3d_0c_1x1\.conv3d\.", "logits."),
    (r"^(conv3d|mixed)_", lambda match: match[1].capitalize() + "_"),
    (r"\.branch_0\.", ".b0."),
    (r"\.branch_([12])\.([01])\.", lambda match: f".b{match[1]}{'ab'[int(match[2])]}."),
    (r"\.branch_3\.1\.", ".b3b."),
    (r"\.batch3d\.", ".bn."),
)

#: mmaction2's inflations of ResNet-50. pytorchvideo's has the same names and shapes as the first, but other strides.
_MMACTION_I3D = ("resnet50_i3d", "resnet50_i3d_heavy", "resnet50_i3d_3x3x3", "resnet50_i3d_replace")

RULES: dict[tuple[str, str], Rules] = {
    ("tsmzoo", "resnet50"): (),
    ("tsmzoo", "resnet101"): (),
    ("tsmzoo", "mobilenet_v2"): (),
    ("mit-tsm", "resnet50"): _MIT_RESNET,
    ("mit-tsm", "resnet101"): _MIT_RESNET,
    ("mit-tsm", "mobilenet_v2"): _MIT_MOBILENET,
    ("mit-tsm-online", "mobilenet_v2"): _MIT_MOBILENET,
    ("mmaction2", "resnet50"): _MMACTION_RESNET,
    ("mmaction2", "resnet101"): _MMACTION_RESNET,
    ("mmaction2", "mobilenet_v2"): _MMACTION_MOBILENET,
    **{("tsmzoo", name): () for name in (*_MMACTION_I3D, "resnet50_i3d_8x8", "inception_v1_i3d")},
    **{("mmaction2", name): _MMACTION_RESNET for name in _MMACTION_I3D},
    ("pytorchvideo", "resnet50_i3d_8x8"): _PYTORCHVIDEO,
    ("piergiaj-i3d", "inception_v1_i3d"): _PIERGIAJ,
    ("hassony2-i3d", "inception_v1_i3d"): _HASSONY2,
}
FORMATS = tuple(dict.fromkeys(format_ for format_, _ in RULES))


def rename(key: str, rules: Rules) -> str:
    """Return our name of a file's key; an empty one where the key is not part of the network."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def is_counter(key: str) -> bool:
    """Batch norm's step counter, which old files lack and evaluation never reads."""
    return key.endswith("num_batches_tracked")


# --- telling a file's format ---------------------------------------------------------------------------------------

#: Formats of other families, by the keys that give them away; named in the refusal.
_FOREIGN = (
    (r"(^|\.)inception_3a_", "a BNInception checkpoint"),
    (r"^backbone\.stage\d", "an mmaction2 MobileOne checkpoint"),
    (r"^backbone\.layers\.\d", "an mmaction2 Swin checkpoint"),
    (r"^backbone\.features\.denseblock", "an mmaction2 DenseNet checkpoint"),
    (r"^(conv1|layer1\.0\.conv1)\.weight$", "a plain image ResNet"),
)
#: A key that only one format has.
_FIRST_KEYS = (
    ("blocks.0.conv.weight", "pytorchvideo"),
    ("Conv3d_1a_7x7.conv3d.weight", "piergiaj-i3d"),
    ("conv3d_1a_7x7.conv3d.weight", "hassony2-i3d"),
)


def tell_format(state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Return the format of a file's tensors: one of FORMATS.

    Our own says so in its metadata: its keys are torchvision's, as an image network's are, too. Raises
    CheckpointError, saying what the file looks like, where it is none of them.
    """
    if metadata:
        return "tsmzoo"
    for pattern, name in _FOREIGN:
        if any(re.search(pattern, key) for key in state):
            raise CheckpointError(f"looks like {name}, which no model here can take")
    for first, name in _FIRST_KEYS:
        if first in state:
            return name
    bare = {re.sub(r"^(module\.)+", "", key) for key in state}
    if any(re.match(r"(architecture\.)?backbone\.", key) for key in bare):
        return "mmaction2"
    if any(key.startswith("base_model.") or ".net." in key for key in bare):
        return "mit-tsm"
    if {"features.0.0.weight", "classifier.weight"} <= bare:
        return "mit-tsm-online"
    raise CheckpointError(
        f"keys fit none of the formats {', '.join(FORMATS)} (first keys: {some(sorted(state))}); "
        "give the publisher's own file"
    )


def tell_backbone(state: Mapping[str, Tensor]) -> str:
    """Return what the keys say of the architecture, for the message when it is not the model's."""
    joined = "\n".join(state)
    if re.search(r"(?i)^conv3d_1a_7x7\.", joined, re.M):
        return "inception_v1_i3d"
    if any(tensor.dim() == 5 and max(tensor.shape[2:]) > 1 for tensor in state.values()):  # non-local ones are 1x1x1
        return "resnet50_i3d"
    if re.search(r"(^|\.)features\.\d|layer7\.", joined, re.M):
        return "mobilenet_v2"
    if "layer3.22." in joined:
        return "resnet101"
    if "layer3.5." in joined:
        return "resnet50" if ".conv3." in joined else "a ResNet with basic blocks"
    return "an unknown architecture"


def some(names: Iterable[str], most: int = 3) -> str:
    """Return the first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
