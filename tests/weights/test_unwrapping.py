"""The network of a checkpoint is found wherever a trainer puts it; of several one is taken by rule, or none."""

from __future__ import annotations

import itertools
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tsmzoo.errors import CheckpointError
from tsmzoo.weights import checkpoint_file, key_maps, unpickling, unwrapping

State = dict[str, Tensor]

#: The first and the last layer of each, by the publishers' names.
NETWORKS: dict[str, tuple[str, ...]] = {
    "mit-tsm": ("base_model.layer1.0.conv1.net.weight", "base_model.layer4.2.conv3.weight", "new_fc.weight"),
    "mit-tsm-online": ("features.0.0.weight", "features.17.conv.0.weight", "classifier.weight"),
    "mmaction2": ("backbone.layer1.0.conv1.conv.net.weight", "backbone.layer4.0.bn1.weight", "cls_head.fc_cls.bias"),
    "pytorchvideo": ("blocks.0.conv.weight", "blocks.5.res_blocks.0.weight", "blocks.6.proj.weight"),
    "piergiaj-i3d": ("Conv3d_1a_7x7.conv3d.weight", "Mixed_5c.b0.conv3d.weight", "logits.conv3d.weight"),
    "hassony2-i3d": ("conv3d_1a_7x7.conv3d.weight", "mixed_5c.branch_0.conv3d.weight", "conv3d_0c_1x1.conv3d.weight"),
    "torchvision": ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight", "fc.weight"),
}
PREFIXES = ("module.", "model.", "_orig_mod.", "net.")


def network(format_: str, start: float = 0) -> State:
    return {key: torch.tensor([start + number]) for number, key in enumerate(NETWORKS[format_])}


def read(content: Any, path: Path) -> checkpoint_file.CheckpointFile:
    torch.save(content, path)
    return checkpoint_file.read(path)


def assert_same(found: State, wanted: State) -> None:
    assert {key: tensor.tolist() for key, tensor in found.items()} == {k: t.tolist() for k, t in wanted.items()}


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


@pytest.mark.parametrize("format_", NETWORKS)
def test_prefixes_in_any_order_and_number(format_: str, tmp_path: Path) -> None:
    wanted = network(format_)
    assert key_maps.detect_format(wanted, {}) == format_
    orders = ["".join(order) for count in range(5) for order in itertools.permutations(PREFIXES, count)]
    for prefix in ("", *orders[1::7], "module.module.module.", "net.net.model._orig_mod.module.model."):
        found = read({"state_dict": prefixed(prefix, wanted)}, tmp_path / "x.pth")
        assert_same(found.state, wanted)
        assert not found.notes
        safetensors.torch.save_file(prefixed(prefix, wanted), path := tmp_path / "x.safetensors")
        assert_same(checkpoint_file.read(path).state, wanted)


def test_parts_that_were_wrapped_alone(tmp_path: Path) -> None:
    wanted = network("mmaction2")
    inner = {key.replace(".layer", ".module.layer"): tensor for key, tensor in wanted.items()}
    inner = {key.replace("cls_head.", "cls_head._orig_mod."): tensor for key, tensor in inner.items()}
    assert len(inner.keys() - wanted.keys()) == 3
    assert_same(read(prefixed("model.", inner), tmp_path / "x.pth").state, wanted)


WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params", "anything")


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_in_any_nesting(name: str, tmp_path: Path) -> None:
    wanted = network("mmaction2")
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1}]}
    beside = {
        "optimizer": optimizer,
        "best": torch.tensor(74.1),
        "epoch": 3,
        "scaler": {"scale": torch.ones(1)},
        "adam": optimizer,
    }
    assert_same(read({name: wanted, **beside}, tmp_path / "x.pth").state, wanted)
    for inner in ("state_dict", "model", "net", "module"):
        content = {name: {inner: {"state_dict": prefixed("module.", wanted)}, "step": 3}, **beside}
        assert_same(read(content, tmp_path / "x.pth").state, wanted)


AVERAGES = ("ema", "state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "params_ema")


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_are_taken_only_alone_and_it_is_said(name: str, tmp_path: Path) -> None:
    plain, average = network("mmaction2"), network("mmaction2", 10)
    for content in ({"state_dict": plain, name: average}, {name: {"module": average}, "model": plain}):
        found = read(content, tmp_path / "x.pth")
        assert_same(found.state, plain)
        assert name in found.notes[0]
        assert "left out: " in found.notes[0]
        assert "averages" not in found.notes[0], "some trainers exchange the two when they save"
    found = read({name: average, "epoch": 3}, tmp_path / "x.pth")
    assert_same(found.state, average)
    assert f"averaged weights under {name!r}" in found.notes[0]


@pytest.mark.parametrize("first", ["", "model."])
def test_averages_among_the_keys(first: str, tmp_path: Path) -> None:
    plain, average = network("mmaction2"), network("mmaction2", 10)
    found = read(prefixed(first, plain) | prefixed("model_ema.module.", average), tmp_path / "x.pth")
    assert_same(found.state, plain)
    assert "model_ema" in " ".join(found.notes)
    mmcv = {f"ema_{key.replace('.', '_')}": tensor for key, tensor in average.items()}
    found = read({"state_dict": plain | mmcv}, tmp_path / "x.pth")
    assert_same(found.state, plain)
    assert found.notes[0].startswith("took the weights; left out: ema_backbone_")
    swa = prefixed("module.", plain) | {"n_averaged": torch.tensor(3)}
    for outer in ("", "module.", "model.", "module.model.", "model._orig_mod.", "averaged_model.", "net.swa_model."):
        for wrap in (lambda state: state, lambda state: {"state_dict": state, "epoch": 3}):
            found = read(wrap(prefixed(f"{first}{outer}", swa)), tmp_path / "x.pth")
            assert_same(found.state, plain)
            assert "averaged weights" in found.notes[0]
    found = read(prefixed(f"{first}model.", plain | mmcv), tmp_path / "x.pth")
    assert_same(found.state, plain)


def test_what_a_trainer_keeps_beside_its_network_is_left_out_and_said(tmp_path: Path) -> None:
    plain = network("mit-tsm")
    content = prefixed("model.", plain) | {"criterion.weight": torch.ones(3), "accuracy.seen": torch.ones(1)}
    found = read({"state_dict": content}, tmp_path / "x.ckpt")
    assert_same(found.state, plain)
    assert "left out: accuracy, criterion" in found.notes[0]


@pytest.mark.parametrize(
    "names", [("student", "teacher"), ("generator", "discriminator"), ("rgb", "flow"), ("net_G", "net_D")]
)
def test_two_networks_are_refused_by_their_names(names: tuple[str, str], tmp_path: Path) -> None:
    one, other = network("mit-tsm"), network("mit-tsm", 10)
    for content in (
        {names[0]: one, names[1]: other},
        {"state_dict": {names[0]: one, names[1]: other}},
        {"state_dict": prefixed(f"{names[0]}.", one) | prefixed(f"{names[1]}.", other)},
        prefixed(f"module.{names[0]}.", one) | prefixed(f"module.{names[1]}.", other),
    ):
        with pytest.raises(CheckpointError, match="holds 2 networks") as caught:
            read(content, tmp_path / "x.pth")
        assert all(name in str(caught.value) for name in names)


def test_the_same_network_under_two_names_is_one(tmp_path: Path) -> None:
    one = network("mit-tsm")
    assert_same(read({"model": one, "state_dict": one}, tmp_path / "x.pth").state, one)
    with pytest.raises(CheckpointError, match="model, state_dict"):
        read({"model": one, "state_dict": network("mit-tsm", 1)}, tmp_path / "x.pth")


def test_a_shared_dict_takes_no_time(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 1}
    for _ in range(60):
        content = dict.fromkeys(("model", "net", "module", "state_dict", "ema"), content)
    with pytest.raises(CheckpointError, match="no tensors"):
        read(content, tmp_path / "x.pth")


@pytest.mark.slow
def test_many_networks_or_long_names_take_no_time(of_processor: Callable[[int], AbstractContextManager[None]]) -> None:
    held = [unpickling.TensorRef((number + 1,)) for number in range(12_000)]
    shared = {f"a.{number}": each for number, each in enumerate(held)}
    one = torch.zeros(1)
    with of_processor(15):
        with pytest.raises(CheckpointError, match="holds 12000 networks"):
            unwrapping.find_network({f"n{number}": {"a.b": each} for number, each in enumerate(held)})
        assert unwrapping.find_network({f"n{number}": shared for number in range(20_000)})[0] == shared
    with of_processor(15):
        for prefix, count, most in (("net." * 5000, 2000, "characters"), ("net.", 200_000, "tensors")):
            with pytest.raises(CheckpointError, match=f"holds \\d+ {most}"):
                unwrapping.strip_prefixes({f"{prefix}{number}": one for number in range(count)})
        unwrapping.strip_prefixes({f"{'net.' * 400}{number}": one for number in range(2000)})


# --- files that are none ---------------------------------------------------------------------------------------------


def test_torchscript_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    with pytest.raises(CheckpointError, match=r"is a TorchScript archive, .*state_dict\(\)"):
        checkpoint_file.read(path)


@pytest.mark.parametrize(
    "content", [torch.nn.Linear(2, 2), {"model": torch.nn.Linear(2, 2)}, {"net": {"ema": 3}, "module": torch.nn.ReLU()}]
)
def test_a_whole_network_says_what_to_save(content: Any, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"a whole 'torch\.nn\.modules\..*refused, save its state_dict\(\) instead"
    ):
        read(content, tmp_path / "x.pth")


def test_two_members_of_a_name_are_refused(tmp_path: Path) -> None:
    torch.save(network("mit-tsm"), path := tmp_path / "x.pth")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x/data.pkl", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="two members"):
        checkpoint_file.read(path)


@pytest.mark.slow
def test_an_archive_that_unfolds_without_end_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, path := tmp_path / "x.pth")
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(bomb := tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for name in old.namelist():
            new.writestr(name, bytes(2**29 + 1) if name.endswith("data.pkl") else old.read(name))
    assert bomb.stat().st_size < 2**22
    with pytest.raises(CheckpointError, match="unfolds to 536870913 bytes"):
        checkpoint_file.read(bomb)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ""])
def test_what_never_ends_is_not_read(suffix: str, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / f"pipe{suffix}")
    (device := tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    for path in (pipe, device):
        with pytest.raises(CheckpointError, match="no regular file"):
            checkpoint_file.read(path)


def test_names_are_shown_in_one_short_line(tmp_path: Path) -> None:
    ugly = {"a\nb\x1b[2J": torch.ones(1), "k" * 100_000: torch.ones(1)}
    with pytest.raises(CheckpointError) as caught:
        key_maps.detect_format(read(ugly, tmp_path / "x.pth").state, {})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "metadata", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "{", "null", "[]", '{"shift": NaN']
)
def test_metadata_of_safetensors_that_is_none(metadata: str, tmp_path: Path) -> None:
    wanted = network("mit-tsm")
    safetensors.torch.save_file(wanted, path := tmp_path / "x.safetensors", {"tsmzoo": metadata})
    found = checkpoint_file.read(path)
    assert found.metadata == {}
    assert_same(found.state, wanted)
    safetensors.torch.save_file(wanted, path, {"tsmzoo": json.dumps({"model": "x"})})
    assert checkpoint_file.read(path).metadata == {"model": "x"}


@pytest.mark.parametrize("name", ["x.pth", "x.bin", "x", "x.ckpt", "x.pt.part"])
def test_safetensors_are_told_by_their_first_bytes(name: str, tmp_path: Path) -> None:
    wanted = network("mit-tsm")
    safetensors.torch.save_file(wanted, path := tmp_path / name, {"tsmzoo": json.dumps({"model": "x"})})
    found = checkpoint_file.read(path)
    assert_same(found.state, wanted)
    assert found.metadata == {"model": "x"}


def test_a_file_that_is_replaced_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its digest would be that of other weights."""
    safetensors.torch.save_file(network("mit-tsm"), path := tmp_path / "x.safetensors")
    load = safetensors.torch.load_file

    def late(name: Path) -> State:
        safetensors.torch.save_file(network("mit-tsm", 5), other := tmp_path / "y")
        os.replace(other, path)
        return load(name)

    monkeypatch.setattr(safetensors.torch, "load_file", late)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        checkpoint_file.read(path)
