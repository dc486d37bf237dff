"""Classify a stream, frame by frame."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np

from tsmzoo.checks import check
from tsmzoo.data import sampling
from tsmzoo.errors import UsageError
from tsmzoo.inference.smoothing import Decision, Smoothing, decide, default_smoothing
from tsmzoo.typing import Array

if TYPE_CHECKING:
    from PIL import Image

    from tsmzoo.inference.model import Model, Prediction, States


class Stream:
    """A stream of frames; `Model.stream` starts one.

    It is a context manager: the block ends the stream, and frees the frames and states it holds.

    Examples:
        >>> model = tsmzoo.load("tsm_mbv2_motion_online")
        >>> frame = np.zeros((64, 64, 3), np.uint8)
        >>> with model.stream(smoothing=tsmzoo.Smoothing(window=1, threshold=0.0, hold=1)) as stream:
        ...     first = stream.step(frame)
        ...     second = stream.step(frame)
        ...     stream.reset()
        ...     again = stream.step(frame)
        >>> first == again, first == second
        (True, False)
    """

    def __init__(self, model: Model, *, smoothing: Smoothing | None = None, every: int | None = None) -> None:
        contract = model.contract
        check("every", every, Annotated[int, msgspec.Meta(ge=1)] | None)
        if every is not None and contract.mode == "online":
            raise UsageError(f"{contract.model} is online and answers every frame; leave out `every`")
        self._model = model
        self._smoothing = smoothing or default_smoothing(contract.mode, contract.target_fps)
        #: Frames between answers.
        self._every = every or contract.frames
        self.reset()

    def reset(self) -> None:
        """Forget all frames, for instance at a cut between two scenes."""
        self._states: States | None = None
        #: The frames of a clip, the last ones; of an online model, one.
        self._recent: deque[Array] = deque(maxlen=self._model.contract.frames)
        #: Frames added since the last answer.
        self._unseen = 0
        self._decision: Decision | None = None

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.reset()

    def step(self, frame: Array | Image.Image) -> Prediction | None:
        """Feed a frame, and return the label to show after it, or None if no label was decided yet.

        Args:
            frame: RGB: a PIL image, or an array H, W, 3, uint8, 0…255. The frames of a stream come at the rate that
                the model was trained with: `model.contract.target_fps` a second, if it is not None.
        """
        self.add(frame)
        if self.is_full and (self._decision is None or self._unseen >= self._every):
            return self.answer()
        return self._shown()

    def top(self, count: int = 5) -> list[Prediction]:
        """Return the most probable classes by the last answer, smoothed, most probable first; none before it.

        Args:
            count: Classes to return.
        """
        check("count", count, Annotated[int, msgspec.Meta(ge=1)])
        odds = np.empty(0) if self._decision is None else self._decision.odds
        return [self._model.prediction(int(index), odds) for index in odds.argsort()[::-1][:count]]

    # A step by hand, for answers at times of one's own: an online model answers after every frame.

    @property
    def is_full(self) -> bool:
        """Whether there are the frames of a clip."""
        return len(self._recent) == self._recent.maxlen

    def add(self, frame: Array | Image.Image) -> None:
        """Feed a frame as `step` does, and answer later."""
        self._recent.extend(self._model.transform([frame]))
        self._unseen += 1

    def answer(self) -> Prediction | None:
        """Return the label to show after the frames so far, which are stretched if they are too few for a clip.

        Raises:
            DataError: A logit is no finite number: the weights are damaged.
        """
        if self._unseen:
            contract = self._model.contract
            # As training stretches too short a video.
            clip = np.stack([self._recent[index] for index in sampling.centres(len(self._recent), contract.frames)])
            if contract.mode == "online":
                outputs, self._states = self._model.run_step(clip, self._states)
            else:
                outputs = self._model.run_clips(clip[None])
            logits = self._model.check_finite(outputs["logits"][0])
            self._decision = decide(self._smoothing, logits, self._decision, contract.activation)
            self._unseen = 0
        return self._shown()

    def _shown(self) -> Prediction | None:
        if self._decision is None or self._decision.shown is None:
            return None
        return self._model.prediction(self._decision.shown, self._decision.odds)
