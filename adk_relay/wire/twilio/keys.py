"""The keys that a caller presses, as a text for the agent."""

from __future__ import annotations

_PAUSE = 1.5
"""Seconds after the last key until the agent is told: people pause between the parts of a long number."""

_MAX_KEYS = 64
"""So many keys are told at once, without a pause."""

KEYS = "0123456789*#ABCD"
"""The sixteen keys there are (ITU-T Q.23)."""


class Keys:
    """Collects keys until the caller pauses or presses #, and at most 64.

    There is no clock here: each method is given the time, in seconds of one monotonic clock.

    Invariants:
        - What waits are keys, at most 64, and the last one is not #.
    """

    def __init__(self) -> None:
        self._waiting = ""
        self._last = 0.0
        """When the last one of them was pressed."""

    def check(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        assert all(key in KEYS for key in self._waiting)
        assert len(self._waiting) < _MAX_KEYS
        assert not self._waiting.endswith("#")

    def press(self, key: str, now: float) -> str:
        """A key was pressed. Returns the text for the agent; "": more keys may follow."""
        self._waiting += key
        self._last = now
        return self._told() if key == "#" or len(self._waiting) == _MAX_KEYS else ""

    def look(self, now: float) -> str:
        """The text for the agent, if the caller has paused; "" if not, or if no key was pressed."""
        return self._told() if self._waiting and now - self._last >= _PAUSE else ""

    def _told(self) -> str:
        keys, self._waiting = self._waiting, ""
        # With spaces between them a model reads single digits, and not one large number.
        return f"The caller pressed {' '.join(keys)} on the telephone."
