"""How long an export takes, and how much memory: the whole command, from start-up to the verified file.

Each once, so seconds are to the tenth part at best.
"""

from __future__ import annotations

from pathlib import Path

import common

MODELS = ("tsm_mbv2_online", "tsm_r50_k400_8f", "i3d_r50_k400_8x8")
FORMATS = ("onnx", "tflite", "mlpackage")


def section(folder: Path) -> str:
    """Return the section's table; its files are written to `folder`."""
    rows: list[list[object]] = []
    for model in MODELS:
        for suffix in FORMATS:
            done = common.export(model, folder / f"{model}.{suffix}", "--weights", "random", "--precision", "fp32")
            row = [f"`{model}`", done["format"], f"{done['seconds']:.0f}", f"{done['peak_mb'] / 1e3:.1f}"]
            rows.append([*row, f"{done['bytes'] / 1e6:.1f}"])
    columns = {"model": "-", "format": "-", "seconds": ">", "peak GB": ">", "MB": ">"}
    return common.table(columns, rows)


if __name__ == "__main__":
    common.alone(section)
