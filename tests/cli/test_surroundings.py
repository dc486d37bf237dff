"""Odd surroundings: no home, no folder, variables that are nonsense, names that mean something to libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from tsmzoo import __version__, registry
from tsmzoo.benchmarking import plots
from tsmzoo.benchmarking.plots import Point
from tsmzoo.errors import DownloadError, ExportError
from tsmzoo.evaluation.html import printable
from tsmzoo.formats import format_of
from tsmzoo.inference.model import Prediction
from tsmzoo.live import video_writer
from tsmzoo.live.answer import Answer
from tsmzoo.registry import paths

ZOO = registry.load()
FORMULA = "$\\frac{"


def run(*words: str, cwd: Path | None = None, **environment: str | None) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in (os.environ | environment).items() if value is not None}
    return subprocess.run(
        [sys.executable, "-m", "tsmzoo", *words], env=env, cwd=cwd, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what tells the home folder; that of no user is known either."""
    for name in ("HOME", "XDG_CACHE_HOME", "TSMZOO_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["no such user"])


@pytest.mark.usefixtures("homeless")
def test_without_a_home_only_the_cache_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from tsmzoo.cli import app

    invoke = CliRunner().invoke
    rows = json.loads(invoke(app, ["list", "--json"], catch_exceptions=False).stdout)
    assert {row["cached"] for row in rows if row["source"] == "mit-han-lab"} <= {False}
    card = json.loads(invoke(app, ["info", "tsm_r50_sthv2", "--json"], catch_exceptions=False).stdout)
    assert card["file"] == {"path": None, "cached": False, "max_bytes": card["file"]["max_bytes"]}
    text = invoke(app, ["info", "tsm_r50_sthv2"], catch_exceptions=False).stdout
    assert card["urls"][0] in text
    assert "no weights were published" not in text
    failed = invoke(app, ["download", "tsm_r50_sthv2"])
    assert failed.exit_code == 1
    assert failed.stderr == "error: the cache ~/.cache/tsmzoo: no such home folder; set TSMZOO_CACHE to a folder\n"
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path))
    assert paths.cache_dir() == tmp_path


def test_the_home_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMZOO_CACHE", "~no-such-user/cache")
    with pytest.raises(DownloadError, match=r"^the cache ~no-such-user/cache: .*TSMZOO_CACHE"):
        paths.cache_dir()


@pytest.mark.slow
def test_the_users_matplotlib_changes_no_picture(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("font.size: 40\nbackend: pdf\naxes.facecolor: red\n")
    plain = run("report", str(tmp_path / "a"))
    odd = run("report", str(tmp_path / "b"), cwd=tmp_path, MPLBACKEND="x", HOME="/proc", XDG_CACHE_HOME="/proc/none")
    assert (odd.returncode, odd.stderr) == (plain.returncode, plain.stderr) == (0, "")
    names = sorted(os.listdir(tmp_path / "a"))
    assert names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_backend_of_the_callers_stays_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    with plots.drawing():
        pass
    assert os.environ["MPLBACKEND"] == "agg"


def test_formulas_in_pictures_are_text(tmp_path: Path) -> None:
    points = [
        Point(1.0 + n, 60.0 + n, FORMULA, 24.0, f"{FORMULA} \\$ {n}", "mit_uniform_1crop") for n in range(plots.ENOUGH)
    ]
    figure = plots.draw(points, f"{FORMULA}\u624b", "ms")
    assert figure.axes[0].get_title(loc="left") == f"{FORMULA}\u624b"
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert next(text.get_text() for text in legend.get_texts()) == FORMULA
    with plots.drawing():
        figure.savefig(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.width == 900


def rows_of_bench(**odd: Any) -> list[dict[str, Any]]:
    """Return rows for a picture of latency, the first with something odd."""
    entries = [e for e in ZOO.models if e.dataset == "somethingv2" and e.mode == "offline" and e.modality == "rgb"][:5]
    rows = [
        {"model": e.id, "runtime": "ort 1", "threads": 1, "precision": "fp32", "per": "clip", "median_ms": 3.0}
        | {"input_shape": [1, e.frames, e.channels, e.size, e.size]}
        for e in entries
    ]
    rows[0] |= odd
    return rows


def test_a_dataset_names_no_folder_of_another(tmp_path: Path) -> None:
    models = tuple(
        msgspec.structs.replace(e, dataset=f"../../{FORMULA}\x1b") for e in ZOO.models if e.dataset == "somethingv2"
    )
    zoo = msgspec.structs.replace(ZOO, models=models)
    (tmp_path / "b.json").write_text(json.dumps(rows_of_bench(runtime=f"{FORMULA} 1", precision=FORMULA)))
    made = plots.write(zoo, tmp_path / "out" / "in", [tmp_path / "b.json"])
    assert {path.parent for path in made} == {tmp_path / "out" / "in"}
    assert {path.name for path in made} >= {"accuracy-.._..___frac__.png", "latency-.._..___frac__-clip.svg"}
    assert all(path.stat().st_size > 1000 for path in made)
    assert os.listdir(tmp_path / "out") == ["in"]


@pytest.mark.parametrize("odd", [{"per": "../x"}, {"median_ms": 1e308}])
def test_rows_that_bench_never_prints(odd: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps(rows_of_bench(**odd)))
    done = run("report", str(tmp_path / "out"), "--bench", str(tmp_path / "b.json"))
    assert done.returncode == 1
    assert "b.json: is not what `tsmzoo bench --json` prints" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_page_shows_odd_names() -> None:
    cell = printable("<b>\udcff\x1b[2J\x00\n")
    assert cell == r"<b>\xff\x1b[2J\x00\n"
    cell.encode()


def test_a_label_of_two_lines_is_written_on_one() -> None:
    answer = Answer(0.0, Prediction("a\nb\x1b", 0.9, 0), [], 1.0, 1.0)
    assert video_writer.texts(answer)[0] == r"a\nb\x1b 90%"
    image = Image.new("RGB", (64, 64))
    assert video_writer._written_on(image, answer).size == (64, 64)


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    words = f"mkdir -p {tmp_path}/gone && cd {tmp_path}/gone && rmdir ../gone && {sys.executable} -m tsmzoo"
    env = os.environ | {"PYTHONPATH": str(Path(plots.__file__).parents[2]), "PYTHONSAFEPATH": "1"}
    listed = subprocess.run(["bash", "-c", f"{words} list"], env=env, capture_output=True, text=True)
    assert (listed.returncode, listed.stderr) == (0, "")
    failed = subprocess.run(["bash", "-c", f"{words} flops tsm_r50_sthv2"], env=env, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: the folder that this runs in is gone")
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize(("threads", "taken"), [("x", False), ("0", False), ("", False), ("2", True), ("2,1", True)])
def test_numbers_of_threads(threads: str, taken: bool) -> None:
    done = run("--version", OMP_NUM_THREADS=threads)
    assert (done.returncode, done.stdout) == (0, f"tsmzoo {__version__}\n")
    assert ("OMP_NUM_THREADS" in done.stderr) is not taken


def test_a_file_for_a_runtime_needs_a_name_of_text() -> None:
    assert format_of(Path("vid\u00e9o \u624b.onnx")) == "onnx"
    with pytest.raises(ExportError, match="its name is not UTF-8"):
        format_of(Path("\udcff.onnx"))


@pytest.mark.slow
def test_bench_is_told_names_that_are_not_utf8(tmp_path: Path) -> None:
    done = run("bench", "tsm_mbv2_motion_online", "--runs", "1", "--weights", str(tmp_path / "\udcff.pth"))
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}/\\xff.pth: does not exist; check the path given with --weights\n"
