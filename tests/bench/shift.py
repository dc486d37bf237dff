"""The cost of the shift: a network with it and the same network without, as exported files.

The shift's time is that of moving channels (online: and of feeding the states back, in Python), of convolutions cut in
two so that less is moved, and of what a runtime can no longer fuse. Weights are random, which does not change the time.
The second table is the profile of the runtime alone: operators whose numbers differ between the two files, and their
shares of the time of all operators.

The aims were 1.02 online and 1.03 for whole clips. Their bounds: online, each of ten blocks cuts its features in two
and joins the rest with the state, rows of 12 bytes in the first; in ONNX Runtime features leave its blocked layout and
come back (the reorders). Feeding ten states through Python is a hundredth of a frame in TFLite. For clips, less than
half is moving numbers. The rest is that the convolutions around a shift are in two parts, each less efficient, with a
sum between them. Whole convolutions would need a copy of everything, which costs more.
"""

from __future__ import annotations

from pathlib import Path

import common
import msgspec
import yaml

from tsmzoo import registry
from tsmzoo.benchmarking import run
from tsmzoo.benchmarking.run import Job
from tsmzoo.inference.reference import ModelReference
from tsmzoo.registry import Entry, Registry

#: Models and rounds.
MODELS = (("tsm_mbv2_online", 120), ("tsm_r50_k400_8f", 24))
COLUMNS = {"model": "-", "format": "-", "time, of no shift (starts)": ">", "ms": ">", "ms, no shift": ">"}
PROFILE = {
    "model": "-",
    "format": "-",
    "operator": "-",
    "calls": ">",
    "no shift": ">",
    "share of time": ">",
    "no shift ": ">",
}


def section(folder: Path) -> str:
    """Return the section's table; its files are written to `folder`."""
    zoo = registry.load()
    own = folder / "without.yaml"
    without = Registry(models=tuple(_without(zoo.find(model)) for model, _ in MODELS))
    own.write_text(yaml.safe_dump(msgspec.to_builtins(without)), encoding="utf-8")
    rows, profiles = list[list[object]](), list[list[object]]()
    for (model, runs), plain in zip(MODELS, without.models, strict=True):
        for format_ in ("tflite", "onnx"):
            paths = [folder / f"{name}.{format_}" for name in (plain.id, model)]
            common.export(plain.id, paths[0], "--weights", "random", "--registry", str(own))
            common.export(model, paths[1], "--weights", "random")
            before, after = common.race(paths, runs)
            ratio = common.spread(after, before)
            rows.append(
                [f"`{model}`", format_, ratio, common.figure(common.ms(after)), common.figure(common.ms(before))]
            )
            profiles += [[f"`{model}`", format_, *row] for row in _differences(*paths)]
    return "\n\n".join([common.table(COLUMNS, rows), common.table(PROFILE, profiles)])


def _differences(before: Path, after: Path) -> list[list[object]]:
    """Return operators, their calls a pass and shares of all time in `after` and in `before`, where calls differ."""
    timings = run.run_benchmark([Job(ModelReference(str(path))) for path in (before, after)], runs=5, profile=True)
    sides = []
    for timing in timings:
        assert timing.profile
        total = sum(operator.ms for operator in timing.profile.kinds)
        sides.append({operator.kind: (operator.calls, operator.ms / total) for operator in timing.profile.kinds})
    rows: list[list[object]] = []
    for kind in sides[1] | sides[0]:
        (calls_before, share_before), (calls, share) = (side.get(kind, (0, 0.0)) for side in sides)
        if calls != calls_before:
            rows.append([kind, calls, calls_before, f"{share:.1%}", f"{share_before:.1%}"])
    return rows


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
