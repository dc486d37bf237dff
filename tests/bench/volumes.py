"""What 3-D networks cost as 2-D ones: speed, size and memory of exported files, beside the same network in 3-D.

Run by `make bench`; weights are random, which changes no time. Both forms run in turns in one process, one thread;
memory is the peak of a process of its own. Figures are ratios of the 3-D form to ours: above 1 ours is better.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

MODELS = ("i3d_r50_k400", "i3d_r50_nl_embedded_gaussian_k400", "i3d_r50_k400_8x8", "i3d_r50_heavy_k400")
MODELS += ("i3d_r50_3x3x3", "i3d_r50_replace_8f", "i3d_inception_k400_rgb_piergiaj")
FORMATS = ("tflite", "onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--formats", nargs="*", default=FORMATS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return _work(*arguments.work)
    print(f"{'model':36} {'format':7} {'3-D ms':>8} {'ms':>8} {'ratio':>6}", end=" ")
    print(f"{'MB':>7} {'export s, peak MB':>18} {'run MB, 3-D':>13}")
    for model in arguments.models:
        for format_ in arguments.formats:
            _compare(model, format_, arguments.rounds)
    return None


def _compare(model: str, format_: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = (Path(folder) / f"{name}.{format_}" for name in ("ours", "theirs"))
        began = time.monotonic()
        _, exporting = _apart("export", model, str(ours))
        seconds = time.monotonic() - began
        _apart("export3d", model, str(theirs))
        times: list[list[float]]
        times, _ = _apart("race", str(rounds), str(theirs), str(ours))
        before, after = (median(each) for each in times)
        _, memory = _apart("race", "1", str(ours))
        _, memory_3d = _apart("race", "1", str(theirs))
        print(
            f"{model:36} {format_:7} {before * 1e3:8.0f} {after * 1e3:8.0f} {before / after:6.2f} "
            f"{ours.stat().st_size / 1e6:7.1f} {seconds:9.0f}, {exporting:6.0f} {memory:6.0f}, {memory_3d:5.0f}",
            flush=True,
        )


def _apart(*work: str) -> tuple[Any, float]:
    """Do `work` in a process of its own; return what it says, and the peak of its memory in MB."""
    done = subprocess.run([sys.executable, __file__, "--work", *work], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["said"], answer["peak_mb"]


def _work(what: str, *arguments: str) -> None:
    said = {"export": _export, "export3d": _export_3d, "race": _race}[what](*arguments)
    print(json.dumps({"said": said, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def _export(model: str, out: str) -> None:
    from tsmzoo import export, registry, weights
    from tsmzoo.formats import format_of

    zoo = registry.load()
    plan = export.plan(zoo.find(model), format_of(Path(out)), out=Path(out))
    export.export(zoo, weights.obtain(plan.entry, "random"), plan)


def _export_3d(model: str, out: str) -> None:
    """Write the network as its publisher built it."""
    import torch

    from tsmzoo import models, registry
    from tsmzoo.models.forms import Deployed, OneClip, fold_batch_norm
    from tsmzoo.quiet import quiet

    zoo = registry.load()
    entry = zoo.find(model)
    normalisation = zoo.normalisations[entry.normalisation]
    form = OneClip(fold_batch_norm(models.build(entry, seed=0)), entry.frames)
    last = out.endswith(".tflite")
    net = Deployed(form, normalisation.mean, normalisation.std, channels_last=last).eval()
    shape = [entry.frames, entry.size, entry.size]
    clip = torch.zeros(
        [*shape, entry.channels] if last else [1, shape[0], entry.channels, *shape[1:]], dtype=torch.uint8
    )
    with quiet():
        if last:
            import litert_torch

            litert_torch.convert(net, (clip,)).export(out)
        else:
            torch.onnx.export(net, (clip,), out, dynamo=True, external_data=False, verbose=False)


def _race(rounds: str, *files: str) -> list[list[float]]:
    """Run the files in turns; return the seconds of each run of each."""
    runs = [_runner(Path(file)) for file in files]
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(int(rounds) + 1):  # the first is for warming up
        for each, run in zip(times, runs, strict=True):
            began = time.perf_counter()
            run()
            each += [time.perf_counter() - began] if turn else []
    return times


def _runner(path: Path) -> Any:
    import numpy as np

    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options)
        taken = session.get_inputs()[0]
        clip = np.random.default_rng(0).integers(0, 256, taken.shape, dtype="uint8")
        return lambda: session.run(None, {taken.name: clip})
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    about = interpreter.get_input_details()[0]
    clip = np.random.default_rng(0).integers(0, 256, about["shape"], dtype="uint8")

    def run() -> None:
        interpreter.set_tensor(about["index"], clip)
        interpreter.invoke()

    return run


if __name__ == "__main__":
    main()
