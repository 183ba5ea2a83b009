"""Why a run is to end, so that the next one goes on where it ends."""

from __future__ import annotations

import time

from google.adk.events import Event

_GO_AWAY_MARGIN = 2.0
"""Seconds before the service's own deadline: an answer that is unfinished then is given up."""

_ANSWER_WAITS = 60.0
"""Seconds that the answer to a tool call waits for the end of what the agent is saying."""


class Leaving:
    """Whether one run is to end at its next rest, or by a deadline."""

    def __init__(self) -> None:
        self.is_renewed = False
        """The next run is to begin with a new connection, and the history."""
        self.needs_run = False
        """A new connection within this run does not do: ADK reads something when a run begins."""
        self.is_stale = False
        """The next turn needs a new connection."""
        self.needs_history = False
        """The next connection is to get the history: the service remembers what the users have not heard."""
        self.unheard: list[Event] = []
        """They say so, and are not among the events of the run's own session."""
        self._by: float | None = None  # the deadline

    def __bool__(self) -> bool:
        return self._by is not None or self.is_renewed or self.is_stale

    @property
    def is_due(self) -> bool:
        """The deadline is over."""
        return self._by is not None and time.monotonic() >= self._by

    def answered(self) -> None:
        """A user has answered a tool call: the next run begins with the answer."""
        self._by, self.needs_run = time.monotonic() + _ANSWER_WAITS, True

    def going_away(self, time_left: float) -> None:
        """The service ends the connection in so many seconds."""
        self._by = time.monotonic() + max(0.0, time_left - _GO_AWAY_MARGIN)

    def connected(self) -> None:
        """There is a new connection, or will be soon: no deadline is left."""
        self._by, self.needs_history = None, False
