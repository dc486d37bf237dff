"""Classify a stream, frame by frame."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

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
        self._model = model
        self._smoothing = smoothing or default_smoothing(contract.mode, contract.target_fps)
        self._every = every or contract.frames
        self.reset()

    def reset(self) -> None:
        """Forget all frames, for instance at a cut between two scenes."""
        self._states: States | None = None
        self._recent: deque[Array] = deque(maxlen=self._model.contract.frames)
        self._due = self._model.contract.frames
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
        (pixels,) = self._model.transform([frame])
        if (logits := self._logits(pixels)) is not None:
            activation = self._model.contract.activation
            logits = self._model.check_finite(logits)
            self._decision = decide(self._smoothing, logits, self._decision, activation)
        if self._decision is None or self._decision.shown is None:
            return None
        return self._model.prediction(self._decision.shown, self._decision.odds)

    def _logits(self, pixels: Array) -> Array | None:
        if self._model.contract.mode == "online":
            outputs, self._states = self._model.run_step(pixels[None], self._states)
            return np.asarray(outputs["logits"][0])
        self._recent.append(pixels)
        self._due -= 1
        if self._due:
            return None
        self._due = self._every
        return np.asarray(self._model(np.stack(self._recent)))
