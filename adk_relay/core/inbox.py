"""What the user has said and the model has not been given yet."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from adk_relay.core.messages import AudioEnd, ForModel, UserAudio, UserImage, UserText

_SOUND_MAX_WAIT = 5.0
"""Seconds after which waiting sound is stale: an answer to it would come too late."""

_SOUND_MAX_MS = 60_000
"""Sound that may wait; a client that sends it faster than it was spoken finds its end here."""

_SOUND_MAX_PIECES = 4096
"""And in how many pieces, however short: many thousand changes of the rate are not sound."""

_WORDS_MAX_BYTES = 8 * 1024 * 1024
"""What may wait as text and pictures, which are never given up."""


_ENVELOPE = 256
"""Bytes that each of them costs, however short it is."""


class InboxFullError(Exception):
    """More text and pictures wait for the model than there is room for."""

    def __init__(self) -> None:
        super().__init__("Too much waits for the model already: try again in a moment.")


class Inbox:
    """A conversation's way up: bounded, in order, and it outlives the run that reads from it.

    There are two lanes. Text and pictures overtake sound and are never given up; at their bound new
    ones are refused. Sound that has waited for 5 s, or is too much, is given up, oldest first, and
    counted through `on_dropped` (milliseconds).
    """

    def __init__(self, *, on_dropped: Callable[[float], None]) -> None:
        self.ready = asyncio.Event()
        self._on_dropped = on_dropped
        self._words: deque[tuple[float, UserText | UserImage]] = deque()
        self._words_bytes = 0
        self._sound: deque[tuple[float, UserAudio | AudioEnd]] = deque()
        self._sound_ms = 0.0

    def put(self, said: ForModel) -> None:
        """Takes what the user said; never waits.

        Raises:
            InboxFullError: 8 MiB of text and pictures wait already.
        """
        now = time.monotonic()
        match said:
            case UserAudio():
                self._sound.append((now, said))
                self._sound_ms += _ms(said)
                self._give_up_stale(now)
            case AudioEnd():
                if not (self._sound and isinstance(self._sound[-1][1], AudioEnd)):
                    self._sound.append((now, said))
            case _:
                size = _size(said)
                if self._words_bytes + size > _WORDS_MAX_BYTES:
                    raise InboxFullError
                self._words_bytes += size
                self._words.append((now, said))
        if self:
            self.ready.set()

    def put_back(self, text: UserText) -> None:
        """Returns a text that was taken and yet never reached the conversation's history."""
        self._words_bytes += _size(text)
        self._words.appendleft((time.monotonic(), text))
        self.ready.set()

    def take(self) -> ForModel | None:
        """What is next for the model, or None."""
        if self._words:
            _, said = self._words.popleft()
            self._words_bytes -= _size(said)
            return said
        self._give_up_stale(time.monotonic())
        if not self._sound:
            return None
        _, sound = self._sound.popleft()
        if isinstance(sound, UserAudio):
            self._sound_ms -= _ms(sound)
        return sound

    def stop(self) -> bool:
        """Nobody wants an answer to the texts that wait any more; whether somebody did until now."""
        was_wanted = any(isinstance(said, UserText) and not said.stopped for _, said in self._words)
        self._words = deque(
            (at, replace(said, stopped=True) if isinstance(said, UserText) else said)
            for at, said in self._words
        )
        return was_wanted

    def clear(self) -> list[UserText]:
        """Throws away what waits; returns the texts of it."""
        texts = [said for _, said in self._words if isinstance(said, UserText)]
        self._words.clear()
        self._sound.clear()
        self._words_bytes = 0
        self._sound_ms = 0.0
        return texts

    @property
    def words_waiting_since(self) -> float | None:
        """`time.monotonic()` of the oldest text or picture that waits, if one does."""
        return self._words[0][0] if self._words else None

    @property
    def has_text(self) -> bool:
        """Whether a text waits."""
        return any(isinstance(said, UserText) for _, said in self._words)

    def __bool__(self) -> bool:
        """Whether there is something for the model."""
        return bool(self._words or self._sound)

    def _give_up_stale(self, now: float) -> None:
        dropped = 0.0
        # An end whose sound is sent already is no sound.
        at = 1 if self._sound and isinstance(self._sound[0][1], AudioEnd) else 0
        while at < len(self._sound):
            since, sound = self._sound[at]
            if isinstance(sound, UserAudio):
                fits = self._sound_ms <= _SOUND_MAX_MS and len(self._sound) <= _SOUND_MAX_PIECES
                if fits and now - since <= _SOUND_MAX_WAIT:
                    break
                self._sound_ms -= _ms(sound)
                dropped += _ms(sound)
            del self._sound[at]  # an end goes with the sound before it
        if dropped:
            self._on_dropped(dropped)


def _ms(sound: UserAudio) -> float:
    return len(sound.pcm) / 2 / sound.rate * 1000


def _size(said: UserText | UserImage) -> int:
    return _ENVELOPE + (len(said.text.encode()) if isinstance(said, UserText) else len(said.data))
