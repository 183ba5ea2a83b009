"""Who has the floor: of all who send sound, the model hears one at a time."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator

from adk_relay.core.messages import AudioEnd, UserAudio

_SPEECH_LEVEL = 500
"""Mean |sample| of 16-bit sound from which a chunk counts as speech."""

_QUIET = 1.0
"""Seconds without speech after which somebody else may take the floor."""

_REFUSE_EVERY = 1.0
"""Seconds between two refusals of a speaker who goes on all the same."""

_NEVER = float("-inf")


class Floor:
    """Takes the sound of several microphones, and passes on that of the one that has the floor.

    A microphone is known by its `connection_id`. The first that sends sound has the floor. Another one
    takes it by speaking when the holder has not spoken for 1 s; if it speaks earlier it is refused, and
    sound without speech is dropped without a refusal. When the holder mutes or leaves, the floor is free,
    and the model is told that its sound has ended.

    Invariants:
        Whoever has the floor has a microphone here.
        While nobody has the floor, no time of speech is kept.

    Args:
        mic_ms: shorter chunks are merged up to so many milliseconds, because each send to the model
            costs the same whatever its size.
        hear: takes what the model is to be given.
        refuse: called with the `connection_id` of a microphone that is refused, at most once a second.
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
        self._refused_at: dict[str, float] = {}
        self._spoke_at = _NEVER
        """`time.monotonic()` of the last speech of the speaker, since it has the floor."""
        self.speaker = ""
        """Who has the floor; "": nobody."""
        self.last_speaker = ""
        """Whose speech was passed on last; "": nobody's was."""

    def check(self) -> None:
        """Asserts the invariants."""
        if self.speaker:
            assert self.speaker in self._microphones, f"{self.speaker} has the floor, and no microphone"
        else:
            assert self._spoke_at == _NEVER, "nobody has the floor, and a time of speech is kept"

    def offer(self, connection_id: str, sound: UserAudio) -> None:
        """Takes a chunk of a microphone's sound."""
        if connection_id not in self._microphones:
            self._microphones[connection_id] = _Microphone(self._mic_ms)
        for merged in self._microphones[connection_id].add(sound):
            self._pass_on(connection_id, merged)

    def end(self, connection_id: str) -> None:
        """Somebody mutes or leaves: what waits to be merged is passed on, and no more will come."""
        if microphone := self._microphones.get(connection_id):
            for merged in microphone.flush():
                self._pass_on(connection_id, merged)
            del self._microphones[connection_id]
        if self.speaker == connection_id:
            self.speaker = ""
            self._spoke_at = _NEVER
            self._hear(AudioEnd())

    def _pass_on(self, connection_id: str, sound: UserAudio) -> None:
        now = time.monotonic()
        if self.speaker != connection_id:
            if self.speaker:
                if not sound.is_speech:
                    return
                if now - self._spoke_at < _QUIET:
                    self._refuse_at(connection_id, now)
                    return
            self.speaker = connection_id
        if sound.is_speech:
            self._spoke_at = now
            self.last_speaker = connection_id
        self._hear(sound)

    def _refuse_at(self, connection_id: str, now: float) -> None:
        """Refuses a speaker, unless it was refused just now.

        The time outlives the microphone, so muting in between brings no second refusal. Old ones are removed.
        """
        self._refused_at = {other: at for other, at in self._refused_at.items() if now - at < _REFUSE_EVERY}
        if connection_id not in self._refused_at:
            self._refused_at[connection_id] = now
            self._refuse(connection_id)


class _Microphone:
    """The sound of one microphone, merged into chunks that are worth sending.

    Invariants:
        Less than `mic_ms` of sound waits to be merged, and it has a rate.
    """

    def __init__(self, mic_ms: float) -> None:
        self._mic_ms = mic_ms
        self._pcm = bytearray()
        self._rate = 0
        """Samples a second of what waits; 0: nothing has come yet."""

    def check(self) -> None:
        """Asserts the invariants."""
        if self._pcm:
            assert self._rate > 0, "sound waits that has no rate"
            assert self._waiting_ms() < self._mic_ms, f"{self._waiting_ms()} ms wait to be merged"

    def add(self, sound: UserAudio) -> Iterator[UserAudio]:
        """Takes a chunk, and gives those that are complete."""
        if sound.rate != self._rate:
            yield from self.flush()  # it can't be merged with what follows
            self._rate = sound.rate
        self._pcm += sound.pcm
        if self._waiting_ms() >= self._mic_ms:
            yield from self.flush()

    def flush(self) -> Iterator[UserAudio]:
        """Gives what waits."""
        if self._pcm:
            pcm = bytes(self._pcm)
            self._pcm.clear()
            yield UserAudio(pcm, self._rate, is_speech(pcm))

    def _waiting_ms(self) -> float:
        return len(self._pcm) / 2 / self._rate * 1000


def is_speech(pcm: bytes) -> bool:
    """Whether this 16-bit sound is speech; every eighth sample is enough to tell."""
    samples = array("h", pcm)[::8]
    return sum(map(abs, samples)) > _SPEECH_LEVEL * len(samples)
