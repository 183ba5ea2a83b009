"""Where somebody speaks, in the sound of a microphone: what a live model finds out by itself."""

from __future__ import annotations

from array import array
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Utterance:
    """What somebody said: 16-bit mono PCM at `rate` samples a second, with a little silence around it."""

    pcm: bytes
    rate: int
    seconds: float
    """How long they spoke, without the silence."""


class Ear:
    """Finds where somebody begins and stops speaking, by the loudness of windows of 20 ms.

    Invariants:
        The sound that is kept is at most 30 s long.
        While nobody speaks, it is what may turn out to be the beginning of speech.
    """

    _WINDOW_MS = 20
    _LEVEL = 500  # mean |sample| of a window from which somebody speaks
    _WARY_LEVEL = 1000  # the same, while the agent's own voice may come back
    _ONSET_MS = 150  # shorter is a cough, a click, a key
    _WARY_ONSET_MS = 200
    _QUIET_MS = 600  # pauses within a sentence are shorter
    _MARGIN_MS = 200  # kept on either side: speech begins and ends quietly
    _LONGEST_MS = 30_000

    def __init__(self) -> None:
        self._rate = 0
        self._rest = b""  # of a window that is not whole yet
        self._forget()

    def _forget(self) -> None:
        self._sound = bytearray()
        self._margin = 0  # bytes before the first loud window
        self._loud_ms = self._quiet_ms = 0
        self._speaking = False

    def hear(self, pcm: bytes, rate: int, *, wary: bool) -> list[Utterance | None]:
        """Takes sound; returns None for each beginning of speech in it, and the utterance for each end.

        Args:
            wary: the agent's own voice may come back from the loudspeaker.
        """
        found: list[Utterance | None] = []
        if rate != self._rate:
            self._rate = rate
            self._rest = b""
            self._forget()
        size = 2 * (rate * self._WINDOW_MS // 1000)
        pcm = self._rest + pcm
        whole = len(pcm) - len(pcm) % size
        self._rest = pcm[whole:]
        for start in range(0, whole, size):
            window = array("h", pcm[start : start + size])
            level = sum(map(abs, window)) / len(window)
            self._sound += pcm[start : start + size]
            if self._speaking:
                self._quiet_ms = 0 if level >= self._LEVEL else self._quiet_ms + self._WINDOW_MS
                del self._sound[: -self._bytes(self._LONGEST_MS)]
                if self._quiet_ms >= self._QUIET_MS and (utterance := self.flush()):
                    found.append(utterance)
                continue
            # Quiet windows count down, so that short dips do not end a word, and clicks do not add up.
            is_loud = level >= (self._WARY_LEVEL if wary else self._LEVEL)
            self._loud_ms = max(0, self._loud_ms + (self._WINDOW_MS if is_loud else -self._WINDOW_MS))
            if not self._loud_ms:
                del self._sound[: -self._bytes(self._MARGIN_MS)]
                self._margin = len(self._sound)
            elif self._loud_ms >= (self._WARY_ONSET_MS if wary else self._ONSET_MS):
                self._speaking = True
                found.append(None)
        return found

    def flush(self) -> Utterance | None:
        """The utterance up to now, if somebody speaks."""
        utterance = None
        if self._speaking:
            end = len(self._sound) - self._bytes(self._quiet_ms)
            pcm = bytes(self._sound[: end + self._bytes(self._MARGIN_MS)])
            utterance = Utterance(pcm, self._rate, (end - self._margin) / 2 / self._rate)
        self._forget()
        return utterance

    def _bytes(self, ms: int) -> int:
        return 2 * (self._rate * ms // 1000)
