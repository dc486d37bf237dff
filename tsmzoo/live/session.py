"""A run of a model over a source: answers as the frames go by, and the video with the answers on it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from tsmzoo.artifact.contract import Contract
from tsmzoo.callbacks import Notify
from tsmzoo.checks import check, check_fields
from tsmzoo.errors import ZooError
from tsmzoo.inference.model import Model
from tsmzoo.inference.smoothing import Smoothing, default_smoothing
from tsmzoo.live import video_writer, watch
from tsmzoo.live.answer import Answer
from tsmzoo.live.pacing import FramePacer
from tsmzoo.live.scenes import CUT
from tsmzoo.live.source import Frame, FrameSource, open_source

#: Seconds between the answers of an offline model to a camera.
_EVERY = 1.0
#: Frames a second below which two frames in a row differ as much as two scenes; cuts are not looked for.
_TOO_SLOW = 4.0

# The bounds of the command line.
_Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0.01, le=1e6)]
_Rate = Annotated[float, msgspec.Meta(ge=0.01, le=1000)]


@dataclass(frozen=True)
class LiveOptions:
    """Options of a run; None is the default."""

    window: _Count | None = None
    threshold: _Share | None = None
    hold: _Count | None = None
    #: Difference of two frames from which they belong to two scenes, 0…1; 0: never.
    cut: _Share | None = None
    #: Seconds from reset to reset.
    reset_every: _Seconds | None = None
    #: For an offline model: seconds from answer to answer, and seconds that a clip spans.
    every: _Seconds | None = None
    span: _Seconds | None = None
    #: The file for the video with the answers on it.
    save: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)


def smoothing(options: LiveOptions, contract: Contract) -> Smoothing:
    """Return how a model's answers are smoothed."""
    base = default_smoothing(contract.mode, contract.target_fps)
    return Smoothing(
        window=base.window if options.window is None else options.window,
        threshold=base.threshold if options.threshold is None else options.threshold,
        hold=base.hold if options.hold is None else options.hold,
    )


def open_for(
    model: Model, video: str, options: LiveOptions, *, fps: float | None, images: str | None, notify: Notify
) -> FrameSource:
    """Return the source called `video`, as `open_source` does, for a run of `model` with `options`.

    Raises ZooError if the model has no use for an option, and VideoError if there is no such source.
    """
    contract, fps = model.contract, check("fps", fps, _Rate | None)
    if contract.channel_order == "flow":
        raise ZooError(f"{contract.model} sees optical flow, not video; choose an RGB model")
    if contract.mode == "online" and (options.every or options.span):
        raise ZooError(f"{contract.model} is online and answers every frame; leave out --every and --span")
    if options.span and contract.stride:
        raise ZooError(f"{contract.model} takes every {contract.stride}th frame of a clip; leave out --span")
    step = contract.target_fps if contract.mode == "online" else None
    return open_source(video, fps, step, template=images, notify=notify)


def play(
    model: Model,
    source: FrameSource,
    options: LiveOptions,
    *,
    stopped: Callable[[], bool] = lambda: False,
    reset_requested: Callable[[], bool] = lambda: False,
) -> Generator[Answer, None, None]:
    """Yield the answers of a model to a source as its frames go by; write the video if `options.save` is given.

    It ends early if `stopped` returns True; the model is reset if `reset_requested` does. What was saved by then is
    kept, also if the iterator is closed. Raises VideoError, or DataError if a logit is no finite number.
    """
    answer = None
    pacer = FramePacer(1 / options.reset_every) if options.reset_every else None
    saving = video_writer.writer(options.save, source.rate) if options.save else nullcontext()

    def reset(seconds: float) -> bool:
        # Both are called for each frame: the pacer counts them.
        return any([reset_requested(), pacer is not None and pacer.takes(seconds)])

    with saving as save:
        for frame, new in _answered(model, source, options, reset):
            if new is not None:
                answer = new
                yield answer
            if save is not None and frame is not None:
                save.write(frame.time, frame.image(), answer)
            if stopped():
                break


def _answered(
    model: Model, source: FrameSource, options: LiveOptions, reset: Callable[[float], bool]
) -> Iterator[tuple[Frame | None, Answer | None]]:
    """Yield frames and answers: the answers to a stream, or one to a whole video, before its frames."""
    contract = model.contract
    how = smoothing(options, contract)
    streamed = options.every or options.span or options.reset_every
    if contract.mode == "offline" and source.pick is not None and not streamed:
        yield None, watch.whole(model, source.pick, how)
        if options.save:
            yield from ((frame, None) for frame in source.frames())
        return
    fps = watch.rate(contract, options.span or watch.SPAN)
    cut = options.cut
    if cut is None:
        cut = 0 if fps is not None and fps < _TOO_SLOW else CUT
    every = options.every or _EVERY
    yield from watch.watch(model, source.frames(), how, fps=fps, every=every, cut=cut, reset=reset)
