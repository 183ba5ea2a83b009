"""The stored conversations, those that are not in memory included."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TypeVar

from adk_relay.adk.archive import Archive, Counts
from adk_relay.adk.calls import waiting_in, with_waiting
from adk_relay.adk.lines import with_unanswered
from adk_relay.adk.reading import CREATED_AT, Brief, Key, Reader, brief
from adk_relay.adk.state import shown
from adk_relay.core.interfaces import Summary
from adk_relay.core.messages import Line

K = TypeVar("K")
V = TypeVar("V")

_ARCHIVES = 64
"""Conversations of which it is known where their messages are: a few kB each."""

_COUNTS = 10_000
"""Conversations of which it is known how many messages they have."""


class Catalog:
    """Finds, lists and reads the stored conversations of a user. All methods raise what the store raises.

    What was counted is remembered: it is counted again only in a session that has changed.
    """

    def __init__(self, reader: Reader, app_name: str) -> None:
        self._reader = reader
        self._app_name = app_name
        self._archives: OrderedDict[tuple[Key, object], Archive] = OrderedDict()
        self._counts: OrderedDict[Key, tuple[float, Counts]] = OrderedDict()

    async def has(self, user_id: str, session_id: str) -> bool:
        """Whether there is a session with this id."""
        return await self._reader.session(self._key(user_id, session_id), 0) is not None

    async def newest(self, user_id: str, limit: int) -> list[Brief]:
        """The sessions that were used last."""
        return await self._reader.newest(self._app_name, user_id, limit)

    async def read(
        self, user_id: str, session_id: str, before: int | None
    ) -> tuple[Summary, list[Line]] | None:
        """The summary of a session, and messages of it; None: there is none.

        Args:
            before: the number of the message before which they are; None: the last messages.
        """
        key = self._key(user_id, session_id)
        session = await self._reader.session(key, 0)
        if session is None:
            return None
        archive = self._archive(key, session.state.get(CREATED_AT))
        counts = await archive.count()
        end = min(before or counts.messages + 1, counts.messages + 1)
        lines = await archive.before(end)
        if end > counts.messages:
            lines = with_unanswered(lines)
        pending = tuple(waiting_in(with_waiting(session)))
        summary = _summary(brief(session), counts)
        return replace(summary, pending=pending, state=shown(session.state)), lines

    async def summary(self, user_id: str, listed: Brief) -> Summary:
        """The summary of a session that was listed."""
        session_id, created, used = listed[:3]
        key = self._key(user_id, session_id)
        counted = self._counts.get(key)
        if not counted or counted[0] != used:
            counted = used, await self._archive(key, None if created == used else created).count()
            _remember(self._counts, key, counted, _COUNTS)
        return _summary(listed, counted[1])

    def _archive(self, key: Key, created: object) -> Archive:
        known_by = key, created  # another process may have deleted the session, and made it again
        archive = self._archives.get(known_by) or Archive(self._reader, key)
        _remember(self._archives, known_by, archive, _ARCHIVES)
        return archive

    def _key(self, user_id: str, session_id: str) -> Key:
        return Key(self._app_name, user_id, session_id)


def _summary(listed: Brief, counts: Counts) -> Summary:
    count, by_user, first_text = counts
    session_id, created, used, title = listed
    numbers = by_user, count - by_user, 0
    return Summary(session_id, created, used, *numbers, title=title, first_text=first_text)


def _remember(known: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    known[key] = value
    known.move_to_end(key)
    while len(known) > most:
        known.popitem(last=False)
