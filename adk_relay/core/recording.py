"""The recording of a conversation: its owner writes down what a new owner needs (`core.past`)."""

from __future__ import annotations

import asyncio
from typing import Protocol

from adk_relay.core.inbox import bytes_of
from adk_relay.core.journal import size_of
from adk_relay.core.messages import Audio, Numbered, TurnEnd, TurnStart
from adk_relay.core.past import Past as Past
from adk_relay.core.past import past_of as past_of
from adk_relay.core.recorded import AgentState, Emptying, Over, Requested, Stopped, TextSaid, Told
from adk_relay.core.recorded import Recorded as Recorded

_SOUND_BYTES = 9600
"""200 ms of 24 kHz 16-bit sound."""

_ENVELOPE = 64
"""Bytes that are counted for each entry, in addition to its content."""


class Recorder(Protocol):
    """Keeps what is recorded of one conversation."""

    def record(self, entry: Recorded) -> None:
        """Takes the next entry. It never waits, and raises nothing."""


class Recording:
    """Records one conversation.

    Args:
        recorder: keeps what is recorded; None: nothing is recorded.
        every_bytes, every_seconds: when all that a new owner needs is recorded again.

    Invariants:
        Less sound waits than is recorded at once.
        While the conversation is recorded, a timer is set.
    """

    def __init__(
        self, recorder: Recorder | None = None, *, every_bytes: int = 0, every_seconds: float = 0.0
    ) -> None:
        self._recorder = recorder
        self._every_bytes = every_bytes
        self._every_seconds = max(every_seconds, 1.0)
        self._now = Past(keeps_messages=False)
        self._bytes = 0
        """Those that were recorded since the last checkpoint."""
        self._sound: list[Audio] = []
        self._sound_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._sound_bytes == sum(len(chunk.pcm) for chunk in self._sound) < _SOUND_BYTES
        assert self._timer is None or self.is_on, "a timer is set, and nothing is recorded"

    @property
    def is_on(self) -> bool:
        """Whether anything is recorded."""
        return self._recorder is not None

    def begin(self, epoch: str, lines: int, past: Past | None = None) -> None:
        """The conversation, or a new epoch of it, begins.

        Args:
            lines: the place in the history after the last message.
            past: what was recorded before, if the epoch goes on.
        """
        if self._recorder is None:
            return
        self._sound.clear()
        self._sound_bytes = 0
        present, shape = self._now.present, self._now.shape
        self._now = Past(keeps_messages=False)
        if past:
            self._now.apply(past.checkpoint())
        else:
            self._now.epoch, self._now.lines, self._now.present = epoch, lines, present
            self._now.shape = shape
        self._checkpoint(is_new=not past)

    def told(self, message: Numbered | TurnStart) -> None:
        """A message to the listeners, with its number."""
        if self._recorder is None:
            return
        if isinstance(message, Audio):
            self._sound.append(message)
            self._sound_bytes += len(message.pcm)
            if self._sound_bytes >= _SOUND_BYTES:
                self._flush()
        else:
            if isinstance(message, TurnEnd) and message.interrupted:
                self._recall_audio()
            self.add(Told(message))

    def add(self, entry: Recorded) -> None:
        """Anything else."""
        if self._recorder is not None:
            if isinstance(entry, Stopped):
                self._recall_audio()
            self._flush()
            self._record(entry)

    def state(self, state: AgentState) -> None:
        """Where the agent is now. It is recorded if that is new."""
        if self._recorder is not None and state != self._now.state:
            self.add(state)

    def empties(self, *, delete: bool) -> None:
        """The session is about to be deleted."""
        self.add(Emptying(delete))

    def stays(self) -> None:
        """The session could not be deleted, or rewound."""
        self._now.emptying = self._now.rewinding = None
        self._checkpoint()

    def anew(self) -> None:
        """What was recorded may be lost: all that a new owner needs is recorded again."""
        if self._now.epoch:
            self._flush()
            self._checkpoint()

    def give(self) -> None:
        """The conversation is given away, and nothing more of it is recorded here."""
        self._flush()
        self._checkpoint(is_given=True)
        self.close()

    def end(self) -> None:
        """The conversation is over."""
        self.add(Over())
        self.close()

    def close(self) -> None:
        """Nothing more is recorded."""
        if self._timer:
            self._timer.cancel()
        self._timer = self._recorder = None
        self._sound.clear()
        self._sound_bytes = 0

    def _recall_audio(self) -> None:
        self._sound.clear()
        self._sound_bytes = 0

    def _flush(self) -> None:
        if self._sound:
            merged = Audio(self._sound[-1].seq, b"".join(chunk.pcm for chunk in self._sound))
            self._recall_audio()
            self._record(Told(merged))

    def _record(self, entry: Recorded) -> None:
        if self._recorder is None:
            return
        self._now.apply(entry)
        self._recorder.record(entry)
        self._bytes += _size(entry)
        if self._bytes >= self._every_bytes:
            self._checkpoint()

    def _checkpoint(self, *, is_new: bool = False, is_given: bool = False) -> None:
        """Records all that a new owner needs, and sets the timer for the next time."""
        if self._recorder is None:
            return
        self._recorder.record(self._now.checkpoint(is_new=is_new, is_given=is_given))
        self._bytes = 0
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._every_seconds, self._checkpoint)


def _size(entry: Recorded) -> int:
    match entry:
        case Told(message) if not isinstance(message, TurnStart):
            return size_of(message)
        case TextSaid(text) | Requested(text=text):
            return _ENVELOPE + bytes_of(text)
        case _:
            return _ENVELOPE
