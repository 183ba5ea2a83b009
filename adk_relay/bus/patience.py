"""How long is waited for other processes: while Redis is away, less."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from adk_relay.bus.server import AwayError
from adk_relay.core.interfaces import UnreachableError

_AWAY_SECONDS = 2.0
"""A Redis that is restarted is back within this time; after it, nobody waits any more."""

_LAST_SECONDS = 2.0
"""So long, in the end, each thing may take that is done for other processes."""


class Patience:
    """The time limits of calls that wait for other processes.

    Invariants:
        While Redis is away, no limit is later than `_AWAY_SECONDS` after that began.
    """

    def __init__(self) -> None:
        self._limits: dict[asyncio.Timeout, float] = {}
        """With the times that they have while Redis is there. All are those of the event loop."""
        self._away_until: float | None = None
        """Until then is waited for Redis; None: it is there."""

    def check(self) -> None:
        """Asserts the invariants."""
        for limit in self._limits:
            when = limit.when()
            assert self._away_until is None or (when is not None and when <= self._away_until)

    @asynccontextmanager
    async def limit(self, seconds: float) -> AsyncIterator[None]:
        """Around something that waits for another process.

        Raises:
            TimeoutError: it takes too long.
            UnreachableError: Redis is away.
        """
        is_late = False
        try:
            async with asyncio.timeout(seconds) as limit:
                when = limit.when()
                assert when is not None
                self._limits[limit] = when
                self._set(limit)
                try:
                    yield
                finally:
                    is_late = self._away_until is not None
                    del self._limits[limit]
        except TimeoutError:
            if is_late:
                raise UnreachableError from None
            raise

    @asynccontextmanager
    async def at_last(self) -> AsyncIterator[None]:
        """Around what is done for others when this process ends: it is given up if Redis is away."""
        with suppress(TimeoutError, UnreachableError, AwayError):
            async with self.limit(_LAST_SECONDS):
                yield

    def changed(self, *, is_away: bool) -> None:
        """Redis is away, or back."""
        self._away_until = asyncio.get_running_loop().time() + _AWAY_SECONDS if is_away else None
        for limit in self._limits:
            self._set(limit)

    def _set(self, limit: asyncio.Timeout) -> None:
        if not limit.expired():
            when = self._limits[limit]
            limit.reschedule(when if self._away_until is None else min(when, self._away_until))
