"""`list`: its rows, filters and table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tsmzoo import registry
from tsmzoo.cli import app
from tsmzoo.registry import paths
from tsmzoo.weights import cache

ZOO = registry.load()
LIST_KEYS = {
    *("id", "family", "mode", "backbone", "dataset", "frames", "gmacs", "mparams"),
    *("top1", "top5", "protocol", "source", "licence", "cached"),
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, prog_name="tsmzoo")


def output(*arguments: str) -> str:
    """Return what a command that must succeed prints; it says nothing beside it."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def listed(*arguments: str) -> list[dict[str, Any]]:
    return json.loads(output("list", *arguments, "--json"))


def ids(*arguments: str) -> list[str]:
    return [row["id"] for row in listed(*arguments)]


def in_package(entry: registry.Entry) -> bool:
    """Say whether `entry` is one whose file comes with the package, and it did."""
    return entry.file is not None and Path(entry.file).is_file()


def assert_fails(result: Result, *words: str) -> None:
    """One line on stderr, `error: …`, nothing on stdout, exit 1."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), "a traceback"
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_a_list_of_nothing_says_so() -> None:
    result = CliRunner().invoke(app, ["list", "--search", "no such thing"])
    assert (result.exit_code, result.stdout) == (0, "no model fits; `tsmzoo list --all` shows every one\n")


def test_json_keys() -> None:
    rows = listed("--all")
    assert len(rows) == len(ZOO.models)
    for row, entry in zip(rows, ZOO.models, strict=True):
        assert row.keys() >= LIST_KEYS
        assert row["id"] == entry.id
        assert row["mparams"] == pytest.approx(entry.params / 1e6, abs=1e-3)
        assert row["gmacs"] == entry.gmacs
        assert row["cached"] is in_package(entry)
        assert row["doubtful"] == bool(entry.doubt)


def test_json_of_one_model() -> None:
    (row,) = listed("tsm_r50_sthv2")
    assert {
        "id": "tsm_r50_sthv2_8f_mit",
        "family": "tsm",
        "mode": "offline",
        "backbone": "resnet50",
        "dataset": "somethingv2",
        "frames": 8,
        "gmacs": 32.6999,
        "mparams": 23.865,
        "source": "mit",
        "licence": "MIT",
    }.items() <= row.items()
    assert row["aliases"] == ["tsm_r50_sthv2"]
    assert 50 < row["top1"] < 70
    assert row["protocol"] in {path.stem for path in (paths.DATA / "recipes" / "eval").iterdir()}


def test_recommended_are_shown_unless_all_are_asked_for() -> None:
    few, every = ids(), ids("--all")
    assert set(few) < set(every)
    assert set(few) == {entry.id for entry in ZOO.models if entry.recommended}
    assert len(every) == len(set(every))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("family", "tsm"),
        ("family", "tsn"),
        ("mode", "online"),
        ("mode", "offline"),
        ("dataset", "somethingv2"),
        ("backbone", "mobilenet_v2"),
        ("backbone", "resnet101"),
        ("modality", "flow"),
    ],
)
def test_filters(option: str, value: str) -> None:
    wanted = [entry.id for entry in ZOO.models if getattr(entry, option) == value]
    assert wanted
    assert ids("--all", f"--{option}", value) == wanted


def test_filters_together() -> None:
    found = ids("--all", "--family", "tsm", "--backbone", "resnet50", "--dataset", "jester")
    assert "tsm_r50_jester_8f_mm0" in found
    wanted = ("tsm", "resnet50", "jester")
    assert found == [entry.id for entry in ZOO.models if (entry.family, entry.backbone, entry.dataset) == wanted]
    assert ids("--mode", "online", "--family", "tsn") == []


def test_every_model_can_be_exported() -> None:
    assert ids("--all", "--exportable") == ids("--all")


@pytest.mark.parametrize("option", ["family", "mode", "dataset", "backbone", "modality"])
def test_filter_that_nothing_can_pass(option: str) -> None:
    known = sorted({getattr(entry, option) for entry in ZOO.models})
    assert_fails(run("list", f"--{option}", "nonsense"), "'nonsense'", *known)


def test_wildcard() -> None:
    found = ids("tsm_*_sthv2*")
    assert found
    assert found == [
        entry.id
        for entry in ZOO.models
        if any(name.startswith("tsm_") and "_sthv2" in name for name in (entry.id, *ZOO.names(entry)))
    ]
    assert "tsm_r50_sthv2_8f_mm0" in found, "a pattern goes through all, not the recommended alone"
    assert ids("nothing*") == []


def test_search() -> None:
    assert ids("--all", "--search", "TEACHER tsn swin") == ["tsn_r50_k400_kd"]
    assert "tsm_mbv2_online" in ids("--search", "jester")
    assert ids("--all", "--search", "no such words") == []


def test_piped_table_has_one_line_per_model() -> None:
    """Long lines stay whole, so that grep and awk can be used."""
    heading, _, *lines, _ = output("list", "--all").splitlines()
    assert len(lines) == len(ZOO.models)
    start = {column: heading.index(column) for column in ("dataset", "licence", "doubtful", "cached")}
    for line, entry in zip(lines, ZOO.models, strict=True):
        assert line.split()[0] == entry.id
        gmacs = f"{entry.gmacs:.2f}" if entry.gmacs >= 0.1 else f"{entry.gmacs:.2g}"  # of the smallest, no "0.00"
        assert {gmacs, f"{entry.mparams:.2f}", entry.mode} <= set(line.split())
        cached = "yes" if in_package(entry) else "–"
        for column, cell in (("dataset", entry.dataset), ("licence", entry.licence), ("cached", cached)):
            assert line[start[column] :].startswith(cell)
        assert line[start["doubtful"] :].startswith("yes") == bool(entry.doubt)
        assert "\x1b" not in line


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            "i3d_inception_k400_flow",
            "64 x 2 x 224 x 224 (T,C,H,W), x, y of a flow image, dense sampling at 25 frames a second\n",
        ),
        ("tsm_r50_k400_flow", "8 x 10 x 224 x 224 (T,C,H,W), five x, y flow images, uniform sampling\n"),
        ("i3d_r50_k400", "32 x 3 x 224 x 224 (T,C,H,W), RGB, dense sampling, one frame of 2\n"),
        ("tsn_bninception_k400", "8 x 3 x 224 x 224 (T,C,H,W), BGR, uniform sampling\n"),
        ("i3d_r50_replace_8f", "none: no weights were published"),
        ("i3d_inception_k600_rgb_scratch", "beside it  model.ckpt.index"),
        ("tsm_mbv2_motion_online", "RGB, stream sampling at 4 frames a second\n"),
        ("tsm_r50_k400_flow", "      note: the crop is presumed; the README does not say\n"),
        ("i3d_inception_k400_rgb", "1 clip of all frames, 300 at most, as one; OpenCV bilinear; centre crop"),
    ],
)
def test_card_of_i3d_and_of_the_other_backbones(model: str, words: str) -> None:
    assert words in output("info", model)


def test_last_line_counts_what_is_hidden() -> None:
    recommended = sum(entry.recommended for entry in ZOO.models)
    assert (
        output("list")
        .splitlines()[-1]
        .startswith(f"{recommended} models, {len(ZOO.models) - recommended} more with --all")
    )
    assert output("list", "--all").splitlines()[-1].startswith(f"{len(ZOO.models)} models;")


def test_cached_file_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path))
    path = cache.local_path(ZOO.find("tsm_r50_sthv2"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    packaged = [entry.id for entry in ZOO.models if in_package(entry)]
    assert [row["id"] for row in listed("--all") if row["cached"]] == [*packaged, "tsm_r50_sthv2_8f_mit"]
    assert json.loads(output("info", "tsm_r50_sthv2", "--json"))["file"] == {
        "path": str(path),
        "cached": True,
        "max_bytes": ZOO.find("tsm_r50_sthv2").max_bytes,
    }


def test_one_model_is_no_models() -> None:
    assert run("list", "tsm_mbv2_motion").stdout.splitlines()[-1].startswith("1 model;")
