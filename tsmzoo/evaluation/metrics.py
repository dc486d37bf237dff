"""Accuracy from scores: pure functions, all shares 0…1."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from statistics import NormalDist

from tsmzoo.typing import Array


@dataclass
class Tally:
    """Counts answers, one video at a time; it holds three integers for each video."""

    labels: list[int] = field(default_factory=list)
    #: The most probable class, and the place of the right class among all: 0 is the first.
    answers: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def add(self, scores: Array, label: int) -> None:
        """Count a video by its `scores`, one for each class, all finite; of equal ones the lower index comes first."""
        self.labels.append(label)
        self.answers.append(int(scores.argmax()))
        self.places.append(int((~(scores <= scores[label])).sum() + (scores[:label] == scores[label]).sum()))

    def top(self, count: int) -> float:
        """Return the share of videos whose class is among the first `count` answers."""
        return sum(place < count for place in self.places) / len(self.places)

    def by_class(self) -> dict[int, tuple[int, int]]:
        """Return the numbers of right answers and of videos, for each class that has videos."""
        of = Counter(self.labels)
        right = Counter(label for label, answer in zip(self.labels, self.answers, strict=True) if label == answer)
        return {label: (right[label], of[label]) for label in sorted(of)}

    def mean_class(self) -> float:
        """Return the mean of the accuracies of the classes."""
        shares = [right / of for right, of in self.by_class().values()]
        return sum(shares) / len(shares)

    def confusions(self) -> Counter[tuple[int, int]]:
        """Return how often each class was taken for each other: (label, answer)."""
        return Counter(pair for pair in zip(self.labels, self.answers, strict=True) if pair[0] != pair[1])


def interval(right: int, of: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    z, share = NormalDist().inv_cdf(0.975), right / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)
