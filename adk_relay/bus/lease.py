"""Leases: how processes learn that one of them has died."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from functools import partial

from adk_relay.bus import keys
from adk_relay.bus.server import AwayError, Server

log = logging.getLogger("relay")

_LEASE_MS = 2500
_EXTEND_SECONDS = 0.8
"""How often a lease is extended: it outlasts two extensions that fail."""

_SETTLE_SECONDS = 2 * _EXTEND_SECONDS

_COMMAND_SECONDS = 1.5
"""An extension that takes longer has failed."""

_DOUBT_SECONDS = 2.0
"""So long after Redis was away, all processes are taken to be alive: each has to extend its lease first."""

_ASK_AGAIN_SECONDS = 0.3

_STOPPED_MS = 60_000
"""So long it is known that a process was stopped by plan."""


class Lease:
    """Shows the others that this process lives.

    Args:
        on_lost: called when the lease had run out, and was taken again: the others may have taken this
            process for dead.

    Invariants:
        The last disturbance is not in the future.
        Redis has the lease for `_LEASE_MS` at least after an extension was sent that has succeeded.
    """

    def __init__(self, server: Server, process: str, on_lost: Callable[[], None] = lambda: None) -> None:
        self.process = process
        self.is_taken = asyncio.Event()
        """Set when it was taken for the first time: from now on others may depend on this process."""
        self._server = server
        self._key = keys.lease(process)
        self._on_lost = on_lost
        self._disturbed_at = time.monotonic()
        """When an extension last failed, or came too late."""
        self._lasts_until = 0.0
        """Until then, Redis has the lease, as `time.monotonic()`."""
        self._lapsed_at = -math.inf
        """When it was found to have run out last."""

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._disturbed_at <= time.monotonic()

    @property
    def is_undisturbed(self) -> bool:
        """Whether nothing has happened lately that would let other leases run out, too."""
        return time.monotonic() - self._disturbed_at > _DOUBT_SECONDS

    @property
    def lasts(self) -> bool:
        """Whether nobody can take this process for dead yet."""
        return time.monotonic() < self._lasts_until

    async def settled(self) -> None:
        """Makes sure that nobody takes this process for dead, and waits until all others that live have found
        out, too, if Redis was emptied: they have said again what they own then."""
        await self.assure()
        await asyncio.sleep(self._lapsed_at + _SETTLE_SECONDS - time.monotonic())

    async def run(self) -> None:
        """Extends the lease until it is cancelled."""
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(_COMMAND_SECONDS):
                    await self._extend()
            except (AwayError, TimeoutError):
                self._disturbed_at = time.monotonic()
            await asyncio.sleep(began + _EXTEND_SECONDS - time.monotonic())

    async def assure(self) -> None:
        """Makes sure that nobody takes this process for dead now. It waits while Redis is away."""
        if not self.lasts:
            await self._server.attempt(self._extend)

    async def release(self) -> None:
        """Ends the lease: this process stops by plan. Call it when `run` has ended."""
        with contextlib.suppress(AwayError):  # it runs out
            await self._server.run("SET", keys.stopped(self.process), "1", "PX", _STOPPED_MS)
            await self._server.run("DEL", self._key)

    async def _extend(self) -> None:
        sent_at = time.monotonic()
        # With GET, redis-py makes False of an old value: only None says that there was none.
        before = await self._server.run("SET", self._key, "1", "PX", _LEASE_MS, "GET")
        self._lasts_until = sent_at + _LEASE_MS / 1000
        if before is None and self.is_taken.is_set():
            if self.is_undisturbed:  # otherwise the log has why
                log.warning("the lease of this process had run out: it stood still, or Redis was emptied")
            self._disturbed_at = self._lapsed_at = time.monotonic()
            self._on_lost()
        self.is_taken.set()


class Watcher:
    """Notices the death of other processes: it sleeps until their leases could run out, and looks.

    Args:
        lease: this process's own. Where it has run out as well, Redis was away or emptied, and others get
            the time to extend theirs.
        on_death: called once with a process whose lease has run out, and whether it was stopped by plan. It
            is then not watched any more.

    Invariants:
        `_news` is set while a process is watched that was not looked at yet.
        Only processes that are watched are heard.
    """

    def __init__(self, server: Server, lease: Lease, on_death: Callable[[str, bool], None]) -> None:
        self._server = server
        self._lease = lease
        self._on_death = on_death
        self._due: dict[str, float] = {}
        """Of each process, when to look."""
        self._heard: set[str] = set()
        """The processes that have sent something since the last look at them began."""
        self._news = asyncio.Event()

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._news.is_set() or all(due > 0 for due in self._due.values()), "the task does not know"
        assert self._heard <= self._due.keys(), "it was heard of a process that is not watched"

    def watch(self, process: str) -> None:
        """Somebody depends on this process."""
        if process not in self._due:
            self._due[process] = 0.0
            self._news.set()

    def heard(self, process: str) -> None:
        """A process has sent something."""
        if process in self._due:
            self._heard.add(process)

    async def run(self) -> None:
        """Watches until it is cancelled."""
        while True:
            self._news.clear()
            now = time.monotonic()
            due_now = [process for process, due in self._due.items() if due <= now]
            self._due |= dict.fromkeys(due_now, now)
            for process in due_now:
                await self._server.attempt(partial(self._look, process))
            earliest = min(self._due.values(), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if earliest is None else earliest - time.monotonic()):
                    await self._news.wait()

    async def _look(self, process: str) -> None:
        self._heard.discard(process)
        left_ms = await self._left_ms(process)
        is_gone = is_dead = left_ms < 0
        is_planned = False
        if is_gone:
            # The answer may be older than what has happened to the own lease meanwhile.
            is_dead = self._lease.is_undisturbed and await self._left_ms(self._lease.process) >= 0
        if is_dead:
            is_planned = bool(await self._server.run("EXISTS", keys.stopped(process)))
        # One that has come back meanwhile has said so, and does not expect to be taken for dead any more.
        if is_dead and process not in self._heard:
            del self._due[process]
            self._on_death(process, is_planned)
        else:
            wait = _ASK_AGAIN_SECONDS if is_gone else left_ms / 1000 + 0.002
            self._due[process] = time.monotonic() + wait

    async def _left_ms(self, process: str) -> int:
        """How long its lease lasts; negative: it has none."""
        return int(await self._server.run("PTTL", keys.lease(process)))
