"""Published files give the publishers' own logits; whatever is not such a file is refused whole, in one line."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsmzoo import models, registry
from tsmzoo.errors import CheckpointError
from tsmzoo.exporting.graph.conv3d_to_2d import flatten
from tsmzoo.exporting.graph.fold_batchnorm import fold_batch_norm
from tsmzoo.models.wrappers import ClipModel, SingleClip, StreamStep, state_shapes
from tsmzoo.weights import checkpoint, key_maps
from tsmzoo.weights.load import load_network

ZOO = registry.load()

#: Parity case to the model that its file belongs to.
MODEL = {
    "mit_tsn_r50_k400": "tsn_r50_k400_mit",
    "mit_tsm_r50_sthv2": "tsm_r50_sthv2_8f_mit",
    "mit_tsm_r50_nl_k400": "tsm_r50_nl_k400_8f_dense_mit",
    "mit_tsm_mbv2_k400": "tsm_mbv2_k400_dense_mit",
    "mit_tsm_mbv2_jester_online": "tsm_mbv2_online",
    "mmaction2_tsn_r50_k400": "tsn_r50_k400_8seg",
    "mmaction2_tsm_r50_sthv2": "tsm_r50_sthv2_8f_mmaction",
    "mmaction2_tsm_r50_nl_dot_k400": "tsm_r50_nl_dot_product_k400_8f",
    "mmaction2_tsm_mbv2_k400": "tsm_mbv2_k400_mmaction",
    "mmaction2_i3d_r50_k400": "i3d_r50_k400",
    "mmaction2_i3d_r50_heavy_k400": "i3d_r50_heavy_k400",
    "pytorchvideo_i3d_r50_k400": "i3d_r50_k400_8x8",
    "piergiaj_i3d_inception_k400": "i3d_inception_k400_rgb_piergiaj",
}
MIT, ONLINE, MMACTION = "mit_tsm_mbv2_k400", "mit_tsm_mbv2_jester_online", "mmaction2_tsm_mbv2_k400"

State = dict[str, Tensor]
Case = Callable[[str], dict[str, Any]]
Published = Callable[[str], Path]
MakeInput = Callable[[tuple[int, ...], int], Tensor]


def load(path: Path, model: str, **options: Any) -> tuple[nn.Module, checkpoint.Loaded]:
    entry = ZOO.find(model)
    net = models.build(entry)
    return net, checkpoint.load(net, entry, path, **options)


@functools.cache
def unfilled(model: str) -> nn.Module:
    """Return the network of `model` on the meta device, built once: a refusal leaves it so."""
    return models.build(ZOO.find(model))


def assert_same(net: nn.Module, wanted: State) -> None:
    got = net.state_dict()
    assert got.keys() == wanted.keys()
    different = [key for key in wanted if not torch.equal(got[key], wanted[key])]
    assert not different


def hollow(case: dict[str, Any]) -> State:
    """A case's tensors by name and shape: zeros that take no room in memory or in a file."""
    kinds = {"float32": torch.float32, "int64": torch.int64}
    return {name: torch.zeros((), dtype=kinds[dtype]).expand(shape) for name, shape, dtype in case["tensors"]}


@pytest.fixture(scope="module")
def raw(published: Published) -> Callable[[str], State]:
    """Give a function from a parity case to the tensors of its file, keyed as there."""

    @functools.cache
    def read(name: str) -> State:
        content = torch.load(published(name), weights_only=True)
        return content.get("state_dict", content)

    return lambda name: dict(read(name))


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
        "mmaction2_tsm_r50_nl_dot_k400",
        heavy("mit_tsm_r50_sthv2"),
        heavy("mit_tsn_r50_k400"),
        heavy("mit_tsm_r50_nl_k400"),
        heavy("mmaction2_tsn_r50_k400"),
        heavy("mmaction2_tsm_r50_sthv2"),
        "mmaction2_i3d_r50_k400",
        heavy("mmaction2_i3d_r50_heavy_k400"),
        heavy("pytorchvideo_i3d_r50_k400"),
        heavy("piergiaj_i3d_inception_k400"),
    ],
)
@torch.no_grad()
def test_clip_gives_the_publishers_logits(name: str, parity: Case, published: Published, make_input: MakeInput) -> None:
    case, path = parity(name), published(name)
    net, loaded = load(path, MODEL[name])
    assert loaded == checkpoint.Loaded(hashlib.sha256(path.read_bytes()).hexdigest(), case["format"], False)
    clip = clip_of(case, make_input)
    got = ClipModel(net, case["frames"])(clip)
    wanted = torch.tensor(case["logits"])
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= 1e-4 * (wanted.max() - wanted.min())
    form = SingleClip(flatten(fold_batch_norm(net), channels_last=True), case["frames"])
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
        # 1x1x1 kernels of non-local blocks, and of Inception's classifier.
        assert state[key].shape in {shape, (*shape, 1), (*shape, 1, 1, 1)}, key


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


def no_counters(state: State) -> State:
    kept = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    assert len(kept) < len(state)
    return kept


def mmrazor(state: State) -> State:
    """A distillation run: the student under `architecture.`, a larger teacher beside it."""
    teacher = {
        f"teacher.{key}": torch.ones(2) for key in ("backbone.layer3.5.conv3.conv.weight", "cls_head.fc_cls.bias")
    }
    return {f"architecture.{key}": tensor for key, tensor in state.items()} | teacher


def doubled(state: State) -> State:
    return {f"module.{key}": tensor for key, tensor in state.items()}


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


# --- shift of file and model ---------------------------------------------------------------------------------------


def as_offline(state: State) -> State:
    """The online file's tensors, keyed as MIT's offline training saves them."""
    shifted = {f"features.{i}.conv.0." for i in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)}
    out = {}
    for key, tensor in state.items():
        for prefix in shifted:
            key = key.replace(prefix, f"{prefix}net.") if key.startswith(prefix) else key
        out[f"module.{key.replace('classifier', 'new_fc')}" if "classifier" in key else f"module.base_model.{key}"] = (
            tensor
        )
    return out


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


# --- our own format --------------------------------------------------------------------------------------------------

TSN, TSM, STREAM = "tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online"


def trained(model: str, seed: int = 3, **changes: Any) -> tuple[nn.Module, registry.Entry]:
    """Return a network whose every tensor is random, its batch norms too, as training leaves them."""
    entry = msgspec.structs.replace(ZOO.find(model), **changes)
    net, generator = models.build(entry, seed=seed), torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return net, entry


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Give a function from a model, with changes to its entry, to a file of ours."""

    def save(model: str, **changes: Any) -> Path:
        checkpoint.save(*trained(model, **changes), path := tmp_path / f"{model}.safetensors")
        return path

    return save


@pytest.mark.parametrize("model", [TSN, TSM, STREAM])
def test_what_is_saved_is_loaded_to_the_bit(model: str, tmp_path: Path) -> None:
    net, entry = trained(model)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    checkpoint.save(net, entry, path := tmp_path / "mine.safetensors")
    assert_same(net, before)
    again, loaded = load(path, model)
    assert loaded == checkpoint.Loaded(hashlib.sha256(path.read_bytes()).hexdigest(), "tsmzoo", False)
    assert_same(again, before)
    assert checkpoint.read_metadata(path) == {"model": model, "shift": entry.shift}
    assert load(path, model, weights_format="tsmzoo")[1] == loaded


def test_a_file_of_ours_holds_no_counters_and_needs_none(tmp_path: Path) -> None:
    net, entry = trained(TSM)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.fill_(7)  # as after training
    checkpoint.save(net, entry, path := tmp_path / "mine.safetensors")
    assert not any(key_maps.is_counter(key) for key in safetensors.torch.load_file(path))
    again = load(path, TSM)[0].state_dict()
    assert all(int(tensor) == 0 for key, tensor in again.items() if key_maps.is_counter(key))
    assert all(torch.equal(again[key], t) for key, t in net.state_dict().items() if not key_maps.is_counter(key))


@pytest.mark.parametrize("model", [TSM, STREAM])
def test_the_same_weights_are_the_same_bytes(model: str, tmp_path: Path) -> None:
    digests, mine = set(), trained(model)
    for number in range(12):  # by chance some would be alike, never all
        checkpoint.save(*mine, path := tmp_path / f"{number}.safetensors")
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_other_weights_or_another_shift_are_other_bytes(tmp_path: Path) -> None:
    files = []
    for net, entry in (trained(TSN), trained(TSM), trained(STREAM), trained(TSM, seed=4)):
        checkpoint.save(net, entry, path := tmp_path / "mine.safetensors")
        files.append(path.read_bytes())
    assert len(set(files)) == 4


SHIFT = {TSN: "no", TSM: "bidirectional", STREAM: "unidirectional"}


@pytest.mark.parametrize("held", SHIFT)
@pytest.mark.parametrize("model", SHIFT)
def test_a_file_of_another_shift_is_refused_naming_both(held: str, model: str, saved: Callable[..., Path]) -> None:
    path = saved(held)
    if held == model:
        load(path, model)
        return
    wanted = {"no": "has none"}.get(SHIFT[model], SHIFT[model])
    message = assert_refused(path, model, SHIFT[held], wanted, model)
    assert ("--allow-shift-mismatch" in message) == (held == TSM and model == STREAM)


def test_a_file_of_ours_in_an_online_model_on_the_users_word(saved: Callable[..., Path]) -> None:
    path = saved(TSM)
    net, loaded = load(path, STREAM, allow_shift_mismatch=True)
    assert (loaded.format, loaded.shift_mismatch) == ("tsmzoo", True)
    assert_same(net, trained(TSM)[0].state_dict())
    assert_refused(saved(TSN), STREAM, "no shift", allow_shift_mismatch=True)
    assert_refused(saved(STREAM), TSM, "unidirectional", allow_shift_mismatch=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"width": 1.0}, ("features.0.0.weight (32, 3, 3, 3) instead of (16, 3, 3, 3)", "more"), id="width"
        ),
        pytest.param({"classes": 15}, ("classifier.1.weight (15, 1280) instead of (14, 1280)",), id="classes"),
        pytest.param({"modality": "flow"}, ("features.0.0.weight (16, 10, 3, 3) instead of (16, 3, 3, 3)",), id="flow"),
    ],
)
def test_a_file_of_other_shapes_is_refused_listing_them(
    changes: dict[str, Any], words: tuple[str, ...], saved: Callable[..., Path]
) -> None:
    assert_refused(saved(TSM, **changes), TSM, "of another shape: ", *words)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}], ids=["none", "empty", "of Hugging Face"])
@pytest.mark.parametrize("model", [TSN, TSM, STREAM])
def test_an_image_networks_file_is_not_taken_for_ours(
    model: str, metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    """torchvision's MobileNetV2 has our keys; only the metadata says that a file is ours, and of which shift."""
    state = {key: tensor.clone() for key, tensor in trained(model)[0].state_dict().items()}
    path = tmp_path / "mobilenet_v2.safetensors"
    safetensors.torch.save_file(state, path, metadata)
    assert_refused(path, model, "image network", "start a training")
    torch.save(state, path := tmp_path / "mobilenet_v2.pth")
    assert_refused(path, model, "image network", "start a training")


def test_an_image_resnets_keys_are_ours_with_our_metadata_alone() -> None:
    state = unfilled("tsm_r50_sthv2").state_dict()
    assert key_maps.detect_format(state, {"model": "mine", "shift": None}) == "tsmzoo"
    assert key_maps.detect_format(state, {}) == "torchvision"


def test_a_shift_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    net, entry = trained(TSM)
    state = {key: tensor for key, tensor in net.state_dict().items() if not key_maps.is_counter(key)}
    path = tmp_path / "mine.safetensors"
    safetensors.torch.save_file(state, path, {"tsmzoo": json.dumps({"model": entry.id, "shift": "sideways"})})
    for model in (TSN, TSM, STREAM):
        assert_refused(path, model, "sideways")


@pytest.mark.parametrize("part", [1e-7, 1e-4, 0.01, 0.5, 0.999999])
def test_a_file_of_ours_that_was_cut_is_one_line(part: float, saved: Callable[..., Path]) -> None:
    path = saved(TSM)
    data = path.read_bytes()
    path.write_bytes(data[: 1 + int(part * (len(data) - 2))])
    assert_refused(path, TSM, "safetensors")


def test_a_file_of_ours_under_another_ending_is_the_same(saved: Callable[..., Path], tmp_path: Path) -> None:
    saved(TSM).rename(path := tmp_path / "mine.pth")
    net, loaded = load(path, TSM)
    assert loaded.format == "tsmzoo"
    assert_same(net, trained(TSM)[0].state_dict())


def test_a_network_of_other_classes_is_a_model_of_its_own(tmp_path: Path) -> None:
    """As training leaves it: a new classifier, random from the seed, on features that stay."""
    net, entry = trained(TSM)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    models.replace_classifier(net, 5, seed=1)
    after, mine = net.state_dict(), msgspec.structs.replace(entry, classes=5)
    assert after.keys() == before.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}
    assert after["classifier.1.weight"].shape == (5, 1280)
    checkpoint.save(net, mine, path := tmp_path / "mine.safetensors")
    again = models.build(mine)
    checkpoint.load(again, mine, path)
    assert_same(again, after)
    rows = []
    for seed in (1, 1, 2):
        models.replace_classifier(net, 5, seed=seed)
        rows.append(net.state_dict()["classifier.1.weight"].clone())
    assert torch.equal(rows[0], after["classifier.1.weight"])
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


# --- refusals ------------------------------------------------------------------------------------------------------


def assert_refused(path: Path, model: str, *words: str, net: nn.Module | None = None, **options: Any) -> str:
    """Nothing is loaded, and one line names the file and says `words`."""
    net = net or unfilled(model)
    before = {key: tensor if tensor.is_meta else tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(net, ZOO.find(model), path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 600
    for word in words:
        assert word in message
    for key, tensor in net.state_dict().items():
        if before[key].is_meta:
            assert tensor.is_meta
        else:
            assert torch.equal(tensor, before[key])
    return message


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.touched}",)


@pytest.mark.parametrize("zip_layout", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("where", ["whole", "entry", "beside"])
def test_code_in_a_pickle_does_not_run(where: str, zip_layout: bool, parity: Case, tmp_path: Path) -> None:
    evil, state = Evil(tmp_path / "touched"), hollow(parity(ONLINE))
    content = {"whole": evil, "entry": state | {"x": evil}, "beside": {"state_dict": state, "meta": evil}}[where]
    path = tmp_path / "evil.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zip_layout)
    assert_refused(path, "tsm_mbv2_online", f"{os.system.__module__}.system", "refused")
    assert not evil.touched.exists()
    torch.load(path, weights_only=False)
    assert evil.touched.exists(), "the file must be a danger, else this proves nothing"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors", ".pth.tar"])
def test_code_in_a_bare_pickle_does_not_run(protocol: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "touched"), protocol))
    assert_refused(path, "tsm_mbv2_online")
    assert not (tmp_path / "touched").exists()


def test_pickled_network_is_refused_by_its_class(tmp_path: Path) -> None:
    path = tmp_path / "network.pth"
    torch.save(models.build(ZOO.find("tsm_mbv2_online"), seed=0), path)
    assert_refused(path, "tsm_mbv2_online", "tsmzoo.models.mobilenet_v2.MobileNetV2", "refused")


def nan(tensor: Tensor) -> Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] = torch.nan
    return tensor


LAST, LAST_OURS = "classifier.weight", "classifier.1.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda s: s.pop(LAST), ("classifier",), id="no head"),
        pytest.param(
            lambda s: s.pop("features.7.conv.3.weight"), ("missing: features.7.conv.1.0.weight",), id="missing"
        ),
        pytest.param(lambda s: s.update(extra=torch.ones(2)), ("unexpected: extra",), id="unexpected"),
        pytest.param(
            lambda s: s.update({LAST: torch.ones(27, 1281)}),
            ("of another shape", LAST_OURS, "(27, 1281)", "(27, 1280)"),
            id="shape",
        ),
        pytest.param(lambda s: s.update({LAST: s[LAST].T}), (LAST_OURS, "(1280, 27)"), id="transposed"),
        pytest.param(lambda s: s.update({LAST: s[LAST][None]}), (LAST_OURS, "(1, 27, 1280)"), id="rank"),
        pytest.param(lambda s: s.update({LAST: torch.ones(1).expand(10**6, 10**6)}), (LAST_OURS,), id="huge"),
        pytest.param(lambda s: s.update({LAST: nan(s[LAST])}), ("not finite", LAST_OURS), id="nan"),
        pytest.param(lambda s: s.update({LAST: s[LAST] - torch.inf}), ("not finite", LAST_OURS), id="inf"),
        pytest.param(lambda s: s.update({LAST: s[LAST].double() + 1e300}), ("not finite",), id="overflow"),
        pytest.param(
            lambda s: s.update({"features.5.conv.1.running_var": nan(torch.ones(192))}),
            ("not finite", "features.5.conv.0.1.running_var"),
            id="nan in a buffer",
        ),
        pytest.param(
            lambda s: s.update({"features.5.conv.1.running_var": -torch.ones(192)}),
            ("features.5.conv.0.1.running_var",),
            id="negative variance",
        ),
        pytest.param(lambda s: s.update({LAST: s[LAST].long()}), ("not floating-point", LAST_OURS), id="int"),
        pytest.param(lambda s: s.update({LAST: s[LAST].to(torch.complex64)}), ("not floating-point",), id="complex"),
        pytest.param(lambda s: s.update({LAST: s[LAST] > 0}), ("not floating-point",), id="bool"),
        pytest.param(lambda s: s.update({LAST: s[LAST].to_sparse()}), ("sparse", LAST_OURS), id="sparse"),
        pytest.param(lambda s: s.update({LAST: s[LAST].to("meta")}), ("data-less", LAST_OURS), id="no data"),
        pytest.param(lambda s: s.update({LAST: None}), ("classifier",), id="none for a tensor"),
        pytest.param(
            lambda s: s.update({f"module.{LAST}": s[LAST] + 1}), ("two tensors", LAST_OURS), id="two for one name"
        ),
    ],
)
def test_wrong_tensors_are_listed(
    change: Callable[[State], Any], words: tuple[str, ...], parity: Case, tmp_path: Path
) -> None:
    state = hollow(parity(ONLINE))
    change(state)
    path = tmp_path / "model.pth"
    torch.save(state, path)
    assert_refused(path, "tsm_mbv2_online", *words)


def test_many_wrong_keys_are_counted_not_all_listed(parity: Case, tmp_path: Path) -> None:
    state = hollow(parity(ONLINE))
    for key in [key for key in state if key.startswith("features.4.")]:
        state[f"x{key}"] = state.pop(key)
    path = tmp_path / "model.pth"
    torch.save(state, path)
    # 3 convolutions and 3 batch norms of 4 tensors; the counters are not among the missing.
    assert_refused(path, "tsm_mbv2_online", "missing: features.4.", "and 12 more", "unexpected: xfeatures.4.")


@pytest.mark.parametrize("name", ["classifier.bias", "features.0.0.weight"])
def test_network_with_weights_keeps_them(name: str, raw: Callable[[str], State], tmp_path: Path) -> None:
    state = raw(ONLINE)
    state[name] = nan(state[name])
    path = tmp_path / "model.pth"
    torch.save(state, path)
    net = models.build(ZOO.find("tsm_mbv2_online"), seed=0)
    assert_refused(path, "tsm_mbv2_online", "not finite", net=net)


@pytest.mark.parametrize("zip_layout", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("part", [1e-6, 1e-4, 0.01, 0.5, 0.99, 0.999999])
def test_truncated_file(part: float, zip_layout: bool, raw: Callable[[str], State], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(raw(ONLINE), buffer, _use_new_zipfile_serialization=zip_layout)
    data = buffer.getvalue()
    path = tmp_path / "cut.pth.tar"
    path.write_bytes(data[: 1 + int(part * (len(data) - 2))])
    assert_refused(path, "tsm_mbv2_online")


@pytest.mark.parametrize("length", [1, 7, 8, 500, 100_000, -1])
def test_truncated_safetensors(length: int, raw: Callable[[str], State], tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(safetensors.torch.save(raw(ONLINE))[:length])
    assert_refused(path, "tsm_mbv2_online", "safetensors")


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"hello")
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0", id="one zero"),
        pytest.param(bytes(10_000), id="zeros"),
        pytest.param(b"hello\nworld\n" * 100, id="text"),
        pytest.param(b"<!DOCTYPE html>\n<html>404 Not Found</html>\n", id="html"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", id="git-lfs pointer"),
        pytest.param(b'{"message": "Not Found"}', id="json"),
        pytest.param(b"]q\x00.", id="pickled list"),
        pytest.param(zipped("hello.txt"), id="zip of something else"),
        pytest.param(zipped("archive/data.pkl"), id="zip of a false pickle"),
        pytest.param(b"\x89HDF\r\n\x1a\n" + bytes(100), id="hdf5"),
    ],
)
def test_not_a_checkpoint(data: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(data)
    message = assert_refused(path, "tsm_mbv2_online", *(["empty"] if not data else []))
    assert "asks to run" not in message, "this is no attack"


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "noise.pth"
    path.write_bytes(
        torch.randint(256, (5000,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)).numpy()
    )
    assert_refused(path, "tsm_mbv2_online")


@pytest.mark.parametrize("suffix", ["", ".pth", ".safetensors"])
def test_directory_and_missing_file(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert_refused(folder, "tsm_mbv2_online", "directory")
    assert_refused(tmp_path / f"none{suffix}", "tsm_mbv2_online", "does not exist")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        pytest.param({}, "no tensors", id="empty dict"),
        pytest.param({"epoch": 3, "arch": "resnet50"}, "no tensors", id="no tensors"),
        pytest.param({"state_dict": {}}, "no tensors", id="empty state_dict"),
        pytest.param({"state_dict": [torch.ones(2)]}, "no tensors", id="list as state_dict"),
        pytest.param([torch.ones(2)], "list", id="list"),
        pytest.param(torch.ones(2), "Tensor", id="tensor"),
        pytest.param(3.5, "float", id="number"),
        pytest.param(None, "None", id="none"),
        pytest.param({"x": torch.ones(2)}, "first keys: x", id="foreign tensor"),
        pytest.param({0: torch.ones(2), 1: torch.ones(2)}, "first keys: 0, 1", id="numbers as keys"),
        pytest.param({f"k{i:02}": torch.ones(2) for i in range(50)}, "and 47 more", id="many foreign tensors"),
    ],
)
def test_content_that_is_no_state(content: Any, word: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save(content, path)
    assert_refused(path, "tsm_mbv2_online", word)


# --- files of other models ------------------------------------------------------------------------------------------


def mit_resnet(model: str) -> State:
    """A hollow MIT file of one of our ResNets, keyed by the facts, § 3.2."""
    net = unfilled(model)
    state = {}
    for key, tensor in net.state_dict().items():
        block = net.get_submodule(".".join(key.split(".")[:2])) if key.startswith("layer") else net
        if key.endswith("conv1.weight") and getattr(block, "fold", 0):
            key = key.replace("conv1.weight", "conv1.net.weight")
        key = f"module.{key.replace('fc.', 'new_fc.')}" if key.startswith("fc.") else f"module.base_model.{key}"
        state[key] = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
    return state


def basic_resnet(blocks: tuple[int, ...]) -> State:
    """Keys of a ResNet-18 or -34 as MIT would save it."""
    return {
        f"module.base_model.layer{layer}.{block}.conv{conv}{'.net' if conv == 1 else ''}.weight": torch.ones(1)
        for layer, count in enumerate(blocks, 1)
        for block in range(count)
        for conv in (1, 2)
    }


def test_hollow_files_load(parity: Case, tmp_path: Path) -> None:
    """What the tests below rest on: such a file is taken where it fits."""
    path = tmp_path / "file.pth"
    torch.save({"state_dict": mit_resnet("tsm_r50_sthv2")}, path)
    load(path, "tsm_r50_sthv2")
    torch.save({"state_dict": hollow(parity("mit_tsn_r50_k400"))}, path)
    load(path, "tsn_r50_k400_mit")


@pytest.mark.parametrize(
    ("state", "model", "words"),
    [
        pytest.param("mit_tsm_r50_sthv2", MODEL[MIT], ("resnet50", "is mobilenet_v2"), id="R50 in MobileNetV2"),
        pytest.param(MIT, "tsm_r50_sthv2", ("mobilenet_v2", "is resnet50"), id="MobileNetV2 in R50"),
        pytest.param(MMACTION, MODEL["mmaction2_tsm_r50_sthv2"], ("mobilenet_v2", "is resnet50"), id="mmaction2"),
        pytest.param("mit_tsm_r50_sthv2", "tsm_r101_sthv2", ("resnet50", "is resnet101"), id="R50 in R101"),
        pytest.param(lambda: mit_resnet("tsm_r101_sthv2"), "tsm_r50_sthv2", ("resnet101",), id="R101 in R50"),
        pytest.param(lambda: basic_resnet((2, 2, 2, 2)), "tsm_r50_sthv2", ("is resnet50",), id="R18 in R50"),
        pytest.param(lambda: basic_resnet((3, 4, 6, 3)), "tsm_r50_sthv2", ("basic blocks",), id="R34 in R50"),
        pytest.param("mit_tsn_r50_k400", "tsm_r50_k400_8f", ("no shift", "bidirectional"), id="TSN in TSM"),
        pytest.param(
            "mmaction2_tsn_r50_k400", MODEL["mmaction2_tsm_r50_sthv2"], ("no shift",), id="mmaction2 TSN in TSM"
        ),
        pytest.param("mmaction2_tsm_r50_sthv2", "tsn_r50_sthv2_8seg", ("bidirectional", "has none"), id="TSM in TSN"),
        pytest.param(
            lambda: mit_resnet("tsm_r50_k400_8f"), "tsn_r50_k400_mit", ("bidirectional",), id="MIT TSM in TSN"
        ),
        pytest.param(ONLINE, MODEL[MIT], ("unidirectional", "bidirectional"), id="online in offline"),
        pytest.param(MIT, "tsm_mbv2_online", ("bidirectional", "future"), id="offline in online"),
        pytest.param(MMACTION, "tsm_mbv2_online", ("bidirectional", "future"), id="mmaction2 in online"),
        pytest.param(
            "mit_tsm_r50_sthv2", "tsm_r50_k400_8f", ("fc.weight (174, 2048) instead of (400, 2048)",), id="classes"
        ),
        pytest.param(
            lambda: mit_resnet("tsm_r50_k400_flow"),
            "tsm_r50_k400_8f",
            ("conv1.weight (64, 10, 7, 7) instead of (64, 3, 7, 7)",),
            id="flow in RGB",
        ),
        pytest.param(
            "mmaction2_tsm_r50_nl_dot_k400",
            "tsm_r50_k400_8f_mmaction",
            ("unexpected: layer2.0.nl.",),
            id="non-local in plain",
        ),
        pytest.param(
            "mmaction2_tsm_r50_nl_dot_k400",
            "tsm_r50_nl_gaussian_k400_8f",
            ("unexpected: layer2.0.nl.phi.bias",),
            id="dot product in Gaussian",
        ),
        pytest.param(
            "mmaction2_tsm_r50_nl_dot_k400",
            MODEL["mit_tsm_r50_nl_k400"],
            ("missing: layer2.0.nl.out.bias",),
            id="non-local without bias",
        ),
        pytest.param("mit_tsm_r50_sthv2", MODEL["mit_tsm_r50_nl_k400"], ("missing: ",), id="plain in non-local"),
    ],
)
def test_file_of_another_model(
    state: str | Callable[[], State], model: str, words: tuple[str, ...], parity: Case, tmp_path: Path
) -> None:
    path = tmp_path / "file.pth"
    torch.save({"state_dict": hollow(parity(state)) if isinstance(state, str) else state()}, path)
    assert_refused(path, model, *words)


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        (("blocks.0.conv.weight", "blocks.1.res_blocks.0.branch2.conv_a.weight"), "unknown architecture"),
        (("Conv3d_1a_7x7.conv3d.weight", "logits.conv3d.weight"), "inception_v1_i3d"),
        (("conv3d_1a_7x7.conv3d.weight", "mixed_3b.branch_0.conv3d.weight"), "inception_v1_i3d"),
        (("conv1_7x7_s2.weight", "inception_3a_1x1.weight"), "bninception"),
        (("module.base_model.conv1_7x7_s2.weight", "module.base_model.inception_3a_1x1.weight"), "bninception"),
        (("backbone.stage1.0.branch_norm.weight", "cls_head.fc_cls.weight"), "mobileone_s4"),
        (("backbone.stage1.0.net.branch_norm.weight", "cls_head.fc_cls.weight"), "mobileone_s4"),
        (("backbone.layers.0.blocks.0.norm1.weight", "cls_head.fc_cls.weight"), "Swin"),
        (("backbone.features.denseblock1.denselayer1.conv1.weight",), "densenet161"),
        (("features.conv0.weight", "features.denseblock1.denselayer1.conv.1.weight"), "densenet161"),
    ],
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_what_another_file_holds_is_named(keys: tuple[str, ...], word: str, wrapped: bool, tmp_path: Path) -> None:
    state = {key: torch.ones(1) for key in keys}
    path = tmp_path / "file.pth"
    wrapper = "model_state" if keys[0].startswith("blocks.") else "state_dict"
    torch.save({wrapper: state} if wrapped else state, path)
    assert_refused(path, "tsm_r50_k400_8f", word)


# --- backbones that TSN and the shift's options take ------------------------------------------------------------------

Edits = tuple[tuple[str, str], ...]

#: From our names to the publisher's, as the checkpoint facts have them (§ 3.2, 4.2, 4.5, 4.7, 7).
MMACTION_HEAD: Edits = ((r"^(fc|classifier|head\.fc)\.(?=weight|bias)", "cls_head.fc_cls."),)
MMACTION_RESNET: Edits = (
    (r"^(layer\d\.\d+)\.conv(\d)\.", r"backbone.\1.conv\2.conv."),
    (r"^(layer\d\.\d+)\.bn(\d)\.", r"backbone.\1.conv\2.bn."),
    (r"^(layer\d\.\d+)\.downsample\.0\.", r"backbone.\1.downsample.conv."),
    (r"^(layer\d\.\d+)\.downsample\.1\.", r"backbone.\1.downsample.bn."),
    (r"^conv1\.", "backbone.conv1.conv."),
    (r"^bn1\.", "backbone.conv1.bn."),
    *MMACTION_HEAD,
)
MMACTION_PLAIN: Edits = ((r"^(?!fc\.|classifier\.)", "backbone."), *MMACTION_HEAD)
MMACTION_MOBILEONE: Edits = (
    (r"\.conv_kxk\.(\d)\.bn\.", r".branch_conv_list.\1.norm."),
    (r"\.conv_kxk\.", ".branch_conv_list."),
    (r"\.conv_scale\.bn\.", ".branch_scale.norm."),
    (r"\.conv_scale\.", ".branch_scale."),
    (r"\.identity\.", ".branch_norm."),
    (r"\.attn\.fc(\d)\.", r".se.conv\1.conv."),
    (r"^stem\.", "backbone.stage0."),
    (r"^stages\.0\.", "backbone.stage1."),
    (r"^stages\.1\.", "backbone.stage2."),
    (r"^stages\.2\.", "backbone.stage3."),
    (r"^stages\.3\.", "backbone.stage4."),
    *MMACTION_HEAD,
)
MMACTION_MOBILEONE_TSM: Edits = (
    *MMACTION_MOBILEONE,
    (r"^backbone\.stage0\.", "backbone.stage0.net."),
    (r"^(backbone\.stage[1-4]\.\d+)\.", r"\1.net."),
)
MIT_WRAPPED: Edits = ((r"^(?!fc\.)", "module.base_model."), (r"^fc\.", "module.new_fc."))
MIT_BRANCH: Edits = ((r"^(layer\d\.\d+)\.conv1\.", r"\1.conv1.net."), *MIT_WRAPPED)
MIT_BLOCK: Edits = ((r"^(layer\d\.\d+)\.", r"\1.net."), *MIT_WRAPPED)

RESIDUAL: dict[str, Any] = {"family": "tsm"}
IN_PLACE: dict[str, Any] = {"family": "tsm", "shift_place": "in-place"}
TSN_: dict[str, Any] = {"family": "tsn"}


def like(backbone: str, **changes: Any) -> registry.Entry:
    return msgspec.structs.replace(ZOO.find("tsm_r50_k400_8f"), backbone=backbone, **changes)


def respelt(entry: registry.Entry, edits: Edits) -> State:
    """The hollow file of a network, as its publisher lays it out."""
    state = {}
    for key, tensor in models.build(entry).state_dict().items():
        for pattern, replacement in edits:
            key = re.sub(pattern, replacement, key)
        assert key not in state
        state[key] = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
    return state


@pytest.mark.parametrize(
    ("backbone", "changes", "edits", "format_", "example"),
    [
        pytest.param(
            *("resnet18", TSN_, MMACTION_RESNET, "mmaction2", "backbone.layer4.1.conv2.bn.weight"), id="resnet18"
        ),
        pytest.param(
            *("resnext101_32x4d", TSN_, MMACTION_PLAIN, "mmaction2", "backbone.layer1.0.downsample.0.weight"),
            id="rx101",
        ),
        pytest.param(
            *(
                "densenet161",
                TSN_,
                MMACTION_PLAIN,
                "mmaction2",
                "backbone.features.denseblock4.denselayer24.norm2.bias",
            ),
            id="densenet161",
        ),
        pytest.param(
            *("mobileone_s4", TSN_, MMACTION_MOBILEONE, "mmaction2", "backbone.stage3.19.se.conv2.conv.bias"),
            id="mobileone",
        ),
        pytest.param(
            *("mobileone_s4", IN_PLACE, MMACTION_MOBILEONE_TSM, "mmaction2"),
            "backbone.stage0.net.branch_conv_list.0.norm.weight",
            id="mobileone TSM",
        ),
        pytest.param(
            *("mobileone_s4", IN_PLACE, (*MMACTION_MOBILEONE_TSM, (r"^", "architecture.")), "mmaction2"),
            "architecture.backbone.stage3.19.net.branch_norm.running_mean",
            id="mobileone TSM of mmrazor",
        ),
        pytest.param(*("bninception", TSN_, (), "mit-tsm", "inception_5b_pool_proj_bn.running_var"), id="bninception"),
        pytest.param(
            *("bninception", TSN_, MIT_WRAPPED, "mit-tsm", "module.base_model.conv2_3x3_reduce.bias"),
            id="bninception, wrapped",
        ),
        pytest.param(*("bninception", IN_PLACE, MIT_WRAPPED, "mit-tsm", "module.new_fc.weight"), id="bninception TSM"),
        pytest.param(
            *("resnet18", RESIDUAL, MIT_BRANCH, "mit-tsm", "module.base_model.layer2.0.conv1.net.weight"),
            id="mit resnet18 TSM",
        ),
        pytest.param(
            *("resnext101_32x4d", TSN_, MIT_WRAPPED, "mit-tsm", "module.base_model.layer3.22.conv3.weight"),
            id="mit rx101",
        ),
        pytest.param(
            *("resnet50", IN_PLACE, MIT_BLOCK, "mit-tsm", "module.base_model.layer3.5.net.bn3.weight"),
            id="mit resnet50 in place",
        ),
        pytest.param("resnet50", IN_PLACE, (), "tsmzoo", "layer1.0.conv1.weight", id="ours"),
    ],
)
def test_published_keys_of_a_backbone_map_one_to_one(
    backbone: str, changes: dict[str, Any], edits: Edits, format_: str, example: str, tmp_path: Path
) -> None:
    entry = like(backbone, **changes)
    state = respelt(entry, edits)
    assert example in state
    metadata = {"model": "mine", "shift": entry.shift, "shift_place": entry.shift_place}
    assert key_maps.detect_format(state, metadata if format_ == "tsmzoo" else {}) == format_
    assert key_maps.detect_backbone(state) == backbone
    net = models.build(entry)
    rules = key_maps.RULES[format_, backbone]
    assert {key_maps.rename(key, rules) for key in state} == net.state_dict().keys()
    path = tmp_path / "file.pth"
    if format_ == "tsmzoo":
        checkpoint.save(models.build(entry, seed=0), entry, path := path.with_suffix(".safetensors"))
    else:
        torch.save({"state_dict": state}, path)
    assert checkpoint.load(net, entry, path) == checkpoint.Loaded(
        hashlib.sha256(path.read_bytes()).hexdigest(), format_, False
    )


def test_batch_norms_of_old_bninception_files(tmp_path: Path) -> None:
    entry = like("bninception", family="tsn")
    state = {key: t[None] if "_bn." in key and t.dim() == 1 else t for key, t in respelt(entry, ()).items()}
    torch.save(state, path := tmp_path / "old.pth")
    net = models.build(entry)
    checkpoint.load(net, entry, path)
    assert net.state_dict()["conv1_7x7_s2_bn.running_var"].shape == (64,)


def test_another_place_of_the_shift_is_refused(tmp_path: Path) -> None:
    branch, block = like("resnet50", **RESIDUAL), like("resnet50", **IN_PLACE)
    for held, edits, other in ((branch, MIT_BRANCH, block), (block, MIT_BLOCK, branch)):
        torch.save(respelt(held, edits), path := tmp_path / "file.pth")
        checkpoint.load(models.build(held), held, path)
        with pytest.raises(CheckpointError, match=f"shift_place {held.shift_place}, but .* has {other.shift_place}"):
            checkpoint.load(models.build(other), other, path)


@pytest.mark.parametrize("changes", [{"shift_div": 4}, {"shift_place": "in-place"}])
@pytest.mark.parametrize("model", [TSM, STREAM])
def test_our_files_tell_the_options_of_their_shift(model: str, changes: dict[str, Any], tmp_path: Path) -> None:
    net, plain = trained(model)
    other = msgspec.structs.replace(plain, **changes)
    for held, wanted in ((other, plain), (plain, other)):
        checkpoint.save(net, held, path := tmp_path / "mine.safetensors")
        checkpoint.load(models.build(held), held, path)
        with pytest.raises(CheckpointError, match=f"was trained with {next(iter(changes))}"):
            checkpoint.load(models.build(wanted), wanted, path)


def test_our_files_tell_the_inflation(tmp_path: Path) -> None:
    """That of pytorchvideo has the names and shapes of mmaction2's, and other strides."""
    one, other = like("resnet50_i3d", family="i3d"), like("resnet50_i3d_8x8", family="i3d")
    path = tmp_path / "mine.safetensors"
    for held, wanted in ((one, other), (other, one)):
        checkpoint.save(models.build(held, seed=1), held, path)
        checkpoint.load(models.build(held), held, path)
        with pytest.raises(CheckpointError, match=f"holds {held.backbone}, but .* is {wanted.backbone};"):
            checkpoint.load(models.build(wanted), wanted, path)
    state = safetensors.torch.load_file(path)
    older = {"tsmzoo": json.dumps({"model": "mine", "shift": None})}  # of before
    safetensors.torch.save_file(state, path, older)
    checkpoint.load(models.build(one), one, path)


def test_a_format_of_another_inflation_is_refused_naming_its_own(published: Published) -> None:
    entry = like("resnet50_i3d", family="i3d", classes=400)
    path = published("pytorchvideo_i3d_r50_k400")
    with pytest.raises(CheckpointError, match=r"as pytorchvideo for resnet50_i3d; .* known for resnet50_i3d_8x8$"):
        checkpoint.load(models.build(entry), entry, path)


# --- what a training may start from ----------------------------------------------------------------------------------


def image(backbone: str, classes: int = 1000, **changes: Any) -> State:
    """The weights of an image classifier, keyed as torchvision's."""
    entry = like(backbone, family="tsn", classes=classes, **changes)
    return {key: tensor.clone() for key, tensor in models.build(entry, seed=11).state_dict().items()}


def started(entry: registry.Entry, path: Path) -> tuple[State, State]:
    """What a network held, and what it holds once it was started from `path`."""
    net = models.build(entry, seed=3)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    assert checkpoint.start(net, entry, path)
    return before, net.state_dict()


def old_densenet(state: State) -> State:
    """DenseNet's first files have a dot in the names of a layer's parts."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): tensor for key, tensor in state.items()}


@pytest.mark.parametrize(
    ("backbone", "spelling"),
    [
        ("resnet18", no_counters),
        ("resnet50", doubled),
        ("mobilenet_v2", lambda state: state),
        ("densenet161", old_densenet),
        pytest.param("resnet101", lambda state: state, marks=pytest.mark.slow),
        pytest.param("resnext101_32x4d", lambda state: state, marks=pytest.mark.slow),
        pytest.param("densenet161", lambda state: state, marks=pytest.mark.slow),
    ],
)
def test_an_image_network_starts_a_training_and_nothing_else(
    backbone: str, spelling: Callable[[State], State], tmp_path: Path
) -> None:
    state = image(backbone)
    torch.save(spelling(state), path := tmp_path / "image.pth")
    entry = like(backbone, family="tsn" if backbone == "densenet161" else "tsm", classes=9)
    before, after = started(entry, path)
    head = {key for key in state if key.startswith(("fc.", "classifier."))}
    assert len(head) == 2
    for key, tensor in after.items():
        wanted = before[key] if key in head else state[key]
        assert torch.equal(tensor, torch.zeros_like(tensor) if key_maps.is_counter(key) else wanted), key
    with pytest.raises(
        CheckpointError, match=r"image network: its classifier is not that of .*start a training from it"
    ):
        checkpoint.load(models.build(entry), entry, path)
    same = like(backbone, family="tsn", classes=1000)
    with pytest.raises(CheckpointError, match="image network"):
        checkpoint.load(models.build(same), same, path, weights_format="torchvision")


def inflated_by_hand(kernel: Tensor, reach: int) -> Tensor:
    out = torch.empty(*kernel.shape[:2], reach, *kernel.shape[2:])
    for frame in range(reach):
        out[:, :, frame] = kernel / reach
    return out


def mit_file(edits: Edits) -> State:
    state = image("resnet50", classes=400)
    for pattern, replacement in edits:
        state = {re.sub(pattern, replacement, key): tensor for key, tensor in state.items()}
    return state


I3D = [name for name in key_maps._MMACTION_I3D if name != "resnet50_i3d_heavy"]


@pytest.mark.parametrize("backbone", I3D)
@torch.no_grad()
def test_an_inflated_network_starts_from_one_of_frames(backbone: str, tmp_path: Path) -> None:
    """A still clip, its ends repeated in the place of zeros, then has the features of its frame."""
    state = image("resnet50")
    torch.save(state if backbone == I3D[0] else mit_file(MIT_WRAPPED), path := tmp_path / "frames.pth")
    entry = like(backbone, family="i3d", classes=9)
    before, after = started(entry, path)
    for key, tensor in after.items():
        if key.startswith("fc."):
            assert torch.equal(tensor, before[key])
        elif tensor.dim() == 5:
            assert torch.equal(tensor, inflated_by_hand(state[key], tensor.shape[2]))
        elif not key_maps.is_counter(key):
            assert torch.equal(tensor, state[key])

    net = models.build(entry, seed=3)
    checkpoint.start(net, entry, path)
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            reach, (_, height, width) = module.padding[0], module.padding
            module.padding = (0, height, width)
            module.register_forward_pre_hook(
                lambda _, args, reach=reach: F.pad(args[0], (0, 0, 0, 0, reach, reach), mode="replicate")
            )
    flat = models.build(like("resnet50", family="tsn", classes=9))
    head = {key: tensor for key, tensor in net.state_dict().items() if key.startswith("fc.")}
    flat.load_state_dict(state | head, assign=True)
    frame = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    wanted = flat(frame, 1, lambda x, _: x)
    got = net(frame.expand(8, -1, -1, -1), 8, lambda x, _: x)
    assert got.shape == wanted.shape == (1, 9)
    assert (got - wanted).abs().max() <= 1e-4 * (wanted.max() - wanted.min())


@pytest.mark.parametrize("div", [None, 8, 4])
@torch.no_grad()
def test_a_shift_is_learned_on_from_where_it_was(div: int | None, tmp_path: Path) -> None:
    """TSM, § 5.4, I3D replace: the features of the TSM that it starts from, by a kernel in the shift's place."""
    tsm = like("resnet50", family="tsm", classes=9, shift_div=div or 8)
    flat = models.build(tsm, seed=11)
    if div:
        checkpoint.save(flat, tsm, path := tmp_path / "tsm.safetensors")
    else:
        torch.save(mit_file(MIT_BRANCH), path := tmp_path / "tsm.pth")
    entry = like("resnet50_i3d_replace", family="i3d", classes=9)
    net = models.build(entry, seed=3)
    assert checkpoint.start(net, entry, path)
    net.load_state_dict({key: t for key, t in flat.state_dict().items() if key.startswith("fc.")}, strict=False)
    clips = torch.randn(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ClipModel(net, 4)(clips), ClipModel(flat, 4)(clips), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "edits", "held"),
    [
        *((name, MIT_BRANCH, "bidirectional") for name in I3D if name != "resnet50_i3d_replace"),
        ("resnet50_i3d_replace", MIT_BLOCK, "bidirectional"),
        ("resnet50_i3d_replace", None, "unidirectional"),
    ],
)
def test_a_shift_that_no_kernel_can_be_is_not_lost_silently(
    backbone: str, edits: Edits | None, held: str, tmp_path: Path
) -> None:
    if edits:
        torch.save(mit_file(edits), path := tmp_path / "tsm.pth")
    else:
        online = like("resnet50", mode="online")
        checkpoint.save(models.build(online, seed=1), online, path := tmp_path / "online.safetensors")
    entry = like(backbone, family="i3d", classes=9)
    with pytest.raises(CheckpointError, match=f"{held} shift, which .* cannot keep; start from a network without one"):
        checkpoint.start(models.build(entry, seed=3), entry, path)


def test_trained_non_local_blocks_are_kept(tmp_path: Path) -> None:
    entry = like("resnet50", family="tsm", non_local="embedded_gaussian", classes=9)
    frames = msgspec.structs.replace(entry, family="tsn")
    given = models.build(frames, seed=11)
    checkpoint.save(given, frames, path := tmp_path / "tsn.safetensors")
    _, after = started(entry, path)
    blocks = {key: tensor for key, tensor in given.state_dict().items() if ".nl." in key}
    assert len(blocks) > 50
    for key, tensor in blocks.items():
        assert torch.equal(after[key], tensor), key
    other = msgspec.structs.replace(frames, non_local="gaussian")  # which has no theta
    checkpoint.save(models.build(other, seed=11), other, path)
    with pytest.raises(CheckpointError, match=r"missing: layer2\.0\.nl\.phi"):
        checkpoint.start(models.build(entry, seed=3), entry, path)


def test_a_bninception_that_was_not_wrapped_has_no_shift(tmp_path: Path) -> None:
    tsm, tsn = like("bninception", **IN_PLACE, classes=9), like("bninception", **TSN_, classes=9)
    given = models.build(tsn, seed=11).state_dict()
    torch.save(given, path := tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match="was trained with no shift"):
        checkpoint.load(models.build(tsm), tsm, path)
    before, after = started(tsm, path)
    for key, tensor in given.items():
        assert key_maps.is_counter(key) or torch.equal(after[key], before[key] if key.startswith("fc.") else tensor), (
            key
        )
    wrapped = {key: tensor for key, tensor in respelt(tsm, MIT_WRAPPED).items()}
    torch.save(wrapped, path)
    assert not checkpoint.start(models.build(tsm, seed=3), tsm, path), "the entry is trusted"


def test_a_network_without_a_shift_starts_one_with(tmp_path: Path) -> None:
    entry = like("mobilenet_v2", family="tsm", classes=9)
    frames = msgspec.structs.replace(entry, family="tsn", classes=4)
    net = models.build(frames, seed=11)
    checkpoint.save(net, frames, path := tmp_path / "tsn.safetensors")
    before, after = started(entry, path)
    given = net.state_dict()
    for key, tensor in after.items():
        wanted = before[key] if key.startswith("classifier.") else given[key]
        assert key_maps.is_counter(key) or torch.equal(tensor, wanted), key
    assert not checkpoint.start(models.build(frames, seed=3), frames, path), "its own network is left to load"


def test_mits_network_without_a_shift_starts_one_with(published: Published) -> None:
    entry = like("resnet50", family="tsm", classes=9)
    _, after = started(entry, published("mit_tsn_r50_k400"))
    given, _ = load(published("mit_tsn_r50_k400"), "tsn_r50_k400_mit")
    for key, tensor in given.state_dict().items():
        assert key.startswith("fc.") or torch.equal(after[key], tensor)


@torch.no_grad()
def test_non_local_blocks_start_as_nothing(tmp_path: Path) -> None:
    torch.save(image("resnet50"), path := tmp_path / "image.pth")
    entry = like("resnet50", family="tsm", non_local="embedded_gaussian", classes=9)
    net, plain = models.build(entry, seed=3), models.build(msgspec.structs.replace(entry, non_local=None), seed=3)
    assert checkpoint.start(net, entry, path)
    assert checkpoint.start(plain, entry, path)
    clip = torch.randn(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    plain.load_state_dict({key: tensor for key, tensor in net.state_dict().items() if ".nl." not in key})
    assert torch.equal(ClipModel(net, 2)(clip), ClipModel(plain, 2)(clip))


def test_a_model_of_videos_is_left_to_load(published: Published) -> None:
    """And so is what `load` has a word for."""
    for name, model in ((MIT, MODEL[MIT]), (MMACTION, MODEL[MMACTION]), (MIT, "tsm_r50_sthv2")):
        net = models.build(ZOO.find(model), seed=3)
        before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        assert not checkpoint.start(net, ZOO.find(model), published(name))
        assert_same(net, before)


@pytest.mark.parametrize(
    ("state", "entry", "words"),
    [
        (lambda: image("resnet18"), lambda: like("resnet50"), ("resnet18", "is resnet50")),
        (lambda: image("resnet18"), lambda: like("resnet50_i3d", family="i3d"), ("resnet18", "is resnet50_i3d")),
        (
            lambda: image("resnet18"),
            lambda: like("mobileone_s4", **IN_PLACE),
            ("holds resnet18", "is mobileone_s4", "fits"),
        ),
        (lambda: image("resnet18") | {"layer5.0.conv1.weight": torch.ones(1)}, lambda: like("resnet18"), ("layer5",)),
        (
            lambda: {key: tensor for key, tensor in image("resnet18").items() if not key.startswith("layer4.1.bn2")},
            lambda: like("resnet18"),
            ("missing: layer4.1.bn2",),
        ),
        (
            lambda: image("resnet18") | {"conv1.weight": nan(torch.ones(64, 3, 7, 7))},
            lambda: like("resnet18"),
            ("not finite",),
        ),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    state: Callable[[], State], entry: Callable[[], registry.Entry], words: tuple[str, ...], tmp_path: Path
) -> None:
    torch.save(state(), path := tmp_path / "image.pth")
    net = models.build(entry(), seed=3)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.start(net, entry(), path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert_same(net, before)
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint.start(net, entry(), tmp_path / "none.pth")


# --- --weights-format ----------------------------------------------------------------------------------------------


def test_format_given_is_taken_where_it_fits(published: Published) -> None:
    for name, format_ in ((ONLINE, "mit-tsm-online"), (MIT, "mit-tsm"), (MMACTION, "mmaction2")):
        assert load(published(name), MODEL[name], weights_format=format_)[1].format == format_


@pytest.mark.parametrize(
    ("name", "format_", "words"),
    [
        (MIT, "mmaction2", ("missing: ", "unexpected: ")),
        (MMACTION, "mit-tsm", ("missing: ", "unexpected: ")),
        (ONLINE, "mit-tsm", ("shift",)),
        (ONLINE, "mmaction2", ("shift",)),
        (MIT, "nonsense", ("nonsense", "mit-tsm", "mit-tsm-online", "mmaction2")),
    ],
)
def test_wrong_format_given(name: str, format_: str, words: tuple[str, ...], parity: Case, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save({"state_dict": hollow(parity(name))}, path)
    assert_refused(path, MODEL[name], *words, weights_format=format_)


def test_format_given_does_not_hide_a_bidirectional_file(raw: Callable[[str], State], tmp_path: Path) -> None:
    """The shift in the keys counts, whatever the format is said to be."""
    path = tmp_path / "offline.pth"
    torch.save({"state_dict": as_offline(raw(ONLINE))}, path)
    assert_refused(path, "tsm_mbv2_online", "--allow-shift-mismatch", weights_format="mit-tsm-online")


def test_online_format_is_no_resnets(parity: Case, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save({"state_dict": hollow(parity("mit_tsm_r50_sthv2"))}, path)
    assert_refused(path, "tsm_r50_sthv2", "mit-tsm-online", weights_format="mit-tsm-online")


def test_teacher_in_the_file_does_not_count(parity: Case, tmp_path: Path) -> None:
    """A TSN ResNet-50 distilled from a TSM ResNet-101 that the file still holds."""
    student = {f"architecture.{key}": t for key, t in hollow(parity("mmaction2_tsn_r50_k400")).items()}
    teacher = ("backbone.layer3.22.conv1.conv.net.weight", "backbone.layer3.22.conv3.conv.weight")
    path = tmp_path / "file.pth"
    torch.save({"state_dict": student | {f"teacher.{key}": torch.ones(1) for key in teacher}}, path)
    load(path, "tsn_r50_k400_kd")


def test_sequences_of_the_registry_do_not_matter(published: Published) -> None:
    """`frames` and `size` are no part of the weights: the same file serves other clips."""
    entry = msgspec.structs.replace(ZOO.find(MODEL[MIT]), frames=16, size=128)
    net = models.build(entry)
    assert checkpoint.load(net, entry, published(MIT)).format == "mit-tsm"
