"""The log of a conversation in Redis: what a new owner needs in order to go on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from adk_relay.bus import keys
from adk_relay.bus.ownership import EXPIRY_MS, GUARD, Owner
from adk_relay.bus.server import Script, Server

_ENVELOPE = 64
"""Bytes that are counted for each entry, in addition to its content."""

_READ_AT_ONCE = 500

_WRITE = Script(
    GUARD
    + """
-- KEYS: the owner, the log. ARGV further: the id, the data, the first id that stays, ms until it expires
local now = redis.call('TIME')
local ms = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
redis.pcall('XADD', KEYS[2], ARGV[4], 't', ms, 'd', ARGV[5])  -- refused: it was written already
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
return {ARGV[1], ARGV[2]}
"""
)

_NOW = Script("return redis.call('TIME')")
"""By the clock that entries have their times from. That of this process may be another."""


class FencedError(Exception):
    """The conversation has a newer owner."""

    def __init__(self, owner: Owner) -> None:
        super().__init__(f"{owner.process or 'nobody'} owns the conversation now")
        self.owner = owner


class _Kept(NamedTuple):
    entry_id: str
    size: int
    written_at: float


class Log:
    """What the owner of a conversation writes down.

    The ids of entries are `<token>-<n>`. An entry is written only while no higher token is known. One that is
    written again, because nobody knew whether it had been, is there once.

    Invariants:
        `_bytes` is the sum of the sizes of the entries that are kept, at most `max_bytes`.

    Args:
        token: of this owner.
        process: this one.
        max_bytes, max_age: bounds of what is kept; seconds.
    """

    def __init__(
        self, conversation: str, token: int, process: str, *, max_bytes: int, max_age: float
    ) -> None:
        self.conversation = conversation
        self.owner = Owner(token, process)
        self.has_gap = False
        """Something was given up that should have been written: see `bus.writer.Writer`."""
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._number = 0
        self._kept: deque[_Kept] = deque()
        self._bytes = 0

    def check(self) -> None:
        """Asserts the invariants."""
        total = sum(each.size for each in self._kept)
        assert total == self._bytes, f"{total} bytes are kept, and {self._bytes} are counted"
        assert self._bytes <= self._max_bytes, f"{self._bytes} bytes are kept"

    async def read(self, server: Server) -> list[bytes]:
        """All that is kept, of all owners, the oldest first. To be read once, before the first `entry`.

        Raises:
            AwayError: Redis is away.
        """
        found: list[bytes] = []
        self._kept.clear()
        self._bytes = 0
        seconds, microseconds = await server.script(_NOW, [keys.log(self.conversation)])
        now = int(seconds) + int(microseconds) / 1_000_000
        after = "-"
        while entries := await server.run(
            "XRANGE", keys.log(self.conversation), after, "+", "COUNT", _READ_AT_ONCE
        ):
            for raw_id, fields in entries:
                age = now - float(fields[b"t"]) / 1000
                self._keep(raw_id.decode(), len(fields[b"d"]), age)
                if age <= self._max_age:
                    found.append(fields[b"d"])
            after = f"({entries[-1][0].decode()}"
        return found

    async def write(self, server: Server, data: bytes) -> None:
        """Writes one entry. See `write_all`."""
        if fenced := await write_all(server, [self.entry(data)]):
            raise FencedError(fenced[0][1])

    def entry(self, data: bytes) -> Entry:
        """An entry for `write_all`. Entries must be written in the order in which they were made."""
        self._number += 1
        entry_id = f"{self.owner.token}-{self._number}"
        self._keep(entry_id, len(data), 0.0)
        first = self._kept[0].entry_id if self._kept else entry_id
        return Entry(self, entry_id, data, first)

    def arguments(self, entry: Entry) -> tuple[list[str], list[str | int | bytes]]:
        """The keys and the arguments of the script that writes an entry."""
        names = [keys.owner(self.conversation), keys.log(self.conversation)]
        kept_ms = int(self._max_age * 1000) + 1000
        return names, [*self.owner, EXPIRY_MS, entry.entry_id, entry.data, entry.first, kept_ms]

    def _keep(self, entry_id: str, size: int, age: float) -> None:
        """Counts an entry, and forgets the oldest beyond the bounds."""
        now = time.monotonic()
        self._kept.append(_Kept(entry_id, size + _ENVELOPE, now - age))
        self._bytes += size + _ENVELOPE
        while self._kept and (
            self._bytes > self._max_bytes or now - self._kept[0].written_at > self._max_age
        ):
            self._bytes -= self._kept.popleft().size


class Entry(NamedTuple):
    """An entry of a log, not written yet."""

    log: Log
    entry_id: str
    data: bytes
    first: str
    """The id of the first entry that is kept from now on."""


async def write_all(server: Server, entries: Sequence[Entry]) -> list[tuple[Log, Owner]]:
    """Writes entries of many conversations in one round trip. It can be repeated.

    Returns:
        The logs that have a newer owner, each with that owner. Nothing of theirs was written.

    Raises:
        AwayError: Redis is away. Some may be written.
    """
    results = await server.scripts(_WRITE, [entry.log.arguments(entry) for entry in entries])
    owners = [Owner(int(token), process.decode()) for token, process in results]
    fenced = {
        entry.log.conversation: (entry.log, owner)
        for entry, owner in zip(entries, owners, strict=True)
        if owner != entry.log.owner
    }
    return [*fenced.values()]
