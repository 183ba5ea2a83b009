"""What passes between the sockets and the conversation: plain data, and nothing that knows either.

`relay.py` turns frames into `Input` and `Message` into frames; `agent/` turns `Input` into ADK live
requests and ADK events into `Message`. Every message can be serialized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

# ---- from the user ---------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class UserText:
    """A user's turn, as text."""

    text: str


@dataclass(slots=True, frozen=True)
class UserAudio:
    """Sound from the microphone: 16-bit little-endian mono PCM at `rate` samples a second."""

    pcm: bytes
    rate: int = 16_000


@dataclass(slots=True, frozen=True)
class UserImage:
    """A picture, or one frame of a camera."""

    data: bytes
    mime_type: str


@dataclass(slots=True, frozen=True)
class AudioEnd:
    """The microphone was muted: what was heard so far is to be dealt with now."""


@dataclass(slots=True, frozen=True)
class Interrupt:
    """The user has heard enough of this answer."""


ForModel = UserText | UserImage | UserAudio | AudioEnd
"""What the model is given."""

Input = ForModel | Interrupt

# ---- to the user: what was said, numbered ----------------------------------------------------


@dataclass(slots=True, frozen=True)
class Text:
    """The next piece of the agent's text; `is_transcript`: of what it says aloud."""

    seq: int
    text: str
    is_transcript: bool = False


@dataclass(slots=True, frozen=True)
class Audio:
    """The next piece of the agent's sound: 16-bit little-endian mono PCM, 24 kHz."""

    seq: int
    pcm: bytes


@dataclass(slots=True, frozen=True)
class Transcript:
    """All that was heard of the user's utterance so far; `final`: it will not change any more."""

    seq: int
    text: str
    final: bool


@dataclass(slots=True, frozen=True)
class ToolStart:
    """A tool is called. `arguments` is JSON-serializable; `timestamp` is ISO 8601."""

    seq: int
    tool_id: str
    tool_name: str
    arguments: Any
    timestamp: str


@dataclass(slots=True, frozen=True)
class ToolComplete:
    """A tool has answered. `result` is JSON-serializable; `timestamp` is ISO 8601."""

    seq: int
    tool_id: str
    tool_name: str
    result: Any
    timestamp: str


@dataclass(slots=True, frozen=True)
class TurnEnd:
    """The agent's turn is over, or (`interrupted`) was cut off: sound still unplayed is stale."""

    seq: int
    interrupted: bool = False


# ---- to the user: how things stand, not numbered ---------------------------------------------


@dataclass(slots=True, frozen=True)
class Dropped:
    """Sound that was given up because a side could not keep up: "down" to or "up" from the user."""

    direction: Literal["down", "up"]
    audio_ms: float


@dataclass(slots=True, frozen=True)
class Status:
    """How the conversation stands: its model's connection, or that a newer socket took it over."""

    state: Literal["reconnecting", "live", "elsewhere"]


@dataclass(slots=True, frozen=True)
class Error:
    """What went wrong, in words that help."""

    code: str
    message: str


@dataclass(slots=True, frozen=True)
class Ended:
    """The conversation is over for its sockets; always the last message, after its `Error`."""

    why: Literal["idle", "failed", "stopping"]


Said = Text | Audio | Transcript | ToolStart | ToolComplete | TurnEnd
Message = Said | Dropped | Status | Error | Ended
