"""How sound is coded on the wire. relay has it as 16-bit PCM: up at any rate, down at 24 kHz."""

from __future__ import annotations

from typing import Any, Literal

from adk_relay.core.messages import UserAudio
from adk_relay.wire import sound
from adk_relay.wire.openai.refused import RefusedError

Format = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]

RATE = 24_000
"""Of `audio/pcm`, in both directions, and of what a model says."""

_MODEL_RATE = 16_000
"""What models hear best at; they take others, too."""

_G711_RATE = 8_000

FORMATS: dict[Format, dict[str, Any]] = {
    "audio/pcm": {"type": "audio/pcm", "rate": RATE},
    "audio/pcmu": {"type": "audio/pcmu"},
    "audio/pcma": {"type": "audio/pcma"},
}
"""How the API shows them."""

BETA: dict[str, Format] = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
"""What the beta calls them."""

NAMES_IN_BETA: dict[Format, str] = {of: name for name, of in BETA.items()}

NOT_INSTALLED = f"The server can't code G.711: its operator has to install it ({sound.HOW_TO_INSTALL})."


class Incoming:
    """The sound of a client, as it comes in pieces."""

    def __init__(self, coded: Format = "audio/pcm") -> None:
        self.format = coded
        self._resampler = sound.Resampler(RATE, _MODEL_RATE) if sound.is_installed() else None

    def check(self, audio: bytes, param: str = "audio") -> None:
        """Checks that a piece is in this format.

        Raises:
            RefusedError: it is not.
        """
        if self.format == "audio/pcm" and len(audio) % 2:
            message = "audio/pcm has two bytes for each sample: the number of bytes must be even."
            raise RefusedError("invalid_value", message, param)

    def decode(self, audio: bytes) -> UserAudio | None:
        """A piece as the model gets it; None: there is too little of it yet.

        Raises:
            RefusedError: it is not in this format.
        """
        self.check(audio)
        if self.format != "audio/pcm":
            to_pcm = sound.pcm_of_ulaw if self.format == "audio/pcmu" else sound.pcm_of_alaw
            return UserAudio(to_pcm(audio), _G711_RATE)
        if not self._resampler:
            return UserAudio(audio, RATE)
        pcm = self._resampler.push(audio)
        return UserAudio(pcm, _MODEL_RATE) if pcm else None

    def end(self) -> UserAudio | None:
        """The rest, at the end of what is said; None: there is none."""
        pcm = self._resampler.flush() if self._resampler and self.format == "audio/pcm" else b""
        return UserAudio(pcm, _MODEL_RATE) if pcm else None

    def ms(self, audio: bytes) -> float:
        """How long a piece is."""
        return len(audio) / (48 if self.format == "audio/pcm" else 8)


class Outgoing:
    """What the agent says, as it comes in pieces."""

    def __init__(self, coded: Format = "audio/pcm") -> None:
        self.format = coded
        self._resampler = sound.Resampler(RATE, _G711_RATE) if coded != "audio/pcm" else None

    def encode(self, pcm: bytes) -> bytes:
        """A piece as the client gets it; b"": there is too little of it yet."""
        return self._coded(self._resampler.push(pcm)) if self._resampler else pcm

    def end(self) -> bytes:
        """The rest, at the end of an answer."""
        return self._coded(self._resampler.flush()) if self._resampler else b""

    def cut(self) -> None:
        """The answer was interrupted."""
        if self._resampler:
            self._resampler.reset()

    def ms(self, audio: bytes) -> float:
        """How long a coded piece is."""
        return len(audio) / (8 if self._resampler else 48)

    def _coded(self, pcm: bytes) -> bytes:
        return sound.ulaw_of(pcm) if self.format == "audio/pcmu" else sound.alaw_of(pcm)
