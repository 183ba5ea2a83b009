"""A token bucket: how much somebody may do in a time."""

from __future__ import annotations

import time


class Allowance:
    """A token bucket: `rate` a second, and at most `most` at once."""

    __slots__ = ("_at", "_left", "_most", "rate")

    def __init__(self, rate: float, most: float) -> None:
        self.rate = rate
        self._most = self._left = most
        self._at = time.monotonic()

    def take(self, amount: float) -> None:
        """Takes some. What is taken beyond what is left has to be waited for before the next time."""
        self._left -= amount

    def wait(self, now: float) -> float:
        """Seconds until something is left."""
        self._left = min(self._most, self._left + (now - self._at) * self.rate)
        self._at = now
        return 0.0 if self._left > 0 else -self._left / self.rate + 0.001
