"""What fewer bits cost and give: size, time, error and top-1 of exported files, by format and precision.

Run by `make bench`. All files of a model run in turns, one thread; ratios are to fp32 of the format.
Top-1 is that of the file's own report (clips of the bundled task that training never saw).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tsmzoo.artifact import Contract, read_contract
from tsmzoo.converter import load_converter
from tsmzoo.formats import Format
from tsmzoo.quiet import quiet

MODELS = (("tsm_mbv2_motion", ()), ("tsm_mbv2_motion_online", ()), ("tsm_mbv2_online", ("--weights", "random")))
PRECISIONS = ("fp32", "fp16", "w8", "int8")
ROUNDS, STEPS = 30, 20


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _tsmzoo("data", "motion", str(folder / "videos"), "--videos", "56", "--seed", "3")
        print("| model | format | precision | MB | of fp32 | ms | of fp32 | largest error | top-1 | cosine |")
        print("|---|---|---|--:|--:|--:|--:|--:|--:|--:|")
        for model, options in MODELS:
            for format_ in (Format.TFLITE, Format.ONNX):
                _compare(folder, model, format_, options)


def _compare(folder: Path, model: str, format_: Format, options: tuple[str, ...]) -> None:
    paths, reports = [], []
    for precision in PRECISIONS:
        path = folder / f"{model}-{precision}{format_.suffix}"
        more = ["--calibrate", str(folder / "videos")] if options and precision == "int8" else []
        wanted = ("export", model, "--to", str(format_), "--precision", precision, "-o", str(path), "--json")
        reports.append(json.loads(_tsmzoo(*wanted, *options, *more)))
        paths.append(path)
    times = _race(paths)
    for precision, path, report, each in zip(PRECISIONS, paths, reports, times, strict=True):
        quality = report["verification"]["quality"] or {}
        top1 = quality.get("top1")
        shown = f"{top1:.2f} ({quality['top1_float']:.2f} in float)" if top1 is not None else ""
        cosine = f"{quality['cosine']:.4f}" if quality else ""
        size = path.stat().st_size
        print(
            f"| `{model}` | {format_} | {precision} | {size / 1e6:.2f} | {size / paths[0].stat().st_size:.2f} "
            f"| {median(each) * 1e3:.3f} | {median(each) / median(times[0]):.2f} "
            f"| {report['max_rel_error']:.0e} | {shown} | {cosine} |",
            flush=True,
        )


def _race(paths: list[Path]) -> list[list[float]]:
    """Return seconds a frame (a clip of an offline model) of each round of each file."""
    steps = [_step(path, read_contract(path)) for path in paths]
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(ROUNDS + 1):
        for each, step in zip(times, steps, strict=True):
            began = time.perf_counter()
            for _ in range(STEPS):
                step()
            each += [(time.perf_counter() - began) / STEPS] if turn else []  # the first is for warming up
    return times


def _step(path: Path, contract: Contract) -> Callable[[], object]:
    """Return what runs the file once, on one thread, inputs in place."""
    random = np.random.default_rng(0)
    inputs = {
        tensor.name: random.integers(0, 256, tensor.shape).astype(tensor.dtype)
        if tensor.dtype == "uint8"
        # States of no frame: what they hold changes no time.
        else np.zeros([int(n) for n in tensor.shape], tensor.dtype)
        for tensor in contract.inputs
    }
    if contract.format == Format.ONNX:
        with quiet():
            runner = load_converter(Format.ONNX).load(path, contract, 1)
        assert runner is not None
        return lambda: runner.run(inputs)
    # Not by the signature: Python's way into LiteRT costs as much as a small network.
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    for about in interpreter.get_input_details():
        pixels = about["dtype"] == np.uint8
        interpreter.set_tensor(
            about["index"], inputs[contract.main_input.name] if pixels else np.zeros(about["shape"], "float32")
        )
    return interpreter.invoke


def _tsmzoo(*arguments: str) -> Any:
    done = subprocess.run([sys.executable, "-m", "tsmzoo", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
