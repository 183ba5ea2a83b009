"""What a conversation has emitted lately, to be replayed to a socket that comes back."""

from __future__ import annotations

import json
import time
from collections import deque
from typing import NamedTuple

from adk_relay.core.messages import Audio, Said, Text, ToolComplete, ToolStart, Transcript, Written

_ENVELOPE = 64
"""Bytes of a frame besides what it holds."""


class _Entry(NamedTuple):
    at: float
    size: int
    message: Said


class Journal:
    """The last messages of an epoch, bounded in bytes and in age.

    Args:
        limit: bytes that are kept, as their frames have them (sound in base64).
        max_age: seconds that a message is kept.
    """

    def __init__(self, *, limit: int, max_age: float) -> None:
        self._limit = limit
        self._max_age = max_age
        self._entries: deque[_Entry] = deque()
        self._bytes = 0
        self._gone = 0  # the last number that is no longer kept

    def add(self, message: Said) -> None:
        """Keeps a message; their numbers rise."""
        size = _size(message)
        self._bytes += size
        now = time.monotonic()
        self._entries.append(_Entry(now, size, message))
        self._forget(now)

    def since(self, seq: int) -> list[Said] | None:
        """What followed message number `seq`, in order; None: not all of it is kept."""
        self._forget(time.monotonic())
        if seq < self._gone:
            return None
        return [entry.message for entry in self._entries if entry.message.seq > seq]

    def recall_audio(self) -> None:
        """Takes out all sound: it was interrupted, and nobody wants to hear it any more."""
        kept = [entry for entry in self._entries if not isinstance(entry.message, Audio)]
        if len(kept) < len(self._entries):
            self._entries = deque(kept)
            self._bytes = sum(entry.size for entry in kept)

    def clear(self) -> None:
        """Begins anew, with number 1."""
        self._entries.clear()
        self._bytes = self._gone = 0

    def _forget(self, now: float) -> None:
        entries = self._entries
        while entries and (self._bytes > self._limit or now - entries[0].at > self._max_age):
            oldest = entries.popleft()
            self._bytes -= oldest.size
            self._gone = oldest.message.seq


def _size(message: Said) -> int:
    match message:
        case Audio():
            return _ENVELOPE + len(message.pcm) * 4 // 3
        case Text() | Transcript() | Written():
            return _ENVELOPE + len(message.text.encode(errors="replace"))
        case ToolStart():
            return _ENVELOPE + len(json.dumps(message.arguments))
        case ToolComplete():
            return _ENVELOPE + len(json.dumps(message.result))
        case _:
            return _ENVELOPE
