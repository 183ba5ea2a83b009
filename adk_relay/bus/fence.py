"""The fence: whether this process still owns a conversation, asked before its session is written."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping

from adk_relay.bus.hub import Hub
from adk_relay.bus.owned import Owned
from adk_relay.bus.server import AwayError

_FRESH_SECONDS = 0.5
"""So long after it was asked for, an answer of Redis counts for a process whose lease has run out."""

_FLUSH_SECONDS = 1.0
_SETTLE_SECONDS = 5.0


class Fence:
    """Asks Redis before each write.

    While Redis is away, or this process is cut off from it, nobody can say whether another process has taken
    the conversation, or will before what was recorded of it is written. That happens only because a socket of
    the conversation is elsewhere. So if all its sockets are here, it is written; else, the write waits.

    A process whose lease has run out may have been replaced. If Redis was emptied since, nothing there says
    so until the new owner has said so again, which is waited for.

    What was recorded of it goes first: a new owner can go on from a session that lacks some of that, but not
    from records that lack some of the session.

    Args:
        owned: the conversations that this process owns, by name.
        flushed: waits until all that was recorded so far is written.
    """

    def __init__(self, hub: Hub, owned: Mapping[str, Owned], flushed: Callable[[], Awaitable[None]]) -> None:
        self._hub = hub
        self._owned = owned
        self._flushed = flushed

    async def may_write(self, name: str) -> bool:
        """Whether a conversation may be written here. It may wait."""
        server, ownership = self._hub.server, self._hub.ownership
        while name in ownership.held:
            if not server.is_away:
                with contextlib.suppress(AwayError, TimeoutError):
                    if not self._is_attended_here(name):
                        async with asyncio.timeout(_SETTLE_SECONDS):
                            await self._hub.lease.settled()
                    async with asyncio.timeout(_FLUSH_SECONDS):
                        await self._flushed()
                    asked_at = time.monotonic()
                    is_held = await ownership.is_held(name)
                    if not is_held or self._hub.lease.lasts or time.monotonic() - asked_at < _FRESH_SECONDS:
                        return is_held
                    continue  # this process stood still: the answer may be old
            if self._is_attended_here(name):
                return name in ownership.held
            await server.is_there.wait()
        return False

    def _is_attended_here(self, name: str) -> bool:
        owned = self._owned.get(name)
        return owned is not None and owned.is_attended_here
