"""Running a model over one video and saying what it sees, as the frames go by."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tsmzoo import sampling, video, views
from tsmzoo.artifact import Array, Contract
from tsmzoo.converter import Runner
from tsmzoo.errors import ZooError
from tsmzoo.runner import run_clip, stream


@dataclass(frozen=True)
class Answer:
    """What the model holds a video to be at one moment."""

    #: Seconds into the video.
    time: float
    #: Class names, or indices where no names are at hand, and their probabilities, likeliest first.
    top: list[tuple[str, float]]
    #: Milliseconds that the model itself took: a frame of a stream, or a clip.
    ms: float


class _Timed:
    """A runner that keeps how long its last call took, in milliseconds."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self.runtime, self.ms = runner, runner.runtime, 0.0

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        start = time.perf_counter()
        outputs = self._runner.run(inputs)
        self.ms = 1000 * (time.perf_counter() - start)
        return outputs


def watch(runner: Runner, contract: Contract, path: Path, *, window: int, top: int = 5) -> Iterator[Answer]:
    """Yield an answer after each frame (online), or one for the whole video (offline).

    An online model's logits are averaged over the last `window` steps, as in MIT's demo; frames are
    taken at the contract's target rate. An offline model sees T frames as it was trained to, spread over
    the video or dense in its middle. Raises VideoError, or ZooError for a model that no video alone can feed.
    """
    if contract.channel_order == "flow":
        raise ZooError(f"{contract.model} sees optical flow, not video; choose an RGB model")
    names = contract.labels or tuple(f"class {index}" for index in range(contract.classes))
    timed = _Timed(runner)
    if contract.mode == "offline":
        indices: list[int] = []

        def choose(total: int) -> list[int]:
            indices[:] = sampling.clip(total, contract.frames, contract.stride)
            return indices

        chosen = video.pick(path, choose)
        clip = np.stack([views.prepared(chosen.images[index], contract.resize, contract.size) for index in indices])
        logits = run_clip(timed, contract, clip[None])["logits"]
        yield Answer(chosen.times[indices[-1]], _top(logits[0], names, top), timed.ms)
        return
    times: list[float] = []

    def pixels() -> Iterator[Array]:
        for seconds, image in video.at_rate(video.decode(path), contract.target_fps):
            times.append(seconds)
            yield views.prepared(image, contract.resize, contract.size)[None]

    recent: deque[Array] = deque(maxlen=window)
    for outputs in stream(timed, contract, pixels()):
        recent.append(outputs["logits"][0])
        yield Answer(times[-1], _top(np.mean(recent, axis=0), names, top), timed.ms)


def _top(logits: Array, names: tuple[str, ...], count: int) -> list[tuple[str, float]]:
    odds = np.exp(logits - logits.max())
    order = logits.argsort()[::-1][:count]
    return [(names[index], float(odds[index] / odds.sum())) for index in order]
