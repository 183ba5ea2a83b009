"""The sound of one microphone, merged into chunks that are worth sending."""

from __future__ import annotations

from adk_relay.core.messages import UserAudio


class Merger:
    """Merges the chunks of one microphone: each send costs the same, whatever its size.

    Invariants:
        Less than `mic_ms` of sound waits to be merged, and it has a rate.

    Args:
        mic_ms: shorter chunks are merged up to so many milliseconds.
    """

    def __init__(self, mic_ms: float) -> None:
        self._mic_ms = mic_ms
        self._pcm = bytearray()
        self._rate = 0
        """Samples per second of the sound that waits; 0: no sound has come yet."""

    def check(self) -> None:
        """Asserts the invariants."""
        if self._pcm:
            assert self._rate > 0, "sound waits that has no rate"
            waiting_ms = self._ms(self._pcm)
            assert waiting_ms < self._mic_ms, f"{waiting_ms} ms wait to be merged"

    def add(self, sound: UserAudio) -> list[UserAudio]:
        """Takes a chunk, and returns the merged chunks that are complete."""
        merged: list[UserAudio] = []
        if sound.rate != self._rate:
            merged = self.flush()  # sound of two rates can't be merged
            self._rate = sound.rate
        if not self._pcm and self._ms(sound.pcm) >= self._mic_ms:  # usual: there is nothing to merge or copy
            merged.append(sound)
            return merged
        self._pcm += sound.pcm
        if self._ms(self._pcm) >= self._mic_ms:
            merged += self.flush()
        return merged

    def flush(self) -> list[UserAudio]:
        """Returns the sound that waits, as one chunk; none, if none waits."""
        if not self._pcm:
            return []
        pcm = bytes(self._pcm)
        self._pcm.clear()
        return [UserAudio(pcm, self._rate)]

    def _ms(self, pcm: bytes | bytearray) -> float:
        return len(pcm) / 2 / self._rate * 1000
