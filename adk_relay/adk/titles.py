"""The title of a conversation: how it is stored beside a run that writes into the same session."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from google.adk.events import Event, EventActions

from adk_relay.adk.reading import TITLE
from adk_relay.adk.runs import Runs
from adk_relay.adk.session import StoredSession
from adk_relay.adk.summaries import of_store
from adk_relay.core.listener import Listener
from adk_relay.core.messages import Renamed
from adk_relay.core.room import Room, Standing


class Title:
    """The title of one conversation.

    It is stored as a change of the session's state, in an event without words. ADK refuses an event from who
    has read the session before somebody else has written into it. So while there is a run, the event is
    written into the run's own session, and otherwise no run begins meanwhile.

    Args:
        session, room, runs: those of the conversation.
    """

    def __init__(self, session: StoredSession, room: Room, runs: Runs) -> None:
        self._session = session
        self._room = room
        self._runs = runs

    @property
    def text(self) -> str:
        """What the conversation is called; "": its users have not named it."""
        return self._session.title

    def standing(self, listener: Listener | None) -> Standing:
        """See `core.interfaces.Conversation.standing`."""
        return replace(self._room.standing(listener), title=self._session.title)

    async def set(self, title: str) -> None:
        """Stores it, and tells all listeners.

        Raises:
            StoreError: it could not be stored.
        """
        await of_store(self._store(title))
        self._session.title = title
        self._room.broadcast(Renamed(title))

    async def _store(self, title: str) -> None:
        event = Event(author="relay", actions=EventActions(state_delta={TITLE: title}))
        while not await self._session.append_aside(event, lambda: self._runs.run is None):
            run = self._runs.run
            if run and await run.answers.append(event):
                return
            await asyncio.sleep(0)  # it has just ended
