"""A link: the way from this process to one other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from adk_relay.bus import keys
from adk_relay.bus.packs import Item, Outgoing, pack
from adk_relay.bus.server import Server
from adk_relay.core.inbox import InboxFullError

_EVERY = 0.007
"""Seconds between two packs: what comes meanwhile goes into one. Each costs both sides some 100 µs."""

_PACK_BYTES = 256 * 1024
_CONTENT_BYTES = 32 * 1024 * 1024
_SOUND_BYTES = 16 * 1024 * 1024
_SOUND_SECONDS = 5.0
"""Sound that has waited so long is stale."""

_MAX_PACKS = 1000
"""Packs that an inbox keeps for a process that does not read. It is dead, or will see a gap."""

_NO_INBOX_PAUSE = 0.2


class Link:
    """Sends packs to the inbox of a process.

    Packs are numbered, so that the receiver ignores one that came twice (a command that took too long is
    repeated, and may have been done) and notices a gap.

    Invariants:
        While something waits, `_ready` is set.
        `is_idle` is set if nothing waits and nothing is on its way.

    Args:
        process: this one.
        to: the process that it sends to.
        before_pack: awaited before a pack is sent.
        on_dropped: called with each item of sound that was given up.
    """

    def __init__(
        self,
        server: Server,
        process: str,
        to: str,
        before_pack: Callable[[], Awaitable[None]] | None = None,
        on_dropped: Callable[[Item], None] = lambda _: None,
    ) -> None:
        self.to = to
        self.is_idle = asyncio.Event()
        self.is_idle.set()
        self._server = server
        self._process = process
        self._before_pack = before_pack
        self._since = time.monotonic_ns()
        self._number = 0
        self._outgoing = Outgoing(_CONTENT_BYTES, _SOUND_BYTES, _SOUND_SECONDS, on_dropped)
        self._ready = asyncio.Event()
        self._sending: list[Item] = []
        """What is on its way."""

    def check(self) -> None:
        """Asserts the invariants."""
        self._outgoing.check()
        assert self._ready.is_set() or not self._outgoing, "something waits, and the task does not know"
        is_idle = not self._outgoing and not self._sending
        assert self.is_idle.is_set() == is_idle, "`is_idle` is not up to date"

    def send(
        self, conversation: str, token: int, connection: str, content: bytes, *, is_sound: bool = False
    ) -> Item:
        """Sends something; never waits. See `Outgoing.add`.

        Raises:
            InboxFullError: too much waits already. The receiver will notice that something is missing.
        """
        try:
            item = self._outgoing.add(conversation, token, connection, content, is_sound=is_sound)
        except InboxFullError:
            self._number += 1
            raise
        self._note()
        return item

    def drop(self, conversation: str, token: int) -> None:
        """Gives up what waits of an owner of a conversation: a newer one tells the same, or other things."""
        self._outgoing.drop(conversation, token)
        gone = conversation, token
        self._sending = [each for each in self._sending if (each.conversation, each.token) != gone]
        self._note()

    async def run(self) -> None:
        """Sends what there is, until it is cancelled."""
        earliest = 0.0
        while True:
            await self._ready.wait()
            await asyncio.sleep(earliest - time.monotonic())
            earliest = time.monotonic() + _EVERY
            self._sending = self._outgoing.take(_PACK_BYTES)
            self._note()
            if self._sending and self._before_pack:
                await self._before_pack()  # which may drop some
            if self._sending:
                self._number += 1
                await self._put(pack(self._process, self._since, self._number, self._sending))
                self._sending = []
                self._note()

    async def _put(self, data: bytes) -> None:
        command = ("XADD", keys.inbox(self.to), "NOMKSTREAM", "MAXLEN", "~", _MAX_PACKS, "*", "p", data)
        # Only the receiver makes its inbox: one that nobody reads any more would stay for ever.
        while await self._server.attempt(lambda: self._server.ask(command)) == [None]:
            await asyncio.sleep(_NO_INBOX_PAUSE)

    def _note(self) -> None:
        is_waiting = bool(self._outgoing)
        (self._ready.set if is_waiting else self._ready.clear)()
        (self.is_idle.clear if is_waiting or self._sending else self.is_idle.set)()
