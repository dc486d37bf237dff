"""Checkpoints of each backbone and of each option of its shift."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.torch
import torch

from tsmzoo import models, registry
from tsmzoo.errors import CheckpointError
from tsmzoo.weights import checkpoint, key_maps

from .conftest import (
    IN_PLACE,
    MIT_BLOCK,
    MIT_BRANCH,
    MIT_WRAPPED,
    STREAM,
    TSM,
    TSN_,
    Edits,
    Published,
    like,
    respelt,
    trained,
)

ZOO = registry.load()
#: From our names to the publisher's, as the checkpoint facts have them (§ 3.2, 4.2, 4.5, 4.7, 7).
MMACTION_HEAD: Edits = ((r"^(fc|classifier|head\.fc)\.(?=weight|bias)", "cls_head.fc_cls."),)
MMACTION_RESNET: Edits = (
    (r"^(layer\d\.\d+)\.conv(\d)\.", r"backbone.\1.conv\2.conv."),
    (r"^(layer\d\.\d+)\.bn(\d)\.", r"backbone.\1.conv\2.bn."),
    (r"^(layer\d\.\d+)\.downsample\.0\.", r"backbone.\1.downsample.conv."),
    (r"^(layer\d\.\d+)\.downsample\.1\.", r"backbone.\1.downsample.bn."),
    (r"^conv1\.", "backbone.conv1.conv."),
    (r"^bn1\.", "backbone.conv1.bn."),
    *MMACTION_HEAD,
)
MMACTION_PLAIN: Edits = ((r"^(?!fc\.|classifier\.)", "backbone."), *MMACTION_HEAD)
MMACTION_MOBILEONE: Edits = (
    (r"\.conv_kxk\.(\d)\.bn\.", r".branch_conv_list.\1.norm."),
    (r"\.conv_kxk\.", ".branch_conv_list."),
    (r"\.conv_scale\.bn\.", ".branch_scale.norm."),
    (r"\.conv_scale\.", ".branch_scale."),
    (r"\.identity\.", ".branch_norm."),
    (r"\.attn\.fc(\d)\.", r".se.conv\1.conv."),
    (r"^stem\.", "backbone.stage0."),
    (r"^stages\.0\.", "backbone.stage1."),
    (r"^stages\.1\.", "backbone.stage2."),
    (r"^stages\.2\.", "backbone.stage3."),
    (r"^stages\.3\.", "backbone.stage4."),
    *MMACTION_HEAD,
)
MMACTION_MOBILEONE_TSM: Edits = (
    *MMACTION_MOBILEONE,
    (r"^backbone\.stage0\.", "backbone.stage0.net."),
    (r"^(backbone\.stage[1-4]\.\d+)\.", r"\1.net."),
)
RESIDUAL: dict[str, Any] = {"family": "tsm"}


@pytest.mark.parametrize(
    ("backbone", "changes", "edits", "format_", "example"),
    [
        pytest.param(
            *("resnet18", TSN_, MMACTION_RESNET, "mmaction2", "backbone.layer4.1.conv2.bn.weight"), id="resnet18"
        ),
        pytest.param(
            *("resnext101_32x4d", TSN_, MMACTION_PLAIN, "mmaction2", "backbone.layer1.0.downsample.0.weight"),
            id="rx101",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(
                "densenet161",
                TSN_,
                MMACTION_PLAIN,
                "mmaction2",
                "backbone.features.denseblock4.denselayer24.norm2.bias",
            ),
            id="densenet161",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("mobileone_s4", TSN_, MMACTION_MOBILEONE, "mmaction2", "backbone.stage3.19.se.conv2.conv.bias"),
            id="mobileone",
        ),
        pytest.param(
            *("mobileone_s4", IN_PLACE, MMACTION_MOBILEONE_TSM, "mmaction2"),
            "backbone.stage0.net.branch_conv_list.0.norm.weight",
            id="mobileone TSM",
        ),
        pytest.param(
            *("mobileone_s4", IN_PLACE, (*MMACTION_MOBILEONE_TSM, (r"^", "architecture.")), "mmaction2"),
            "architecture.backbone.stage3.19.net.branch_norm.running_mean",
            id="mobileone TSM of mmrazor",
        ),
        pytest.param(*("bninception", TSN_, (), "mit-tsm", "inception_5b_pool_proj_bn.running_var"), id="bninception"),
        pytest.param(
            *("bninception", TSN_, MIT_WRAPPED, "mit-tsm", "module.base_model.conv2_3x3_reduce.bias"),
            id="bninception, wrapped",
        ),
        pytest.param(*("bninception", IN_PLACE, MIT_WRAPPED, "mit-tsm", "module.new_fc.weight"), id="bninception TSM"),
        pytest.param(
            *("resnet18", RESIDUAL, MIT_BRANCH, "mit-tsm", "module.base_model.layer2.0.conv1.net.weight"),
            id="mit resnet18 TSM",
        ),
        pytest.param(
            *("resnext101_32x4d", TSN_, MIT_WRAPPED, "mit-tsm", "module.base_model.layer3.22.conv3.weight"),
            id="mit rx101",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("resnet50", IN_PLACE, MIT_BLOCK, "mit-tsm", "module.base_model.layer3.5.net.bn3.weight"),
            id="mit resnet50 in place",
        ),
        pytest.param("resnet50", IN_PLACE, (), "tsmzoo", "layer1.0.conv1.weight", id="ours"),
    ],
)
def test_published_keys_of_a_backbone_map_one_to_one(
    backbone: str, changes: dict[str, Any], edits: Edits, format_: str, example: str, tmp_path: Path
) -> None:
    entry = like(backbone, **changes)
    state = respelt(entry, edits)
    assert example in state
    metadata = {"model": "mine", "shift": entry.shift, "shift_place": entry.shift_place}
    assert key_maps.detect_format(state, metadata if format_ == "tsmzoo" else {}) == format_
    assert key_maps.detect_backbone(state) == backbone
    net = models.build(entry)
    rules = key_maps.RULES[format_, backbone]
    assert {key_maps.rename(key, rules) for key in state} == net.state_dict().keys()
    path = tmp_path / "file.pth"
    if format_ == "tsmzoo":
        checkpoint.save(models.build(entry, seed=0), entry, path := path.with_suffix(".safetensors"))
    else:
        torch.save({"state_dict": state}, path)
    assert checkpoint.load(net, entry, path) == checkpoint.LoadedCheckpoint(
        hashlib.sha256(path.read_bytes()).hexdigest(), format_, False
    )


def test_batch_norms_of_old_bninception_files(tmp_path: Path) -> None:
    entry = like("bninception", family="tsn")
    state = {key: t[None] if "_bn." in key and t.dim() == 1 else t for key, t in respelt(entry, ()).items()}
    torch.save(state, path := tmp_path / "old.pth")
    net = models.build(entry)
    checkpoint.load(net, entry, path)
    assert net.state_dict()["conv1_7x7_s2_bn.running_var"].shape == (64,)


def test_another_place_of_the_shift_is_refused(tmp_path: Path) -> None:
    branch, block = like("resnet50", **RESIDUAL), like("resnet50", **IN_PLACE)
    for held, edits, other in ((branch, MIT_BRANCH, block), (block, MIT_BLOCK, branch)):
        torch.save(respelt(held, edits), path := tmp_path / "file.pth")
        checkpoint.load(models.build(held), held, path)
        with pytest.raises(CheckpointError, match=f"shift_place {held.shift_place}, but .* has {other.shift_place}"):
            checkpoint.load(models.build(other), other, path)


@pytest.mark.parametrize("changes", [{"shift_div": 4}, {"shift_place": "in-place"}])
@pytest.mark.parametrize("model", [TSM, STREAM])
def test_our_files_tell_the_options_of_their_shift(model: str, changes: dict[str, Any], tmp_path: Path) -> None:
    net, plain = trained(model)
    other = msgspec.structs.replace(plain, **changes)
    for held, wanted in ((other, plain), (plain, other)):
        checkpoint.save(net, held, path := tmp_path / "mine.safetensors")
        checkpoint.load(models.build(held), held, path)
        with pytest.raises(CheckpointError, match=f"was trained with {next(iter(changes))}"):
            checkpoint.load(models.build(wanted), wanted, path)


@pytest.mark.slow
def test_our_files_tell_the_inflation(tmp_path: Path) -> None:
    """That of pytorchvideo has the names and shapes of mmaction2's, and other strides."""
    one, other = like("resnet50_i3d", family="i3d"), like("resnet50_i3d_8x8", family="i3d")
    net, path = models.build(one, seed=1), tmp_path / "mine.safetensors"
    for held, wanted in ((one, other), (other, one)):
        checkpoint.save(net, held, path)
        checkpoint.load(models.build(held), held, path)
        with pytest.raises(CheckpointError, match=f"holds {held.backbone}, but .* is {wanted.backbone};"):
            checkpoint.load(models.build(wanted), wanted, path)
    state = safetensors.torch.load_file(path)
    older = {"tsmzoo": json.dumps({"model": "mine", "shift": None})}  # of before
    safetensors.torch.save_file(state, path, older)
    checkpoint.load(models.build(one), one, path)


def test_a_format_of_another_inflation_is_refused_naming_its_own(published: Published) -> None:
    entry = like("resnet50_i3d", family="i3d", classes=400)
    path = published("pytorchvideo_i3d_r50_k400")
    with pytest.raises(CheckpointError, match=r"as pytorchvideo for resnet50_i3d; .* known for resnet50_i3d_8x8, x3d"):
        checkpoint.load(models.build(entry), entry, path)
