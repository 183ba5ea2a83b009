"""A conversation is given to another process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from adk_relay.adk.runs import Runs
from adk_relay.adk.stops import Stop
from adk_relay.core.recording import Recording
from adk_relay.core.room import Room

_WAIT = 10.0
"""Seconds after which a conversation is given away in the middle of an answer."""

_LOOK_EVERY = 0.5
"""Seconds between two looks whether it is at rest: some things before that never report their end."""


class Handover:
    """Records where one conversation is, and gives it away.

    Args:
        room, runs, recording: those of the conversation.
        is_busy: returns whether anything is under way, as far as the runs don't know of it.
    """

    def __init__(self, room: Room, runs: Runs, recording: Recording, is_busy: Callable[[], bool]) -> None:
        self._room = room
        self._runs = runs
        self._recording = recording
        self._is_busy = is_busy
        self._news = asyncio.Event()

    def changed(self) -> None:
        """Something has changed: the state of the agent is recorded."""
        self._news.set()
        if self._recording.is_on:
            self._recording.state(self._runs.state)

    async def begin(self) -> None:
        """Waits until the conversation is between two turns, for some seconds at most, and ends its run."""
        loop = asyncio.get_running_loop()
        by = loop.time() + _WAIT
        while not self._is_at_rest and loop.time() < by:
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._news.wait()
        self._runs.stop(Stop.GIVEN)

    def lose(self) -> None:
        """Another process has the conversation already: nothing more is recorded here."""
        self._recording.close()
        self._room.abandon()
        self._runs.stop(Stop.LOST)

    @property
    def is_given(self) -> bool:
        """Another process goes on with it. Nobody would, if it had no listener."""
        reason = self._runs.stop_reason
        return reason is Stop.LOST or (reason is Stop.GIVEN and bool(self._room.listeners))

    def close(self) -> None:
        """The conversation is over here. If it was given away, it goes on elsewhere."""
        if self.is_given:
            self.changed()
            self._recording.give()
            self._room.abandon()
        elif self._runs.stop_reason not in (None, Stop.UNREADABLE):  # not if its task was canceled
            self._recording.end()
        self._recording.close()

    @property
    def _is_at_rest(self) -> bool:
        """Nothing is under way that another process would have to begin anew."""
        run = self._runs.run
        return not (self._is_busy() or self._runs.is_reconnecting or (run and not run.is_at_rest))
