"""TSM on MobileNetV2 beside the networks it is compared with: MoViNet's streams by the frame, X3D by the clip.

TFLite files, one thread. Weights are random, which does not change the time, the size or the memory; int8 is calibrated
with clips of the bundled task. Times are those of fp32 and of int8, in units of the first model of the kind in fp32.
"Formats" are those whose file passed its verification here. Accuracies stand in the documentation, under Comparison.
"""

from __future__ import annotations

import shutil
from math import prod
from pathlib import Path
from typing import Any

import common
import msgspec

from tsmzoo.artifact.store import read_contract
from tsmzoo.benchmarking import run

#: By what a pass sees; the first of each is what the others are measured in.
MODELS = {
    "frame": ("tsm_mbv2_online", "movinet_a0_stream", "movinet_a1_stream", "movinet_a2_stream"),
    "clip": ("tsm_mbv2_k400", "x3d_xs", "x3d_s", "x3d_m"),
}
PRECISIONS = ("fp32", "int8")
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
COLUMNS = {
    "model": "-",
    "per": "-",
    "time, fp32 (starts)": ">",
    "time, int8 (starts)": ">",
    "ms, fp32": ">",
    "ms, int8": ">",
    "state kB": ">",
    "MB, fp32": ">",
    "MB, int8": ">",
    "peak MB, fp32": ">",
    "formats": "-",
    "made in s": "-",
}


def section(folder: Path) -> str:
    """Return the section's table; draws the pictures of the documentation beside it."""
    common.tsmzoo("data", "motion", folder / "videos", "--videos", "56", "--seed", "3")
    table: list[list[object]] = []
    measured: list[run.BenchmarkRow] = []
    for per, models in MODELS.items():
        made = {(model, precision): _export(folder, model, precision) for model in models for precision in PRECISIONS}
        timings = dict(zip(made, common.race([Path(report["artifact"]) for report in made.values()]), strict=True))
        first = timings[models[0], "fp32"]
        table += [_row(folder, model, per, made, timings, first) for model in models]
        measured += run.rows([timings[model, "fp32"] for model in models])
    _draw(folder, measured)
    return common.table(COLUMNS, table)


def _export(folder: Path, model: str, precision: str) -> dict[str, Any]:
    options = ["--weights", "random", "--precision", precision]
    options += ["--calibrate", str(folder / "videos")] if precision == "int8" else []
    return common.export(model, folder / f"{model}-{precision}.tflite", *options)


def _row(
    folder: Path,
    model: str,
    per: str,
    made: dict[tuple[str, str], dict[str, Any]],
    timings: dict[tuple[str, str], run.Timing],
    first: run.Timing,
) -> list[object]:
    float_, int8 = (made[model, precision] for precision in PRECISIONS)
    states = read_contract(Path(float_["artifact"])).inputs[1:]
    others = {
        format_: common.export(model, folder / f"{model}.{suffix}", "--weights", "random")
        for format_, suffix in {"onnx": "onnx", "coreml": "mlpackage"}.items()
    }
    seconds = {"tflite": float_["seconds"]} | {name: report["seconds"] for name, report in others.items()}
    return [
        f"`{model}`",
        per,
        *(common.spread(timings[model, precision], first) for precision in PRECISIONS),
        *(common.figure(common.ms(timings[model, precision])) for precision in PRECISIONS),
        f"{4 * sum(prod(state.lengths()) for state in states) / 1e3:.0f}" if states else "–",
        *(f"{report['bytes'] / 1e6:.1f}" for report in (float_, int8)),
        f"{timings[model, 'fp32'].peak_mb:.0f}",
        ", ".join(seconds),
        ", ".join(f"{value:.0f}" for value in seconds.values()),
    ]


def _draw(folder: Path, rows: list[run.BenchmarkRow]) -> None:
    """Draw accuracy against latency, a picture of each dataset, into the documentation."""
    benched = folder / "rivals.json"
    benched.write_bytes(msgspec.json.encode(rows))
    common.tsmzoo("report", folder / "pictures", "--bench", benched)
    for picture in (folder / "pictures").glob("latency-*.svg"):
        shutil.copy(picture, PICTURES)


if __name__ == "__main__":
    common.alone(section)
