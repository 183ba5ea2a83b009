"""Finds out that a caller speaks while the agent is heard."""

from __future__ import annotations

from adk_relay.core.floor import is_speech

_NEEDED_MS = 240.0
"""So much more speech than quiet has to come. A word is longer; a knock or a cough is shorter."""


class BargeIn:
    """Adds up the caller's speech, and takes off the quiet between.

    Invariants:
        - `_speech_ms` is from 0 to less than what is needed.
    """

    def __init__(self) -> None:
        self._speech_ms = 0.0

    def check(self) -> None:
        """Raises AssertionError if the invariant does not hold."""
        assert 0 <= self._speech_ms < _NEEDED_MS

    def hear(self, pcm: bytes, ms: float) -> bool:
        """Takes the next sound of the caller. Returns whether the caller has begun to speak."""
        self._speech_ms = max(0.0, self._speech_ms + (ms if is_speech(pcm) else -ms))
        if self._speech_ms < _NEEDED_MS:
            return False
        self._speech_ms = 0.0
        return True

    def forget(self) -> None:
        """The agent is not heard now."""
        self._speech_ms = 0.0
