"""The dialect of a telephone call over Twilio's Media Streams, `WS /twilio`.

    caller ──► media, dtmf ──► Call.act ──► UserAudio, UserText
    caller ◄── media, mark ◄── Playout ◄── Call.encode ◄── Audio
               mark ─────────► Playout

A model mostly knows that it is interrupted, and says so. But it makes sound faster than it is played: when
its turn is over, the caller may hear it for many seconds more. Only relay can notice then that the caller
speaks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from enum import Enum, auto

from adk_relay.core.heard import Heard
from adk_relay.core.messages import (
    Audio,
    Dropped,
    Error,
    Gap,
    Message,
    Reset,
    TurnEnd,
    UserAudio,
    UserText,
)
from adk_relay.core.rewind import Rewound
from adk_relay.wire.closing import BAD_FRAMES, DONE, TOO_SLOW, Close, CloseFrame
from adk_relay.wire.dialects import Attend, BadFrameError, Command, Dialect, Event, Reply
from adk_relay.wire.outbox import Encode, Frame, Frames, Sound
from adk_relay.wire.sound import Resampler, is_installed, ulaw_of
from adk_relay.wire.twilio import NotInstalledError
from adk_relay.wire.twilio.barge_in import BargeIn
from adk_relay.wire.twilio.frames import Key, Mark, Media, Out, Start, Stop, decode
from adk_relay.wire.twilio.keys import Keys
from adk_relay.wire.twilio.playout import Playout, State, encoded

log = logging.getLogger("relay")

RATE = 8000
"""Samples a second on the telephone."""

_MODEL_RATE = 24_000

_START_WITHIN = 10.0
"""Seconds in which `start` has to come. Twilio sends it at once."""

_BYTES_PER_MS = 2 * RATE / 1000


class Stage(Enum):
    """How far a call is."""

    AWAITED = auto()
    """`start` has not come: nobody is known, and nothing is taken."""
    RUNNING = auto()
    OVER = auto()
    """`stop` has come."""


class Call:
    """The state of the dialect of one call.

    Invariants:
        - While it is awaited, there is no stream, and no sound.
        - What was heard is told at most once for each interruption.
        - The playout, the keys and the barge-in keep their own invariants.

    Args:
        limit: how many bytes of sound may wait, as it is encoded.
    """

    def __init__(self, limit: int) -> None:
        self.stage = Stage.AWAITED
        self._began = time.monotonic()
        self._out: Out | None = None
        self._own = ""
        """The id of the call's own conversation; "": it is awaited."""
        self._logged: set[str] = set()
        """The codes of the errors that were logged."""
        self._playout = Playout(limit)
        self._down = Resampler(_MODEL_RATE, RATE)
        self._keys = Keys()
        self._barge_in = BargeIn()
        self._seq = 0
        """The number of the last message of the newest answer that has sound; 0: there is none."""
        self._heard: Heard | None = None
        """What the conversation is to be told of an answer that was interrupted."""

    def check(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        assert (self._out is None) == (self._own == "") == (self.stage is Stage.AWAITED)
        assert self._out or self._playout.state is State.SILENT
        for part in (self._playout, self._keys, self._barge_in):
            part.check()

    def look(self, now: float) -> CloseFrame | None:
        """How the socket is to be closed now; None: it is not.

        Args:
            now: `time.monotonic()`.
        """
        if self.stage is Stage.AWAITED and now - self._began > _START_WITHIN:
            return BAD_FRAMES.because(f"no start within {_START_WITHIN:g} s")
        if self._playout.is_stuck(now):
            return TOO_SLOW.because("no marks come back")
        return None

    def is_playing(self) -> bool:
        """Whether the caller has not heard all that was said."""
        return self._playout.state is not State.SILENT

    def heard(self, is_over: bool) -> Heard | None:
        """What the conversation is to be told of an answer that was cut; None: nothing.

        Args:
            is_over: the call is over, and with it what the caller hears.
        """
        if is_over and self._playout.state is not State.SILENT:
            self._heard = Heard(self._playout.heard_ms, self._seq, leaves=True)
            self._playout.cut()
        heard, self._heard = self._heard, None
        return heard

    # ---- from Twilio ----

    def act(self, event: Event) -> Iterator[Command | Reply]:
        """What a frame asks for.

        Raises:
            BadFrameError: it may not come now.
            Close: the call is over.
        """
        if isinstance(event, Start):
            yield from self._start(event)
            return
        if isinstance(event, Stop):
            self.stage = Stage.OVER if self._out else self.stage
            raise Close(DONE)
        if self.stage is not Stage.RUNNING:
            if isinstance(event, Media | Key | Mark):
                raise BadFrameError("bad_message", "start must come first.")
            return
        now = time.monotonic()
        if isinstance(event, Media):
            yield from self._hear(event.pcm, now)
        elif isinstance(event, Mark):
            self._playout.played(event.name)
            if frames := self._due(now):
                yield Reply(frames)
        elif isinstance(event, Key):
            yield from self._press(self._keys.press(event.key, now))

    def _start(self, start: Start) -> Iterator[Command | Reply]:
        if self.stage is not Stage.AWAITED:
            raise BadFrameError("bad_message", "The stream has started already.")
        self._own = own = f"call-{start.call_sid}"
        params = start.params
        self._out = Out(start.stream_sid)  # first: once it attends a conversation, it may get sound
        self.stage = Stage.RUNNING
        yield Attend(own, params.get("user_id", ""), params.get("session_id", ""), params.get("token", ""))

    def _hear(self, pcm: bytes, now: float) -> Iterator[Command | Reply]:
        if self._playout.state is not State.ENDING:
            self._barge_in.forget()
        elif self._barge_in.hear(pcm, len(pcm) / _BYTES_PER_MS):
            yield from self._interrupt()
        yield from self._press(self._keys.look(now))
        yield UserAudio(pcm, RATE)

    def _press(self, text: str) -> Iterator[Command | Reply]:
        if text:
            if self._playout.state is State.ENDING:
                yield from self._interrupt()
            yield UserText(text)

    def _interrupt(self) -> Iterator[Command | Reply]:
        """The caller interrupts an answer that is over for the model."""
        assert self._out
        heard = Heard(self._playout.heard_ms, self._seq)
        is_out = self._playout.cut()
        self._barge_in.forget()
        if is_out:
            yield Reply(self._out.clear)
        yield heard

    # ---- to Twilio ----

    def encode(self, message: Message) -> Frames:
        """The frames that a message leads to at once."""
        match message:
            case Audio(pcm=pcm):
                self._seq = message.seq
                return self._say(self._playout.add(ulaw_of(self._down.push(pcm))))
            case TurnEnd(interrupted=True, goes_on=False):
                self._heard = Heard(self._playout.heard_ms, message.seq)
                return self._cut()
            case TurnEnd() | Gap():  # if it goes on, the agent says the rest: what has come is not stale
                return self._say(self._playout.end(ulaw_of(self._down.flush())))
            case Reset() | Rewound():
                return self._cut()
            case Error(code=code) if code not in self._logged:  # bad frames can be many
                self._logged.add(code)
                log.info("%s: the caller can't be told: %s: %s", self._own or "a call", code, message.message)
        return None

    def _say(self, dropped_ms: float) -> Frames:
        """The frames of the sound that is due."""
        frames = self._due(time.monotonic())
        return (Dropped("down", dropped_ms), *frames) if dropped_ms else frames

    def _due(self, now: float) -> tuple[Frame | Sound, ...]:
        assert self._out
        frames: list[Frame | Sound] = []
        while piece := self._playout.take(now):
            media = self._out.media(encoded(piece.ulaw))
            frames += [Sound(media, len(piece.ulaw) * 1000 / RATE), self._out.mark(piece.mark)]
        return tuple(frames)

    def _cut(self) -> Frames:
        assert self._out
        self._down.reset()
        return self._out.clear if self._playout.cut() else None


def twilio(limit: int) -> Dialect:
    """The dialect of one call.

    Args:
        limit: how many bytes of sound may wait, as it is encoded.

    Raises:
        NotInstalledError: the packages for it are missing.
    """
    if not is_installed():
        raise NotInstalledError
    call = Call(limit)

    def encoder(session_id: str) -> Encode:
        return call.encode

    return Dialect(
        name="twilio",
        decode=decode,
        encoder=encoder,
        connected=lambda connection_id, model, limits: None,
        welcome=lambda to: None,
        ping=None,
        pong=lambda connection_id: "",
        expiring=lambda seconds: None,
        is_audio=True,
        attends="all",
        act=call.act,
        look=call.look,
        heard=call.heard,
        is_playing=call.is_playing,
    )
