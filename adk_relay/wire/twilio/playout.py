"""The way of the agent's sound to a caller: it waits here, then at Twilio, and then it was played.

A model makes sound faster than it is played. Twilio keeps what it is sent, so relay sends little ahead: after
an interruption almost nothing is to be taken back, and relay knows to a piece what the caller has heard.
There is no clock here: each method that needs the time is given it, in seconds of one monotonic clock.
"""

from __future__ import annotations

import base64
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

_BYTES_PER_MS = 8
"""8-bit µ-law at 8 kHz."""

LEAD_MS = 1000
"""At most so much is sent and not played. It covers the way to Twilio and back, even around the world."""

_PIECE_MS = 200
"""The longest piece. What the caller has heard is known to a piece."""

_SHORT_MS = 100
"""A piece is no shorter, unless nothing more is there and the caller would soon hear a gap."""

_ENOUGH_MS = 300
"""While less is on its way, even a short piece is sent at once."""

_WAIT = 10.0
"""Seconds, besides those that it plays, after which a piece that was not played shows a broken peer."""


class State(Enum):
    """Where the sound is."""

    SILENT = auto()
    """No sound waits, and all that was sent was played."""
    SPEAKING = auto()
    """The agent is answering: more sound may come."""
    ENDING = auto()
    """The answer is over, and the caller has not heard all of it."""


class Piece(NamedTuple):
    """Sound that is to be sent, and the name of the mark that is to follow it."""

    ulaw: bytes
    mark: str


@dataclass(slots=True)
class _Waiting:
    """The sound of one answer that waits."""

    answer: int
    at: int
    """How many bytes of the answer are before it."""
    ulaw: bytearray = field(default_factory=bytearray)


class _Sent(NamedTuple):
    """A piece that was sent, and was not played yet."""

    mark: str
    answer: int
    end: int
    """Up to which byte of the answer it goes."""
    size: int
    at: float
    """When it was sent."""


class Playout:
    """The sound of one call.

    Invariants:
        - What waits, as it will be encoded, has at most `limit` bytes.
        - At most `LEAD_MS` is sent and not played; `_out` is its size.
        - Each mark has another name, so a mark of sound that was cut means nothing.
        - `SILENT`: nothing waits, and nothing is sent and not played. `ENDING`: something does, or is.
        - No more of an answer was played than was sent of it, and no more was sent than has come.

    Args:
        limit: how many bytes of encoded sound may wait. At the limit the oldest is dropped.
    """

    def __init__(self, limit: int) -> None:
        self.state = State.SILENT
        self._limit = limit * 3 // 4  # base64 makes four bytes of three
        self._waiting: deque[_Waiting] = deque()
        self._size = 0
        """Bytes that wait."""
        self._sent: deque[_Sent] = deque()
        self._out = 0
        """Bytes that were sent and not played."""
        self._marks = 0
        """How many marks were sent."""
        self._answer = 0
        """The number of the newest answer. Of it:"""
        self._come = 0
        """bytes that have come,"""
        self._played = 0
        """and bytes that were played."""

    def check(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        assert self._size == sum(len(each.ulaw) for each in self._waiting) <= self._limit
        assert all(each.ulaw for each in self._waiting)
        assert self._out == sum(each.size for each in self._sent) <= LEAD_MS * _BYTES_PER_MS
        assert len({each.mark for each in self._sent}) == len(self._sent)
        is_quiet = not (self._waiting or self._sent)
        assert is_quiet or self.state is not State.SILENT
        assert not (is_quiet and self.state is State.ENDING)
        newest = [each.end for each in self._sent if each.answer == self._answer]
        assert self._played <= min(newest, default=self._come) <= self._come

    def add(self, ulaw: bytes) -> float:
        """Takes the next sound of the agent. Returns how many milliseconds of sound had to be dropped."""
        if self.state is not State.SPEAKING:
            self.state = State.SPEAKING
            self._answer += 1
            self._come = self._played = 0
        return self._append(ulaw)

    def _append(self, ulaw: bytes) -> float:
        if not ulaw:
            return 0.0
        if not (self._waiting and self._waiting[-1].answer == self._answer):
            self._waiting.append(_Waiting(self._answer, self._come))
        self._waiting[-1].ulaw += ulaw
        self._come += len(ulaw)
        self._size += len(ulaw)
        dropped = max(0, self._size - self._limit)
        self._remove(dropped)
        return dropped / _BYTES_PER_MS

    def end(self, rest: bytes) -> float:
        """The answer is over; `rest`: the last of its sound. Returns what `add` does."""
        if self.state is not State.SPEAKING:
            return 0.0
        dropped = self._append(rest)
        self.state = State.ENDING if self._waiting or self._sent else State.SILENT
        return dropped

    def take(self, now: float) -> Piece | None:
        """The next piece that is to be sent; None: nothing is to be sent now."""
        if not self._waiting:
            return None
        first = self._waiting[0]
        size = min(len(first.ulaw), _PIECE_MS * _BYTES_PER_MS, LEAD_MS * _BYTES_PER_MS - self._out)
        short = _SHORT_MS * _BYTES_PER_MS
        if size < min(len(first.ulaw), short):
            return None  # there is no room for a whole piece
        is_last = first.answer < self._answer or self.state is State.ENDING
        if size < short and self._out >= _ENOUGH_MS * _BYTES_PER_MS and not is_last:
            return None
        ulaw, end = bytes(first.ulaw[:size]), first.at + size
        self._marks += 1
        sent = _Sent(str(self._marks), first.answer, end, size, now)
        self._remove(size)
        self._sent.append(sent)
        self._out += size
        return Piece(ulaw, sent.mark)

    def played(self, mark: str) -> None:
        """A mark has come back: the sound before it was played, or was cut before."""
        if all(each.mark != mark for each in self._sent):
            return
        while True:
            sent = self._sent.popleft()
            self._out -= sent.size
            if sent.answer == self._answer:
                self._played = sent.end
            if sent.mark == mark:
                break
        if self.state is State.ENDING and not (self._waiting or self._sent):
            self.state = State.SILENT

    def cut(self) -> bool:
        """Forgets what the caller has not heard. Returns whether Twilio still has some of it."""
        is_out = bool(self._sent)
        self._waiting.clear()
        self._sent.clear()
        self._size = self._out = 0
        self.state = State.SILENT
        return is_out

    @property
    def heard_ms(self) -> float:
        """How much of the newest answer was played for certain, in milliseconds."""
        return self._played / _BYTES_PER_MS

    def is_stuck(self, now: float) -> bool:
        """Whether Twilio does not say that sound was played, though that must be long ago."""
        return bool(self._sent) and now - self._sent[0].at > LEAD_MS / 1000 + _WAIT

    def _remove(self, size: int) -> None:
        """Removes the oldest sound that waits."""
        self._size -= size
        while size:
            first = self._waiting[0]
            removed = min(size, len(first.ulaw))
            del first.ulaw[:removed]
            first.at += removed
            size -= removed
            if not first.ulaw:
                self._waiting.popleft()


def encoded(ulaw: bytes) -> str:
    """Sound as frames have it."""
    return base64.b64encode(ulaw).decode("ascii")
