"""What the agent has said aloud last, and how much of it was heard."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from adk_relay.core.heard import Heard, words_within

BYTES_PER_MS = 48
"""Of the agent's sound: 16-bit mono PCM at 24 kHz."""

_IN_TIME = 15.0
"""Seconds after the end of an answer, or of its sound if that is later, in which it can be shortened."""

_ON_ITS_WAY = 3.0
"""Seconds after an interruption in which what a client tells is about the interrupted answer, if it does not
say about which one."""

_MOST = 8
"""How often an answer can be shortened: each time is told to all, and stored."""


@dataclass(slots=True)
class Spoken:
    """An answer, its sound, and how much of that was heard."""

    after: int
    """The number of the last message that is certainly before it."""
    ms: float = 0.0
    """How much sound it has, since its connection was lost."""
    since: float = 0.0
    """When that began, as `time.monotonic()`."""
    sure: int = 0
    """How many characters it had when its connection was lost; nobody says how much of those was heard."""
    lost: int = 0
    """The number of the message that told of the loss; 0: none did."""
    heard: float | None = None
    """How much of the sound was heard; None: no client has said."""
    by: str = ""
    """The connection id of who has interrupted it; "": nobody, or that is not known."""

    # When it has ended:
    first: int = 0
    """The number of its first text; 0: it has none."""
    last: int = 0
    """The number of its end; 0: that was not told."""
    line: int | None = None
    """The index of its line, those that are forgotten included; None: it has none."""
    text: str = ""
    """Its words, as far as they are left."""
    spoken: str = ""
    """What was said since its connection was lost."""
    was_interrupted: float = -math.inf
    """When it was, as `time.monotonic()`."""
    until: float = math.inf
    """As `time.monotonic()`: it can be shortened until then."""
    times: int = 0
    """How often it was shortened."""

    def hear(self, ms: float) -> None:
        """Notes how much was heard. What was said of it before can only become less."""
        self.heard = ms if self.heard is None else min(ms, self.heard)

    def shorten(self) -> bool:
        """Keeps only the words that were heard; returns whether these are fewer than there were."""
        if self.heard is None or not self.text or self.heard >= self.ms or self.times >= _MOST:
            return False
        left = words_within(self.spoken, len(self.spoken) * self.heard / self.ms)
        text = (self.text[: self.sure] + left).rstrip()
        if len(text) >= len(self.text.rstrip()):
            return False
        self.text, self.times = text, self.times + 1
        return True


class Aloud:
    """The open answer, and the answer before it.

    What clients say of the open answer counts when it ends: only then it is known how many words belong to
    how much sound.

    Invariants:
        The open answer comes after the last one.
    """

    def __init__(self) -> None:
        self.last: Spoken | None = None
        """The answer that ended last; None: it is not known."""
        self.open = Spoken(0)
        """The answer that is open, or will be."""

    def check(self) -> None:
        """Asserts the invariants."""
        assert not self.last or self.last.last <= self.open.after, "the last answer has ended after the next"

    def sound(self, pcm: bytes) -> None:
        """The open answer has more sound."""
        if not self.open.ms:
            self.open.since = time.monotonic()
        self.open.ms += len(pcm) / BYTES_PER_MS

    def lost(self, seq: int, chars: int) -> None:
        """The connection of the open answer was lost: clients give up the sound that they have not played.

        Args:
            seq: the number of the message that tells so; 0: none does.
            chars: how many characters the answer has.
        """
        self.open = Spoken(self.open.after, sure=chars, lost=seq)

    def ended(self, seq: int, first: int, line: int | None, text: str, *, is_interrupted: bool) -> None:
        """The open answer has ended.

        Args:
            seq, first, line, text: see `Spoken`; `seq` is that of its end.
        """
        answer = self.open
        self.open = Spoken(max(seq, answer.after))
        if self.last and not (text or answer.ms):  # the answer before it was interrupted while it was played
            self.last.last = self.open.after
            return
        now = time.monotonic()
        played = answer.since + answer.ms / 1000 if answer.ms and not is_interrupted else now
        answer.first, answer.last, answer.line = first, seq, line
        answer.text, answer.spoken = text, text[answer.sure :]
        answer.was_interrupted = now if is_interrupted else -math.inf
        answer.until = max(now, played) + _IN_TIME
        self.last = answer

    def forget(self) -> None:
        """What was said last is taken back."""
        self.last = None

    def about(self, heard: Heard) -> Spoken | None:
        """The answer that a client tells of; None: it can't be shortened."""
        answer, last = self.open, self.last
        if answer.ms and self._is_of_open(heard):
            return answer
        if last is None or time.monotonic() > last.until:
            return None
        is_of_last = last.after < heard.seq <= last.last if heard.seq else not answer.lost
        return last if is_of_last else None

    def _is_of_open(self, heard: Heard) -> bool:
        answer, last = self.open, self.last
        if heard.seq:
            return heard.seq > max(answer.lost, answer.after)
        if last is None:
            return True
        is_awaited = last.heard is None and time.monotonic() < last.was_interrupted + _ON_ITS_WAY
        return not is_awaited and heard.ms <= answer.ms  # nobody has heard more of it than there is
