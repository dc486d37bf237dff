"""Load checkpoints into networks, and save them in our own format.

The format is detected by the keys, the keys are mapped by rules (`key_maps.py`), and loading is strict: tensors that
are missing, unexpected, of another shape or not finite are listed and refused before any is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from torch import Tensor, nn

from tsmzoo.errors import CheckpointError
from tsmzoo.models import build, classifier
from tsmzoo.registry import DIRECTIONS, Entry, ShiftName
from tsmzoo.weights.checkpoint_file import METADATA, CheckpointFile, read
from tsmzoo.weights.key_maps import (
    FORMATS,
    RULES,
    UNKNOWN,
    Rules,
    detect_backbone,
    detect_format,
    is_counter,
    rename,
    short_name,
    some_names,
)

#: Options of the shift that our own format records if they differ from these.
DEFAULT_SHIFT_OPTIONS = {"shift_div": 8, "shift_place": "residual"}
#: Keys of a shift in front of a whole block.
_IN_PLACE = r"((layer|stage)\d\.\d+|features\.\d+|stage0)\.(block\.)?net\."


#: What `detect_backbone` calls all backbones whose names begin so.
_BY_SHAPES = ("resnet50_i3d", "x3d_l", "x3d")

#: Types in which weights may be stored.
_FLOATS = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
)
_Shift = Literal["bidirectional", "unidirectional"] | None


class _ShiftOptions(msgspec.Struct):
    shift_div: Annotated[int, msgspec.Meta(ge=2)] = 8
    shift_place: Literal["residual", "in-place"] = "residual"


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What was loaded into a network; the contract of every exported file records it."""

    sha256: str
    format: str
    #: The user allowed a bidirectional checkpoint in an online model.
    shift_mismatch: bool
    #: The shift that the user or the registry gave, if the keys do not determine it.
    shift: ShiftName | None = None
    #: Notes for the user on which weights of the file were taken.
    notes: tuple[str, ...] = ()


def load(
    net: nn.Module,
    entry: Entry,
    path: Path,
    *,
    weights_format: str | None = None,
    shift: ShiftName | None = None,
    allow_shift_mismatch: bool = False,
) -> LoadedCheckpoint:
    """Load the checkpoint at `path` into `net`, built from `entry`: all of it or nothing.

    `weights_format` is one of `key_maps.FORMATS` (default: detected), `shift` the shift that the checkpoint was trained
    with (default: detected, else the entry's). An online model takes a bidirectional checkpoint only with
    `allow_shift_mismatch`. Raises CheckpointError, which names the file.
    """
    try:
        file = read(path)
        format_ = weights_format or detect_format(file.state, file.metadata)
        mismatch = _check_fit(entry, format_, file, shift, allow_shift_mismatch=allow_shift_mismatch)
        _check_options(entry, format_, file)
        fill_network(net, map_keys(file.state, RULES[format_, entry.backbone]))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return LoadedCheckpoint(file.sha256, format_, mismatch, shift, file.notes)


def count_classes(net: nn.Module, entry: Entry, path: Path) -> int | None:
    """Return the number of classes of a checkpoint of `entry`; None if it has no classifier that `load` would find.

    Raises CheckpointError, which names the file, if it cannot be read.
    """
    try:
        file = read(path)
        rules = RULES.get((detect_format(file.state, file.metadata), entry.backbone), ())
        weight = map_keys(file.state, rules).get(f"{classifier(net)[0]}.weight")
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return weight.shape[0] if weight is not None and weight.dim() >= 2 else None


def fit_entry(entry: Entry, file: CheckpointFile, format_: str) -> Entry | None:
    """Return `entry` with the classes and shift options of a file that fits it otherwise; None if it does not fit."""
    if (format_, entry.backbone) not in RULES:
        return None
    state = map_keys(file.state, RULES[format_, entry.backbone])
    options = shift_options(format_, file) if entry.shift else {}
    try:
        msgspec.convert(options, _ShiftOptions)
    except msgspec.ValidationError:
        return None
    net = build(msgspec.structs.replace(entry, **options))
    wanted = {key: tensor.shape for key, tensor in net.state_dict().items() if not is_counter(key)}
    name, linear = classifier(net)
    weight = state.get(f"{name}.weight")
    rows = weight.shape[0] if weight is not None and weight.dim() else 0
    if rows:
        wanted |= {f"{name}.weight": torch.Size((rows, linear.in_features)), f"{name}.bias": torch.Size((rows,))}
    shapes = {key: _match_axes(torch.empty(wanted.get(key, ()), device="meta"), t).shape for key, t in state.items()}
    return msgspec.structs.replace(entry, classes=rows, **options) if rows and shapes == wanted else None


def check(entry: Entry, file: CheckpointFile) -> None:
    """Check by tensor names and metadata that a file may hold the weights of `entry`. Raises CheckpointError."""
    format_ = detect_format(file.state, file.metadata)
    if format_ != entry.format:
        raise CheckpointError(f"is a checkpoint of format {format_}, not {entry.format}")
    _check_fit(entry, format_, file, entry.said_shift, allow_shift_mismatch=True)
    _check_options(entry, format_, file)


def save(net: nn.Module, entry: Entry, path: Path) -> None:
    """Write the weights of `net`, built from `entry`, in our own format."""
    path.write_bytes(to_bytes(net, entry))


def to_bytes(net: nn.Module, entry: Entry) -> bytes:
    """Return the weights of `net`, built from `entry`, in our own format; the same weights give the same bytes."""
    import safetensors.torch

    state = {key: tensor.cpu().contiguous() for key, tensor in net.state_dict().items() if not is_counter(key)}
    # One key, since safetensors writes several in any order.
    options = {
        key: value for key in DEFAULT_SHIFT_OPTIONS if (value := getattr(entry, key)) != DEFAULT_SHIFT_OPTIONS[key]
    }
    if entry.family in ("i3d", "x3d"):  # which may have the same names and shapes, but other strides or windows
        options["backbone"] = entry.backbone
    metadata = {METADATA: json.dumps({"model": entry.id, "shift": entry.shift} | options)}
    return safetensors.torch.save(state, metadata)


def possible_shifts(format_: str, file: CheckpointFile) -> tuple[_Shift, ...]:
    """Return the shifts that a file may have been trained with, likeliest first; None stands for no shift.

    MIT's trainer saves both directions alike, and BNInception alike with and without a shift.
    """
    if format_ == "tsmzoo":
        return (file.metadata.get("shift"),)
    if any(".net." in key for key in file.state):
        # mmaction2 knows no other direction.
        return ("bidirectional",) if format_ == "mmaction2" else ("bidirectional", "unidirectional")
    if format_ == "mit-tsm" and detect_backbone(file.state) == "bninception":
        # A file that their trainer did not wrap is no TSM.
        wrapped = any("base_model." in key for key in file.state)
        return ("bidirectional", "unidirectional", None) if wrapped else (None,)
    return ("unidirectional",) if format_ == "mit-tsm-online" else (None,)


def resolve_shift(possible: tuple[_Shift, ...], given: ShiftName | None) -> _Shift:
    """Return the shift of a file: the one given, else the likeliest. Raises CheckpointError if it is not possible."""
    if given is None:
        return possible[0]
    if (direction := DIRECTIONS[given]) not in possible:
        raise CheckpointError(
            f"was trained with {_either_shift(possible)} shift, as it says itself; leave out shift {given}, which it "
            "is not"
        )
    return direction


def shift_options(format_: str, file: CheckpointFile) -> dict[str, Any]:
    """Return the options of the shift that a file determines: our own format all, others the place."""
    recorded = (
        {key: file.metadata.get(key, default) for key, default in DEFAULT_SHIFT_OPTIONS.items()}
        if format_ == "tsmzoo"
        else {}
    )
    if any(".net." in key for key in file.state):
        recorded["shift_place"] = "in-place" if any(re.search(_IN_PLACE, key) for key in file.state) else "residual"
    return recorded


def map_keys(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Return tensors by our keys, without counters. Raises CheckpointError if two have the same key."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = rename(key, rules)
        if not name or is_counter(name):
            continue
        if name in renamed:
            raise CheckpointError(
                f"has two tensors for {short_name(name)} (the second is {short_name(key)}); nothing was loaded"
            )
        renamed[name] = tensor
    return renamed


def fill_network(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Load tensors with our keys into `net`, all or none. Raises CheckpointError, which lists what does not fit."""
    ours = net.state_dict()
    wanted = {key: tensor for key, tensor in ours.items() if not is_counter(key)}
    state = {key: _match_axes(wanted[key], tensor) if key in wanted else tensor for key, tensor in state.items()}
    misshapen = {
        key: f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and not state[key].is_meta and state[key].shape != wanted[key].shape
    }
    problems = [
        f"{kind}: {some_names(keys)}"
        for kind, keys in (
            ("missing", sorted(wanted.keys() - state.keys())),
            ("unexpected", sorted(state.keys() - wanted.keys())),
            ("of another shape", list(misshapen.values())),
            ("sparse, nested, quantised or data-less", [key for key, tensor in state.items() if tensor.is_meta]),
            (
                "not floating-point",
                [key for key, tensor in state.items() if not tensor.is_meta and not is_weight(tensor)],
            ),
        )
        if keys
    ]
    if problems:
        if len(problems) == 1 and (found := _other_classes(net, state, misshapen.keys())):
            raise CheckpointError(
                f"fits the model but for its classifier, which has {found} classes: say --classes {found}, or --labels "
                f"FILE with their names ({problems[0]}); nothing was loaded"
            )
        raise CheckpointError(f"does not fit the model; {'; '.join(problems)}; nothing was loaded")
    values = {key: to_float32(state[key]) for key in wanted}
    if bad := [key for key, tensor in values.items() if not tensor.isfinite().all()]:
        raise CheckpointError(f"has values that are not finite in {some_names(bad)}; nothing was loaded")
    if bad := [key for key, tensor in values.items() if key.endswith("running_var") and (tensor < 0).any()]:
        raise CheckpointError(f"has negative variances in {some_names(bad)}; nothing was loaded")
    counters = {key: torch.zeros((), dtype=torch.long) for key in ours if is_counter(key)}
    net.load_state_dict(values | counters, strict=True, assign=True)


def is_weight(tensor: Tensor) -> bool:
    """Say whether a tensor has floating-point data."""
    return tensor.dtype in _FLOATS and not tensor.is_meta


def to_float32(tensor: Tensor) -> Tensor:
    """Return a contiguous float32 copy."""
    return tensor.float().clone(memory_format=torch.contiguous_format)


def _either_shift(possible: tuple[_Shift, ...]) -> str:
    return " or ".join(short_name(str(shift or "no")) for shift in possible)


def _check_fit(
    entry: Entry, format_: str, file: CheckpointFile, given: ShiftName | None, *, allow_shift_mismatch: bool
) -> bool:
    """Check architecture and shift against the entry; return whether the shift differs and that was allowed."""
    # Networks of one name but for its end are told apart by shapes.
    family = next((name for name in _BY_SHAPES if entry.backbone.startswith(name)), entry.backbone)
    found = detect_backbone(file.state)
    # Our own format needs no rules for a new backbone: `fill_network` compares every name and shape.
    if found != family and not (format_ == "tsmzoo" and found == UNKNOWN):
        raise CheckpointError(f"holds {found}, but {entry.id} is {entry.backbone}; choose a model that fits the file")
    if format_ == "torchvision":
        raise CheckpointError(
            f"holds an image network: its classifier is not that of {entry.id}; start a training from it"
        )
    if (format_, entry.backbone) not in RULES:
        takes = ", ".join(backbone for known, backbone in RULES if known == format_)
        hint = f"that format is known for {takes}" if takes else f"formats are {', '.join(FORMATS)}"
        raise CheckpointError(f"is not known as {short_name(format_)} for {entry.backbone}; {hint}")
    possible = possible_shifts(format_, file)
    if (trained := resolve_shift(possible, given)) == entry.shift:
        return False
    if given is None and len(possible) > 1:
        if entry.mode == "offline" and entry.shift in possible:
            return False  # the model is trusted
        if entry.mode == "online" and not allow_shift_mismatch:
            raise CheckpointError(
                f"has a shift, but its keys do not tell a unidirectional one from a bidirectional one, which takes "
                f"channels from the future, and {entry.id} is online; say --shift uni if it was trained so, or "
                "--allow-shift-mismatch to measure a bidirectional one all the same"
            )
    if entry.mode == "online" and trained == "bidirectional":
        if allow_shift_mismatch:
            return True
        raise CheckpointError(
            f"is a bidirectional checkpoint, whose first channels come from the future; {entry.id} is online and "
            "would answer wrongly; give a unidirectional one, or --allow-shift-mismatch to measure it all the same"
        )
    raise CheckpointError(
        f"was trained with {_either_shift(possible if given is None else (trained,))} shift, but {entry.id} has "
        f"{entry.shift or 'none'}; choose a model that fits the file"
    )


def _check_options(entry: Entry, format_: str, file: CheckpointFile) -> None:
    """Check what keys and shapes do not show: the inflation, which our own format names, and the shift's options."""
    if format_ == "tsmzoo" and (recorded := file.metadata.get("backbone", entry.backbone)) != entry.backbone:
        raise CheckpointError(
            f"holds {short_name(str(recorded))}, but {entry.id} is {entry.backbone}; choose a model that fits the file"
        )
    if not entry.shift:
        return
    for key, value in shift_options(format_, file).items():
        if value != (wanted := getattr(entry, key)):
            raise CheckpointError(
                f"was trained with {key} {short_name(str(value))}, but {entry.id} has {wanted}; "
                "choose a model that fits the file"
            )


def _other_classes(net: nn.Module, state: Mapping[str, Tensor], misshapen: Iterable[str]) -> int | None:
    """Return the number of classes of a file that differs from `net` in nothing else; else None."""
    name, linear = classifier(net)
    weight, bias = state.get(f"{name}.weight"), state.get(f"{name}.bias")
    if weight is None or bias is None or set(misshapen) != {f"{name}.weight", f"{name}.bias"}:
        return None
    rows = weight.shape[0] if weight.dim() == 2 else None
    return rows if weight.shape[1:] == linear.weight.shape[1:] and bias.shape == (rows,) else None


def _match_axes(ours: Tensor, tensor: Tensor) -> Tensor:
    """Drop axes of size 1 that ours lacks: trailing ones, of kernels of 1x1x1 where ours are 1x1 or linear.

    Also that of time of kernels of 1x3x3 (MoViNet's as it was trained), the first axis of batch norms of shape 1, C in
    old BNInception files; and make of a linear layer a 1x1x1 kernel (X3D of mmaction2).
    """
    if tensor.dim() == 2 and ours.shape[2:] == (1, 1, 1):
        return tensor[..., None, None, None]
    while tensor.dim() > ours.dim() and tensor.shape[-1] == 1:
        tensor = tensor.squeeze(-1)
    if (ours.dim(), tensor.dim()) == (4, 5):
        return tensor.squeeze(2)
    return tensor.squeeze(0) if (ours.dim(), tensor.dim()) == (1, 2) else tensor
