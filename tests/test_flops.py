"""Multiply-accumulates and parameters: counted, by hand, as in the registry, and as `flops` prints them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from tsmzoo import cost, models, registry
from tsmzoo.cli import app
from tsmzoo.flops import count
from tsmzoo.registry import Entry

ZOO = registry.load()

# --- by hand: the arithmetic of the papers' tables, of no module of ours ---------------------------------------------


def half(side: int) -> int:
    """Side after stride 2, padded as everywhere in these networks."""
    return (side + 1) // 2


def resnet_macs(entry: Entry, size: int, frames: int) -> int:
    """He et al., Table 1, stride on the 3x3 convolution; Wang et al., Non-local Neural Networks, § 3."""
    side = half(size)
    total = frames * side**2 * 64 * entry.channels * 7**2
    side, width_in = half(side), 64  # max pooling
    depths = (3, 4, 23, 3) if entry.backbone == "resnet101" else (3, 4, 6, 3)
    for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), depths, strict=True)):
        width_out = 4 * width
        for block in range(blocks):
            before, side = side, half(side) if stage and not block else side
            per_pixel = 9 * width * width + width * width_out + (0 if block else width_in * width_out)
            total += frames * (before**2 * width_in * width + side**2 * per_pixel)
            width_in = width_out
            if entry.non_local and block % 2 == 0 and stage in (1, 2):
                total += non_local_macs(entry.non_local, width_out, side, frames)
    return total + frames * 2048 * entry.classes


def non_local_macs(mode: str, width: int, side: int, frames: int) -> int:
    pixels, pooled, inner = frames * side**2, frames * (side // 2) ** 2, width // 2
    projections = 2 if mode == "gaussian" else 4  # g and out, theta and phi
    similarity = width if mode == "gaussian" else inner
    return projections * pixels * width * inner + pixels * pooled * (similarity + inner)


#: Channels of MobileNetV2 by its multiplier: multiples of 8, no more than a tenth too few (Sandler et al., § 3.3).
WIDTHS = {
    1: {channels: channels for channels in (16, 24, 32, 64, 96, 160, 320)},
    0.35: {16: 8, 24: 8, 32: 16, 64: 24, 96: 32, 160: 56, 320: 112},
}


def mobilenet_macs(entry: Entry, size: int, frames: int) -> int:
    """Sandler et al., Table 2; the last layer is never narrowed."""
    widths = WIDTHS[entry.width]
    side, width_in = half(size), widths[32]
    total = side**2 * width_in * entry.channels * 3**2
    for expansion, width, blocks, stride in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]:
        for block in range(blocks):
            inner = width_in * expansion
            total += side**2 * width_in * inner if expansion > 1 else 0
            side = half(side) if stride == 2 and not block else side
            total += side**2 * (inner * 3**2 + inner * widths[width])
            width_in = widths[width]
    return frames * (total + side**2 * width_in * 1280 + 1280 * entry.classes)


def by_hand(entry: Entry, size: int | None = None, frames: int | None = None) -> int:
    formula = mobilenet_macs if entry.backbone == "mobilenet_v2" else resnet_macs
    return formula(entry, size or entry.size, frames or entry.frames)


def digits(entry: Entry) -> int:
    """Return to how many digits the registry has GMACs: those of our own small models to the last multiplication."""
    return 9 if entry.file else 4


def at(name: str, size: int, frames: int) -> Entry:
    return msgspec.structs.replace(ZOO.find(name), size=size, frames=frames)


# --- counts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ZOO.models, ids=lambda entry: entry.id)
def test_registry_holds_the_sum_by_hand(entry: Entry) -> None:
    assert entry.gmacs == round(by_hand(entry) / 1e9, digits(entry))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tsm_r101_sthv2", 64),
        ("tsm_mbv2_k400", 90),
        ("tsm_mbv2_online", 64),
        ("tsm_r50_k400_flow", 64),
        ("tsm_r50_nl_k400", 90),
        ("tsm_r50_nl_gaussian_k400_8f", 64),
    ],
)
def test_count_is_the_sum_by_hand(name: str, size: int) -> None:
    online = ZOO.find(name).mode == "online"
    entry = at(name, size, 1 if online else 3)
    counted = count(entry)
    assert counted.gmacs * 1e9 == pytest.approx(by_hand(entry), rel=1e-12)
    frame = (3 if entry.modality == "rgb" else 10, size, size)
    assert counted.input_shape == ((1, *frame) if online else (1, 3, *frame))


@pytest.mark.parametrize(
    ("name", "low", "high", "parameters"),
    [
        ("tsm_r50_k400_8f", 32.7, 32.9, 24_327_632),  # TSM, Table 1: 33 G, 24.3 M
        ("tsm_mbv2_k400", 2.35, 2.45, 2_736_272),
    ],
)
def test_published_costs(name: str, low: float, high: float, parameters: int) -> None:
    entry = ZOO.find(name)
    counted = count(entry)
    assert low < counted.gmacs < high
    assert counted.gmacs * 1e9 == pytest.approx(by_hand(entry), rel=1e-12)
    assert round(counted.mparams * 1e6) == parameters


def test_sixteen_frames_cost_twice_eight() -> None:
    """TSM, Table 1: 65 G of 16 frames."""
    eight, sixteen = ZOO.find("tsm_r50_k400_8f"), ZOO.find("tsm_r50_k400_16f")
    assert 65 < sixteen.gmacs < 66
    assert sixteen.gmacs == pytest.approx(2 * eight.gmacs, abs=1e-3)


def network(entry: Entry) -> tuple[object, ...]:
    """Return all that a cost depends on."""
    key = (entry.backbone, entry.width, entry.shift, entry.non_local, entry.classes, entry.channels)
    return (*key, entry.frames, entry.size, entry.format if entry.non_local else None)


@pytest.mark.slow
@pytest.mark.parametrize("entry", {network(entry): entry for entry in ZOO.models}.values(), ids=lambda entry: entry.id)
def test_every_network_counts_as_the_registry_says(entry: Entry) -> None:
    counted = count(entry)
    assert round(counted.gmacs, digits(entry)) == entry.gmacs
    assert round(counted.mparams * 1e6) == entry.params


def test_shift_is_free() -> None:
    tsn, tsm = (count(at(name, 32, 2)) for name in ("tsn_r50_k400", "tsm_r50_k400_8f"))
    assert (tsn.gmacs, tsn.mparams) == (tsm.gmacs, tsm.mparams)


def test_modules_add_up() -> None:
    counted = count(at("tsm_mbv2_online", 64, 1))
    leaves = {name for name in counted.modules if not any(other.startswith(f"{name}.") for other in counted.modules)}
    assert sum(counted.modules[name] for name in leaves) == pytest.approx(counted.gmacs)
    assert counted.modules["features.0"] * 1e9 == pytest.approx(32**2 * 32 * 3 * 9)
    assert counted.modules["classifier.1"] * 1e9 == pytest.approx(1280 * 27)


class Odd(nn.Module):
    """A backbone of one operation."""

    def __init__(self, operation: Any) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor, frames: int, shift: Any) -> Tensor:  # noqa: ARG002
        return self.operation(x.mean((2, 3)))


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda x: torch.cumsum(x, 1), id="cumsum"),
        pytest.param(lambda x: torch.fft.rfft(x).abs(), id="fft"),
        pytest.param(lambda x: torch.cdist(x[None], x[None])[0], id="cdist"),
    ],
)
def test_operation_without_a_rule_is_an_error(operation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "build", lambda *_, **__: Odd(operation))
    with pytest.raises(RuntimeError, match="no counting rule for aten::"):
        count(at("tsm_r50_sthv2", 32, 8))


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda x: x @ torch.ones(3, 5), id="matmul"),
        pytest.param(lambda x: torch.mm(x, torch.ones(3, 5)), id="mm"),
        pytest.param(lambda x: torch.addmm(torch.ones(5), x, torch.ones(3, 5)), id="addmm"),
        pytest.param(lambda x: torch.einsum("tc,cd->td", x, torch.ones(3, 5)), id="einsum"),
        pytest.param(lambda x: torch.bmm(x[None], torch.ones(1, 3, 5))[0], id="bmm"),
        pytest.param(lambda x: torch.baddbmm(torch.ones(1), x[None], torch.ones(1, 3, 5))[0], id="baddbmm"),
        pytest.param(lambda x: nn.functional.linear(x, torch.ones(5, 3)), id="linear"),
        pytest.param(lambda x: nn.functional.conv1d(x[:, :, None], torch.ones(5, 3, 1)), id="conv1d"),
    ],
)
def test_products_are_counted_or_refused(operation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a product of 8 x 3 and 3 x 5 is written, it never passes as free."""
    monkeypatch.setattr(models, "build", lambda *_, **__: Odd(operation))
    try:
        counted = count(at("tsm_r50_sthv2", 32, 8))
    except RuntimeError as error:
        assert "no counting rule for aten::" in str(error)  # noqa: PT017
    else:
        assert counted.gmacs * 1e9 == pytest.approx(8 * 3 * 5)


# --- the command ---------------------------------------------------------------------------------------------------


def flops(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["flops", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_json_keys() -> None:
    entry = next(e for e in ZOO.models if e.published_gmacs and e.published_mparams and e.backbone == "mobilenet_v2")
    document = flops(entry.id, "--size", "64")
    assert {
        "id",
        "gmacs_per_clip",
        "gmacs_per_frame",
        "mparams",
        "published_gmacs",
        "published_mparams",
        "input_shape",
    } <= document.keys()
    assert document["id"] == entry.id
    assert document["input_shape"] == [1, 8, 3, 64, 64]
    assert document["gmacs_per_frame"] == pytest.approx(document["gmacs_per_clip"] / 8, abs=1e-9)
    assert document["mparams"] == 2.736272
    assert document["published_gmacs"] == entry.published_gmacs.value
    assert document["published_basis"] == entry.published_gmacs.basis
    assert document["published_mparams"] == entry.published_mparams.value
    assert "multiply-accumulates" in document["convention"]


def test_video_costs_its_views() -> None:
    """MIT's dense protocol: 10 clips of 3 crops of 256 pixels, whatever the clip asked for."""
    document = flops("tsm_mbv2_k400_dense_mit", "--size", "64")
    video = document["gmacs_per_video"]["mit_dense10_fullres3"]
    assert video["views"] == 30
    assert video["gmacs"] == round(30 * by_hand(ZOO.find("tsm_mbv2_k400_dense_mit"), 256, 8) / 1e9, 4)


def test_tsn_is_tested_with_more_frames_than_it_was_trained_with() -> None:
    """mmaction2: 25 frames of 10 crops of 224 pixels."""
    video = flops("tsn_r50_k400_3seg", "--size", "32")["gmacs_per_video"]["mm_tsn_uniform25_crop10x224"]
    assert video["gmacs"] == round(10 * by_hand(ZOO.find("tsn_r50_k400_3seg"), 224, 25) / 1e9, 4)


@pytest.mark.parametrize(("size", "frames"), [(32, 8), (96, 4), (64, 1)])
def test_size_and_frames_scale(size: int, frames: int) -> None:
    document = flops("tsm_mbv2_k400", "--size", str(size), "--frames", str(frames))
    assert document["gmacs_per_clip"] == by_hand(ZOO.find("tsm_mbv2_k400"), size, frames) / 1e9
    assert document["input_shape"] == [1, frames, 3, size, size]


def test_online_model_costs_a_frame() -> None:
    document = flops("tsm_mbv2_online")
    assert document["gmacs_per_clip"] == document["gmacs_per_frame"] == by_hand(ZOO.find("tsm_mbv2_online")) / 1e9
    assert round(document["gmacs_per_frame"], 4) == 0.2995
    assert document["input_shape"] == [1, 3, 224, 224]


def test_per_module() -> None:
    modules = flops("tsm_mbv2_online", "--per-module")["modules"]
    assert modules["features.0"] * 1e9 == pytest.approx(112**2 * 32 * 3 * 9, abs=1e3)
    assert "modules" not in flops("tsm_mbv2_online")


def test_text_says_the_same() -> None:
    result = CliRunner().invoke(app, ["flops", "tsm_mbv2_online", "--per-module"], catch_exceptions=False)
    assert "  0.2995 GMACs a frame, 2.258 M parameters\n" in result.stdout
    assert "features.18" in result.stdout
    assert result.stderr == ""


def test_networks_of_other_widths_cost_otherwise() -> None:
    narrow = at("tsm_mbv2_motion", 32, 2)
    wide = msgspec.structs.replace(narrow, width=1.0)
    for entry in (narrow, wide):
        assert cost.cost(entry)["gmacs_per_clip"] == pytest.approx(by_hand(entry) / 1e9, abs=1e-9)


def test_online_model_takes_no_frames() -> None:
    result = CliRunner().invoke(app, ["flops", "tsm_mbv2_online", "--frames", "8"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: tsm_mbv2_online is online")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["tsm_r50_sthv2", "--all"], ["tsm_r50_sthv2", "--size", "8"], ["tsm_r50_sthv2", "--frames", "0"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["flops", *arguments]).exit_code == 2


@pytest.mark.slow
def test_all_of_them() -> None:
    documents = flops("--all", "--size", "32")
    assert [document["id"] for document in documents] == [entry.id for entry in ZOO.models]
    for document, entry in zip(documents, ZOO.models, strict=True):
        assert document["mparams"] == entry.params / 1e6
        assert document["gmacs_per_clip"] == by_hand(entry, 32) / 1e9
    text = CliRunner().invoke(app, ["flops", "--all", "--size", "32"], catch_exceptions=False).stdout
    assert all(any(line.startswith(f"{entry.id} ") for line in text.splitlines()) for entry in ZOO.models)
