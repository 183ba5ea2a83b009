"""Whether runs keep failing, so that a load balancer had better ask another server."""

from __future__ import annotations

import logging
import time

from adk_relay.adk.failures import what_failed
from adk_relay.core.messages import TurnEnd

log = logging.getLogger("relay.agent")

_MANY = 3
"""So many conversations have to fail without an answer between: one may fail because of what it contains."""

_FOR = 30.0
"""Seconds after the last failure in which they count. Then clients may come again, and show how it is."""


class Failing:
    """Counts conversations whose agent has failed for good, until one of them all gives an answer."""

    def __init__(self) -> None:
        self._failed: set[str] = set()
        self._last = 0.0

    def failed(self, label: str, error: Exception) -> None:
        """The agent of a conversation has failed for good; `label` is what the log calls the conversation."""
        log.error("%s: %s", label, what_failed(error))
        if len(self._failed) < _MANY:
            self._failed.add(label)
        self._last = time.monotonic()

    def ended(self, turn: TurnEnd) -> None:
        """A turn has ended. If it was not interrupted, an answer is complete."""
        if not turn.interrupted:
            self._failed.clear()

    def __bool__(self) -> bool:
        return len(self._failed) >= _MANY and time.monotonic() - self._last < _FOR
