"""Writes the logs of all conversations of this process: what gathers meanwhile goes in one round trip."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from adk_relay.bus.codec import decode, encode, from_bytes, to_bytes
from adk_relay.bus.log import Entry, Log, write_all
from adk_relay.bus.ownership import Owner
from adk_relay.bus.server import Server
from adk_relay.core.messages import Audio
from adk_relay.core.recorded import Checkpoint, Over, Told
from adk_relay.core.recording import Past, Recorded, past_of

log = logging.getLogger("relay")

_MAX_BYTES = 32 * 1024 * 1024
"""So much may wait while Redis is away."""

_ENVELOPE = 64
"""Bytes that are counted for each entry, in addition to its content."""

_AT_ONCE_BYTES = 1024 * 1024
"""So much is written in one round trip: a slow network must have carried it before the time limit."""

_SOUND_SECONDS = 0.1
"""So long sound waits for more: each round trip costs as much as several entries."""


@dataclass(slots=True, eq=False)
class _Recorded:
    """Something that was recorded."""

    data: bytes
    """b"": it was given up."""

    @property
    def size(self) -> int:
        return _ENVELOPE + len(self.data) if self.data else 0


@dataclass(slots=True, eq=False)
class _Waiting:
    """What waits of one log."""

    entries: list[_Recorded] = field(default_factory=list)
    bytes: int = 0


class Writer:
    """Writes what is recorded, in order. Sound may wait a little: it is told before it is written.

    What waits is bounded. Beyond the bound sound is given up, the oldest first, and then all that waits of
    the conversation with the most. The log of that conversation has a gap then. It goes on with a checkpoint,
    which says so: nothing else is taken before.

    Args:
        on_fenced: called with a conversation that has a newer owner, and with that owner.
        on_gap: called with a conversation whose log has a gap, when that can be written again: a checkpoint
            is to be added.

    Invariants:
        While something waits, `_ready` is set, and `_is_due` if it is not only sound. Nobody waits for what
        is written already.
        `_bytes` is the sum of what waits, and within the bound. Nothing waits of a log that has a gap.
    """

    def __init__(
        self,
        server: Server,
        on_fenced: Callable[[str, Owner], None],
        on_gap: Callable[[str], None] = lambda conversation: None,
    ) -> None:
        self._server = server
        self._on_fenced = on_fenced
        self._on_gap = on_gap
        self._waiting: dict[Log, _Waiting] = {}
        self._bytes = 0
        self._sound: deque[tuple[_Waiting, _Recorded]] = deque()
        """The sound that waits, the oldest first."""
        self._gaps: dict[Log, None] = {}
        """The logs that have got a gap since something was written last."""
        self._has_warned = False
        self._recorded = self._due = self._taken = self._written = 0
        """How many entries were recorded, which is the last that is not sound, how many were taken to be
        written, and how many are written, or were given up."""
        self._ready = asyncio.Event()
        self._is_due = asyncio.Event()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._ready.is_set() or not self._waiting, "something waits, and the task does not know"
        assert self._is_due.is_set() == (self._due > self._taken), "sound waits, or what is due does"
        assert all(number > self._written for number, _ in self._waiters), "somebody waits for nothing"
        for each, waiting in self._waiting.items():
            assert not each.has_gap, f"something waits of {each.conversation}, whose log has a gap"
            assert waiting.bytes == sum(entry.size for entry in waiting.entries)
        total = sum(waiting.bytes for waiting in self._waiting.values())
        assert self._bytes == total <= _MAX_BYTES, f"{total} bytes wait, and {self._bytes} are counted"

    def add(self, log: Log, entry: Recorded) -> None:
        """Takes an entry of a conversation."""
        self._recorded += 1
        self._ready.set()
        if log.has_gap:
            if not isinstance(entry, Checkpoint | Over):
                return  # the checkpoint will tell of it
            if isinstance(entry, Checkpoint):
                entry = replace(entry, has_gap=True)
            log.has_gap = False
            self._gaps.pop(log, None)
        recorded = _Recorded(encode(entry))
        waiting = self._waiting.setdefault(log, _Waiting())
        waiting.entries.append(recorded)
        waiting.bytes += recorded.size
        self._bytes += recorded.size
        if isinstance(entry, Told) and isinstance(entry.message, Audio):
            self._sound.append((waiting, recorded))
        else:
            self._due = self._recorded
            self._is_due.set()
        if self._bytes > _MAX_BYTES:
            self._give_up()

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
            gaps, self._gaps = self._gaps, {}
            for each in gaps:
                self._on_gap(each.conversation)
            self._ready.clear()
            self._is_due.clear()
            waiting, self._waiting = self._waiting, {}
            self._bytes = 0
            self._sound.clear()
            self._taken = self._recorded
            for entries in _portions(waiting):
                fenced = await self._server.attempt(lambda: write_all(self._server, entries))  # noqa: B023
                for each, owner in fenced:
                    self._on_fenced(each.conversation, owner)
            self._has_warned = False
            self._written = self._taken
            due = [waiter for number, waiter in self._waiters if number <= self._written]
            self._waiters = [each for each in self._waiters if each[0] > self._written]
            for waiter in due:
                if not waiter.done():
                    waiter.set_result(None)

    def _give_up(self) -> None:
        """Gives up what exceeds the bound."""
        while self._bytes > _MAX_BYTES and self._sound:
            waiting, sound = self._sound.popleft()
            waiting.bytes -= sound.size
            self._bytes -= sound.size
            sound.data = b""
        while self._bytes > _MAX_BYTES:
            if not self._has_warned:
                self._has_warned = True
                log.warning("too much waits for Redis: the logs of some conversations will have gaps")
            largest = max(self._waiting, key=lambda each: self._waiting[each].bytes)
            self._bytes -= self._waiting.pop(largest).bytes
            largest.has_gap = True
            self._gaps[largest] = None


def _portions(waiting: Mapping[Log, _Waiting]) -> Iterator[list[Entry]]:
    """What waits, as entries of logs, and as many of them as are written at once."""
    portion: list[Entry] = []
    portion_bytes = 0
    for journal, of_log in waiting.items():
        for several in _pieces(entry.data for entry in of_log.entries if entry.data):
            portion.append(journal.entry(to_bytes(several)))
            portion_bytes += len(portion[-1].data)
            if portion_bytes >= _AT_ONCE_BYTES:
                yield portion
                portion, portion_bytes = [], 0
    if portion:
        yield portion


def _pieces(found: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The same in lists of about `_AT_ONCE_BYTES`."""
    piece: list[bytes] = []
    size = 0
    for data in found:
        piece.append(data)
        size += len(data)
        if size >= _AT_ONCE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


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
