"""From logits to a label, by hand; and how different pictures are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from tsmzoo import registry
from tsmzoo.artifact.arrays import probabilities
from tsmzoo.data import motion
from tsmzoo.inference.reference import ModelReference
from tsmzoo.inference.smoothing import OFFLINE, ONLINE, Decision, Smoothing, decide, default_smoothing
from tsmzoo.live import watch
from tsmzoo.live.scenes import CUT, difference, thumbnail
from tsmzoo.live.source import Frame


def logits(*odds: float) -> np.ndarray:
    """Return logits whose softmax these are."""
    return np.log(np.array(odds, "float64"))


A, B, C = logits(0.8, 0.1, 0.1), logits(0.1, 0.8, 0.1), logits(0.1, 0.1, 0.8)
UNSURE = logits(0.4, 0.3, 0.3)


def shown(smoothing: Smoothing, *steps: np.ndarray) -> list[int | None]:
    found: list[int | None] = []
    decision: Decision | None = None
    for step in steps:
        decision = decide(smoothing, step, decision)
        found.append(decision.shown)
    return found


def test_the_last_logits_are_averaged_before_the_softmax() -> None:
    decision = None
    steps = [np.array([3.0, 0, 1]), np.array([0.0, 6, 2]), np.array([0.0, 0, 9])]
    for step in steps:
        decision = decide(Smoothing(2, 0, 1), step, decision)
    assert decision is not None
    # Means of the last two: 0, 3, 5.5.
    assert decision.odds == pytest.approx(np.exp([0, 3, 5.5]) / np.exp([0, 3, 5.5]).sum())
    assert len(decision.recent) == 2
    assert shown(Smoothing(2, 0, 1), *steps) == [0, 1, 2]


@pytest.mark.parametrize(
    ("hold", "wanted"),
    [
        (1, [0, 1, 0, 1, 1, 2, 2, 2, 2]),
        (2, [None, None, None, None, 1, 1, 2, 2, 2]),
        (3, [None, None, None, None, None, None, None, 2, 2]),
        (5, [None] * 9),
    ],
)
def test_a_new_label_must_lead_for_some_steps_running(hold: int, wanted: list[int | None]) -> None:
    assert shown(Smoothing(1, 0, hold), A, B, A, B, B, C, C, C, C) == wanted


def test_below_the_threshold_what_was_shown_stays() -> None:
    assert shown(Smoothing(1, 0.5, 1), UNSURE, A, UNSURE, B, UNSURE) == [None, 0, 0, 1, 1]
    assert shown(Smoothing(1, 0.4, 1), UNSURE) == [0]  # reached is enough
    assert shown(Smoothing(1, 0.81, 1), A, A) == [None, None]


def test_what_is_unsure_breaks_a_run() -> None:
    assert shown(Smoothing(1, 0.5, 2), A, UNSURE, A, UNSURE, A, A) == [None] * 5 + [0]


def test_a_leader_of_old_needs_no_second_run() -> None:
    # B led once, too little; A was shown all along.
    assert shown(Smoothing(1, 0, 2), A, A, B, A, B, B) == [None, 0, 0, 0, 0, 1]


def test_a_mean_leads_longer_than_its_steps() -> None:
    assert shown(Smoothing(4, 0, 1), A, A, A, B, B, B) == [0, 0, 0, 0, 0, 1]


def test_without_what_was_before_it_begins() -> None:
    decision = decide(Smoothing(12, 0, 2), A, decide(Smoothing(12, 0, 2), A))
    assert decision.shown == 0
    assert decide(Smoothing(12, 0, 2), A).shown is None


def test_the_first_of_equals_leads() -> None:
    assert shown(Smoothing(1, 0, 1), np.zeros(3)) == [0]


def test_large_logits_overflow_nothing() -> None:
    assert probabilities(np.array([1e4, 0, -1e4], "float32"), "softmax").tolist() == [1, 0, 0]


def test_the_usual_window_is_as_long_at_every_rate() -> None:
    assert (
        default_smoothing("online", 15.0) == default_smoothing("online", None) == ONLINE == Smoothing(12, 0.5, 2)
    )  # 12 and 2 are MIT's
    assert [default_smoothing("online", fps).window for fps in (1, 4, 10, 30)] == [1, 3, 8, 24]
    assert default_smoothing("offline", 25.0) == OFFLINE == Smoothing(1, 0.5, 1)


# --- scenes ----------------------------------------------------------------------------------------------------------


def grey(*levels: int) -> Image.Image:
    """Return a picture of stripes, left to right."""
    return Image.fromarray(np.repeat(np.array(levels, "uint8"), 256 // len(levels))[None].repeat(64, 0))


def test_differences_by_hand() -> None:
    one = thumbnail(grey(0, 0, 200, 200))
    assert one.shape == (32, 32)
    assert difference(one, one) == 0
    # Half of the points change, and half of the histogram moves.
    assert difference(one, thumbnail(grey(0, 0, 100, 100))) == pytest.approx(0.5)
    # All change, and the histogram does not: they are where others were.
    assert difference(one, thumbnail(grey(200, 200, 0, 0))) == 0
    assert difference(thumbnail(grey(0)), thumbnail(grey(255))) == pytest.approx(1)
    # A little light changes no point by a tenth.
    assert difference(one, thumbnail(grey(20, 20, 220, 220))) == 0


def streamed(first: int, count: int, seed: int) -> tuple[list[np.ndarray], list[int], list[bool]]:
    """Return scenes one after the other at 4 frames a second, the class at each frame, and where one begins."""
    frames: list[np.ndarray] = []
    classes: list[int] = []
    begins: list[bool] = []
    for index in range(first, first + count):
        pictures, label = motion.scene(index, seed)
        forwards = index % 4 < 2
        frames += list((pictures if forwards else pictures[::-1])[:16:2])
        classes += [label if forwards else label + 1] * 8
        begins += [True] + [False] * 7
    return frames, classes, begins


def test_cuts_between_drawn_scenes_are_found_and_little_else() -> None:
    frames, _, begins = streamed(0, 60, 40)
    thumbnails = [thumbnail(Image.fromarray(frame)) for frame in frames]
    far = np.array([difference(*pair) for pair in pairwise(thumbnails)])
    cuts = np.array(begins[1:])
    assert (far[cuts] >= CUT).mean() > 0.65
    assert (far[~cuts] >= CUT).mean() < 0.01


@pytest.mark.slow
def test_a_bundled_model_is_right_more_often_where_it_forgets_at_cuts() -> None:
    frames, classes, _ = streamed(100, 16, 41)
    model = ModelReference("tsm_mbv2_motion_online").open(registry.load())
    contract = model.contract

    def right(cut: float) -> float:
        pictures = [
            Frame(number / 4, lambda frame=frame: Image.fromarray(frame)) for number, frame in enumerate(frames)
        ]
        smoothing = default_smoothing("online", contract.target_fps)
        seen = watch.watch(model, pictures, smoothing, fps=contract.target_fps, cut=cut)
        names = [contract.class_names[wanted] for wanted in classes]
        return float(np.mean([answer.label == name for (_, answer), name in zip(seen, names, strict=True) if answer]))

    assert right(CUT) > right(0) + 0.03
