"""Time and memory of an export: the whole command, from start-up to the verified file, and its parts.

Each was run once, so seconds are good to a tenth of their value at best. Imports are those of torch and of the format's
libraries; conversion is theirs (torch.export and lowering); verification is ours. The aims were 10 s for the online
MobileNetV2 to TFLite and 20 s for ResNet-50. What litert-torch imports and does, three traces of the graph among it,
takes longer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

from tsmzoo.artifact import store

MODELS = ("tsm_mbv2_online", "tsm_r50_k400_8f", "i3d_r50_k400_8x8")
#: Suffix, and what its conversion imports.
FORMATS = {"onnx": "onnxscript", "tflite": "litert_torch", "mlpackage": "coremltools"}
COLUMNS = {
    "model": "-",
    "format": "-",
    "seconds": ">",
    "imports": ">",
    "conversion": ">",
    "verification": ">",
    "peak GB": ">",
    "MB": ">",
}


def section(folder: Path) -> str:
    """Return the section's table; its files are written to `folder`."""
    rows: list[list[object]] = []
    for model in MODELS:
        for suffix, library in FORMATS.items():
            path, began = folder / f"{model}.{suffix}", time.monotonic()
            command = [sys.executable, __file__, "--parts", library, model, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds = time.monotonic() - began
            parts = json.loads(done.stdout.splitlines()[-1])
            shares = [f"{parts[part]:.1f} ({parts[part] / seconds:.0%})" for part in ("imports", "convert", "check")]
            size = (store.read_contract(path).bytes or 0) / 1e6
            rows.append([f"`{model}`", suffix, f"{seconds:.0f}", *shares, f"{parts['peak'] / 1e3:.1f}", f"{size:.1f}"])
    return common.table(COLUMNS, rows)


def _parts(library: str, model: str, path: str) -> None:
    """Export, and print the seconds of the parts and the most memory that was held, in MB."""
    parts: dict[str, float] = {}

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                parts[part] = time.perf_counter() - began

        return call

    def imports() -> None:
        __import__("torch")
        __import__(library)

    timed("imports", imports)()
    from tsmzoo import cli
    from tsmzoo.artifact.converter import Converter
    from tsmzoo.benchmarking.worker import peak
    from tsmzoo.exporting import export

    function: Any = Converter.convert
    Converter.convert, export.verify = timed("convert", function), timed("check", export.verify)  # type: ignore[method-assign]
    try:
        format_ = {"mlpackage": "coreml"}.get(Path(path).suffix[1:], Path(path).suffix[1:])
        options = ["--weights", "random", "--precision", "fp32"]
        cli.app(["export", model, "--to", format_, "-o", path, *options], standalone_mode=False)
    finally:
        print(json.dumps(parts | {"peak": peak()}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--parts"]:
        _parts(*sys.argv[2:])
    else:
        common.alone(section)
