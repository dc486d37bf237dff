"""What the shift costs: a network with it and the same network without, as exported files.

The shift has no multiplications and no weights; its time is that of moving an eighth of the channels (online: and of
handing the states on) and of what a runtime can no longer fuse. Weights are random, which changes no time.
"""

from __future__ import annotations

from pathlib import Path

import common
import msgspec
import yaml

from tsmzoo import bench, registry
from tsmzoo.registry import Entry, Registry

#: Models and rounds.
MODELS = (("tsm_mbv2_online", 60), ("tsm_r50_k400_8f", 8))
COLUMNS = {"model": "-", "format": "-", "time, of no shift": ">", "ms": ">", "ms, no shift": ">"}


def section(folder: Path) -> str:
    """Return the section's table; its files are written to `folder`."""
    zoo = registry.load()
    own = folder / "without.yaml"
    without = Registry(models=tuple(_without(zoo.find(model)) for model, _ in MODELS))
    own.write_text(yaml.safe_dump(msgspec.to_builtins(without)), encoding="utf-8")
    rows: list[list[object]] = []
    for (model, runs), plain in zip(MODELS, without.models, strict=True):
        for format_ in ("tflite", "onnx"):
            paths = [folder / f"{name}.{format_}" for name in (plain.id, model)]
            common.export(plain.id, paths[0], "--weights", "random", "--registry", str(own))
            common.export(model, paths[1])
            before, after = common.race(paths, runs)
            ratio = f"{bench.ratio(after, before):.3f}"
            rows.append(
                [f"`{model}`", format_, ratio, common.figure(common.ms(after)), common.figure(common.ms(before))]
            )
    return common.table(COLUMNS, rows)


def _without(entry: Entry) -> Entry:
    """Return the same network as TSN; of an online one, for clips of one frame."""
    return msgspec.structs.replace(
        entry,
        id=f"{entry.id}_without",
        family="tsn",
        mode="offline",
        sampling="uniform",
        target_fps=None,
        states=(),
        results=(),
        format="tsmzoo",
        urls=(),
        beside=(),
        file=None,
        sha256=None,
        sha256_prefix=None,
        git_blob_sha1=None,
    )


if __name__ == "__main__":
    common.alone(section)
