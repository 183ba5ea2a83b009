"""The fence: whether this process still owns a conversation, asked before its session is written."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from adk_relay.bus.hub import Hub
from adk_relay.bus.owned import Owned
from adk_relay.bus.server import AwayError


class Fence:
    """Asks Redis before each write.

    While Redis is away, or this process is cut off from it, nobody can say whether another process has taken
    the conversation. That can happen only when the lease of this one has run out, and because a socket of the
    conversation is elsewhere. So until then, and if all its sockets are here, it is written; else, the write
    waits for Redis.

    Args:
        owned: the conversations that this process owns, by name.
    """

    def __init__(self, hub: Hub, owned: Mapping[str, Owned]) -> None:
        self._hub = hub
        self._owned = owned

    async def may_write(self, name: str) -> bool:
        """Whether a conversation may be written here. It may wait."""
        server, ownership = self._hub.server, self._hub.ownership
        while name in ownership.held:
            if not server.is_away:
                with contextlib.suppress(AwayError):
                    return await ownership.is_held(name)
            owned = self._owned.get(name)
            if self._hub.lease.lasts or (owned and owned.is_attended_here):
                return name in ownership.held
            await server.is_there.wait()
        return False
