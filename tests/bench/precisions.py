"""Cost and effect of lower precision, by format: time, size, error and top-1 of exported files.

Ratios are to fp32 of the same format. The error is the largest of any output on noise. Top-1 is that of the file's own
report, on clips of the bundled task that training never saw. Core ML is not timed: off macOS an interpreter runs it.
"""

from __future__ import annotations

from pathlib import Path

import common

from tsmzoo.benchmarking import run

MODELS = ("tsm_mbv2_motion", "tsm_mbv2_motion_online", "tsm_mbv2_online")
FORMATS = {
    "tflite": ("fp32", "fp16", "w8", "int8"),
    "onnx": ("fp32", "fp16", "w8", "int8"),
    "mlpackage": ("fp32", "fp16", "w8"),
}
COLUMNS = {
    "model": "-",
    "format": "-",
    "precision": "-",
    "time, of fp32": ">",
    "size, of fp32": ">",
    "ms": ">",
    "MB": ">",
    "largest error": ">",
    "top-1 (in float)": ">",
    "cosine": ">",
}


def section(folder: Path) -> str:
    """Return the section's table; its files are written to `folder`."""
    common.tsmzoo("data", "motion", folder / "videos", "--videos", "56", "--seed", "3")
    rows: list[list[object]] = []
    for model in MODELS:
        for format_ in FORMATS:
            rows += _compare(folder, model, format_)
    return common.table(COLUMNS, rows)


def _compare(folder: Path, model: str, format_: str) -> list[list[object]]:
    bundled = "motion" in model
    paths, reports = [], []
    for precision in FORMATS[format_]:
        paths.append(folder / f"{model}-{precision}.{format_}")
        options = ["--precision", precision]
        options += [] if bundled else ["--weights", "random"]
        options += ["--calibrate", str(folder / "videos")] if precision == "int8" and not bundled else []
        reports.append(common.export(model, paths[-1], *options))
    timings = common.race(paths) if format_ != "mlpackage" else []
    rows: list[list[object]] = []
    for index, (precision, report) in enumerate(zip(FORMATS[format_], reports, strict=True)):
        quality = report["verification"]["quality"] or {}
        top1 = quality.get("top1")
        row = [
            f"`{model}`",
            report["format"],
            precision,
            f"{run.ratio(timings[index], timings[0]):.2f}" if timings else "–",
            f"{report['bytes'] / reports[0]['bytes']:.2f}",
            common.figure(common.ms(timings[index])) if timings else "–",
            f"{report['bytes'] / 1e6:.2f}",
            f"{report['max_rel_error']:.0e}",
            f"{top1:.2f} ({quality['top1_float']:.2f})" if top1 is not None else "",
            f"{quality['cosine']:.4f}" if quality else "",
        ]
        rows.append(row)
    return rows


if __name__ == "__main__":
    common.alone(section)
