"""What a browser's microphone hears."""

from __future__ import annotations

import math
import wave
from array import array
from pathlib import Path

from support.browser import RATE


class Microphone:
    """What the browser hears: a WAV file, which is read when the page asks for the microphone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hears(quiet(1000))

    def hears(self, *sounds: bytes) -> None:
        with wave.open(str(self.path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(b"".join(sounds))


def voice(ms: int) -> bytes:
    """Sound that a noise suppressor takes for speech: a voice that moves, in four syllables a second."""
    samples = array("h")
    phase = 0.0
    for n in range(RATE * ms // 1000):
        seconds = n / RATE
        phase += 2 * math.pi * (140 + 25 * math.sin(2 * math.pi * 0.9 * seconds)) / RATE
        loud = 0.2 + 0.8 * abs(math.sin(4 * math.pi * seconds))
        samples.append(int(9000 * loud * sum(math.sin(k * phase) / k for k in range(1, 8))))
    return samples.tobytes()


def quiet(ms: int) -> bytes:
    return bytes(2 * (RATE * ms // 1000))
