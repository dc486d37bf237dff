"""Smoothing: from the logits of a stream to the label to show. The kits for apps repeat the rule of `decide`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import msgspec
import numpy as np

from tsmzoo.artifact.arrays import probabilities
from tsmzoo.artifact.contract import Activation
from tsmzoo.checks import check_fields
from tsmzoo.typing import Array

_Steps = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True)
class Smoothing:
    """How the logits of a stream become the label to show.

    The logits of the last `window` steps are averaged. A label is shown once it has been the most probable one, and
    its probability at least `threshold`, for `hold` consecutive steps.

    Examples:
        >>> at_once = tsmzoo.Smoothing(window=1, threshold=0.0, hold=1)
        >>> with tsmzoo.load("tsm_mbv2_motion_online").stream(smoothing=at_once) as stream:
        ...     prediction = stream.step(np.zeros((64, 64, 3), np.uint8))
        >>> prediction is not None
        True
    """

    #: Steps whose logits are averaged.
    window: _Steps = 12
    #: Probability, 0…1, that a label must reach.
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    #: Consecutive steps that a new label must lead.
    hold: _Steps = 2

    def __post_init__(self) -> None:
        check_fields(self)


#: For a stream of 15 frames a second. MIT's demo (online_demo/main.py) sums 12 steps and shows a new label at its
#: second step. It has no threshold; this one was measured: 15 % fewer needless changes, 0.2 points less accuracy.
ONLINE = Smoothing()
#: For clips, which are many frames already.
OFFLINE = Smoothing(window=1, hold=1)
#: The window of ONLINE in seconds; at another rate it spans the same time, not the same number of steps.
_SECONDS = 0.8


def default_smoothing(mode: str, fps: float | None) -> Smoothing:
    """Return the default smoothing for a model of `mode` that is fed `fps` frames a second, if that is known."""
    if mode == "offline":
        return OFFLINE
    return ONLINE if fps is None else replace(ONLINE, window=max(1, round(_SECONDS * fps)))


@dataclass(frozen=True)
class Decision:
    """The state of smoothing after a step."""

    #: Probabilities of the classes, smoothed.
    odds: Array
    #: Index of the label to show; None if no label was decided.
    shown: int | None
    #: Logits of the last steps, the class that leads, and for how many consecutive steps.
    recent: tuple[Array, ...]
    leader: int | None
    streak: int


def decide(
    smoothing: Smoothing, logits: Array, before: Decision | None = None, activation: Activation = "softmax"
) -> Decision:
    """Return the decision after a step.

    Args:
        smoothing: The rule.
        logits: One per class.
        before: The decision of the step before; None at the start of a stream.
        activation: What turns logits into probabilities.
    """
    recent = (*(before.recent if before else ()), logits)[-smoothing.window :]
    odds = probabilities(np.mean(recent, axis=0), activation)
    leader: int | None = int(odds.argmax())
    if odds[leader] < smoothing.threshold:
        leader = None
    streak = before.streak + 1 if before and leader == before.leader else 1
    shown = before.shown if before else None
    if leader is not None and streak >= smoothing.hold:
        shown = leader
    return Decision(odds, shown, recent, leader, streak)
