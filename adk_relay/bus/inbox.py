"""The inbox of this process: one stream for all that others send to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from redis.exceptions import ResponseError

from adk_relay.bus import keys
from adk_relay.bus.codec import CodecError
from adk_relay.bus.packs import Item, unpack
from adk_relay.bus.server import PAUSE_SECONDS, AwayError, Read, Script, Server

log = logging.getLogger("relay")

_BLOCK_SECONDS = 1.0
_CARE_SECONDS = 1.0
"""How often what was read is removed, and the expiry renewed."""

_EXPIRY_MS = 60_000
"""The inbox of a process that has died is gone after this time."""

_AT_ONCE = 32
"""Packs that are read at once."""

_MAKE = Script("""
redis.call('XADD', KEYS[1], '*', 'made', '1')
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
""")
"""A stream begins with its first entry. Without an expiry it would stay if this process died now."""


class Inbox:
    """Reads the packs that are sent to a process, in order.

    Args:
        on_pack: called with the process that has sent a pack, and its items.
        on_gap: called with the process of whose packs some are lost; None: that is true of any. What was
            missed has to be asked for.

    Invariants:
        For each sender, the number of the last pack that was taken is positive.
    """

    def __init__(
        self,
        server: Server,
        process: str,
        on_pack: Callable[[str, list[Item]], None],
        on_gap: Callable[[str | None], None],
    ) -> None:
        self.is_made = asyncio.Event()
        """Set when it is there: what is sent from now on arrives."""
        self._server = server
        self._key = keys.inbox(process)
        self._on_pack = on_pack
        self._on_gap = on_gap
        self._last = "0-0"
        """The id of the entry that was read last."""
        self._senders: dict[str, tuple[int, int]] = {}
        """Of each sender: since when it counts, and the number of its last pack."""

    def check(self) -> None:
        """Asserts the invariants."""
        assert all(number > 0 for _, number in self._senders.values()), f"{self._senders}"

    def forget(self, process: str) -> None:
        """A process has died: no more packs of it will come."""
        self._senders.pop(process, None)

    async def run(self) -> None:
        """Reads until it is cancelled; then the inbox expires."""
        while True:
            await self._server.attempt(self._settle)
            async with self._server.reader() as read:
                with contextlib.suppress(AwayError):
                    await self._read(read)
            await asyncio.sleep(PAUSE_SECONDS)

    async def close(self) -> None:
        """Removes the inbox. Who sends to it after this waits for nobody.

        Raises:
            AwayError: Redis is away: the inbox expires.
        """
        await self._server.run("DEL", self._key)

    async def _settle(self) -> None:
        """Makes the inbox, or finds out whether it still is the one that was read before."""
        is_new = not self.is_made.is_set()
        if not is_new and await self._newest() >= _order(self._last):
            self._on_gap(None)  # the server may have lost what it had taken last
            return
        self._last = "0-0"
        await self._server.script(_MAKE, [self._key], _EXPIRY_MS)
        self.is_made.set()
        if not is_new:
            self._on_gap(None)

    async def _newest(self) -> tuple[int, int]:
        """The highest id that was given to an entry; (-1, 0): there is no inbox."""
        try:
            about = await self._server.run("XINFO", "STREAM", self._key)
        except ResponseError:
            return -1, 0
        found = about.get("last-generated-id", about.get(b"last-generated-id"))
        return _order(found.decode() if isinstance(found, bytes) else found)

    async def _read(self, read: Read) -> None:
        care_at = time.monotonic() + _CARE_SECONDS
        command = ("XREAD", "COUNT", _AT_ONCE, "BLOCK", int(_BLOCK_SECONDS * 1000), "STREAMS", self._key)
        while True:
            for entry_id, fields in await read(*command, self._last):
                self._last = entry_id.decode()
                if data := fields.get(b"p"):
                    self._take(data)
            if time.monotonic() >= care_at:
                care_at = time.monotonic() + _CARE_SECONDS
                await self._care()

    async def _care(self) -> None:
        if not await self._server.run("PEXPIRE", self._key, _EXPIRY_MS):
            await self._settle()  # the server was emptied
            return
        await self._server.run("XTRIM", self._key, "MINID", self._last)

    def _take(self, data: bytes) -> None:
        try:
            pack = unpack(data)
        except CodecError as error:
            log.error("%s", error)
            return
        since, last = self._senders.get(pack.sender, (0, 0))
        if pack.since > since:
            last = 0  # it has begun to count anew
        elif pack.since < since or pack.number <= last:
            return  # it came twice
        self._senders[pack.sender] = pack.since, pack.number
        if pack.number != last + 1:
            self._on_gap(pack.sender)
        self._on_pack(pack.sender, pack.items)


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number)
