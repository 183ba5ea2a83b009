"""The journal: the latest messages of a conversation, kept to be replayed to a client that comes back."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict
from itertools import pairwise
from typing import NamedTuple

from adk_relay.core.credits import Grounding
from adk_relay.core.heard import Shortened
from adk_relay.core.messages import (
    Audio,
    Numbered,
    Text,
    ToolComplete,
    ToolStart,
    Transcript,
    TurnEnd,
    Written,
)

_ENVELOPE = 64
"""Bytes that are counted for each frame, in addition to its content."""


class _Entry(NamedTuple):
    added_at: float
    size: int
    message: Numbered


class Journal:
    """The last messages of an epoch, bounded in bytes and in age.

    Invariants:
        The numbers of the kept messages rise, and are above `_forgotten`.
        `_bytes` is the sum of their sizes, and at most the limit.

    Args:
        limit: bytes that are kept, measured as JSON frames (sound in base64).
        max_age: seconds that a message is kept.
    """

    def __init__(self, *, limit: int, max_age: float) -> None:
        self._limit = limit
        self._max_age = max_age
        self._entries: deque[_Entry] = deque()
        self._bytes = 0
        self._forgotten = 0
        """The number of the last message that was removed because of the bounds; 0: none was."""

    def check(self) -> None:
        """Asserts the invariants."""
        numbers = [self._forgotten, *(entry.message.seq for entry in self._entries)]
        assert all(a < b for a, b in pairwise(numbers)), f"the numbers do not rise: {numbers}"
        total = sum(entry.size for entry in self._entries)
        assert self._bytes == total, f"{total} bytes are kept, and {self._bytes} are counted"
        assert self._bytes <= self._limit, f"{self._bytes} bytes are kept, of at most {self._limit}"

    @property
    def last(self) -> int:
        """The number of the newest message that is kept or forgotten; 0: there is none."""
        return self._entries[-1].message.seq if self._entries else self._forgotten

    def add(self, message: Numbered) -> None:
        """Keeps a message. Its number must be higher than that of the message before."""
        size = size_of(message)
        self._bytes += size
        now = time.monotonic()
        self._entries.append(_Entry(now, size, message))
        self._forget(now)

    def load(self, messages: Iterable[Numbered], forgotten: int) -> None:
        """Begins with the messages of an owner before.

        Args:
            forgotten: the number of the last message that is not kept any more; 0: none is.
        """
        self._forgotten = forgotten
        for message in messages:
            self.add(message)

    def since(self, seq: int) -> list[Numbered] | None:
        """The messages that followed number `seq`, in order; None: not all of them are kept."""
        self._forget(time.monotonic())
        if seq < self._forgotten:
            return None
        return [entry.message for entry in self._entries if entry.message.seq > seq]

    def end_of_answer(self, text_id: str) -> TurnEnd | None:
        """The end of the answer to a request, if it is kept."""
        for message in (entry.message for entry in reversed(self._entries)):
            if isinstance(message, TurnEnd) and message.answer:
                asked = message.answer.asked
                if asked and asked.id == text_id:
                    return message
        return None

    def recall_audio(self) -> None:
        """Removes all sound: the answer was interrupted, so the sound is stale."""
        kept = [entry for entry in self._entries if not isinstance(entry.message, Audio)]
        if len(kept) < len(self._entries):
            self._entries = deque(kept)
            self._bytes = sum(entry.size for entry in kept)

    def clear(self) -> None:
        """Removes everything. The numbers begin again with 1."""
        self._entries.clear()
        self._bytes = self._forgotten = 0

    def _forget(self, now: float) -> None:
        """Removes the oldest messages until the rest is within the bounds."""
        entries = self._entries
        while entries and (self._bytes > self._limit or now - entries[0].added_at > self._max_age):
            oldest = entries.popleft()
            self._bytes -= oldest.size
            self._forgotten = oldest.message.seq


def size_of(message: Numbered) -> int:
    """Bytes of a message as a JSON frame, about."""
    match message:
        case Audio():
            return _ENVELOPE + len(message.pcm) * 4 // 3
        case Text() | Transcript() | Written() | Shortened():
            return _ENVELOPE + len(message.text.encode(errors="replace"))
        case ToolStart():
            return _ENVELOPE + len(json.dumps(message.arguments))
        case ToolComplete():
            return _ENVELOPE + len(json.dumps(message.result))
        case TurnEnd(grounding=Grounding() as grounding):
            return _ENVELOPE + len(json.dumps(asdict(grounding)))
        case _:
            return _ENVELOPE
