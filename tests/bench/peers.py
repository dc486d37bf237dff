"""Exported files next to those of other converters: time, memory and size, for the same network and weights.

The other converters are given the network as it is usually written: clips of rank 5, a shift that reshapes to
N, T, C, H, W, 3-D convolutions, batch norm as layers. All files take normalized floats. Only files that give our logits
to 1e-3 of their range are timed. "Made in" is the time of the whole command; ours includes verification. onnx2tf has an
environment of its own (TensorFlow's): ONNX2TF names its program (default: searched on the path; left out if missing).

Differences are small if nearly all time goes into the same convolutions: of the online MobileNetV2, all but some
hundredths (see The shift).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import common
import numpy as np

from tsmzoo.artifact import store
from tsmzoo.artifact.contract import Contract

#: Model, and rounds.
MODELS = (("tsm_mbv2_online", 100), ("tsm_r50_k400_8f", 16), ("i3d_r50_k400", 8))
LIMIT = 600
#: Of the range of the logits.
TOLERANCE = 1e-3


def section(folder: Path, models: tuple[tuple[str, int], ...] = MODELS) -> str:
    """Return the section's text; all files are written to `folder`."""
    rows: list[list[object]] = []
    turned: list[tuple[str, str, int]] = []
    for model, runs in models:
        made: dict[str, tuple[Path, float, Contract]] = {}
        failed: dict[str, str] = {}
        for format_ in ("tflite", "onnx"):
            ours = folder / f"{model}.{format_}"
            report = common.export(model, ours, "--weights", "random", "--preprocess", "external")
            made[f"tsmzoo {format_}"] = (ours, report["seconds"], store.read_contract(ours))
        for name, make in {"torch.onnx.export": _onnx, "litert_torch.convert": _litert, "onnx2tf": _onnx2tf}.items():
            path = folder / name / f"{model}{'.onnx' if make is _onnx else '.tflite'}"
            path.parent.mkdir(exist_ok=True)
            try:
                seconds = make(model, path)
                contract = common.adopt(path, made["tsmzoo onnx"][2])
                _check(path, contract, made["tsmzoo onnx"])
                made[name] = (path, seconds, contract)
            except Exception as error:  # others may fail in any way: in one model, that is a row
                failed[name] = " ".join(str(error).split()) or type(error).__name__
        turned += [(model, name, n) for name, (_, _, c) in made.items() if (n := len(c.inputs) - 1 - len(c.states))]
        timings = dict(zip(made, common.race([path for path, _, _ in made.values()], runs), strict=True))
        for name, timing in timings.items():
            path, seconds, _ = made[name]
            ours = timings["tsmzoo onnx" if path.suffix == ".onnx" else "tsmzoo tflite"]
            rows.append(
                [
                    f"`{model}`",
                    path.suffix.removeprefix("."),
                    name.split()[0],
                    "1" if timing is ours else common.spread(timing, ours),
                    common.figure(common.ms(timing)),
                    f"{timing.peak_mb:.0f}",
                    f"{path.stat().st_size / 1e6:.2f}",
                    f"{seconds:.0f}",
                ]
            )
        rows += [
            [f"`{model}`", "", name, "–", textwrap.shorten(why, 100, placeholder=" …"), "", "", ""]
            for name, why in failed.items()
        ]
    columns = {
        "model": "-",
        "format": "-",
        "converter": "-",
        "time, of ours (starts)": ">",
        "ms": ">",
        "peak MB": ">",
        "MB": ">",
        "made in s": ">",
    }
    unfed = [
        f"{name}: {count} of the states of `{model}` have another layout as outputs than as inputs; not fed back"
        for model, name, count in turned
    ]
    rows.sort(
        key=lambda row: ([name for name, _ in models].index(str(row[0]).strip("`")), -ord((str(row[1]) or "a")[0]))
    )
    return "\n\n".join([common.table(columns, rows), *(f"{line}." for line in unfed)])


def _check(path: Path, contract: Contract, ours: tuple[Path, float, Contract]) -> None:
    """Raise Failed where a file answers otherwise than ours does."""
    sides, frames = ours[2].main_input.lengths()[-3:], 1 if contract.mode == "online" else contract.frames
    clip = np.random.default_rng(0).standard_normal((frames, *sides)).astype("float32")
    found, wanted = common.answer(path, contract, clip), common.answer(ours[0], ours[2], clip)
    if (error := np.abs(found - wanted).max() / np.ptp(wanted)) > TOLERANCE:
        raise common.Failed(f"other logits than ours: {error:.0e} of their range")


def _plain(model: str) -> tuple[Any, tuple[Any, ...]]:
    """Return the network as anyone would write it, and an input."""
    import torch

    from tsmzoo import models, registry
    from tsmzoo.models.wrappers import ClipModel, StreamStep, state_shapes

    entry = registry.load().find(model)
    backbone = models.build(entry, seed=0)
    if entry.mode == "online":
        shapes = [(1, 3, entry.size, entry.size), *state_shapes(backbone, 3, entry.size)]
        return StreamStep(backbone).eval(), tuple(torch.zeros(shape) for shape in shapes)
    clip = torch.zeros(1, entry.frames, entry.channels, entry.size, entry.size)
    return ClipModel(backbone, entry.frames, entry.shift_frames).eval(), (clip,)


def _onnx(model: str, out: Path) -> float:
    return common.run([sys.executable, __file__, "--onnx", model, out], LIMIT)


def _litert(model: str, out: Path) -> float:
    return common.run([sys.executable, __file__, "--litert", model, out], LIMIT)


def _onnx2tf(model: str, out: Path) -> float:
    program = os.environ.get("ONNX2TF") or shutil.which("onnx2tf")
    if program is None:
        raise common.Failed("not installed; ONNX2TF names its program")
    with tempfile.TemporaryDirectory() as name:
        # A copy: it writes a simpler graph over its source.
        source = shutil.copy(out.parent.parent / "torch.onnx.export" / f"{model}.onnx", name)
        # With a signature; without its search for a simpler graph, which downloads a picture to try it on.
        words = ["-i", source, "-o", name, "-osd", "-n"]
        seconds = common.run([program, *words], LIMIT, cwd=name)
        shutil.copy(Path(name) / f"{model}_float32.tflite", out)
    return seconds


def _write_onnx(model: str, out: str) -> None:
    import torch

    net, inputs = _plain(model)
    torch.onnx.export(net, inputs, out, dynamo=True, external_data=False, verbose=False)


def _write_litert(model: str, out: str) -> None:
    import litert_torch

    litert_torch.convert(*_plain(model)).export(out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--onnx"]:
        _write_onnx(*sys.argv[2:])
    elif sys.argv[1:2] == ["--litert"]:
        _write_litert(*sys.argv[2:])
    else:
        chosen = tuple(pair for pair in MODELS if pair[0] in (sys.argv[1:] or dict(MODELS)))
        common.alone(lambda folder: section(folder, chosen))
