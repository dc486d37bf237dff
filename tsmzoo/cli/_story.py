"""The demo: three networks of equal cost on clips whose classes only the order of frames distinguishes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from tsmzoo import api
from tsmzoo.artifact.converter import converter_of
from tsmzoo.data import layouts, motion
from tsmzoo.data.dataset import Dataset
from tsmzoo.data.encode import encode
from tsmzoo.errors import DataError
from tsmzoo.evaluation import evaluate, report, scoring
from tsmzoo.evaluation.evaluate import Settings
from tsmzoo.exporting.report import Artifact, text
from tsmzoo.formats import Format
from tsmzoo.inference.model import open_file
from tsmzoo.inference.reference import ModelReference
from tsmzoo.models.flops import count
from tsmzoo.registry import Registry
from tsmzoo.text import Column, table

MODELS = ("tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online")
FRAMES = 8
#: The bundled models were trained on seed 1 and measured on seed 2.
SEED = 3
#: The scene that is streamed: something that opens.
SCENE = 4


class DemoRow(msgspec.Struct, frozen=True, kw_only=True):
    """One of the demo's models, as it was measured."""

    #: Its id.
    model: str
    #: `unidirectional`, `bidirectional` or null.
    shift: str | None
    #: Multiply-accumulates of 8 frames.
    macs_per_clip: int
    params: int
    #: Accuracy in percent.
    top1: float
    #: Its 95 % interval.
    ci95: list[float]
    #: How many videos were scored.
    videos: int


COLUMNS: list[Column[DemoRow]] = [
    ("model", "left", lambda row: row.model),
    ("shift", "left", lambda row: row.shift or "none"),
    ("MACs a clip", "right", lambda row: f"{row.macs_per_clip:,}"),
    ("parameters", "right", lambda row: f"{row.params:,}"),
    ("top-1", "right", lambda row: f"{row.top1:.1f} %"),
]


class Demo(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo measured."""

    models: list[DemoRow]
    #: The exported file, as `export` describes it.
    artifact: Artifact
    #: The label after each frame of the scene, played forwards and backwards.
    streamed: list[list[str | None]]


def demo(
    zoo: Registry, folder: Path, videos: int, *, say: Callable[[str], None], progress: Callable[[str, int, int], None]
) -> Demo:
    """Draw clips in `folder`, measure the bundled models on them, export the online one there and stream a scene.

    Reports through `say`, a paragraph at a time, and returns the measurements.
    """
    clips, path = folder / "clips", folder / f"{MODELS[-1]}.tflite"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); give another folder with --keep") from None
    converter_of(Format.TFLITE).require("convert", "runtime")  # first, since what it needs may be missing

    say(f"$ tsmzoo data motion {clips} --videos {videos} --seed {SEED}")
    motion.write(clips, videos, SEED, lambda *steps: progress("drawing clips", *steps))
    say(f"{videos // 2} scenes that no model has seen, each played forwards and backwards\n")

    say("$ tsmzoo flops MODEL; tsmzoo eval MODEL --data DIR")
    listed = layouts.read(clips)
    rows = [_measure(zoo, name, listed, folder, progress) for name in MODELS]
    say(table(COLUMNS, rows) + "\n")

    say(f"$ tsmzoo export {MODELS[-1]} --to tflite")
    artifact = api.export(MODELS[-1], "tflite", path, progress=lambda what, *_: progress(what, 0, 1))
    say(text(artifact) + "\n")

    say(f"$ tsmzoo run {path} VIDEO      # one scene forwards, then backwards, each frame answered")
    frames, _ = motion.scene(SCENE, SEED)
    streamed = open_file(path)
    answers = []
    for name, order in (("forwards", frames), ("backwards", frames[::-1])):
        video = folder / f"{name}.mp4"
        try:
            encode(video, order, motion.FPS)
        except OSError as error:
            raise DataError(f"{video}: cannot be written ({error.strerror}); give another folder with --keep") from None
        # The likeliest class of every step, to see the model find it.
        answers.append([*api.watch(streamed, video, window=FRAMES, threshold=0, hold=1, cut=0)])
    for ahead, back in zip(*answers, strict=True):
        say(f"  {ahead.time:4.2f} s   {ahead.text:<26} {back.text}")
    return Demo(models=rows, artifact=artifact, streamed=[[answer.label for answer in run] for run in answers])


def _measure(
    zoo: Registry, name: str, listed: Dataset, folder: Path, progress: Callable[[str, int, int], None]
) -> DemoRow:
    entry = zoo.find(name)
    counted = count(entry)
    path = folder / "predictions" / f"{name}.jsonl"  # apart: NAME.json is the exported file's
    evaluate.save_predictions(zoo, ModelReference(name), listed, Settings(workers=0), path, progress=progress)
    measured = report.summary([zoo], scoring.score([path]))
    return DemoRow(
        model=name,
        shift=entry.shift,
        macs_per_clip=round(counted.gmacs * FRAMES / entry.frames * 1e9),
        params=round(counted.mparams * 1e6),
        top1=measured.top1,
        ci95=list(measured.ci95),
        videos=measured.videos,
    )
