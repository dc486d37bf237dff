"""One run over a source: answers are shown as they come, frames saved with them on, until it ends or is ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from tsmzoo.artifact.contract import Contract
from tsmzoo.cli._screen import Tally
from tsmzoo.errors import ZooError
from tsmzoo.inference.model import Model
from tsmzoo.inference.smoothing import Smoothing, default_smoothing
from tsmzoo.live import video_writer, watch
from tsmzoo.live.pacing import FramePacer
from tsmzoo.live.scenes import CUT
from tsmzoo.live.source import Frame, Source
from tsmzoo.live.watch import Answer

#: Seconds between the answers of an offline model to a camera.
_EVERY = 1.0
#: Frames a second below which two that follow differ as much as two scenes do, and cuts are not looked for.
_TOO_SLOW = 4.0


@dataclass(frozen=True)
class Settings:
    """What a user may say of a run; None is the usual."""

    window: int | None = None
    threshold: float | None = None
    hold: int | None = None
    #: Difference of two frames that makes two scenes of them; 0 never.
    cut: float | None = None
    #: Seconds after which the model begins anew.
    reset_every: float | None = None
    #: Of an offline model: seconds from answer to answer, and that a clip spans.
    every: float | None = None
    span: float | None = None
    #: Where a video with the answers on it is written.
    save: Path | None = None


def smoothing(settings: Settings, contract: Contract) -> Smoothing:
    """Return how a model's answers are smoothed."""
    base = default_smoothing(contract.mode, contract.target_fps)
    return Smoothing(
        window=base.window if settings.window is None else settings.window,
        threshold=base.threshold if settings.threshold is None else settings.threshold,
        hold=base.hold if settings.hold is None else settings.hold,
    )


def check(settings: Settings, contract: Contract) -> None:
    """Raise ZooError where a model does not take what was asked for."""
    if contract.channel_order == "flow":
        raise ZooError(f"{contract.model} sees optical flow, not video; choose an RGB model")
    if contract.mode == "online" and (settings.every or settings.span):
        raise ZooError(f"{contract.model} is online and answers every frame; leave out --every and --span")
    if settings.span and contract.stride:
        raise ZooError(f"{contract.model} takes every {contract.stride}th frame of a clip; leave out --span")


def play(
    model: Model,
    source: Source,
    settings: Settings,
    *,
    show: Callable[[Answer, Tally], None],
    stopped: Callable[[], bool] = lambda: False,
    asked: Callable[[], bool] = lambda: False,
) -> Tally:
    """Run a model over a source, showing each answer, and return the sum.

    It ends early where `stopped` says so, and begins anew where `asked` does. Raises VideoError; what was saved
    till then is kept.
    """
    tally, answer = Tally(), None
    turn = FramePacer(1 / settings.reset_every) if settings.reset_every else None
    saving = video_writer.writer(settings.save, source.rate) if settings.save else nullcontext()
    with saving as save:
        for frame, new in _answered(
            model, source, settings, lambda at: any([asked(), turn is not None and turn.takes(at)])
        ):
            if new is not None:
                answer = new
                tally.add(answer)
                show(answer, tally)
            if save is not None and frame is not None:
                save.write(frame.time, frame.image(), answer)
            if stopped():
                break
    return tally


def _answered(
    model: Model, source: Source, settings: Settings, reset: Callable[[float], bool]
) -> Iterator[tuple[Frame | None, Answer | None]]:
    """Yield frames and answers: those to a stream, or one to a whole video, in front of its frames."""
    contract = model.contract
    how = smoothing(settings, contract)
    streamed = settings.every or settings.span or settings.reset_every
    if contract.mode == "offline" and source.pick is not None and not streamed:
        yield None, watch.whole(model, source.pick, how)
        if settings.save:
            yield from ((frame, None) for frame in source.frames())
        return
    fps = watch.rate(contract, settings.span or watch.SPAN)
    cut = settings.cut
    if cut is None:
        cut = 0 if fps is not None and fps < _TOO_SLOW else CUT
    every = settings.every or _EVERY
    yield from watch.watch(model, source.frames(), how, fps=fps, every=every, cut=cut, reset=reset)
