"""Writes the logs of all conversations of this process: what gathers meanwhile goes in one round trip."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from adk_relay.bus.codec import decode, encode, from_bytes, to_bytes
from adk_relay.bus.log import Log, write_all
from adk_relay.bus.ownership import Owner
from adk_relay.bus.server import Server
from adk_relay.core.messages import Audio
from adk_relay.core.recorded import Told
from adk_relay.core.recording import Past, Recorded, past_of

_SOUND_SECONDS = 0.1
"""So long sound waits for more: each round trip costs as much as several entries."""


class Writer:
    """Writes what is recorded, in order. Sound may wait a little: it is told before it is written.

    Args:
        on_fenced: called with a conversation that has a newer owner, and with that owner.

    Invariants:
        While something waits, `_ready` is set, and `_is_due` if it is not only sound. Nobody waits for what
        is written already.
    """

    def __init__(self, server: Server, on_fenced: Callable[[str, Owner], None]) -> None:
        self._server = server
        self._on_fenced = on_fenced
        self._waiting: dict[Log, list[bytes]] = {}
        self._recorded = self._due = self._taken = self._written = 0
        """How many entries were recorded, which is the last that is not sound, how many were taken to be
        written, and how many are written."""
        self._ready = asyncio.Event()
        self._is_due = asyncio.Event()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._ready.is_set() or not self._waiting, "something waits, and the task does not know"
        assert self._is_due.is_set() == (self._due > self._taken), "sound waits, or what is due does"
        assert all(number > self._written for number, _ in self._waiters), "somebody waits for nothing"

    def add(self, log: Log, entry: Recorded) -> None:
        """Takes an entry of a conversation."""
        self._waiting.setdefault(log, []).append(encode(entry))
        self._recorded += 1
        self._ready.set()
        if not (isinstance(entry, Told) and isinstance(entry.message, Audio)):
            self._due = self._recorded
            self._is_due.set()

    async def flushed(self) -> None:
        """Waits until all that was recorded before this call is written, but sound at the end of it."""
        if self._written < self._due:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((self._due, waiter))
            await waiter

    async def run(self) -> None:
        """Writes until it is cancelled."""
        while True:
            await self._ready.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SOUND_SECONDS):
                    await self._is_due.wait()
            self._ready.clear()
            self._is_due.clear()
            waiting, self._waiting = self._waiting, {}
            self._taken = self._recorded
            entries = [log.entry(to_bytes(several)) for log, several in waiting.items()]
            fenced = await self._server.attempt(lambda: write_all(self._server, entries))  # noqa: B023
            for log, owner in fenced:
                self._on_fenced(log.conversation, owner)
            self._written = self._taken
            due = [waiter for number, waiter in self._waiters if number <= self._written]
            self._waiters = [each for each in self._waiters if each[0] > self._written]
            for waiter in due:
                if not waiter.done():
                    waiter.set_result(None)


class LogRecorder:
    """Records one conversation in its log."""

    def __init__(self, writer: Writer, log: Log) -> None:
        self._writer = writer
        self._log = log

    def record(self, entry: Recorded) -> None:
        self._writer.add(self._log, entry)


async def read_past(server: Server, log: Log) -> Past:
    """What was recorded of a conversation. To be called once, before anything is added to this log.

    Raises:
        AwayError: Redis is away.
        CodecError: a process that runs another version of relay has written it.
    """
    found = await log.read(server)
    return past_of(decode(entry) for data in found for entry in from_bytes(data))
