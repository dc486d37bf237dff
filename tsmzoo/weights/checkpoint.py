"""Published checkpoints into our networks: told apart by their keys, mapped by rules, loaded strictly.

What is missing, unexpected, of another shape or not finite is listed and refused before a single tensor is used.
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
from tsmzoo.weights.key_maps import (
    FORMATS,
    RULES,
    Rules,
    detect_backbone,
    detect_format,
    is_counter,
    rename,
    shown,
    some,
)
from tsmzoo.weights.reading import METADATA, File, read
from tsmzoo.weights.reading import located as located

#: What else it says of the shift, where it is not this.
_OPTIONS = {"shift_div": 8, "shift_place": "residual"}
#: Keys whose shift stands in front of a whole block.
_IN_PLACE = r"((layer|stage)\d\.\d+|features\.\d+|stage0)\.(block\.)?net\."


#: What a weight may be stored as.
_FLOATS = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
)
_Shift = Literal["bidirectional", "unidirectional"] | None


class _ShiftOptions(msgspec.Struct):
    shift_div: Annotated[int, msgspec.Meta(ge=2)] = 8
    shift_place: Literal["residual", "in-place"] = "residual"


@dataclass(frozen=True)
class Loaded:
    """What a network holds: for the record that goes with every file made from it."""

    sha256: str
    format: str
    #: A bidirectional checkpoint was loaded into an online model on the user's word.
    shift_mismatch: bool
    #: The shift that somebody said it was trained with, where its keys do not tell.
    shift: ShiftName | None = None
    #: What of the file was taken, where that needs a word.
    notes: tuple[str, ...] = ()


def load(
    net: nn.Module,
    entry: Entry,
    path: Path,
    *,
    weights_format: str | None = None,
    shift: ShiftName | None = None,
    allow_shift_mismatch: bool = False,
) -> Loaded:
    """Fill `net`, built from `entry`, with the checkpoint at `path`, all of it or nothing.

    `weights_format` names the format instead of its keys, `shift` the shift that it was trained with. A bidirectional
    checkpoint is refused by an online model unless `allow_shift_mismatch`. Raises CheckpointError, which names the
    file.
    """
    try:
        file = read(path)
        format_ = weights_format or detect_format(file.state, file.metadata)
        mismatch = _check_fit(entry, format_, file, shift, allow_shift_mismatch=allow_shift_mismatch)
        _check_told(entry, format_, file)
        _fill(net, _renamed(file.state, RULES[format_, entry.backbone]))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Loaded(file.sha256, format_, mismatch, shift, file.notes)


def start(net: nn.Module, entry: Entry, path: Path, shift: ShiftName | None = None) -> Loaded | None:
    """Fill `net`, which holds weights already, with a network that only a training may start from; return what it was.

    That is an image network (torchvision's names), one of frames where `entry` is its inflation, or one without a
    shift, which `entry` gives it. The classifier stays what it is, and so do non-local blocks that the file lacks,
    which add nothing yet. Any other file is left to `load`, and None returned. Raises CheckpointError, which names
    the file.
    """
    try:
        file = read(path)
        format_, found = detect_format(file.state, file.metadata), detect_backbone(file.state)
        flat = "resnet50" if entry.backbone.startswith("resnet50_i3d") else entry.backbone
        possible = shifts(format_, file)
        trained = entry.shift if None in possible and len(possible) > 1 else held(possible, shift)
        shifted = entry.shift and not trained  # by the entry alone
        if format_ != "torchvision" and (found != flat or (found == entry.backbone and not shifted)):
            return None
        if found != flat or (format_, flat) not in RULES:
            raise CheckpointError(f"holds {found}, and {entry.id} is {entry.backbone}; start from a network that fits")
        div = _shift_to_learn(entry, trained, _options(format_, file)) if entry.family == "i3d" else None
        ours = net.state_dict()
        name, _ = classifier(net)
        given = {
            key: _inflated(ours[key], tensor, div) if key in ours else tensor
            for key, tensor in _renamed(file.state, RULES[format_, flat]).items()
            if not key.startswith(f"{name}.")
        }
        # All or none: half of a block, of another kind of attention, is none.
        lacks_blocks = not any(".nl." in key for key in given)
        kept = {
            key: torch.zeros_like(tensor) if key.endswith(".nl.bn.weight") else tensor
            for key, tensor in ours.items()
            if key.startswith(f"{name}.") or (lacks_blocks and ".nl." in key)
        }
        _fill(net, given | {key: tensor for key, tensor in kept.items() if not is_counter(key)})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Loaded(file.sha256, format_, False, shift, file.notes)


def classes(net: nn.Module, entry: Entry, path: Path) -> int | None:
    """Return the rows of the classifier of a checkpoint of `entry`; None where it has none that `load` would find.

    Raises CheckpointError, which names the file, where it cannot be read.
    """
    try:
        file = read(path)
        rules = RULES.get((detect_format(file.state, file.metadata), entry.backbone), ())
        weight = _renamed(file.state, rules).get(f"{classifier(net)[0]}.weight")
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return weight.shape[0] if weight is not None and weight.dim() >= 2 else None


def fitted(entry: Entry, file: File, format_: str) -> Entry | None:
    """Return `entry` with the classes and the shift's options of a file that fits it but for these, or None."""
    if (format_, entry.backbone) not in RULES:
        return None
    state = _renamed(file.state, RULES[format_, entry.backbone])
    options = _options(format_, file) if entry.shift else {}
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
    shapes = {key: _as_wide_as(torch.empty(wanted.get(key, ()), device="meta"), t).shape for key, t in state.items()}
    return msgspec.structs.replace(entry, classes=rows, **options) if rows and shapes == wanted else None


def check(entry: Entry, file: File) -> None:
    """Check that a file may hold the weights of `entry`, by the names of its tensors and what it says of itself.

    Raises CheckpointError.
    """
    format_ = detect_format(file.state, file.metadata)
    if format_ != entry.format:
        raise CheckpointError(f"is a checkpoint of format {format_}, not {entry.format}")
    _check_fit(entry, format_, file, entry.said_shift, allow_shift_mismatch=True)
    _check_told(entry, format_, file)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a safetensors file of ours says of itself; nothing of other files."""
    return read(path).metadata


def save(net: nn.Module, entry: Entry, path: Path) -> None:
    """Write the weights of `net`, built from `entry`, in our own format."""
    path.write_bytes(content(net, entry))


def content(net: nn.Module, entry: Entry) -> bytes:
    """Return the weights of `net`, built from `entry`, in our own format; the same weights give the same bytes."""
    import safetensors.torch

    state = {key: tensor.cpu().contiguous() for key, tensor in net.state_dict().items() if not is_counter(key)}
    # One key, since safetensors writes several in any order.
    options = {key: value for key in _OPTIONS if (value := getattr(entry, key)) != _OPTIONS[key]}
    if entry.family == "i3d":  # whose inflations may have the same names and shapes, but other strides
        options["backbone"] = entry.backbone
    metadata = {METADATA: json.dumps({"model": entry.id, "shift": entry.shift} | options)}
    return safetensors.torch.save(state, metadata)


def shifts(format_: str, file: File) -> tuple[_Shift, ...]:
    """Return what a file may have been trained with, as far as it tells: its shift, or None for none.

    MIT's trainer saves both directions alike, and BNInception, whose shift is a function there, with and without.
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


def held(possible: tuple[_Shift, ...], said: ShiftName | None) -> _Shift:
    """Return the shift of a file: the one that was said, else the likeliest."""
    if said is None:
        return possible[0]
    if (direction := DIRECTIONS[said]) not in possible:
        raise CheckpointError(
            f"was trained with {_either(possible)} shift, as it says itself; leave out shift {said}, which it is not"
        )
    return direction


def _either(possible: tuple[_Shift, ...]) -> str:
    return " or ".join(shown(str(shift or "no")) for shift in possible)


def _check_fit(entry: Entry, format_: str, file: File, said: ShiftName | None, *, allow_shift_mismatch: bool) -> bool:
    """Check architecture and shift against the entry; return whether a shift mismatch was allowed."""
    family = "resnet50_i3d" if entry.backbone.startswith("resnet50_i3d") else entry.backbone  # told apart by shapes
    if (found := detect_backbone(file.state)) != family:
        raise CheckpointError(f"holds {found}, but {entry.id} is {entry.backbone}; choose a model that fits the file")
    if format_ == "torchvision":
        raise CheckpointError(
            f"holds an image network: its classifier is not that of {entry.id}; start a training from it"
        )
    if (format_, entry.backbone) not in RULES:
        takes = ", ".join(backbone for known, backbone in RULES if known == format_)
        hint = f"that format is known for {takes}" if takes else f"formats are {', '.join(FORMATS)}"
        raise CheckpointError(f"is not known as {shown(format_)} for {entry.backbone}; {hint}")
    possible = shifts(format_, file)
    if (trained := held(possible, said)) == entry.shift:
        return False
    if said is None and len(possible) > 1:
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
        f"was trained with {_either(possible if said is None else (trained,))} shift, but {entry.id} has "
        f"{entry.shift or 'none'}; choose a model that fits the file"
    )


def _options(format_: str, file: File) -> dict[str, Any]:
    """Return what a file tells of its shift beside the direction: our own all, others the place."""
    held = {key: file.metadata.get(key, default) for key, default in _OPTIONS.items()} if format_ == "tsmzoo" else {}
    if any(".net." in key for key in file.state):
        held["shift_place"] = "in-place" if any(re.search(_IN_PLACE, key) for key in file.state) else "residual"
    return held


def _check_told(entry: Entry, format_: str, file: File) -> None:
    """Check what keys and shapes do not tell: a file of ours names its inflation; and the options of the shift."""
    if format_ == "tsmzoo" and (held := file.metadata.get("backbone", entry.backbone)) != entry.backbone:
        raise CheckpointError(
            f"holds {shown(str(held))}, but {entry.id} is {entry.backbone}; choose a model that fits the file"
        )
    if not entry.shift:
        return
    for key, value in _options(format_, file).items():
        if value != (wanted := getattr(entry, key)):
            raise CheckpointError(
                f"was trained with {key} {shown(str(value))}, but {entry.id} has {wanted}; "
                "choose a model that fits the file"
            )


def _shift_to_learn(entry: Entry, held: str | None, options: Mapping[str, Any]) -> int | None:
    """Return `shift_div` of a TSM whose shift an I3D is to start with; None of a network without a shift.

    Raises CheckpointError where no kernel of `entry` can take the shift's place.
    """
    if held is None:
        return None
    div: Any = options.get("shift_div", _OPTIONS["shift_div"])
    exact = entry.backbone == "resnet50_i3d_replace" and held == "bidirectional" and isinstance(div, int) and div > 1
    if not exact or options.get("shift_place") == "in-place":
        raise CheckpointError(
            f"was trained with {held} shift, which {entry.id} cannot keep; start from a network without one"
        )
    return int(div)


def _inflated(ours: Tensor, tensor: Tensor, shift_div: int | None) -> Tensor:
    """Repeat a kernel of frames along the time that ours reaches over, and divide: a still clip gives the same.

    Carreira and Zisserman: Quo Vadis, Action Recognition?, § 2.4 (Bootstrapping 3D filters from 2D filters). Where a
    shift stood in front (`shift_div`), the kernel takes each channel from the frame that the shift took it from.
    """
    if ours.dim() != 5 or tensor.shape != (*ours.shape[:2], *ours.shape[3:]) or not _is_weight(tensor):
        return tensor
    tensor, reach = _dense(tensor).unsqueeze(2), ours.shape[2]
    if reach == 1 or not shift_div:
        return tensor.expand(-1, -1, reach, -1, -1) / reach
    fold = tensor.shape[1] // shift_div
    kernel = torch.zeros_like(tensor).repeat(1, 1, reach, 1, 1)
    for channels, tap in ((slice(fold), 2), (slice(fold, 2 * fold), 0), (slice(2 * fold, None), 1)):
        kernel[:, channels, tap] = tensor[:, channels, 0]
    return kernel


def _renamed(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = rename(key, rules)
        if not name or is_counter(name):
            continue
        if name in renamed:
            raise CheckpointError(f"has two tensors for {shown(name)} (the second is {shown(key)}); nothing was loaded")
        renamed[name] = tensor
    return renamed


def _fill(net: nn.Module, state: dict[str, Tensor]) -> None:
    held = net.state_dict()
    wanted = {key: tensor for key, tensor in held.items() if not is_counter(key)}
    state = {key: _as_wide_as(wanted[key], tensor) if key in wanted else tensor for key, tensor in state.items()}
    misshapen = {
        key: f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and not state[key].is_meta and state[key].shape != wanted[key].shape
    }
    problems = [
        f"{kind}: {some(keys)}"
        for kind, keys in (
            ("missing", sorted(wanted.keys() - state.keys())),
            ("unexpected", sorted(state.keys() - wanted.keys())),
            ("of another shape", list(misshapen.values())),
            ("sparse, nested, quantised or data-less", [key for key, tensor in state.items() if tensor.is_meta]),
            (
                "not floating-point",
                [key for key, tensor in state.items() if not tensor.is_meta and not _is_weight(tensor)],
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
    values = {key: _dense(state[key]) for key in wanted}
    if bad := [key for key, tensor in values.items() if not tensor.isfinite().all()]:
        raise CheckpointError(f"has values that are not finite in {some(bad)}; nothing was loaded")
    if bad := [key for key, tensor in values.items() if key.endswith("running_var") and (tensor < 0).any()]:
        raise CheckpointError(f"has negative variances in {some(bad)}; nothing was loaded")
    counters = {key: torch.zeros((), dtype=torch.long) for key in held if is_counter(key)}
    net.load_state_dict(values | counters, strict=True, assign=True)


def _other_classes(net: nn.Module, state: Mapping[str, Tensor], misshapen: Iterable[str]) -> int | None:
    """Return the rows of a file's classifier where nothing but their number differs."""
    name, linear = classifier(net)
    weight, bias = state.get(f"{name}.weight"), state.get(f"{name}.bias")
    if weight is None or bias is None or set(misshapen) != {f"{name}.weight", f"{name}.bias"}:
        return None
    rows = weight.shape[0] if weight.dim() == 2 else None
    return rows if weight.shape[1:] == linear.weight.shape[1:] and bias.shape == (rows,) else None


def _as_wide_as(ours: Tensor, tensor: Tensor) -> Tensor:
    """Drop last axes of one: 1x1x1 kernels of what we do with 1x1 ones (non-local) or a linear layer (Inception).

    And the first of a batch norm's 1, C, as old BNInception files have it.
    """
    while tensor.dim() > ours.dim() and tensor.shape[-1] == 1:
        tensor = tensor.squeeze(-1)
    return tensor.squeeze(0) if ours.dim() == 1 and tensor.dim() == 2 else tensor


def _is_weight(tensor: Tensor) -> bool:
    return tensor.dtype in _FLOATS and not tensor.is_meta


def _dense(tensor: Tensor) -> Tensor:
    return tensor.float().clone(memory_format=torch.contiguous_format)
