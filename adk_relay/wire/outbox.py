"""The outbound queue of a socket, between a conversation that never waits and a `send` that may wait.

Only what can't be sent at once is queued. The queue is bounded in encoded bytes. A client that falls behind
gets fewer and larger frames. At the bound the oldest sound is dropped and counted. All other messages are
never dropped: if they alone exceed the bound, the socket is closed.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from adk_relay.core.merging import merge, merge_dropped
from adk_relay.core.messages import Audio, Dropped, Error, Message, TurnEnd
from adk_relay.core.stats import Traffic
from adk_relay.wire.closing import TOO_SLOW, Close, CloseFrame

Frame = str | bytes
"""One WebSocket message: str goes as a text frame, bytes as a binary one."""


class Sound(NamedTuple):
    """A frame of sound among several frames: it may be dropped."""

    frame: Frame
    ms: float
    """How long it is."""


Frames = Frame | tuple[Frame | Sound | Dropped, ...] | None
"""How a message is encoded: one frame, several frames that are never merged, or nothing. `Dropped` is sound
that a dialect with a queue of its own has dropped: it is counted here."""

Encode = Callable[[Message], Frames]

_PCM_BYTES_PER_MS = 48

_NOTE_BYTES = 64
"""About the size of a frame that tells how much sound was dropped."""


@dataclass(slots=True, eq=False)
class _Entry:
    frame: Frame | None
    """None: it is encoded when it is sent, because `message` was merged. So the queue does not hold the
    sound twice, and the cache of `dialects.once` still has the message that all sockets share."""
    size: int
    message: Message | None = None
    ms: float = 0.0
    """How much sound it holds."""


class Outbox:
    """A bounded queue of frames.

    States: open; closing (`close` was called: what waits is still sent); closed (nothing waits any more).

    Invariants:
        - `bytes` is the sum of the sizes of all entries, and at most the limit.
        - `_audio` has the entries that hold sound (`ms` is not 0), in the order of `_entries`.
        - Only an entry with a message can lack its frame.
        - Nothing is added once `_close` is set.

    Frames of `enqueue_first` are not counted in `bytes`: at most one of each kind waits.

    Args:
        encode: turns a message into this socket's frames.
        limit: how many bytes of encoded frames may wait.
        traffic: counts errors and dropped sound; None: nobody reads the counters.
    """

    def __init__(self, encode: Encode, limit: int, traffic: Traffic | None = None) -> None:
        self.encode = encode
        self._limit = limit
        self._entries: deque[_Entry] = deque()
        self._audio: deque[_Entry] = deque()
        self._first: dict[str, Frame] = {}
        self._close: CloseFrame | None = None
        self.send_now: Callable[[Frame], bool] = _never
        """Is given a frame before it is queued; returns True if it is sent and need not be queued. It may
        only send while nothing waits."""
        self.wake: Callable[[], object] = _never
        """Is called when `take` has something."""
        self.bytes = 0
        """What waits, in encoded bytes."""
        self.dropped_ms = 0.0
        """Sound dropped at the bound since the beginning, in milliseconds."""
        self._traffic = traffic or Traffic()

    def check(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        assert self.bytes == sum(entry.size for entry in self._entries)
        assert self.bytes <= self._limit
        assert [*self._audio] == [entry for entry in self._entries if entry.ms]
        assert all(entry.message for entry in self._entries if entry.frame is None)

    def enqueue(self, message: Message) -> None:
        """Queues a message. Never waits: what does not fit is dropped, or closes the socket."""
        if self._close:
            return
        if isinstance(message, TurnEnd) and message.interrupted:
            self.recall_audio()
        elif isinstance(message, Error):
            self._traffic.errors.count(message.code)
        encoded = self.encode(message)
        if encoded is None:
            return
        if isinstance(encoded, tuple):
            self.enqueue_frames(encoded)
            return
        if self.send_now(encoded):
            return
        if self._entries and (merged := merge(self._entries[-1].message, message)):
            last = self._entries[-1]
            if merged is message:
                self._replace(last, merged, encoded, size(encoded))
            else:  # the merged frame will be a little smaller than this sum: it has one header less
                self._replace(last, merged, None, last.size + size(encoded))
        else:
            self._append(_Entry(encoded, size(encoded), message, _ms_of(message)))
        self._make_room()

    def replay(self, messages: Sequence[Message]) -> None:
        """Queues messages that the client has missed, beyond the bound: the journal has bounded them."""
        limit, self._limit = self._limit, sys.maxsize
        before = self.bytes
        for message in messages:
            self.enqueue(message)
        self._limit = limit + self.bytes - before

    def enqueue_frame(self, frame: Frame, ms: float = 0.0) -> None:
        """Queues a frame that is never merged; `ms`: how much sound it holds."""
        if not (self._close or self.send_now(frame)):
            self._append(_Entry(frame, size(frame), ms=ms))
            self._make_room()

    def enqueue_frames(self, frames: Frames) -> None:
        """Queues frames that are never merged."""
        for frame in frames if isinstance(frames, tuple) else (frames,):
            if isinstance(frame, Sound):
                self.enqueue_frame(frame.frame, frame.ms)
            elif isinstance(frame, Dropped):
                self._count_dropped(frame.audio_ms)
            elif frame is not None:
                self.enqueue_frame(frame)

    def enqueue_first(self, kind: str, frame: Frame) -> None:
        """Queues a ping or pong before all other frames: behind sound it would measure the queue.

        Only the newest of each kind is kept, so that a peer that sends pings and never reads can't fill the
        memory.
        """
        if not self._close:
            self._first[kind] = frame
            self.wake()

    @property
    def is_closing(self) -> bool:
        """Whether `close` was called."""
        return self._close is not None

    def close(self, frame: CloseFrame) -> None:
        """Ends the queue: frames that wait are still sent, then `dequeue` raises. Later ones are ignored."""
        if not self._close:
            self._close = frame
            self.wake()

    def discard(self, frame: CloseFrame) -> None:
        """Ends the queue at once: frames that wait are removed, too."""
        self.close(frame)
        self._first.clear()
        self._entries.clear()
        self._audio.clear()
        self.bytes = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits: no frame, and not the close."""
        return not (self._entries or self._first or self._close)

    def take(self) -> Frame | None:
        """The next frame to send; None: none waits.

        Raises:
            Close: the socket is to be closed now. TOO_SLOW: even without sound, the bound was exceeded.
        """
        if self._first:
            return self._first.pop(next(iter(self._first)))
        if not self._entries:
            if self._close:
                raise Close(self._close)
            return None
        entry = self._entries.popleft()
        self.bytes -= entry.size
        if entry.ms:
            self._audio.popleft()
        elif isinstance(entry.message, Dropped):
            self._add_up(entry)
        if entry.frame is None and entry.message:
            encoded = self.encode(entry.message)
            entry.frame = encoded if isinstance(encoded, str | bytes) else ""
        return entry.frame or ""

    async def dequeue(self) -> Frame:
        """The next frame to send; waits for it.

        Raises:
            Close: as `take` raises it.
        """
        while (frame := self.take()) is None:
            waiting = asyncio.get_running_loop().create_future()
            self.wake = partial(_resolve, waiting)
            await waiting
        return frame

    def recall_audio(self) -> None:
        """Removes the sound that waits: the answer was interrupted, so the sound is stale."""
        if self._audio:
            self.bytes -= sum(entry.size for entry in self._audio)
            self._audio.clear()
            self._entries = deque(entry for entry in self._entries if not entry.ms)

    def _replace(self, entry: _Entry, message: Message, frame: Frame | None, new_size: int) -> None:
        """Puts another message into a queued entry."""
        self.bytes += new_size - entry.size
        entry.frame, entry.size, entry.message, entry.ms = frame, new_size, message, _ms_of(message)

    def _append(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self.bytes += entry.size
        if entry.ms:
            self._audio.append(entry)
        self.wake()

    def _make_room(self) -> None:
        """Over the bound, replaces the oldest sound with a note of how much was dropped.

        Frames that are never merged (`Sound`) are of dialects that have no such note.
        """
        while self.bytes > self._limit and self._audio:
            entry = self._audio.popleft()
            self._count_dropped(entry.ms)
            if entry.message:
                self._replace(entry, Dropped("down", entry.ms), None, _NOTE_BYTES)
            else:
                self._entries.remove(entry)
                self.bytes -= entry.size
        if self.bytes > self._limit:
            self.discard(TOO_SLOW)

    def _count_dropped(self, ms: float) -> None:
        self.dropped_ms += ms
        self._traffic.dropped_ms += ms

    def _add_up(self, entry: _Entry) -> None:
        """Merges the notes of dropped sound that follow this one into it."""
        while self._entries and (merged := merge_dropped(entry.message, self._entries[0].message)):
            self.bytes -= self._entries.popleft().size
            entry.message, entry.frame = merged, None


def size(frame: Frame) -> int:
    """A frame's payload in bytes, as it goes over the wire."""
    return len(frame) if isinstance(frame, bytes) or frame.isascii() else len(frame.encode())


def _ms_of(message: Message) -> float:
    """How much sound a message holds, in milliseconds."""
    return len(message.pcm) / _PCM_BYTES_PER_MS if isinstance(message, Audio) else 0.0


def _resolve(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _never(*_: object) -> bool:
    return False
