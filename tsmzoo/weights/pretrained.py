"""Load weights of another network to start a training from: an image network, or one without the shift."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tsmzoo.errors import CheckpointError
from tsmzoo.models import classifier
from tsmzoo.registry import Entry, ShiftName
from tsmzoo.weights.checkpoint import (
    DEFAULT_SHIFT_OPTIONS,
    LoadedCheckpoint,
    fill_network,
    is_weight,
    map_keys,
    possible_shifts,
    resolve_shift,
    shift_options,
    to_float32,
)
from tsmzoo.weights.checkpoint_file import read
from tsmzoo.weights.key_maps import RULES, detect_backbone, detect_format, is_counter


def load_pretrained(
    net: nn.Module, entry: Entry, path: Path, shift: ShiftName | None = None
) -> LoadedCheckpoint | None:
    """Load into `net`, which has weights, a network that only a training may start from; return what was loaded.

    That is an image network (torchvision's names), a network of frames if `entry` is its inflation, or a network
    without the shift that `entry` has. The classifier is kept, and so are non-local blocks that the file lacks, which
    then add nothing. Any other file is left to `checkpoint.load`, and None is returned. Raises CheckpointError, which
    names the file.
    """
    try:
        file = read(path)
        format_, found = detect_format(file.state, file.metadata), detect_backbone(file.state)
        flat = "resnet50" if entry.backbone.startswith("resnet50_i3d") else entry.backbone
        possible = possible_shifts(format_, file)
        trained = entry.shift if None in possible and len(possible) > 1 else resolve_shift(possible, shift)
        shifted = entry.shift and not trained  # by the entry alone
        if format_ != "torchvision" and (found != flat or (found == entry.backbone and not shifted)):
            return None
        if found != flat or (format_, flat) not in RULES:
            raise CheckpointError(f"holds {found}, and {entry.id} is {entry.backbone}; start from a network that fits")
        div = _shift_div_to_learn(entry, trained, shift_options(format_, file)) if entry.family == "i3d" else None
        ours = net.state_dict()
        name, _ = classifier(net)
        given = {
            key: _inflate(ours[key], tensor, div) if key in ours else tensor
            for key, tensor in map_keys(file.state, RULES[format_, flat]).items()
            if not key.startswith(f"{name}.")
        }
        # All or none: half of a block, of another kind of attention, is none.
        lacks_blocks = not any(".nl." in key for key in given)
        kept = {
            key: torch.zeros_like(tensor) if key.endswith(".nl.bn.weight") else tensor
            for key, tensor in ours.items()
            if key.startswith(f"{name}.") or (lacks_blocks and ".nl." in key)
        }
        fill_network(net, given | {key: tensor for key, tensor in kept.items() if not is_counter(key)})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return LoadedCheckpoint(file.sha256, format_, False, shift, file.notes)


def _shift_div_to_learn(entry: Entry, held: str | None, options: Mapping[str, Any]) -> int | None:
    """Return the `shift_div` of a TSM whose shift the kernels of an I3D take over; None for a network without a shift.

    Raises CheckpointError if the kernels of `entry` cannot express the shift.
    """
    if held is None:
        return None
    div: Any = options.get("shift_div", DEFAULT_SHIFT_OPTIONS["shift_div"])
    exact = entry.backbone == "resnet50_i3d_replace" and held == "bidirectional" and isinstance(div, int) and div > 1
    if not exact or options.get("shift_place") == "in-place":
        raise CheckpointError(
            f"was trained with {held} shift, which {entry.id} cannot keep; start from a network without one"
        )
    return int(div)


def _inflate(ours: Tensor, tensor: Tensor, shift_div: int | None) -> Tensor:
    """Inflate a 2-D kernel to the 3-D kernel `ours`: repeat over time and divide, so that a still clip gives the same.

    Carreira and Zisserman: Quo Vadis, Action Recognition?, § 2.4 (Bootstrapping 3D filters from 2D filters). With
    `shift_div` the kernel takes each channel from the frame that the shift in front of it took it from.
    """
    if ours.dim() != 5 or tensor.shape != (*ours.shape[:2], *ours.shape[3:]) or not is_weight(tensor):
        return tensor
    tensor, reach = to_float32(tensor).unsqueeze(2), ours.shape[2]
    if reach == 1 or not shift_div:
        return tensor.expand(-1, -1, reach, -1, -1) / reach
    fold = tensor.shape[1] // shift_div
    kernel = torch.zeros_like(tensor).repeat(1, 1, reach, 1, 1)
    for channels, tap in ((slice(fold), 2), (slice(fold, 2 * fold), 0), (slice(2 * fold, None), 1)):
        kernel[:, channels, tap] = tensor[:, channels, 0]
    return kernel
