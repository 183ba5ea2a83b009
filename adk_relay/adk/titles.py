"""The title of a conversation."""

from __future__ import annotations

from adk_relay.adk.session import StoredSession
from adk_relay.adk.summaries import of_store
from adk_relay.core.room import Room
from adk_relay.core.titles import Renamed


class Title:
    """What the users of one conversation have named it.

    Args:
        session, room: those of the conversation.
    """

    def __init__(self, session: StoredSession, room: Room) -> None:
        self._session = session
        self._room = room

    @property
    def text(self) -> str:
        """The title; "": there is none."""
        return self._session.title

    async def set(self, title: str) -> None:
        """Stores it, and tells all listeners.

        Raises:
            StoreError: it could not be stored.
        """
        await of_store(self._session.rename(title))
        self._room.broadcast(Renamed(title))
