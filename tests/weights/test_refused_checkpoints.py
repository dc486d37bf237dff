"""Whatever is not a checkpoint of the model is refused whole, in one line."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.torch
import torch

from tsmzoo import models, registry
from tsmzoo.weights import checkpoint

from .conftest import (
    MIT,
    MMACTION,
    MODEL,
    ONLINE,
    Case,
    Published,
    State,
    as_offline,
    assert_refused,
    hollow,
    load,
    nan,
    unfilled,
)

ZOO = registry.load()


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
