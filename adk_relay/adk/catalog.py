"""The stored conversations of one user, those that are not in memory included."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from adk_relay.adk.archive import Archive
from adk_relay.adk.calls import waiting_in, with_waiting
from adk_relay.adk.reading import CREATED_AT, Brief, Key, Reader, created_at
from adk_relay.core.interfaces import Summary
from adk_relay.core.messages import Line

K = TypeVar("K")
V = TypeVar("V")

_ARCHIVES = 64
"""Conversations of which it is known where their messages are: a few kB each."""

_COUNTS = 10_000
"""Conversations of which it is known how many messages they have."""


class Catalog:
    """Finds, lists and reads the stored conversations of one user. All methods raise what the store raises.

    What was counted is remembered: it is counted again only in a session that has changed.
    """

    def __init__(self, reader: Reader, app_name: str, user_id: str) -> None:
        self._reader = reader
        self._app_name = app_name
        self._user_id = user_id
        self._archives: OrderedDict[tuple[str, object], Archive] = OrderedDict()
        self._counts: OrderedDict[str, tuple[float, int, int]] = OrderedDict()

    async def has(self, session_id: str) -> bool:
        """Whether there is a session with this id."""
        return await self._reader.session(self._key(session_id), 0) is not None

    async def newest(self, limit: int) -> list[Brief]:
        """The sessions that were used last."""
        return await self._reader.newest(self._app_name, self._user_id, limit)

    async def read(self, session_id: str, before: int | None) -> tuple[Summary, list[Line]] | None:
        """The summary of a session, and messages of it; None: there is none.

        Args:
            before: the number of the message before which they are; None: the last messages.
        """
        session = await self._reader.session(self._key(session_id), 0)
        if session is None:
            return None
        archive = self._archive(session_id, session.state.get(CREATED_AT))
        count, by_user = await archive.count()
        lines = await archive.before(min(before or count + 1, count + 1))
        used, pending = session.last_update_time, tuple(waiting_in(with_waiting(session)))
        return Summary(session_id, created_at(session), used, by_user, count - by_user, 0, pending), lines

    async def summary(self, brief: Brief) -> Summary:
        """The summary of a session that was listed."""
        session_id, created, used = brief
        counted = self._counts.get(session_id)
        if not counted or counted[0] != used:
            count, by_user = await self._archive(session_id, None if created == used else created).count()
            counted = used, by_user, count - by_user
            _remember(self._counts, session_id, counted, _COUNTS)
        return Summary(session_id, created, used, counted[1], counted[2], 0)

    def _archive(self, session_id: str, created: object) -> Archive:
        key = session_id, created  # another process may have deleted the session, and made it again
        archive = self._archives.get(key) or Archive(self._reader, self._key(session_id))
        _remember(self._archives, key, archive, _ARCHIVES)
        return archive

    def _key(self, session_id: str) -> Key:
        return Key(self._app_name, self._user_id, session_id)


def _remember(known: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    known[key] = value
    known.move_to_end(key)
    while len(known) > most:
        known.popitem(last=False)
