"""3-D networks in the 2-D form that is exported, beside the same network in 3-D, as its publisher built it.

Weights are random, which does not change the time. Ratios are of ours to the 3-D form.
"""

from __future__ import annotations

import sys
from pathlib import Path

import common

from tsmzoo.artifact import store
from tsmzoo.benchmarking import run

#: Others: i3d_r50_k400, i3d_r50_nl_embedded_gaussian_k400, i3d_r50_heavy_k400, i3d_inception_k400_rgb_piergiaj.
MODELS = ("i3d_r50_k400_8x8", "i3d_r50_3x3x3")
FORMATS = ("tflite", "onnx")
RUNS = 5
COLUMNS = {
    "model": "-",
    "format": "-",
    "time, of 3-D": ">",
    "ms": ">",
    "ms, 3-D": ">",
    "peak MB": ">",
    "peak MB, 3-D": ">",
    "MB": ">",
}


def section(folder: Path, models: tuple[str, ...] = MODELS) -> str:
    """Return the section's table; its files are written to `folder`."""
    rows: list[list[object]] = []
    for model in models:
        for format_ in FORMATS:
            ours, theirs = folder / f"{model}.{format_}", folder / f"{model}-3d.{format_}"
            common.export(model, ours, "--weights", "random")
            common.run([sys.executable, __file__, "--3d", model, theirs])
            common.adopt(theirs, store.read_contract(ours))
            before, after = common.race([theirs, ours], RUNS)
            row = [
                f"`{model}`",
                format_,
                f"{run.ratio(after, before):.2f}",
                common.figure(common.ms(after)),
                common.figure(common.ms(before)),
                f"{after.peak_mb:.0f}",
                f"{before.peak_mb:.0f}",
                f"{ours.stat().st_size / 1e6:.1f}",
            ]
            rows.append(row)
    return common.table(COLUMNS, rows)


def _export_3d(model: str, out: str) -> None:
    """Write the network as its publisher built it."""
    import torch

    from tsmzoo import models, registry
    from tsmzoo.exporting.graph.deploy import Deployed
    from tsmzoo.exporting.graph.fold_batchnorm import fold_batch_norm
    from tsmzoo.models.wrappers import SingleClip

    zoo = registry.load()
    entry = zoo.find(model)
    normalisation = zoo.normalisations[entry.normalisation]
    form = SingleClip(fold_batch_norm(models.build(entry, seed=0)), entry.frames)
    last = out.endswith(".tflite")
    net = Deployed(form, normalisation.mean, normalisation.std, channels_last=last).eval()
    shape = [entry.frames, entry.size, entry.size]
    clip = torch.zeros(
        [*shape, entry.channels] if last else [1, shape[0], entry.channels, *shape[1:]], dtype=torch.uint8
    )
    if last:
        import litert_torch

        litert_torch.convert(net, (clip,)).export(out)
    else:
        torch.onnx.export(net, (clip,), out, dynamo=True, external_data=False, verbose=False)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--3d"]:
        _export_3d(*sys.argv[2:])
    else:
        common.alone(lambda folder: section(folder, tuple(sys.argv[1:]) or MODELS))
