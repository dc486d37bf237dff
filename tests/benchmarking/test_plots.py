"""Pictures of the zoo: what stands in them, that labels can be read, and that the same picture is the same file."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from tsmzoo import registry
from tsmzoo.benchmarking import plots
from tsmzoo.benchmarking.plots import LatencyRow, Point
from tsmzoo.cli import app
from tsmzoo.errors import DataError

ZOO = registry.load()


def drawn_labels(points: list[Point], monkeypatch: pytest.MonkeyPatch) -> tuple[Figure, list[Any]]:
    boxes: list[Any] = []
    place = plots.place
    monkeypatch.setattr(plots, "place", lambda *arguments: boxes.extend(place(*arguments)))
    return plots.draw(points, "K", "GMACs"), boxes


def test_points_are_the_registry() -> None:
    points = plots.by_cost(ZOO, "somethingv2")
    entries = {
        e.id: e for e in ZOO.models if e.dataset == "somethingv2" and e.modality == "rgb" and e.mode == "offline"
    }
    entries = {name: e for name, e in entries.items() if e.headline and e.headline.protocol}
    assert len(points) == len(entries)
    entry = entries["tsm_r50_sthv2_16f_mit"]
    point = Point(entry.gmacs, 63.1, "tsm", entry.mparams, "TSM R50 16f", "mit_sth_fullres_2clip")
    assert point in points
    labelled = [point for point in points if point.label]
    assert len(labelled) == sum(e.recommended for e in entries.values())


def test_online_and_flow_models_are_not_beside_clips_of_rgb() -> None:
    assert plots.by_cost(ZOO, "motion")
    offline = {plots.title(e) for e in ZOO.models if e.dataset == "motion" and e.mode == "offline"}
    assert {point.label for point in plots.by_cost(ZOO, "motion")} <= offline | {None}
    flow = {e.headline.top1 for e in ZOO.models if e.id == "tsm_r50_k400_flow" and e.headline}
    assert not flow & {point.top1 for point in plots.by_cost(ZOO, "kinetics400")}


def test_every_backbone_has_a_name() -> None:
    for entry in ZOO.models:
        assert plots.title(entry).upper().startswith(entry.family.upper())
    assert plots.title(ZOO.find("i3d_r50_nl_dot_product_k400")) == "I3D R50 NL 32f"
    assert plots.title(ZOO.find("tsm_mbv2_online")) == "TSM MBv2 online"
    assert plots.title(ZOO.find("movinet_a0_stream")) == "MoViNet A0 online"


@pytest.mark.parametrize("dataset", ["kinetics400", "somethingv1", "somethingv2"])
def test_no_label_covers_another(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points = plots.by_cost(ZOO, dataset)
    figure, boxes = drawn_labels(points, monkeypatch)
    assert len(boxes) == sum(point.label is not None for point in points)
    frame = figure.axes[0].get_window_extent()
    for box in boxes:
        assert plots._common(box, frame) == pytest.approx(box.width * box.height, rel=1e-3)
    for one, other in itertools.combinations(boxes, 2):
        assert plots._common(one, other) < 1


def test_crowded_labels_move_away(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = "mit_uniform_1crop"
    points = [Point(10 + index / 10, 70.0, "tsm", 24.0, f"TSM number {index}", protocol) for index in range(6)]
    points += [Point(1.0, 60.0, "tsn", 3.0, "far", protocol), Point(100.0, 60.0, "tsn", 3.0, "away", protocol)]
    _, boxes = drawn_labels(points, monkeypatch)
    assert all(plots._common(one, other) < 1 for one, other in itertools.combinations(boxes, 2))


@pytest.mark.slow
def test_the_same_picture_is_the_same_file(tmp_path: Path) -> None:
    """In another process, whose sets of strings have another order."""
    script = (
        "import sys; from pathlib import Path; from tsmzoo import registry; from tsmzoo.benchmarking import plots\n"
    )
    script += "plots._save(plots.draw(plots.by_cost(registry.load(), 'somethingv1'), 'S', 'GMACs'), Path(sys.argv[1]))"
    found = []
    for seed in ("1", "2"):
        stem = tmp_path / f"picture{seed}"
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", script, str(stem)], check=True, timeout=120, env=environment)
        found.append([stem.with_suffix(suffix).read_bytes() for suffix in (".svg", ".png")])
    assert found[0] == found[1]


def row(model: str, **changes: Any) -> dict[str, Any]:
    about = {"artifact": "m.onnx", "model": model, "runtime": "onnxruntime 1.31.1", "threads": 1, "precision": "int8"}
    frame = [3, 224, 224] if "sthv2" in model else [3, 64, 64]
    about["input_shape"] = [1, *frame] if model.endswith("_online") else [1, 8, *frame]
    return about | {"per": "clip", "median_ms": 12.5, "p95_ms": 14.0, "peak_mb": 3.0} | changes


def test_latency_by_dataset_and_by_what_is_timed() -> None:
    rows = [
        row("tsm_mbv2_motion"),
        row("tsm_mbv2_motion_online", per="frame", threads=2),
        row("tsm_r50_sthv2_8f_mit"),
        row("of nobody"),
    ]
    found = plots.by_latency(ZOO, msgspec.convert(rows, list[LatencyRow]))
    assert found.keys() == {("motion", "clip"), ("motion", "frame"), ("somethingv2", "clip")}
    (point,) = found["motion", "frame"]
    online = ZOO.find("tsm_mbv2_motion_online")
    assert online.headline
    assert (point.x, point.top1, point.mparams) == (12.5, online.headline.top1, online.mparams)
    assert (point.group, point.label) == ("onnxruntime, 2 threads", "TSM MBv2 online int8")


def test_no_published_accuracy_at_another_size_or_by_another_runtime() -> None:
    clip, online = "tsm_mbv2_motion", "tsm_mbv2_motion_online"
    kept = [
        row(clip, input_shape=[8, 64, 64, 3]),  # as TFLite files take it
        row(clip, runtime="Core ML, macOS 26.0", threads=None),
        row(online, per="frame"),
    ]
    others = [
        row(clip, input_shape=[1, 8, 3, 96, 96]),
        row(clip, input_shape=[1, 16, 3, 64, 64]),
        row(online, per="frame", input_shape=[1, 3, 96, 96]),
        row(clip, runtime="tsmzoo's ML Program interpreter, torch 2.13.0", threads=None),
    ]
    found = plots.by_latency(ZOO, msgspec.convert([*kept, *others], list[LatencyRow]))
    groups = {key: [point.group for point in points] for key, points in found.items()}
    assert groups == {
        ("motion", "clip"): ["onnxruntime, 1 thread", "Core ML, macOS"],
        ("motion", "frame"): ["onnxruntime, 1 thread"],
    }


def test_from_the_command_line(tmp_path: Path) -> None:
    benched = tmp_path / "b.json"
    benched.write_text(json.dumps([row("tsm_mbv2_motion"), row("tsn_mbv2_motion", median_ms=11, threads=None)]))
    result = CliRunner().invoke(app, ["report", str(tmp_path / "out"), "--bench", str(benched), "--json"])
    assert result.exit_code == 0, result.output
    files = json.loads(result.stdout)["files"]
    assert {Path(file).name for file in files} == {path.name for path in (tmp_path / "out").iterdir()}
    assert {"accuracy-kinetics400.svg", "accuracy-kinetics400.png", "latency-motion-clip.svg"} <= {
        Path(file).name for file in files
    }
    # `tsmzoo report docs/pictures` draws it anew; one is kept.
    kept = Path(__file__).parents[2] / "docs" / "pictures" / "accuracy-somethingv1.svg"
    assert (tmp_path / "out" / kept.name).read_text() == kept.read_text(), "the documentation's is not the registry's"
    for file in files:
        if file.endswith(".svg"):
            assert ElementTree.parse(file).getroot().tag.endswith("svg")
        else:
            with Image.open(file) as image:
                assert min(image.size) > 800


@pytest.mark.slow
def test_rows_that_are_left_out_are_told(tmp_path: Path) -> None:
    benched = tmp_path / "b.json"
    benched.write_text(json.dumps([row("tsm_mbv2_motion"), row("of nobody")]))
    result = CliRunner().invoke(app, ["report", str(tmp_path / "out"), "--bench", str(benched)])
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("1 of 2 rows are left out (")


@pytest.mark.parametrize("top1", [7.25, 99.3, 100.0])
def test_what_is_written_beside_the_axes_has_room(top1: float) -> None:
    point = plots.Point(0.13, top1, "onnxruntime, 1 thread", 0.4, "TSM", "uniform8_center_1clip")
    figure = plots.draw([point], "motion", "milliseconds a frame, median")
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.yaxis.label.get_window_extent().x0 >= 0
    shown = [label.get_text() for label in axes.get_yticklabels() if label.get_text()]
    assert shown
    assert all(float(text) <= 100 and float(text).is_integer() for text in shown)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"no json", "is not what `tsmzoo bench --json` prints"),
        (b'[{"artifact": "m.onnx"}]', "is not what"),
        (json.dumps([row("tsm_mbv2_motion", median_ms=0)]).encode(), "is not what"),
        (json.dumps([row("of nobody")]).encode(), "published accuracy"),
        (b"[]", "nothing in it can be drawn"),
    ],
)
def test_what_is_no_bench(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        plots.write(ZOO, tmp_path / "out", [path])
    assert str(path) in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match="another folder"):
        plots.write(ZOO, tmp_path / "out")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = CliRunner().invoke(app, ["report", str(tmp_path / "out")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: pictures need matplotlib, which is not installed: pip install 'tsmzoo[plots]'\n"
    assert not (tmp_path / "out").exists()
