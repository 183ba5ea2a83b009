"""Whether something grows: a straight line through samples, with its error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean


@dataclass(frozen=True)
class Line:
    """A least-squares fit."""

    slope: float
    error: float  # standard error of the slope
    start: float  # the value at x = 0

    def at(self, x: float) -> float:
        return self.start + self.slope * x


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """The line through at least three points (x, y)."""
    middle_x, middle_y = fmean(x for x, _ in points), fmean(y for _, y in points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in points) / spread
    start = middle_y - slope * middle_x
    rest = sum((y - start - slope * x) ** 2 for x, y in points)
    return Line(slope, sqrt(rest / (len(points) - 2) / spread), start)


def averages(points: Sequence[tuple[float, float]], width: float) -> list[tuple[float, float]]:
    """The mean of each `width` of x. Samples soon after each other are nearly the same: to count each of them
    would make the error of a slope look smaller than it is."""
    groups: dict[int, list[tuple[float, float]]] = {}
    for x, y in points:
        groups.setdefault(int(x // width), []).append((x, y))
    return [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups.values()]
