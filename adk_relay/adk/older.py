"""Older messages of a conversation, for the listeners that have only its last ones."""

from __future__ import annotations

import asyncio
import logging

from adk_relay.adk.session import StoredSession
from adk_relay.core.listener import Listener
from adk_relay.core.logs import failure
from adk_relay.core.messages import Error, Line, Older, ReadOlder
from adk_relay.core.room import Room, older_than

log = logging.getLogger("relay.agent")

_AT_ONCE = 50
"""How many messages a listener gets at once. All of them wait in its queue, which is bounded."""


class OlderReader:
    """Reads older messages, while the conversation goes on.

    Invariants:
        There is at most one read for each listener.
    """

    def __init__(self, room: Room, session: StoredSession) -> None:
        self._room = room
        self._session = session
        self._reads: dict[Listener, asyncio.Task[None]] = {}

    def read(self, wanted: ReadOlder, listener: Listener) -> None:
        """Reads the messages before a place, and delivers them to the listener."""
        if listener in self._reads:
            listener.deliver(Error("busy", "Older messages are being read already."))
            return
        reading = asyncio.create_task(self._read(wanted, listener), name="reading older messages")
        self._reads[listener] = reading

    async def _read(self, wanted: ReadOlder, listener: Listener) -> None:
        messages: list[Older | Line | Error]
        try:
            messages = [*await self._before(wanted)]
        except Exception as error:
            log.error("the session service failed: %s", failure(error))
            messages = [Error("history_failed", "Older messages can't be read just now.")]
        finally:
            del self._reads[listener]
        if listener in self._room.listeners:
            for message in messages:
                listener.deliver(message)

    async def _before(self, wanted: ReadOlder) -> list[Older | Line]:
        epoch, _, place = wanted.before.rpartition(".")
        history = self._room.history
        if epoch == self._room.epoch:
            await self._session.counted()
            lines, first = await self._session.before(history.number_at(int(place)), history)
            first += len(lines[:-_AT_ONCE])
            lines = lines[-_AT_ONCE:]
            if epoch == self._room.epoch:  # still
                older = older_than(epoch, history.place_of(first)) if first > 1 else ""
                return [Older(len(lines), older), *lines]
        return [Older()]  # the conversation that the client had before was emptied

    def close(self) -> None:
        """The conversation is over: nothing is read any more."""
        for reading in self._reads.values():
            reading.cancel()
