"""Published files, however they are written, give the publishers' own logits."""

from __future__ import annotations

import functools
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tsmzoo import registry
from tsmzoo.errors import CheckpointError
from tsmzoo.exporting.graph.conv3d_to_2d import conv3d_to_2d
from tsmzoo.exporting.graph.fold_batchnorm import fold_batch_norm
from tsmzoo.models.memory import ClipMemory
from tsmzoo.models.wrappers import ClipModel, SingleClip, StreamStep, state_shapes, states_of
from tsmzoo.weights import checkpoint, key_maps
from tsmzoo.weights.load import load_network

from .conftest import (
    MIT,
    MMACTION,
    MODEL,
    ONLINE,
    Case,
    Published,
    State,
    as_offline,
    assert_same,
    doubled,
    hollow,
    load,
    no_counters,
    unfilled,
)

ZOO = registry.load()
MakeInput = Callable[[tuple[int, ...], int], Tensor]


@pytest.fixture(scope="module")
def ours(published: Published) -> Callable[[str], State]:
    """Give a function from a parity case to our network's state with the published file in it."""
    return functools.cache(lambda name: load(published(name), MODEL[name])[0].state_dict())


# --- parity with the publishers' code ------------------------------------------------------------------------------


def heavy(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "name",
    [
        MIT,
        MMACTION,
        heavy("mmaction2_tsm_r50_nl_dot_k400"),
        heavy("mit_tsm_r50_sthv2"),
        heavy("mit_tsn_r50_k400"),
        heavy("mit_tsm_r50_nl_k400"),
        heavy("mmaction2_tsn_r50_k400"),
        heavy("mmaction2_tsm_r50_sthv2"),
        heavy("mmaction2_i3d_r50_k400"),
        heavy("mmaction2_i3d_r50_heavy_k400"),
        heavy("pytorchvideo_i3d_r50_k400"),
        heavy("piergiaj_i3d_inception_k400"),
        "movinet_a0_base_k600",
        heavy("movinet_a1_base_k600"),
        "pytorchvideo_x3d_xs_k400",
        heavy("pytorchvideo_x3d_s_k400"),
        "pytorchvideo_efficient_x3d_xs_k400",
        heavy("mmaction2_x3d_m_k400"),
    ],
)
@torch.no_grad()
def test_clip_gives_the_publishers_logits(name: str, parity: Case, published: Published, make_input: MakeInput) -> None:
    case, path = parity(name), published(name)
    net, loaded = load(path, MODEL[name])
    assert loaded == checkpoint.LoadedCheckpoint(hashlib.sha256(path.read_bytes()).hexdigest(), case["format"], False)
    clip = clip_of(case, make_input)
    got = ClipModel(net, case["frames"])(clip)
    wanted = torch.tensor(case["logits"])
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= 1e-4 * (wanted.max() - wanted.min())
    form = SingleClip(conv3d_to_2d(fold_batch_norm(net), channels_last=True), case["frames"])
    assert (form(clip) - wanted).abs().max() <= 1e-4 * (wanted.max() - wanted.min()), "as it is exported"


def clip_of(case: dict[str, Any], make_input: MakeInput) -> Tensor:
    """The clip that a case was fed, N, T, C, H, W."""
    clip = make_input(case["input"]["shape"], case["input"]["seed"]) * case["input"].get("scale", 1)
    return clip.transpose(1, 2) if case["input"]["axes"] == "N,C,T,H,W" else clip


@pytest.mark.slow
@torch.no_grad()
def test_hassony2s_names_are_piergiajs_network(
    parity: Case, published: Published, make_input: MakeInput, tmp_path: Path
) -> None:
    """The two publishers' networks agree under equal weights (checkpoint facts, § 6.3)."""
    case = parity("piergiaj_i3d_inception_k400")
    state = torch.load(published("piergiaj_i3d_inception_k400"), weights_only=True)
    unit = {"b0": "branch_0", "b1a": "branch_1.0", "b1b": "branch_1.1", "b2a": "branch_2.0", "b2b": "branch_2.1"}
    unit |= {"b3b": "branch_3.1"}
    theirs = {}
    for key, tensor in state.items():
        first, *rest = key.replace(".bn.", ".batch3d.").split(".")
        first = "conv3d_0c_1x1" if first == "logits" else first.lower()
        theirs[".".join([first, *(unit.get(part, part) for part in rest)])] = tensor
    torch.save(theirs, path := tmp_path / "model_rgb.pth")
    net, loaded = load(path, "i3d_inception_k400_rgb_hassony2")
    assert loaded.format == "hassony2-i3d"
    wanted = torch.tensor(case["logits"])
    got = ClipModel(net, case["frames"])(clip_of(case, make_input))
    assert (got - wanted).abs().max() <= 1e-4 * (wanted.max() - wanted.min())


@torch.no_grad()
def test_stream_gives_the_publishers_logits_and_states(
    parity: Case, published: Published, make_input: MakeInput
) -> None:
    case = parity(ONLINE)
    net, loaded = load(published(ONLINE), MODEL[ONLINE])
    assert loaded.format == "mit-tsm-online"
    assert [list(shape) for shape in state_shapes(net, 3, 224)] == case["state_shapes"]
    step, states = StreamStep(net), [torch.zeros(shape) for shape in case["state_shapes"]]
    wanted = torch.tensor(case["logits"])
    bound = 1e-4 * (wanted.max() - wanted.min())
    for frame, row in zip(make_input(case["input"]["shape"], case["input"]["seed"])[0], wanted, strict=True):
        logits, *states = step(frame[None], *states)
        assert (logits[0] - row).abs().max() <= bound
    # NumPy's deviation, as the vector was made with: that of the population.
    moments = zip(states, case["final_state_mean"], case["final_state_std"], strict=True)
    for state, mean, std in moments:
        assert float(state.mean()) == pytest.approx(mean, abs=1e-4)
        assert std == pytest.approx(float(state.std()), abs=1e-4)


@pytest.mark.parametrize("name", ["movinet_a0_stream_k600", heavy("movinet_a1_stream_k600")])
@torch.no_grad()
def test_movinet_streams_give_the_publishers_logits_and_states(
    name: str, parity: Case, published: Published, make_input: MakeInput
) -> None:
    """Fed frame by frame with the states handed on, and as one clip, as training sees it."""
    case = parity(name)
    net, loaded = load(published(name), MODEL[name])
    assert loaded.format == "atze00-movinet"
    frames, every = clip_of(case, make_input)[0], case["logits_every"]
    wanted = torch.tensor(case["logits"])
    bound = 1e-4 * (wanted.max() - wanted.min())
    specs = states_of(net, 3, 172)
    step, states = StreamStep(net), [torch.zeros(spec.shape) for spec in specs]
    for frame, row in zip(frames, wanted, strict=True):
        logits, *states = step(frame[None], *states)
        assert (logits[0, ::every] - row).abs().max() <= bound
    assert (net(frames, len(frames), ClipMemory(len(frames)))[:, ::every] - wanted).abs().max() <= bound

    *states, count = states
    assert float(count) == len(frames)
    # Ours are means where the publisher's are sums.
    sums = [s * len(frames) if spec.kind == "mean" else s for s, spec in zip(states, specs, strict=False)]
    for state, mean, std in zip(sums, case["final_state_mean"], case["final_state_std"], strict=True):
        assert float(state.mean()) == pytest.approx(mean, abs=1e-4)
        assert float(state.std()) == pytest.approx(std, abs=1e-4)


# --- keys ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODEL)
def test_keys_map_one_to_one(name: str, parity: Case) -> None:
    case, entry = parity(name), ZOO.find(MODEL[name])
    state, target = hollow(case), unfilled(entry.id).state_dict()
    assert key_maps.detect_format(state, {}) == case["format"] == entry.format
    assert entry.backbone.startswith(key_maps.detect_backbone(state))

    rules = key_maps.RULES[entry.format, entry.backbone]
    renamed = [key_maps.rename(key, rules) for key in state]
    assert len(set(renamed)) == len(state)
    assert set(renamed) == target.keys()  # the counters too, which are not loaded
    for key, name_ in zip(state, renamed, strict=True):
        shape = target[name_].shape
        # 1x1x1 and 1x1 kernels of non-local blocks, and of the linear layers of Inception and MoViNet; the other way
        # round a linear layer of X3D.
        assert state[key].shape in {shape, (*shape, 1), (*shape, 1, 1), (*shape, 1, 1, 1), shape[:2]}, key


@pytest.mark.parametrize("name", [name for name in MODEL if name != ONLINE])
def test_blocks_of_the_file_with_a_shift_are_ours(name: str, parity: Case) -> None:
    """The `.net` in a file's keys is the ground truth for where the shift goes (checkpoint facts, § 8.3)."""
    entry = ZOO.find(MODEL[name])
    rules = key_maps.RULES[entry.format, entry.backbone]
    theirs = {key_maps.rename(key, rules).split(".conv")[0] for key, _, _ in parity(name)["tensors"] if ".net." in key}
    assert theirs == {name for name, block in unfilled(entry.id).named_modules() if getattr(block, "fold", 0)}


def test_every_entry_has_rules_for_its_format() -> None:
    assert {(entry.format, entry.backbone) for entry in ZOO.models} <= key_maps.RULES.keys()


# --- layouts that files have been seen in ----------------------------------------------------------------------------


def edited(state: State, *edits: tuple[str, str]) -> State:
    for old, new in edits:
        assert any(old in key for key in state), old
        state = {key.replace(old, new): tensor for key, tensor in state.items()}
    return state


def mmrazor(state: State) -> State:
    """A distillation run: the student under `architecture.`, a larger teacher beside it."""
    teacher = {
        f"teacher.{key}": torch.ones(2) for key in ("backbone.layer3.5.conv3.conv.weight", "cls_head.fc_cls.bias")
    }
    return {f"architecture.{key}": tensor for key, tensor in state.items()} | teacher


PREPROCESSOR = {"data_preprocessor.mean": torch.ones(3, 1, 1), "data_preprocessor.std": torch.ones(3, 1, 1)}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param(MIT, lambda s: edited(s, ("module.", "")), id="no module"),
        pytest.param(MIT, lambda s: edited(s, ("module.base_model.", ""), ("module.", "")), id="no base_model"),
        pytest.param(MIT, doubled, id="module twice"),
        pytest.param(MIT, lambda s: edited(s, ("new_fc", "base_model.classifier")), id="head classifier"),
        pytest.param(MIT, lambda s: edited(s, ("new_fc", "base_model.classifier.1")), id="head classifier.1"),
        pytest.param(MIT, lambda s: edited(s, ("new_fc", "fc")), id="head fc"),
        pytest.param(MIT, no_counters, id="mit, no counters"),
        pytest.param(ONLINE, doubled, id="online, module"),
        pytest.param(ONLINE, no_counters, id="online, no counters"),
        pytest.param(MMACTION, mmrazor, id="mmrazor"),
        pytest.param(MMACTION, lambda s: s | PREPROCESSOR, id="preprocessor"),
        pytest.param(MMACTION, lambda s: mmrazor(s | PREPROCESSOR), id="preprocessor in mmrazor"),
        pytest.param(MMACTION, no_counters, id="mmaction2, no counters"),
        pytest.param(MMACTION, lambda s: dict(reversed(s.items())), id="other order"),
        pytest.param(MMACTION, lambda s: {k: t.double() for k, t in s.items()}, id="float64"),
    ],
)
def test_other_spellings_load_the_same(
    name: str,
    change: Callable[[State], State],
    raw: Callable[[str], State],
    ours: Callable[[str], State],
    tmp_path: Path,
) -> None:
    path = tmp_path / "other.pth"
    torch.save({"state_dict": change(raw(name))}, path)
    net, loaded = load(path, MODEL[name])
    assert loaded.format == ZOO.find(MODEL[name]).format
    assert_same(net, ours(name))


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda s: s, id="bare"),
        pytest.param(lambda s: {"state_dict": s, "optimizer": {"state": {0: {"step": 7}}}}, id="optimizer"),
        pytest.param(lambda s: {"state_dict": s, "best_prec1": torch.tensor(74.1)}, id="best_prec1 as tensor"),
        pytest.param(lambda s: {"state_dict": s | {"version": 3}}, id="plain value among the tensors"),
        pytest.param(lambda s: {key: nn.Parameter(tensor) for key, tensor in s.items()}, id="parameters"),
    ],
)
@pytest.mark.parametrize("zip_layout", [True, False], ids=["zip", "legacy"])
def test_wrappers(
    wrap: Callable[[State], Any],
    zip_layout: bool,
    raw: Callable[[str], State],
    ours: Callable[[str], State],
    tmp_path: Path,
) -> None:
    state = {key: tensor for key, tensor in raw(MMACTION).items() if tensor.is_floating_point()}
    path = tmp_path / "wrapped.pth"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=zip_layout)
    assert_same(load(path, MODEL[MMACTION])[0], ours(MMACTION))


def test_safetensors(raw: Callable[[str], State], ours: Callable[[str], State], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(raw(MIT), path)
    net, loaded = load(path, MODEL[MIT])
    assert loaded.format == "mit-tsm"
    assert_same(net, ours(MIT))


def test_compressed_zip(published: Published, ours: Callable[[str], State], tmp_path: Path) -> None:
    """Packed again by a tool: its tensors cannot be mapped from the file."""
    path = tmp_path / "packed.pth"
    with zipfile.ZipFile(published(MMACTION)) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert_same(load(path, MODEL[MMACTION])[0], ours(MMACTION))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype: torch.dtype, raw: Callable[[str], State], tmp_path: Path) -> None:
    state = {key: t.to(dtype) if t.is_floating_point() else t for key, t in raw(ONLINE).items()}
    path = tmp_path / "half.pth"
    torch.save(state, path)
    net, _ = load(path, MODEL[ONLINE])
    assert net.state_dict()["features.0.0.weight"].dtype == torch.float32
    assert torch.equal(net.state_dict()["classifier.1.weight"], state["classifier.weight"].float())


def test_loaded_network_is_ready(published: Published) -> None:
    net, _ = load(published(ONLINE), MODEL[ONLINE])
    state = net.state_dict()
    assert not net.training
    assert {tensor.device.type for tensor in state.values()} == {"cpu"}
    assert {tensor.dtype for key, tensor in state.items() if not key_maps.is_counter(key)} == {torch.float32}
    assert all(int(tensor) == 0 for key, tensor in state.items() if key_maps.is_counter(key))


def test_network_does_not_hang_on_the_file(raw: Callable[[str], State], tmp_path: Path) -> None:
    """A mapped file that changes later must not change the weights."""
    path = tmp_path / "model.pth"
    state = raw(ONLINE)
    torch.save(state, path)
    net, _ = load(path, MODEL[ONLINE])
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(net.state_dict()["classifier.1.weight"], state["classifier.weight"])


def test_obtain_tells_where_weights_come_from(published: Published) -> None:
    path = published(ONLINE)
    network = load_network(ZOO.find("tsm_mbv2_online"), str(path))
    assert network.weights == "local"
    assert network.checkpoint is not None
    assert network.checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (network.checkpoint.format, network.checkpoint.shift_mismatch) == ("mit-tsm-online", False)
    random = load_network(ZOO.find("tsm_mbv2_online"), "random", seed=5)
    assert (random.weights, random.checkpoint, random.seed) == ("random", None, 5)


def test_bidirectional_file_in_an_online_model_on_the_users_word(
    raw: Callable[[str], State], published: Published, tmp_path: Path
) -> None:
    path = tmp_path / "offline.pth"
    torch.save({"state_dict": as_offline(raw(ONLINE))}, path)
    with pytest.raises(CheckpointError, match="--allow-shift-mismatch"):
        load(path, "tsm_mbv2_online")
    net, loaded = load(path, "tsm_mbv2_online", allow_shift_mismatch=True)
    assert loaded.shift_mismatch
    assert loaded.format == "mit-tsm"
    wanted, fits = load(published(ONLINE), "tsm_mbv2_online", allow_shift_mismatch=True)
    assert not fits.shift_mismatch
    assert_same(net, wanted.state_dict())
