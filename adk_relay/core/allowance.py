"""A token bucket: how much somebody may do in a time."""

from __future__ import annotations

import time


class Allowance:
    """A token bucket: `rate` a second, and at most `most` at once."""

    __slots__ = ("_at", "_left", "most", "rate", "taken")

    def __init__(self, rate: float, most: float) -> None:
        self.rate = rate
        self.most = self._left = most
        self.taken = 0.0
        """What was taken in all: whoever counts it may set it back."""
        self._at = time.monotonic()

    def take(self, amount: float) -> None:
        """Takes some. What is taken beyond what is left has to be waited for before the next time."""
        self._left -= amount
        self.taken += amount

    def set_left(self, left: float) -> None:
        """Says what is left now: others may have taken some, too."""
        self._left = left
        self._at = time.monotonic()

    def wait(self, now: float) -> float:
        """Seconds until something is left."""
        self._left = min(self.most, self._left + (now - self._at) * self.rate)
        self._at = now
        return 0.0 if self._left > 0 else -self._left / self.rate + 0.001
