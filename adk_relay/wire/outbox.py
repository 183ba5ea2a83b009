"""The outbound queue: one a socket, between a conversation that never waits and a `send` that may.

It is bounded in encoded bytes. A queue that falls behind holds fewer and larger frames, not more of
them; at the bound the oldest sound is given up, and counted, while words are kept whatever happens.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from adk_relay.core.messages import Audio, Dropped, Message, Text, Transcript, TurnEnd, Typing

Frame = str | bytes
"""One WebSocket message: str goes as a text frame, bytes as a binary one."""

Frames = Frame | tuple[Frame, ...] | None
"""What a message is on the wire: one frame, several that stay as they are, or nothing."""

Encode = Callable[[Message], Frames]

_MERGED_AUDIO_BYTES = 24_000
"""500 ms of 24 kHz 16-bit sound: what a client has not got yet can still be recalled from it."""

_MERGED_TEXT_CHARS = 16 * 1024

_PCM_BYTES_PER_MS = 48

_NOTE_BYTES = 64
"""What a note of dropped sound takes, about."""


class Close(Exception):
    """The socket is to be closed, for the reason that goes into the close frame.

    Attributes:
        code: the close code (RFC 6455 section 7.4).
        reason: a few words; a close frame has room for 123 bytes of them (section 5.5).
    """

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason.encode(errors="replace")[:123].decode(errors="ignore")
        super().__init__(code, reason)


@dataclass(slots=True)
class _Entry:
    frame: Frame | None
    """None: merged, and encoded when it is sent. The queue holds sound once and not twice, and what
    all sockets share is not driven out of the memory of `dialects.once`."""
    size: int
    message: Message | None = None
    close: Close | None = None


class Outbox:
    """A bounded queue of frames.

    Args:
        encode: turns a message into this socket's frames.
        limit: how many bytes of encoded frames may wait.
    """

    def __init__(self, encode: Encode, limit: int) -> None:
        self.encode = encode
        self._limit = limit
        self._entries: deque[_Entry] = deque()
        self._audio: deque[_Entry] = deque()  # the entries that hold sound, in the same order
        self._first: dict[str, Frame] = {}  # what goes before all others, by its kind
        self._waiting: asyncio.Future[None] | None = None  # cheaper than an Event, of which each has many
        self._full = False
        self._closing = False
        self.bytes = 0
        """What waits, in encoded bytes."""
        self.dropped_ms = 0.0
        """Sound given up at the bound since the beginning, in milliseconds."""

    def put(self, message: Message) -> None:
        """Queues a message. Never waits: what doesn't fit is given up or ends the socket."""
        if self._closing:
            return
        if isinstance(message, TurnEnd) and message.interrupted:
            self.recall_audio()
        frame = self.encode(message)
        if frame is None:
            return
        if isinstance(frame, tuple):
            for one in frame:
                self._append(_Entry(one, size(one)))
        elif self._entries and (merged := _merge(self._entries[-1].message, message)):
            # A little more than it will be: it has one header less.
            grown = size(frame) if merged is message else self._entries[-1].size + size(frame)
            self._replace(self._entries[-1], merged, frame if merged is message else None, grown)
        else:
            self._append(_Entry(frame, size(frame), message))
        self._make_room()

    def replay(self, messages: Sequence[Message]) -> None:
        """Queues what was said before, beyond the bound: it was bounded where it was kept."""
        limit, self._limit = self._limit, sys.maxsize
        before = self.bytes
        for message in messages:
            self.put(message)
        self._limit = limit + self.bytes - before

    def put_frame(self, frame: Frame) -> None:
        """Queues a frame that is no message of the conversation's."""
        if not self._closing:
            self._append(_Entry(frame, size(frame)))
            self._make_room()

    def put_first(self, kind: str, frame: Frame) -> None:
        """Queues a frame before all others: a ping that waits its turn measures the queue.

        One of a kind waits, the newest, or a peer that asks and does not read would fill it.
        """
        if not self._closing:
            self._first[kind] = frame
            self._wake()

    def close(self, code: int, reason: str) -> None:
        """Ends the queue: what waits is still sent, then `get` raises; what comes is ignored."""
        if not self._closing:
            self._append(_Entry("", 0, close=Close(code, reason)))
            self._closing = True

    def give_up(self) -> None:
        """Frees what waits; the socket is gone, and what comes is ignored."""
        self._closing = True
        self._first.clear()
        self._entries.clear()
        self._audio.clear()
        self.bytes = 0

    async def get(self) -> Frame:
        """The next frame to send.

        Raises:
            Close: it is time to close the socket (1013: words alone exceed the bound).
        """
        while not (self._entries or self._first):
            if self._full:
                raise Close(1013, "too slow")
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        if self._first:
            return self._first.pop(next(iter(self._first)))
        entry = self._entries.popleft()
        self.bytes -= entry.size
        if entry.close:
            raise entry.close
        match entry.message:
            case Audio():
                self._audio.popleft()
            case Dropped():
                self._add_up(entry)
        if entry.frame is None and entry.message:
            frame = self.encode(entry.message)
            entry.frame = frame if isinstance(frame, str | bytes) else ""
        return entry.frame or ""

    def _wake(self) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(None)

    def _replace(self, entry: _Entry, message: Message, frame: Frame | None, grown: int) -> None:
        """Puts another message, of another size, into a queued entry."""
        self.bytes += grown - entry.size
        entry.frame, entry.size, entry.message = frame, grown, message

    def _append(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self.bytes += entry.size
        if isinstance(entry.message, Audio):
            self._audio.append(entry)
        self._wake()

    def recall_audio(self) -> None:
        """Takes the sound that waits out of the queue: nobody wants to hear it any more."""
        if self._audio:
            self.bytes -= sum(entry.size for entry in self._audio)
            self._audio.clear()
            self._entries = deque(e for e in self._entries if not isinstance(e.message, Audio))

    def _make_room(self) -> None:
        """At the bound, gives up the oldest sound, in its place a note of how much it was."""
        while self.bytes > self._limit and self._audio:
            entry = self._audio.popleft()
            assert isinstance(entry.message, Audio)
            ms = len(entry.message.pcm) / _PCM_BYTES_PER_MS
            self.dropped_ms += ms
            self._replace(entry, Dropped("down", ms), None, _NOTE_BYTES)
        if self.bytes > self._limit:
            self.give_up()
            self._full = True
            self._wake()

    def _add_up(self, entry: _Entry) -> None:
        """Joins the notes of dropped sound that follow this one to it."""
        while self._entries and (merged := _add(entry.message, self._entries[0].message)):
            self.bytes -= self._entries.popleft().size
            entry.message, entry.frame = merged, None


def size(frame: Frame) -> int:
    """A frame's payload in bytes, as it goes over the wire."""
    return len(frame) if isinstance(frame, bytes) or frame.isascii() else len(frame.encode())


def _merge(waiting: Message | None, message: Message) -> Message | None:
    """One message for two neighbors of a kind, or None where they have to stay apart."""
    match waiting, message:
        case Audio(), Audio() if len(waiting.pcm) + len(message.pcm) <= _MERGED_AUDIO_BYTES:
            return Audio(message.seq, waiting.pcm + message.pcm)
        case Typing(), Typing() if waiting.connection_id == message.connection_id:
            return message
        case Text(), Text() if waiting.is_transcript == message.is_transcript:
            if len(waiting.text) + len(message.text) <= _MERGED_TEXT_CHARS:
                return replace(message, text=waiting.text + message.text)
        case Transcript(final=False), Transcript():
            return message  # it holds all that was heard so far
        case _:
            return _add(waiting, message)
    return None


def _add(waiting: Message | None, message: Message | None) -> Dropped | None:
    match waiting, message:
        case Dropped(), Dropped() if waiting.direction == message.direction:
            return Dropped(message.direction, waiting.audio_ms + message.audio_ms)
    return None
