"""Who has the floor: of all who send sound, one is heard at a time."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator

from adk_relay.core.messages import AudioEnd, UserAudio

_SPEECH_LEVEL = 500
"""Mean |sample| of 16-bit sound from which a frame counts as somebody speaking."""

_QUIET = 1.0
"""Seconds of quiet after which somebody else may speak."""

_REFUSE_EVERY = 1.0
"""Seconds between two refusals of one who goes on speaking all the same."""


class Floor:
    """Takes the sound of several microphones and passes on that of the one who speaks.

    Whoever speaks has the floor until 1 s of quiet; the speech of others is refused meanwhile, and
    their quiet is dropped without a word. When the speaker leaves or mutes, the sound is at its end.

    Args:
        mic_ms: shorter frames are merged up to so many milliseconds, because each send to the model
            costs the same whatever its size.
        hear: takes what the model is to be given.
        refuse: called with who spoke while somebody else did, at most once a second.
    """

    def __init__(
        self,
        *,
        mic_ms: float,
        hear: Callable[[UserAudio | AudioEnd], None],
        refuse: Callable[[str], None],
    ) -> None:
        self._mic_ms = mic_ms
        self._hear = hear
        self._refuse = refuse
        self._microphones: dict[str, _Microphone] = {}
        self._refused: dict[str, float] = {}
        self._spoke_at = 0.0
        self.speaker = ""
        """Whose sound is passed on; "": nobody's."""
        self.spoke = ""
        """Who spoke last."""

    def put(self, who: str, sound: UserAudio) -> None:
        """Takes a frame of somebody's microphone."""
        if who not in self._microphones:
            self._microphones[who] = _Microphone(self._mic_ms)
        for frame in self._microphones[who].put(sound):
            self._offer(who, frame)

    def end(self, who: str) -> None:
        """Somebody mutes or leaves: what is short of a frame is passed on, and there comes no more."""
        if microphone := self._microphones.pop(who, None):
            for frame in microphone.flush():
                self._offer(who, frame)
        if self.speaker == who:
            self.speaker = ""
            self._hear(AudioEnd())

    def _offer(self, who: str, sound: UserAudio) -> None:
        now = time.monotonic()
        if self.speaker != who:
            if self.speaker:
                if not sound.is_speech:
                    return
                if now - self._spoke_at < _QUIET:
                    # Kept though one mutes in between; it goes by itself when one has left.
                    self._refused = {one: at for one, at in self._refused.items() if now - at < _REFUSE_EVERY}
                    if who not in self._refused:
                        self._refused[who] = now
                        self._refuse(who)
                    return
            self.speaker = who
            self._spoke_at = 0.0
        if sound.is_speech:
            self._spoke_at = now
            self.spoke = who
        self._hear(sound)


class _Microphone:
    """One microphone's sound, in frames that are worth sending."""

    def __init__(self, mic_ms: float) -> None:
        self._mic_ms = mic_ms
        self._pcm = bytearray()
        self._rate = 0

    def put(self, sound: UserAudio) -> Iterator[UserAudio]:
        if sound.rate != self._rate:
            yield from self.flush()  # a short frame is let go when what follows can't be merged with it
            self._rate = sound.rate
        self._pcm += sound.pcm
        if len(self._pcm) / 2 / self._rate * 1000 >= self._mic_ms:
            yield from self.flush()

    def flush(self) -> Iterator[UserAudio]:
        if self._pcm:
            pcm = bytes(self._pcm)
            self._pcm.clear()
            yield UserAudio(pcm, self._rate, is_speech(pcm))


def is_speech(pcm: bytes) -> bool:
    """Whether somebody speaks in this 16-bit sound; every eighth sample is enough to tell."""
    samples = array("h", pcm)[::8]
    return sum(map(abs, samples)) > _SPEECH_LEVEL * len(samples)
