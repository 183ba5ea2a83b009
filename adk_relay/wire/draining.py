"""Draining: the server is about to stop, takes nothing new, and lets answers under way come to their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from adk_relay.core.going_away import GoingAway
from adk_relay.wire.http import Headers, retry_after
from adk_relay.wire.websocket import Socket

ENDING = 5.0
"""Seconds that the end of a process takes, besides those for answers under way."""

_LOOK_EVERY = 0.05
"""Seconds between two looks whether something is still under way."""


class Draining:
    """States: not draining; draining (`wait` was called).

    Args:
        seconds: how long answers under way may take.
        sockets: all that are open.
    """

    def __init__(self, seconds: float, sockets: Collection[Socket]) -> None:
        self._seconds = seconds
        self._sockets = sockets
        self._ends_at: float | None = None

    async def wait(self, is_answering: Callable[[], bool]) -> None:
        """Begins, tells the clients, and waits until no answer is under way, all callers have heard
        what was said, or the time is over."""
        self._ends_at = time.monotonic() + self._seconds
        for socket in [*self._sockets]:
            socket.deliver(GoingAway(self._seconds))
        await self._wait_while(lambda: is_answering() or any(socket.is_playing for socket in self._sockets))

    async def wait_for_sockets(self) -> None:
        """Waits until the sockets, which were told to end, have sent what waits, or the time is over."""
        await self._wait_while(lambda: bool(self._sockets))

    def reset(self) -> None:
        """The relay is started again."""
        self._ends_at = None

    def retry_after(self) -> Headers:
        """The header for whom is refused meanwhile; empty: not draining, so nobody is."""
        return [] if self._ends_at is None else [retry_after(self._ends_at - time.monotonic())]

    async def _wait_while(self, goes_on: Callable[[], bool]) -> None:
        while self._ends_at and time.monotonic() < self._ends_at and goes_on():
            await asyncio.sleep(_LOOK_EVERY)
