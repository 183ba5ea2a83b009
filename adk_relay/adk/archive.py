"""The messages of a stored session, by their numbers: counted once, and read in pages."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import Any, NamedTuple

from adk_relay.adk.lines import Lines
from adk_relay.adk.reading import PAGE, Key, Reader
from adk_relay.core.history import KEPT
from adk_relay.core.messages import Line

_LATE = 60.0
"""Seconds in which an event may still be stored before others: ADK numbers them when they begin."""

_OVERLAP = 32
"""How many messages before a mark are read again, because what follows may change them."""


class _Mark(NamedTuple):
    """An event that ends a page."""

    position: Any
    messages: int
    """How many messages there are up to it."""


class Counts(NamedTuple):
    """The messages that are stored, in numbers."""

    messages: int
    by_user: int
    first_text: str
    """The beginning of the first that is a user's; "": there is none."""


class Archive:
    """What is stored of one session.

    Messages have numbers, from 1. To find one, the events before it have to be counted, because an event
    holds any number of messages. That is done once; afterwards only new events are read.

    Invariants:
        The counts of the marks rise, and so do their positions.
    """

    def __init__(self, reader: Reader, key: Key) -> None:
        self._reader = reader
        self._key = key
        self._marks = [_Mark(None, 0)]
        self._at_mark = Lines()  # what there is up to the last mark
        self._counting = asyncio.Lock()

    async def count(self, until: float | None = None) -> Counts:
        """How many messages are stored, and how many of them are a user's.

        Args:
            until: the `time.time()` of the last event that is counted; None: all are.
        """
        async with self._counting:
            lines = self._at_mark.copy()
            old = time.time() - _LATE
            async with aclosing(self._reader.following(self._key, self._marks[-1].position)) as pages:
                async for page in pages:
                    for event in page:
                        if until is not None and event.timestamp > until:
                            return _counts(lines)
                        lines.add(event.said)
                    lines.forget(_OVERLAP)
                    is_more = lines.count >= self._marks[-1].messages  # something may be taken back
                    if len(page) >= PAGE and page[-1].timestamp < old and is_more:
                        self._marks.append(_Mark(page[-1].position, lines.count))
                        self._at_mark = lines.copy()
            return _counts(lines)

    async def before(self, number: int, limit: int = KEPT) -> list[Line]:
        """At most `limit` messages before the one with this number, oldest first."""
        await self.count()
        first = max(number - limit, 1)
        index = max(i for i, mark in enumerate(self._marks) if mark.messages < first)
        # The events of the page before are read, too: what follows may change the last messages of a page.
        begin, mark = self._marks[max(index - 1, 0)], self._marks[index]
        lines, is_past = Lines(), begin is mark
        lines.first += begin.messages
        async with aclosing(self._reader.following(self._key, begin.position)) as pages:
            async for page in pages:
                for event in page:
                    lines.add(event.said)
                    if not is_past and event.position == mark.position:
                        lines.first, is_past = mark.messages + 1 - len(lines.kept), True
                if is_past and lines.count >= number + _OVERLAP:
                    break
        return lines.kept[max(first - lines.first, 0) : max(number - lines.first, 0)]

    def check(self) -> None:
        """Asserts the invariants."""
        counts = [mark.messages for mark in self._marks]
        assert counts == sorted(counts), f"the counts of the marks do not rise: {counts}"


def _counts(lines: Lines) -> Counts:
    return Counts(lines.count, lines.by_user, lines.first_text)
