"""`tsmzoo flops`: what it prints, in figures and text, and what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from typer.testing import CliRunner

from tsmzoo import registry
from tsmzoo.catalog import flops as catalog_flops
from tsmzoo.cli import app
from tsmzoo.models.flops import count

if TYPE_CHECKING:
    from collections.abc import Callable

    from tsmzoo.registry import Entry

ZOO = registry.load()


def at(name: str, size: int, frames: int) -> Entry:
    return msgspec.structs.replace(ZOO.find(name), size=size, frames=frames)


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


def test_video_costs_its_views(torch_macs: Callable[..., int]) -> None:
    """MIT's dense protocol: 10 clips of 3 crops of 256 pixels, whatever the clip asked for."""
    document = flops("tsm_mbv2_k400_dense_mit", "--size", "64")
    video = document["gmacs_per_video"]["mit_dense10_fullres3"]
    assert video["views"] == 30
    assert video["gmacs"] == round(30 * torch_macs(ZOO.find("tsm_mbv2_k400_dense_mit"), 256, 8) / 1e9, 4)


def test_table_counts_no_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are of up to 300 frames."""
    counted: list[Entry] = []
    small = count(at("tsm_mbv2_motion", 32, 1))
    monkeypatch.setattr(registry, "load", lambda *_: msgspec.structs.replace(ZOO, models=ZOO.models[:9]))
    monkeypatch.setattr(catalog_flops, "count", lambda entry: counted.append(entry) or small)
    assert CliRunner().invoke(app, ["flops", "--all"], catch_exceptions=False).exit_code == 0
    assert {(entry.frames, entry.size) for entry in counted} == {(e.frames, e.size) for e in ZOO.models[:9]}


def test_tsn_is_tested_with_more_frames_than_it_was_trained_with(torch_macs: Callable[..., int]) -> None:
    """mmaction2: 25 frames of 10 crops of 224 pixels."""
    video = flops("tsn_r50_k400_3seg", "--size", "32")["gmacs_per_video"]["mm_tsn_uniform25_crop10x224"]
    assert video["gmacs"] == round(10 * torch_macs(ZOO.find("tsn_r50_k400_3seg"), 224, 25) / 1e9, 4)


@pytest.mark.parametrize(("size", "frames"), [(96, 4), (64, 1)])
def test_size_and_frames_scale(size: int, frames: int, torch_macs: Callable[..., int]) -> None:
    document = flops("tsm_mbv2_k400", "--size", str(size), "--frames", str(frames))
    assert document["gmacs_per_clip"] == torch_macs(ZOO.find("tsm_mbv2_k400"), size, frames) / 1e9
    assert document["input_shape"] == [1, frames, 3, size, size]


def test_online_model_costs_a_frame(torch_macs: Callable[..., int]) -> None:
    document = flops("tsm_mbv2_online")
    assert document["gmacs_per_clip"] == document["gmacs_per_frame"] == torch_macs(ZOO.find("tsm_mbv2_online")) / 1e9
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


@pytest.mark.slow
def test_networks_of_other_widths_cost_otherwise(torch_macs: Callable[..., int]) -> None:
    narrow = at("tsm_mbv2_motion", 32, 2)
    wide = msgspec.structs.replace(narrow, width=1.0)
    for entry in (narrow, wide):
        assert catalog_flops.cost(entry).gmacs_per_clip == pytest.approx(torch_macs(entry) / 1e9, abs=1e-9)


def test_online_model_takes_no_frames() -> None:
    result = CliRunner().invoke(app, ["flops", "tsm_mbv2_online", "--frames", "8"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: tsm_mbv2_online is online")
    assert result.stderr.count("\n") == 1


def test_too_few_frames_are_one_line() -> None:
    result = CliRunner().invoke(app, ["flops", "i3d_r50_k400", "--frames", "4"])
    assert isinstance(result.exception, SystemExit), f"a traceback: {result.exception!r}"
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("error: this model needs clips of 5 frames at least, not of 4;")


@pytest.mark.parametrize(
    "arguments", [[], ["tsm_r50_sthv2", "--all"], ["tsm_r50_sthv2", "--size", "8"], ["tsm_r50_sthv2", "--frames", "0"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["flops", *arguments]).exit_code == 2
