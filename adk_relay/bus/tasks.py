"""Queues that all workers read: each entry is given to one of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import ResponseError

from adk_relay.bus.codec import CodecError
from adk_relay.bus.server import PAUSE_SECONDS, AwayError, Entry, Read, Script, Server

log = logging.getLogger("relay")

_GROUP = "workers"
_BLOCK_SECONDS = 1.0
_ABANDONED_MS = 3000
"""An entry whose worker has not spoken of it for so long is given to another."""

_CARE_SECONDS = 1.0
"""How often a worker says that it still works on its entries, and looks for abandoned ones."""

_MAX_ENTRIES = 10_000
_EXPIRY_MS = 10 * 60 * 1000
"""A queue that nobody reads or writes is gone after this time."""

_GONE = "NOGROUP", "UNBLOCKED"
"""How the errors begin that a read gets when the queue is not there any more."""

_GONE_MS = 60 * 60 * 1000

_PUT = Script("""
-- ARGV: how many entries are kept, the data, ms until the queue expires
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'd', ARGV[2])
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
""")

_MAKE = Script("""
-- From the start: what was added before there was a worker waits for one. It fails if there is the group.
redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

_SWEEP = Script("""
-- ARGV: the group, the worker that leaves or '', ms after which one that has not read is gone. One for which
-- entries wait stays: they would be lost with it.
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local about = {}
    for i = 1, #consumer, 2 do about[consumer[i]] = consumer[i + 1] end
    if about.pending == 0 and (about.name == ARGV[2] or about.idle > tonumber(ARGV[3])) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about.name)
    end
end
""")


async def put(server: Server, key: str, data: bytes) -> None:
    """Adds an entry to a queue.

    Raises:
        AwayError: Redis is away. It may be added.
    """
    await server.script(_PUT, [key], _MAX_ENTRIES, data, _EXPIRY_MS)


class Tasks:
    """The worker's end of a queue.

    Each entry is given to one worker. If that dies, or stands still, another one gets it after 3 s: so it is
    handled at least once. A worker whose `may_read` is cleared may get one more entry, which is on its way.

    Invariants:
        At most `at_once` entries are being handled.

    Args:
        key: that of the queue.
        process: this one.
        handle: does what an entry says. If it fails, that is logged: another worker would fail, too.
        at_once: how many entries are handled at the same time.
        pause: seconds to wait before the next read: the workers that have less to do read sooner.
    """

    def __init__(
        self,
        server: Server,
        key: str,
        process: str,
        handle: Callable[[bytes], Awaitable[None]],
        *,
        at_once: int = 16,
        pause: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.may_read = asyncio.Event()
        """Cleared while this worker is full."""
        self.may_read.set()
        self._server = server
        self._key = key
        self._process = process
        self._handle = handle
        self._at_once = at_once
        self._pause = pause
        self._under_way: set[bytes] = set()
        """The ids of the entries that are being handled."""
        self._has_place = asyncio.Event()
        self._has_place.set()

    def check(self) -> None:
        """Asserts the invariants."""
        assert len(self._under_way) <= self._at_once, f"{len(self._under_way)} entries are being handled"
        assert self._has_place.is_set() == (len(self._under_way) < self._at_once)

    async def run(self) -> None:
        """Handles entries until it is cancelled. Those that it was handling are then given to others."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._care_for_ever(group))
            while True:
                await self._server.attempt(self._make)
                async with self._server.reader() as read:
                    with contextlib.suppress(AwayError):
                        await self._read(read, group)
                await asyncio.sleep(PAUSE_SECONDS)

    async def leave(self) -> None:
        """Removes this worker from the group if it has nothing to do. Call it when `run` has ended.

        Raises:
            AwayError: Redis is away.
        """
        await self._sweep(self._process)

    async def _make(self) -> None:
        """Makes the queue and its group where they are missing."""
        await self._server.script(_MAKE, [self._key], _GROUP, _EXPIRY_MS)
        await self._sweep("")

    async def _sweep(self, leaves: str) -> None:
        with contextlib.suppress(ResponseError):  # the queue is gone
            await self._server.script(_SWEEP, [self._key], _GROUP, leaves, _GONE_MS)

    async def _read(self, read: Read, group: asyncio.TaskGroup) -> None:
        """Reads until the queue is gone."""
        command = ("XREADGROUP", "GROUP", _GROUP, self._process, "COUNT", 1)
        block = ("BLOCK", int(_BLOCK_SECONDS * 1000), "STREAMS", self._key, ">")
        while True:
            await self.may_read.wait()
            await self._has_place.wait()
            await asyncio.sleep(self._pause())
            if not self.may_read.is_set():
                continue
            try:
                self._begin(await read(*command, *block), group)
            except ResponseError as error:
                if str(error).startswith(_GONE):
                    return
                raise

    def _begin(self, entries: list[Entry], group: asyncio.TaskGroup) -> None:
        for entry_id, fields in entries:
            if entry_id not in self._under_way:
                self._under_way.add(entry_id)
                self._note()
                group.create_task(self._do(entry_id, fields.get(b"d", b"")))

    async def _do(self, entry_id: bytes, data: bytes) -> None:
        try:
            try:
                await self._handle(data)
            except CodecError as error:
                log.error("an entry of %s can't be read: %s", self._key, error)
            except Exception:  # the other entries are handled
                log.exception("an entry of %s can't be dealt with", self._key)
            await self._server.attempt(lambda: self._done(entry_id))
        finally:
            self._under_way.discard(entry_id)
            self._note()

    async def _done(self, entry_id: bytes) -> None:
        with contextlib.suppress(ResponseError):  # the queue is gone
            await self._server.run("XACK", self._key, _GROUP, entry_id)
        await self._server.run("XDEL", self._key, entry_id)

    async def _care_for_ever(self, group: asyncio.TaskGroup) -> None:
        while True:
            began = time.monotonic()
            with contextlib.suppress(AwayError, ResponseError):  # the reader makes the group anew
                await self._care(group)
            await asyncio.sleep(began + _CARE_SECONDS - time.monotonic())

    async def _care(self, group: asyncio.TaskGroup) -> None:
        await self._server.run("PEXPIRE", self._key, _EXPIRY_MS)
        mine = (self._key, _GROUP, self._process)
        if self._under_way:  # being claimed by their own worker makes them young again
            await self._server.run("XCLAIM", *mine, 0, *self._under_way, "JUSTID", parse_justid=True)
        free = self._at_once - len(self._under_way)
        if free > 0 and self.may_read.is_set():
            found = await self._server.run("XAUTOCLAIM", *mine, _ABANDONED_MS, "0-0", "COUNT", free)
            self._begin(found[1], group)

    def _note(self) -> None:
        (self._has_place.set if len(self._under_way) < self._at_once else self._has_place.clear)()
