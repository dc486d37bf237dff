"""The cost of evaluation beside decoding: videos per second of three ways over the same files and frames, as ratios.

- `decode`: PyAV alone decodes up to the last frame that is needed, and converts the needed ones.
- `plain`: decodes and converts all frames, then samples, resizes and runs the model, one video at a time.
- `tsmzoo`: what `tsmzoo eval` does.

Sixteen H.264 videos of 300 frames, 340 x 256, at two distances between key frames; two processes each, started and
warmed up before; rounds take turns.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import common
import numpy as np
from PIL import Image

from tsmzoo import registry
from tsmzoo.data import motion, sampling, transforms
from tsmzoo.data.dataset import Video
from tsmzoo.evaluation import predict, protocol
from tsmzoo.evaluation.protocol import Changes
from tsmzoo.inference.reference import ModelReference

MODEL = "tsm_mbv2_motion"
PROCESSES, VIDEOS, ROUNDS = 2, 16, 5
WIDTH, HEIGHT, FRAMES = 340, 256, 300  # as Kinetics is kept
ZOO = registry.load()
PLAN = protocol.choose(ZOO.find(MODEL), None, None, Changes())


def draw(folder: Path, keyframes: int) -> list[Video]:
    """Write H.264 videos with a key frame every so many frames."""
    videos = []
    for number in range(VIDEOS):
        frames, label = motion.scene(number, seed=9)
        path = folder / f"{keyframes}-{number}.mp4"
        with av.open(path, "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"g": str(keyframes), "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            large = [np.asarray(Image.fromarray(frame).resize((WIDTH, HEIGHT))) for frame in frames]
            for index in range(FRAMES):
                picture = av.VideoFrame.from_ndarray(large[index * len(large) // FRAMES], format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        videos.append(Video(path.name, path, label))
    return videos


def decode(video: Video) -> int:
    """Decode with PyAV alone what is wanted."""
    with av.open(str(video.path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        wanted = set(sampling.centres(FRAMES, PLAN.frames))
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                frame.to_ndarray(format="rgb24")
            if index == max(wanted):
                break
    return 0


def plain(video: Video) -> int:
    """Decode all, sample, prepare, run."""
    with av.open(str(video.path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    chosen = [Image.fromarray(frames[index]) for index in sampling.centres(len(frames), PLAN.frames)]
    clip = np.stack([transforms.prepared(image, PLAN.short_side, PLAN.size) for image in chosen])
    return int(_opened.clip_logits(clip[None]).argmax())


def tsmzoo(chunk: tuple[Video, ...]) -> int:
    """Score a chunk."""
    return len(predict._score(chunk))


def start() -> None:
    """Open the model, in one thread."""
    global _opened
    _opened = ModelReference(MODEL).open(ZOO, threads=1)
    predict._start(predict.ScoringJob(ModelReference(MODEL), (), PLAN))


def section(folder: Path) -> str:
    """Return the section's table; videos are drawn to `folder`."""
    context = multiprocessing.get_context("spawn")
    rows: list[list[object]] = []
    for keyframes in (250, 12):
        videos = draw(folder, keyframes)
        # Chunks as short as the list, so that both processes have the same to do.
        pairs = [tuple(videos[index : index + 2]) for index in range(0, VIDEOS, 2)]
        ways = {decode: videos, plain: videos, tsmzoo: pairs}
        pools = {way: ProcessPoolExecutor(PROCESSES, context, start) for way in ways}
        speeds: dict[str, list[float]] = {way.__name__: [] for way in ways}
        for round_ in range(ROUNDS + 1):
            for way, work in ways.items():
                begun = time.perf_counter()
                list(pools[way].map(way, work))
                if round_:  # the first warms up
                    speeds[way.__name__].append(VIDEOS / (time.perf_counter() - begun))
        for pool in pools.values():
            pool.shutdown()
        for name, found in speeds.items():
            of = [
                statistics.median(a / b for a, b in zip(found, speeds[base], strict=True))
                for base in ("decode", "plain")
            ]
            rows.append([keyframes, f"`{name}`", f"{of[0]:.2f}", f"{of[1]:.2f}", f"{statistics.median(found):.1f}"])
    columns = {"key frames": ">", "way": "-", "of decode": ">", "of plain": ">", "videos/s": ">"}
    return common.table(columns, rows)


if __name__ == "__main__":
    common.alone(section)
