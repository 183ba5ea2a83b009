"""How sound is coded on the wire, and as relay has it: 16-bit PCM, up at any rate, down at 24 kHz."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from adk_relay.core.messages import UserAudio
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

NOT_INSTALLED = "G.711 needs the packages of adk-relay[telephony], which the server does not have."


def is_installed() -> bool:
    """Whether sound can be resampled and coded."""
    return False


class Incoming:
    """Sound of a client, as it comes in pieces."""

    def __init__(self, coded: Format = "audio/pcm") -> None:
        self.format = coded

    def decode(self, audio: bytes) -> UserAudio | None:
        """A piece as the model gets it; None: nothing is complete yet.

        Raises:
            RefusedError: it is not in this format.
        """
        if len(audio) % 2:
            message = "audio/pcm has two bytes for each sample: the number of bytes must be even."
            raise RefusedError("invalid_value", message, "audio")
        return UserAudio(audio, RATE)

    def ms(self, audio: bytes) -> float:
        """How long it is."""
        return len(audio) / 48 if self.format == "audio/pcm" else len(audio) / 8


class Outgoing:
    """What the agent says, as it comes in pieces."""

    def __init__(self, coded: Format = "audio/pcm") -> None:
        self.format = coded

    def encode(self, pcm: bytes) -> bytes:
        """A piece as the client gets it; b"": nothing is complete yet."""
        return pcm


_ = Callable
