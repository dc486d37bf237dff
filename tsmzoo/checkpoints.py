"""Published checkpoints into our networks: told apart by their keys, mapped by rules, loaded strictly.

A file is read with `weights_only=True` and nothing else, or by a library that knows tensors alone; whatever is
missing, unexpected, of another shape or not finite is listed and refused before a single tensor is used.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from tsmzoo import tf_checkpoint
from tsmzoo.errors import CheckpointError
from tsmzoo.keys import FORMATS, RULES, Rules, is_counter, rename, some, tell_backbone, tell_format
from tsmzoo.models import classifier
from tsmzoo.registry import Entry

#: Key of a safetensors file's metadata under which our own format says what it holds.
_METADATA = "tsmzoo"
#: What else it says of the shift, where it is not this.
_OPTIONS = {"shift_div": 8, "shift_place": "residual"}
#: Keys whose shift stands in front of a whole block.
_IN_PLACE = r"((layer|stage)\d\.\d+|features\.\d+|stage0)\.(block\.)?net\."


@dataclass(frozen=True)
class Loaded:
    """What a network holds: for the record that goes with every file made from it."""

    sha256: str
    format: str
    #: A bidirectional checkpoint was loaded into an online model on the user's word.
    shift_mismatch: bool


def load(
    net: nn.Module,
    entry: Entry,
    path: Path,
    *,
    weights_format: str | None = None,
    allow_shift_mismatch: bool = False,
) -> Loaded:
    """Fill `net`, built from `entry`, with the checkpoint at `path`, all of it or nothing.

    `weights_format` names the format instead of its keys. A bidirectional checkpoint is refused by an
    online model unless `allow_shift_mismatch`. Raises CheckpointError, which names the file.
    """
    try:
        file = located(path)
        sha256 = _digest(file)
        state, metadata = read_state(file), read_metadata(file)
        format_ = weights_format or tell_format(state, metadata)
        held = _shift(entry, format_, state, metadata)
        mismatch = _check_fit(entry, format_, state, held, allow_shift_mismatch=allow_shift_mismatch)
        _check_told(entry, format_, state, metadata)
        _fill(net, _renamed(state, RULES[format_, entry.backbone]))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Loaded(sha256, format_, mismatch)


def start(net: nn.Module, entry: Entry, path: Path) -> bool:
    """Fill `net`, which holds weights already, with a network that only a training may start from; return whether.

    That is an image network (torchvision's names), one of frames where `entry` is its inflation, or one without a
    shift, which `entry` gives it. The classifier stays what it is, and so do non-local blocks that the file lacks,
    which add nothing yet. Any other file is left to `load`, and False returned. Raises CheckpointError, which names
    the file.
    """
    try:
        file = located(path)
        _digest(file)
        state, metadata = read_state(file), read_metadata(file)
        format_, found = tell_format(state, metadata), tell_backbone(state)
        flat = "resnet50" if entry.backbone.startswith("resnet50_i3d") else entry.backbone
        held = _shift(entry, format_, state, metadata)
        shifted = entry.shift and not held  # by the entry alone
        if format_ != "torchvision" and (found != flat or (found == entry.backbone and not shifted)):
            return False
        if found != flat or (format_, flat) not in RULES:
            raise CheckpointError(f"holds {found}, and {entry.id} is {entry.backbone}; start from a network that fits")
        div = _shift_to_learn(entry, held, _options(format_, state, metadata)) if entry.family == "i3d" else None
        ours = net.state_dict()
        name, _ = classifier(net)
        given = {
            key: _inflated(key, ours[key], tensor, div) if key in ours else tensor
            for key, tensor in _renamed(state, RULES[format_, flat]).items()
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
    return True


def located(path: Path) -> Path:
    """Return the file of the checkpoint that `path` names: of TensorFlow's, which are two files, the one with the data.

    Raises CheckpointError where the other is missing, or where a folder holds several.
    """
    try:
        return tf_checkpoint.data_file(path) or path
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror}); check its permissions") from None


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint file, by key; nothing in the file is executed.

    Raises CheckpointError where the file cannot be read, needs code to be read, or holds no tensors.
    """
    content = _content(path)
    for wrapper in ("state_dict", "model_state"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"holds a {type(content).__name__}, not named tensors; give a checkpoint file")
    # A distillation run's file holds its teacher, too, which is another network.
    state = {
        str(key): value
        for key, value in content.items()
        if isinstance(value, Tensor) and not str(key).startswith("teacher.")
    }
    if not state:
        raise CheckpointError("holds no tensors; give a checkpoint file")
    return state


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a safetensors file of ours says of itself; nothing of other files."""
    if path.suffix != ".safetensors":
        return {}
    import safetensors

    with safetensors.safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(_METADATA)
    try:
        metadata = json.loads(text or "{}")
    except ValueError:
        metadata = {}
    return metadata if isinstance(metadata, dict) else {}


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
    metadata = {_METADATA: json.dumps({"model": entry.id, "shift": entry.shift} | options)}
    return safetensors.torch.save(state, metadata)


def _content(path: Path) -> Any:
    if path.suffix == tf_checkpoint.DATA:
        return {key: torch.from_numpy(array) for key, array in tf_checkpoint.read(path).items()}
    if path.suffix == ".safetensors":
        import safetensors.torch

        try:
            return safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"is no safetensors file ({_one_line(error)}); download it again") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of old layouts, of which most published files are
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_plain_zip(path))
    except UnpicklingError as error:
        if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise CheckpointError(
                f"asks to run {wanted[1]!r} when loaded, which no weights need; refused, get it from its publisher"
            ) from None
        raise CheckpointError("is not a file written by torch.save; give a checkpoint file") from None
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise CheckpointError(
            f"is damaged or not a checkpoint ({type(error).__name__}: {_one_line(error)}); get it again"
        ) from None


def _is_plain_zip(path: Path) -> bool:
    """Say whether tensors may be mapped from the file: a compressed member's bytes are not a tensor's."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())


def _digest(path: Path) -> str:
    try:
        if path.is_dir():
            raise CheckpointError("is a directory; give the checkpoint file in it")
        with path.open("rb") as file:
            if not file.peek(1):
                raise CheckpointError("is empty; download it again")
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise CheckpointError("does not exist; check the path given with --weights") from None
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror}); check its permissions") from None


def _shift(entry: Entry, format_: str, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str | None:
    """Return the direction of the shift that a file was trained with."""
    if format_ == "tsmzoo":
        return metadata.get("shift")
    if (format_, entry.backbone, entry.mode) == ("mit-tsm", "bninception", "offline"):
        # A function there, no module: with and without, the keys are the same, and the entry is trusted. A file that
        # their trainer did not wrap is no TSM.
        return entry.shift if any("base_model." in key for key in state) else None
    if any(".net." in key for key in state):
        return "bidirectional"
    return "unidirectional" if format_ == "mit-tsm-online" else None


def _check_fit(
    entry: Entry, format_: str, state: Mapping[str, Tensor], held: str | None, *, allow_shift_mismatch: bool
) -> bool:
    """Check architecture and shift against the entry; return whether a shift mismatch was allowed."""
    family = "resnet50_i3d" if entry.backbone.startswith("resnet50_i3d") else entry.backbone  # told apart by shapes
    if (found := tell_backbone(state)) != family:
        raise CheckpointError(f"holds {found}, but {entry.id} is {entry.backbone}; choose a model that fits the file")
    if format_ == "torchvision":
        raise CheckpointError(
            f"holds an image network: its classifier is not that of {entry.id}; start a training from it"
        )
    if (format_, entry.backbone) not in RULES:
        takes = ", ".join(backbone for known, backbone in RULES if known == format_)
        hint = f"that format is known for {takes}" if takes else f"formats are {', '.join(FORMATS)}"
        raise CheckpointError(f"is not known as {format_} for {entry.backbone}; {hint}")
    if held == entry.shift:
        return False
    if entry.mode == "online" and held == "bidirectional":
        if allow_shift_mismatch:
            return True
        raise CheckpointError(
            f"is a bidirectional checkpoint, whose first channels come from the future; {entry.id} is online and "
            "would answer wrongly; give a unidirectional one, or --allow-shift-mismatch to measure it all the same"
        )
    raise CheckpointError(
        f"was trained with {held or 'no'} shift, but {entry.id} has {entry.shift or 'none'}; "
        "choose a model that fits the file"
    )


def _options(format_: str, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file tells of its shift beside the direction: our own all, others the place."""
    held = {key: metadata.get(key, default) for key, default in _OPTIONS.items()} if format_ == "tsmzoo" else {}
    if any(".net." in key for key in state):
        held["shift_place"] = "in-place" if any(re.search(_IN_PLACE, key) for key in state) else "residual"
    return held


def _check_told(entry: Entry, format_: str, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Check what keys and shapes do not tell: a file of ours names its inflation; and the options of the shift."""
    if format_ == "tsmzoo" and (held := metadata.get("backbone", entry.backbone)) != entry.backbone:
        raise CheckpointError(f"holds {held}, but {entry.id} is {entry.backbone}; choose a model that fits the file")
    if not entry.shift:
        return
    for key, value in _options(format_, state, metadata).items():
        if value != (wanted := getattr(entry, key)):
            raise CheckpointError(
                f"was trained with {key} {value}, but {entry.id} has {wanted}; choose a model that fits the file"
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


def _inflated(key: str, ours: Tensor, tensor: Tensor, shift_div: int | None) -> Tensor:
    """Repeat a kernel of frames along the time that ours reaches over, and divide: a still clip gives the same.

    Carreira and Zisserman: Quo Vadis, Action Recognition?, § 2.4 (Bootstrapping 3D filters from 2D filters). Where a
    shift stood in front (`shift_div`), the kernel takes each channel from the frame that the shift took it from.
    """
    if (ours.dim(), tensor.dim()) != (5, 4):
        return tensor
    tensor, reach = _dense(key, tensor).unsqueeze(2), ours.shape[2]
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
            raise CheckpointError(f"has two tensors for {name} (the second is {key}); nothing was loaded")
        renamed[name] = tensor
    return renamed


def _fill(net: nn.Module, state: dict[str, Tensor]) -> None:
    held = net.state_dict()
    wanted = {key: tensor for key, tensor in held.items() if not is_counter(key)}
    state = {key: _as_wide_as(wanted[key], tensor) if key in wanted else tensor for key, tensor in state.items()}
    problems = [
        f"{kind}: {some(keys)}"
        for kind, keys in (
            ("missing", sorted(wanted.keys() - state.keys())),
            ("unexpected", sorted(state.keys() - wanted.keys())),
            (
                "of another shape",
                [
                    f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
                    for key in wanted
                    if key in state and state[key].shape != wanted[key].shape
                ],
            ),
            ("not floating-point", [key for key, tensor in state.items() if not tensor.is_floating_point()]),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(f"does not fit the model; {'; '.join(problems)}; nothing was loaded")
    values = {key: _dense(key, state[key]) for key in wanted}
    if bad := [key for key, tensor in values.items() if not tensor.isfinite().all()]:
        raise CheckpointError(f"has values that are not finite in {some(bad)}; nothing was loaded")
    if bad := [key for key, tensor in values.items() if key.endswith("running_var") and (tensor < 0).any()]:
        raise CheckpointError(f"has negative variances in {some(bad)}; nothing was loaded")
    counters = {key: torch.zeros((), dtype=torch.long) for key in held if is_counter(key)}
    net.load_state_dict(values | counters, strict=True, assign=True)


def _as_wide_as(ours: Tensor, tensor: Tensor) -> Tensor:
    """Drop last axes of one: 1x1x1 kernels of what we do with 1x1 ones (non-local) or a linear layer (Inception).

    And the first of a batch norm's 1, C, as old BNInception files have it.
    """
    while tensor.dim() > ours.dim() and tensor.shape[-1] == 1:
        tensor = tensor.squeeze(-1)
    return tensor.squeeze(0) if ours.dim() == 1 and tensor.dim() == 2 else tensor


def _dense(key: str, tensor: Tensor) -> Tensor:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise CheckpointError(f"has a sparse, quantised or data-less tensor {key}; nothing was loaded")
    return tensor.detach().float().clone()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."
