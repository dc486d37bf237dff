"""Published checkpoints into our networks: told apart by their keys, mapped by rules, loaded strictly.

A file is read with `weights_only=True` and nothing else; whatever is missing, unexpected, of another
shape or not finite is listed and refused before a single tensor is used.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from tsmzoo.errors import CheckpointError
from tsmzoo.registry import Entry

#: Key of a safetensors file's metadata under which our own format says what it holds.
_METADATA = "tsmzoo"

#: (pattern, replacement), applied in turn to each key of a file.
Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


@dataclass(frozen=True)
class Loaded:
    """What a network holds: for the record that goes with every file made from it."""

    sha256: str
    format: str
    #: A bidirectional checkpoint was loaded into an online model on the user's word.
    shift_mismatch: bool


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
    (r"^blocks\.\d+\.", "a pytorchvideo checkpoint"),
    (r"^Conv3d_1a_7x7\.", "a piergiaj Inception I3D checkpoint"),
    (r"^conv3d_1a_7x7\.", "a hassony2 Inception I3D checkpoint"),
    (r"(^|\.)inception_3a_", "a BNInception checkpoint"),
    (r"^backbone\.stage\d", "an mmaction2 MobileOne checkpoint"),
    (r"^backbone\.layers\.\d", "an mmaction2 Swin checkpoint"),
    (r"^backbone\.features\.denseblock", "an mmaction2 DenseNet checkpoint"),
    (r"^(conv1|layer1\.0\.conv1)\.weight$", "a plain image ResNet"),
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
    bare = {re.sub(r"^(module\.)+", "", key) for key in state}
    if any(re.match(r"(architecture\.)?backbone\.", key) for key in bare):
        return "mmaction2"
    if any(key.startswith("base_model.") or ".net." in key for key in bare):
        return "mit-tsm"
    if {"features.0.0.weight", "classifier.weight"} <= bare:
        return "mit-tsm-online"
    raise CheckpointError(
        f"keys fit none of the formats {', '.join(FORMATS)} (first keys: {_some(sorted(state))}); "
        "give the publisher's own file"
    )


def tell_backbone(state: Mapping[str, Tensor]) -> str:
    """Return what the keys say of the architecture, for the message when it is not the model's."""
    joined = "\n".join(state)
    if re.search(r"(^|\.)features\.\d|layer7\.", joined, re.M):
        return "mobilenet_v2"
    if "layer3.22." in joined:
        return "resnet101"
    if "layer3.5." in joined:
        return "resnet50" if ".conv3." in joined else "a ResNet with basic blocks"
    return "an unknown architecture"


# --- loading -------------------------------------------------------------------------------------------------------


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
        sha256 = _digest(path)
        state, metadata = read_state(path), read_metadata(path)
        format_ = weights_format or tell_format(state, metadata)
        held = _shift(format_, state, metadata)
        mismatch = _check_fit(entry, format_, state, held, allow_shift_mismatch=allow_shift_mismatch)
        _fill(net, _renamed(state, RULES[format_, entry.backbone]))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Loaded(sha256, format_, mismatch)


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint file, by key; nothing in the file is executed.

    Raises CheckpointError where the file cannot be read, needs code to be read, or holds no tensors.
    """
    content = _unpickle(path)
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
    """Write the weights of `net`, built from `entry`, in our own format; the same weights give the same bytes."""
    import safetensors.torch

    state = {key: tensor.cpu().contiguous() for key, tensor in net.state_dict().items() if not is_counter(key)}
    # One key, since safetensors writes several in any order.
    metadata = {_METADATA: json.dumps({"model": entry.id, "shift": entry.shift})}
    path.write_bytes(safetensors.torch.save(state, metadata))


def _unpickle(path: Path) -> Any:
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


def _shift(format_: str, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str | None:
    """Return the direction of the shift that a file was trained with."""
    if format_ == "tsmzoo":
        return metadata.get("shift")
    if any(".net." in key for key in state):
        return "bidirectional"
    return "unidirectional" if format_ == "mit-tsm-online" else None


def _check_fit(
    entry: Entry, format_: str, state: Mapping[str, Tensor], held: str | None, *, allow_shift_mismatch: bool
) -> bool:
    """Check architecture and shift against the entry; return whether a shift mismatch was allowed."""
    if (found := tell_backbone(state)) != entry.backbone:
        raise CheckpointError(f"holds {found}, but {entry.id} is {entry.backbone}; choose a model that fits the file")
    if (format_, entry.backbone) not in RULES:
        raise CheckpointError(f"is not known as {format_} for {entry.backbone}; formats are {', '.join(FORMATS)}")
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
    # Non-local projections are stored with 1x1x1 kernels and used with 1x1 ones.
    state = {
        key: tensor.squeeze(-1) if ".nl." in key and tensor.dim() == 5 and tensor.shape[-1] == 1 else tensor
        for key, tensor in state.items()
    }
    problems = [
        f"{kind}: {_some(keys)}"
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
        raise CheckpointError(f"has values that are not finite in {_some(bad)}; nothing was loaded")
    if bad := [key for key, tensor in values.items() if key.endswith("running_var") and (tensor < 0).any()]:
        raise CheckpointError(f"has negative variances in {_some(bad)}; nothing was loaded")
    counters = {key: torch.zeros((), dtype=torch.long) for key in held if is_counter(key)}
    net.load_state_dict(values | counters, strict=True, assign=True)


def _dense(key: str, tensor: Tensor) -> Tensor:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise CheckpointError(f"has a sparse, quantised or data-less tensor {key}; nothing was loaded")
    return tensor.detach().float().clone()


def _some(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."
