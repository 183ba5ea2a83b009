"""The inbox: user input that waits for the model."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from adk_relay.core.messages import ActivityStart, AudioEnd, ForModel, UserAudio, UserImage, UserText

_SOUND_MAX_WAIT = 5.0
"""Seconds after which waiting sound is stale: an answer to it would come too late."""

_SOUND_MAX_MS = 60_000
"""Milliseconds of sound that may wait. Only a client that sends faster than real time reaches this."""

_SOUND_MAX_CHUNKS = 4096
"""Chunks of sound that may wait, however short: chunks of different rates are not merged."""

_CONTENT_MAX_BYTES = 8 * 1024 * 1024
"""Bytes of texts and images that may wait: they are never given up."""

_ENVELOPE = 256
"""Bytes that are counted for each text or image, in addition to its content."""


class InboxFullError(Exception):
    """More texts and images wait for the model than there is room for."""

    def __init__(self) -> None:
        super().__init__("Too much waits for the model already: try again in a moment.")


class Inbox:
    """The user input of a conversation, on its way to the model. It is kept when a run ends.

    There are two lanes, each in order. Content (texts and images) goes first and is never given up; where
    it would exceed 8 MiB, `add` refuses more. Sound is given up, the oldest first, when it has waited for
    5 s or exceeds 60 s or 4096 chunks.

    Invariants:
        `_content_bytes` and `_sound_ms` are the sums over the entries of their lanes.
        Sound is within its two bounds and in the order of its times. No end of sound follows another.
        While something waits that `take` would return, `ready` is set.

    Args:
        on_dropped: called with the milliseconds of sound that were given up.
    """

    def __init__(self, *, on_dropped: Callable[[float], None]) -> None:
        self.ready = asyncio.Event()
        """Set while something waits. Its reader clears it when `take` has returned None."""
        self._on_dropped = on_dropped
        self._content: deque[tuple[float, UserText | UserImage]] = deque()  # with the times they came
        self._content_bytes = 0
        self._sound: deque[tuple[float, UserAudio | ActivityStart | AudioEnd, float]] = deque()  # with ms
        self._sound_ms = 0.0
        self._is_held = False  # content is not to be taken yet

    def check(self) -> None:
        """Asserts the invariants."""
        content_bytes = sum(_size(entry) for _, entry in self._content)
        assert self._content_bytes == content_bytes, f"{self._content_bytes} bytes are not {content_bytes}"
        assert all(ms == _ms(entry) for _, entry, ms in self._sound)
        sound_ms = sum(ms for _, _, ms in self._sound)
        assert abs(self._sound_ms - sound_ms) < 0.001, f"{self._sound_ms} ms of sound are not {sound_ms}"
        assert sound_ms <= _SOUND_MAX_MS + 0.001, f"{sound_ms} ms of sound wait"
        assert len(self._sound) <= _SOUND_MAX_CHUNKS + 1, f"{len(self._sound)} chunks of sound wait"
        for (before, sound, _), (after, next_sound, _) in pairwise(self._sound):
            assert before <= after, "sound is not in the order of its times"
            both_end = isinstance(sound, AudioEnd) and isinstance(next_sound, AudioEnd)
            assert not both_end, "an end of sound follows another"
        is_takeable = self._sound or (self._content and not self._is_held)
        assert self.ready.is_set() or not is_takeable, "something waits, and `ready` is not set"

    def add(self, user_input: ForModel) -> None:
        """Takes what a user sends; never waits.

        Raises:
            InboxFullError: 8 MiB of texts and images wait already.
        """
        now = time.monotonic()
        match user_input:
            case UserAudio():
                ms = _ms(user_input)
                self._sound.append((now, user_input, ms))
                self._sound_ms += ms
                self._give_up_stale(now)
            case ActivityStart():
                self._sound.append((now, user_input, 0.0))
            case AudioEnd():
                if not (self._sound and isinstance(self._sound[-1][1], AudioEnd)):
                    self._sound.append((now, user_input, 0.0))
            case _:
                size = _size(user_input)
                if self._content_bytes + size > _CONTENT_MAX_BYTES:
                    raise InboxFullError
                self._content_bytes += size
                self._content.append((now, user_input))
        if self._sound or self._content:
            self.ready.set()

    def give_back(self, content: UserText | UserImage) -> None:
        """Puts a text or an image back at the front: it was taken, but the conversation has lost it.

        It is accepted even if it exceeds the bound.
        """
        self._content_bytes += _size(content)
        self._content.appendleft((time.monotonic(), content))
        self.ready.set()

    def hold(self, held: bool) -> None:
        """Whether texts and images are to wait, though sound may be taken."""
        self._is_held = held
        if self and not held:
            self.ready.set()

    def take(self) -> ForModel | None:
        """Removes and returns the next input for the model; None: nothing waits, or it is held."""
        if self._content and not self._is_held:
            _, content = self._content.popleft()
            self._content_bytes -= _size(content)
            return content
        if self._sound:
            self._give_up_stale(time.monotonic())
        if not self._sound:
            return None
        _, sound, ms = self._sound.popleft()
        self._sound_ms -= ms
        return sound

    @property
    def first_text(self) -> UserText | None:
        """The first text that waits."""
        return next((entry for _, entry in self._content if isinstance(entry, UserText)), None)

    @property
    def last_text(self) -> UserText | None:
        """The last text that waits."""
        return next((entry for _, entry in reversed(self._content) if isinstance(entry, UserText)), None)

    @property
    def next_text(self) -> UserText | None:
        """The text that `take` would return next; None: it would return something else."""
        content = self._content[0][1] if self._content and not self._is_held else None
        return content if isinstance(content, UserText) else None

    def mark_stored(self, text: UserText) -> None:
        """A text that waits is in the session. It may have been removed meanwhile."""
        self._content = deque(
            (
                came_at,
                replace(entry, is_stored=True)
                if isinstance(entry, UserText) and entry.is_same(text)
                else entry,
            )
            for came_at, entry in self._content
        )

    def take_text(self) -> UserText | None:
        """Removes and returns the first text, with the images before it; None: none waits, or it is held."""
        if self.has_text:
            while not isinstance(content := self.take(), UserText | None):
                pass
            return content
        return None

    def stop(self) -> bool:
        """Marks all texts that wait as stopped: the user does not want answers to them any more.

        Returns:
            Whether at least one text was not stopped before.
        """
        was_wanted = any(isinstance(entry, UserText) and not entry.stopped for _, entry in self._content)
        self._content = deque(
            (came_at, replace(entry, stopped=True) if isinstance(entry, UserText) else entry)
            for came_at, entry in self._content
        )
        return was_wanted

    def discard(self, text: UserText) -> UserText | None:
        """Removes a text: nobody wants its answer any more. Returns it as it waited; None: it did not."""
        for entry in self._content:
            if isinstance(entry[1], UserText) and entry[1].is_same(text):
                self._content.remove(entry)
                self._content_bytes -= _size(entry[1])
                return entry[1]
        return None

    def clear_sound(self) -> None:
        """Removes the sound that waits."""
        self._sound.clear()
        self._sound_ms = 0.0

    def clear(self) -> list[UserText]:
        """Removes all that waits; returns the texts among it."""
        texts = [entry for _, entry in self._content if isinstance(entry, UserText)]
        self._content.clear()
        self._sound.clear()
        self._content_bytes = 0
        self._sound_ms = 0.0
        return texts

    @property
    def stored_texts(self) -> list[UserText]:
        """The texts that wait, and are in the session already."""
        return [entry for _, entry in self._content if isinstance(entry, UserText) and entry.is_stored]

    @property
    def has_content(self) -> bool:
        """Whether a text or an image waits."""
        return bool(self._content)

    @property
    def has_text(self) -> bool:
        """Whether a text waits."""
        return any(isinstance(entry, UserText) for _, entry in self._content)

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._content or self._sound)

    def _give_up_stale(self, now: float) -> None:
        dropped = 0.0
        # An end at the front stays: the sound before it was taken already, and the model waits for its end.
        index = 1 if self._sound and isinstance(self._sound[0][1], AudioEnd) else 0
        while index < len(self._sound):
            came_at, sound, ms = self._sound[index]
            if isinstance(sound, UserAudio):
                fits = self._sound_ms <= _SOUND_MAX_MS and len(self._sound) <= _SOUND_MAX_CHUNKS
                if fits and now - came_at <= _SOUND_MAX_WAIT:
                    break
                self._sound_ms -= ms
                dropped += ms
            elif isinstance(sound, ActivityStart) and now - came_at <= _SOUND_MAX_WAIT:
                break
            del self._sound[index]  # an end is removed together with the sound before it
        if dropped:
            self._on_dropped(dropped)


def _ms(sound: UserAudio | ActivityStart | AudioEnd) -> float:
    return len(sound.pcm) / 2 / sound.rate * 1000 if isinstance(sound, UserAudio) else 0.0


def _size(content: UserText | UserImage) -> int:
    if isinstance(content, UserImage):
        return _ENVELOPE + len(content.data)
    return _ENVELOPE + bytes_of(content)


def bytes_of(text: UserText) -> int:
    """The bytes of a text, and of the state that it sets."""
    return len(text.text.encode()) + (len(json.dumps(text.state_delta)) if text.state_delta else 0)
