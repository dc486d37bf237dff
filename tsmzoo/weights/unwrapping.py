"""Find the network in the content of a checkpoint: remove the dicts around it and the prefixes of its keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tsmzoo.errors import CheckpointError
from tsmzoo.weights.key_maps import short_name, some_names
from tsmzoo.weights.unpickling import NumpyObject, OpaqueObject, TensorRef

#: Keys under which trainers put the network.
WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model_dict", "model", "net", "network", "module"),
    *("params", "weights", "net_state_dict"),
)
#: Keys of averaged weights (or of the others, if a trainer exchanges the two on saving): taken if there are no others.
AVERAGES = (
    *("ema_state_dict", "state_dict_ema", "model_ema_state_dict", "model_ema", "ema_model", "ema", "ema_net"),
    *("net_ema", "params_ema", "averaged_model", "swa_model", "swa_state_dict"),
)
#: Prefixes that all keys of a network may have, in any order and number.
PREFIXES = ("module", "model", "_orig_mod", "net", "network", "state_dict")
#: Keys of a trainer's own state, which holds tensors too.
_TRAINER_KEYS = re.compile(
    r"(?i)_?(optim|sched|lr_|scaler|amp|rng|random|meta|message_hub|hyper|callback|loop|arg|cfg|conf|hist|metric|logger"
    r"|loss|criterion|opt$|sampler|epoch|iter|step)"
)
#: DDP and torch.compile wrap parts of a network, too.
_INNER_PREFIXES = re.compile(r"(?:^|(?<=\.))(?:(?:module|_orig_mod)\.)+")
#: The first and the last part of each network: a state with both is a network.
_ENDS = [
    tuple(re.compile(rf"(?im)(?:^|[./]){part}") for part in parts)
    for parts in (
        (r"layer1\.", r"layer4\."),
        (r"features\.0\.", r"features\.17\."),
        (r"denseblock1\.", r"denseblock4\."),
        (r"inception_3a_", r"inception_5b_"),
        (r"conv3d_1a_7x7[./]", r"mixed_5c[./]"),
        (r"blocks\.0\.", r"blocks\.5\."),
        (r"stage1\.", r"stage4\."),
        (r"stages\.0\.", r"stages\.3\."),
    )
]
_MOST_TENSORS = 20_000
#: Characters of all tensor names together.
_MOST_CHARACTERS = 4_000_000
_DEEPEST = 8
#: The most networks that are compared with each other.
_MOST_COMPARED = 8


@dataclass(frozen=True)
class NetworkState:
    """The tensors of a network by key, and notes on where they were found."""

    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def find_network(content: Any) -> tuple[dict[str, TensorRef], tuple[str, ...]]:
    """Return the tensors of the network in a checkpoint by key, and notes on what was left out.

    Raises CheckpointError if there is no network, or several and no rule selects one.
    """
    notes: list[str] = []
    trail = ""
    for _ in range(_DEEPEST):
        if isinstance(content, OpaqueObject):
            raise CheckpointError(
                f"holds a whole {content.name!r}{trail}, which is code; refused, save its state_dict() instead"
            )
        if not isinstance(content, dict):
            kinds = {TensorRef: "Tensor", NumpyObject: "NumPy array"}
            kind = kinds.get(type(content), type(content).__name__)
            raise CheckpointError(f"holds a {kind}{trail}, not named tensors; give a checkpoint file")
        name = _network_key(content, notes)
        if name is None:
            break
        content, trail = content[name], f" as {short_name(name)!r}"
    state = {key: value for key, value in content.items() if isinstance(value, TensorRef)}
    if not state:
        for name in (*WRAPPERS, *AVERAGES):
            if isinstance(object_ := content.get(name), OpaqueObject):
                raise CheckpointError(
                    f"holds a whole {object_.name!r} as {name!r}, which is code; refused, save its state_dict() instead"
                )
        raise CheckpointError("holds no tensors; give a checkpoint file")
    _check_names(state)
    return state, tuple(notes)


def _check_names(state: Iterable[str]) -> None:
    lengths = [len(name) for name in state]
    for most, number, what in (
        (_MOST_TENSORS, len(lengths), "tensors"),
        (_MOST_CHARACTERS, sum(lengths), "characters of names of tensors"),
    ):
        if number > most:
            raise CheckpointError(f"holds {number} {what}, more than any network here; give a checkpoint file")


def _network_key(content: dict[str, Any], notes: list[str]) -> str | None:
    """Return the key under which the network lies; None if its tensors are on this level."""
    seen: dict[int, bool] = {}
    inner = {
        key: value for key, value in content.items() if isinstance(value, dict) and _holds_network(key, value, seen)
    }
    known = [key for key in WRAPPERS if key in inner]
    averages = [key for key in AVERAGES if key in inner]
    others = [key for key in inner if key not in known and key not in averages]
    # Keys of a network have dots; other tensors are figures of the training.
    if (
        not known
        and not averages
        and any(isinstance(value, TensorRef) and "." in key for key, value in content.items())
    ):
        return None
    networks = _distinct_networks(inner, known or others)
    if len(networks) > 1:
        raise CheckpointError(
            f"holds {len(networks)} networks: {some_names(sorted(map(short_name, networks)), 6)}; save the one that "
            "is meant alone"
        )
    if networks and averages:
        others += averages
    if networks:
        if others and (known or averages):
            left = sorted(short_name(name) for name in others if name not in networks)
            notes.append(f"took the weights under {short_name(networks[0])!r}; left out: {some_names(left)}")
        return networks[0]
    if averages:
        notes.append(f"took the averaged weights under {averages[0]!r}: the file holds no others")
        return averages[0]
    return None


def _holds_network(key: str, value: dict[str, Any], known: dict[int, bool], deep: int = 2 * _DEEPEST) -> bool:
    """Say whether `value` may be or contain a network; `known` caches the results by the ids of dicts."""
    if _TRAINER_KEYS.match(key) or "param_groups" in value or not deep:  # an optimizer's
        return False
    if id(value) not in known:
        known[id(value)] = False  # during the search: a dict may contain itself
        known[id(value)] = any(
            isinstance(inner, TensorRef) or (isinstance(inner, dict) and _holds_network(name, inner, known, deep - 1))
            for name, inner in value.items()
        )
    return known[id(value)]


def _distinct_networks(inner: dict[str, Any], names: list[str]) -> list[str]:
    """Return the first name of each of what differs: some_names trainers save the same network under two."""
    found: list[str] = []
    compared: list[dict[str, TensorRef]] = []
    seen: set[int] = set()
    for name in names:
        if id(inner[name]) in seen:
            continue
        seen.add(id(inner[name]))
        mine = {key: value for key, value in inner[name].items() if isinstance(value, TensorRef)}
        if mine and mine in compared:
            continue
        found.append(name)
        if mine and len(compared) < _MOST_COMPARED:
            compared.append(mine)
    return found


def strip_prefixes(state: Mapping[str, Tensor]) -> NetworkState:
    """Return the tensors of the network without prefixes, as its own class names them.

    Raises CheckpointError if they belong to several networks.
    """
    _check_names(state)
    notes: list[str] = []
    for _ in range(2 * _DEEPEST):
        state = _drop_averages(state, notes)
        left = _unwrap_once(state, notes)
        if left is None:
            break
        state = left
    return NetworkState(dict(state), tuple(dict.fromkeys(notes)))


def _unwrap_once(state: Mapping[str, Tensor], notes: list[str]) -> Mapping[str, Tensor] | None:
    """Return `state` without one wrapper, or None if there is none."""
    bare = {_INNER_PREFIXES.sub("", key): tensor for key, tensor in state.items()}
    if len(bare) == len(state) and bare.keys() != state.keys():
        return bare
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        first, _, rest = key.partition(".")
        groups.setdefault(first if rest else "", {})[rest or first] = tensor
    if len(groups) == 1:
        (name,) = groups
        if name in AVERAGES:
            notes.append(f"took the averaged weights under {name!r}: the file holds no others")
        return groups[name] if name in AVERAGES or name in PREFIXES else None
    networks = [name for name, group in groups.items() if name and _is_network(group)]
    if "architecture" in networks:  # mmrazor's distillation saves the teacher, too
        networks, unwanted = [name for name in networks if name != "teacher"], ["teacher"]
    else:
        unwanted = [name for name in networks if name in AVERAGES]
    plain = [name for name in networks if name not in AVERAGES]
    if len(plain) > 1:
        raise CheckpointError(
            f"holds {len(plain)} networks: {some_names(sorted(map(short_name, plain)), 6)}; save the one that is "
            "meant alone"
        )
    if unwanted and not plain:
        notes.append(f"took the averaged weights under {unwanted[0]!r}: the file holds no others")
        return groups[unwanted[0]]
    if plain and plain[0] in PREFIXES:
        # Beside a wrapped network lies its trainer's state: losses, metrics, averages.
        left = [short_name(name or next(iter(groups[name]))) for name in groups if name != plain[0]]
        notes.append(f"took the weights under {plain[0]!r}; left out: {some_names(sorted(left))}")
        return groups[plain[0]]
    if any(name in groups for name in unwanted):
        if unwanted != ["teacher"]:
            notes.append(f"took the weights; left out: {some_names(sorted(unwanted))}")
        return {key: tensor for key, tensor in state.items() if key.partition(".")[0] not in unwanted}
    return None


def _is_network(state: Iterable[str]) -> bool:
    keys = "\n".join(state)
    return any(first.search(keys) and last.search(keys) for first, last in _ENDS)


def _drop_averages(state: Mapping[str, Tensor], notes: list[str]) -> Mapping[str, Tensor]:
    """Drop mmcv's second set of weights, named `ema_` and the key with `_` for each dot.

    These are averages, or the plain weights, since its hook exchanges the two on saving. Also drop the counter of
    torch's AveragedModel, whose weights are averages.
    """
    if "n_averaged" in state:
        notes.append("took averaged weights: the file holds no others")
        state = {key: tensor for key, tensor in state.items() if key != "n_averaged"}
    names = {f"ema_{key.replace('.', '_')}" for key in state if "." in key}
    averages = {key for key in state if key in names}
    if averages:
        notes.append(f"took the weights; left out: {some_names(sorted(averages), 1)}")
    return {key: tensor for key, tensor in state.items() if key not in averages}
