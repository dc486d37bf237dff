"""Figures from scores: sums by hand, a plain version in NumPy, and SciPy's interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsmzoo.evaluation import metrics
from tsmzoo.evaluation.metrics import Tally

#: Label, and the classes in the order of their scores. Right: 0, 1, 2, 4, 8; among the first five: 5, 6, 9, too.
CASES = [
    (0, (0, 1, 2, 3, 4, 5)),
    (0, (0, 5, 4, 3, 2, 1)),
    (0, (0, 2, 1, 3, 5, 4)),
    (0, (1, 2, 3, 4, 5, 0)),
    (1, (1, 0, 2, 3, 4, 5)),
    (1, (0, 1, 2, 3, 4, 5)),
    (2, (3, 2, 1, 0, 4, 5)),
    (2, (0, 1, 3, 4, 5, 2)),
    (5, (5, 0, 1, 2, 3, 4)),
    (5, (4, 3, 2, 1, 5, 0)),
]


def counted(rows: Sequence[tuple[int, Sequence[float]]]) -> Tally:
    tally = Tally()
    for label, scores in rows:
        tally.add(np.asarray(scores, float), label)
    return tally


def ranked(order: Sequence[int]) -> list[float]:
    """Return scores that put the classes in this order."""
    return [-float(order.index(index)) for index in range(len(order))]


@pytest.fixture
def tally() -> Tally:
    return counted([(label, ranked(order)) for label, order in CASES])


def test_shares_are_those_counted_by_hand(tally: Tally) -> None:
    assert [tally.top(count) for count in (1, 2, 3, 5, 6)] == [0.5, 0.7, 0.7, 0.8, 1.0]
    assert tally.by_class() == {0: (3, 4), 1: (1, 2), 2: (0, 2), 5: (1, 2)}
    assert tally.mean_class() == (3 / 4 + 1 / 2 + 0 / 2 + 1 / 2) / 4, "a class without a video does not count"


def test_confusions_are_those_counted_by_hand(tally: Tally) -> None:
    assert tally.confusions() == {(0, 1): 1, (1, 0): 1, (2, 3): 1, (2, 0): 1, (5, 4): 1}


def test_more_answers_than_classes_hold_every_class() -> None:
    assert counted([(0, [0, 1]), (1, [0, 1])]).top(5) == 1


def test_of_equal_scores_the_lower_index_comes_first() -> None:
    tally = counted([(label, [1, 2, 2, 2, 0]) for label in range(5)])
    assert tally.answers == [1] * 5
    assert tally.places == [3, 0, 1, 2, 4]


def test_scores_that_are_no_numbers_are_not_right() -> None:
    """A network that answers NaN must not be counted as one that knows everything."""
    assert counted([(label, [math.nan] * 3) for label in (1, 2)]).top(1) == 0


#: Few values, so that many are equal.
SCORES = st.sampled_from([-1.5, 0.0, 0.25, 3.0])
ROWS = st.integers(2, 7).flatmap(
    lambda classes: st.lists(
        st.tuples(st.integers(0, classes - 1), st.lists(SCORES, min_size=classes, max_size=classes)),
        min_size=1,
        max_size=30,
    )
)


@given(ROWS)
@settings(deadline=None)
def test_figures_are_those_of_plain_numpy(rows: list[tuple[int, list[float]]]) -> None:
    tally = counted(rows)
    labels, scores = np.array([label for label, _ in rows]), np.array([row for _, row in rows])
    order = np.argsort(-scores, axis=1, kind="stable")
    for count in (1, 2, 5):
        assert tally.top(count) == pytest.approx((order[:, :count] == labels[:, None]).any(1).mean())
    right = order[:, 0] == labels
    assert tally.mean_class() == pytest.approx(np.mean([right[labels == label].mean() for label in set(labels)]))
    pairs = [(label, answer) for label, answer in zip(labels.tolist(), order[:, 0].tolist(), strict=True)]
    assert tally.confusions() == Counter(pair for pair in pairs if pair[0] != pair[1])
    assert {label: of for label, (_, of) in tally.by_class().items()} == Counter(labels.tolist())


# --- the interval --------------------------------------------------------------------------------------------------

#: Right, of, and Wilson's interval, as in Newcombe, 1998, Table I, and two ends.
WILSON = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0, 0.1611),
    (1, 29, 0.0061, 0.1718),
    (0, 10, 0, 0.2775),
    (10, 10, 0.7225, 1),
]


@pytest.mark.parametrize(("right", "of", "low", "high"), WILSON)
def test_the_interval_is_wilsons(right: int, of: int, low: float, high: float) -> None:
    assert metrics.interval(right, of) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 3000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
@settings(deadline=None)
def test_the_interval_is_that_of_scipy(case: tuple[int, int]) -> None:
    stats = pytest.importorskip("scipy.stats")
    right, of = case
    low, high = metrics.interval(right, of)
    wanted = stats.binomtest(right, of).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-6)
    assert 0 <= low <= right / of + 1e-12
    assert right / of - 1e-12 <= high <= 1
