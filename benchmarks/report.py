"""The table of results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

HEADER = "| what | measured | against | ratio | long | aim |\n|---|---|---|---|---|---|"


@dataclass
class Row:
    """A line of the table: two series of values from the same rounds, and the ratio between them."""

    what: str
    measured: list[float]
    against: str  # what the baseline is
    baseline: list[float]  # one value for each in `measured`
    unit: str  # a format string that shows a value
    aim: float | None = None  # the highest ratio that is good enough
    long: list[float] | None = None  # measured with RELAY_SOUND=long

    def __str__(self) -> str:
        ratios = self._ratios(self.measured)
        middle = median(ratios)
        ratio = f"{middle:.2f}"
        if len(ratios) > 2:
            low, _, high = quantiles(ratios, n=4)
            ratio += f" ({low:.2f} to {high:.2f})"
        long = f"{median(self._ratios(self.long)):.2f}" if self.long else ""
        aim = "" if self.aim is None else f"≤ {self.aim:.2f} {'met' if middle <= self.aim else 'MISSED'}"
        measured, baseline = (self.unit.format(median(values)) for values in (self.measured, self.baseline))
        return f"| {self.what} | {measured} | {self.against}: {baseline} | {ratio} | {long} | {aim} |"

    def _ratios(self, values: Sequence[float]) -> list[float]:
        """The ratio of each round: two values of one round were measured under nearly the same load."""
        return [value / max(other, 1e-9) for value, other in zip(values, self.baseline, strict=True)]


def percentile(values: Iterable[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]
