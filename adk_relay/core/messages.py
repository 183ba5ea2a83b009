"""What passes between listeners and a conversation: plain data that knows neither.

`adk_relay.wire` turns frames into `Input`, and `Message` into frames. `adk_relay.adk` turns `Input` into
ADK's live requests, and ADK's events into `Message`. All of it can be serialized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

# ---- from the user ---------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class UserText:
    """A text that a user wrote."""

    text: str
    id: str = ""
    """Given by the client, so that it can send the text again and it is still one text; "": not given."""
    stopped: bool = False
    """The user has interrupted the answer before the model was given the text."""


@dataclass(slots=True, frozen=True)
class UserAudio:
    """Sound from the microphone: 16-bit little-endian mono PCM at `rate` samples a second."""

    pcm: bytes
    rate: int = 16_000
    is_speech: bool = False
    """Whether somebody speaks in it; found out by `adk_relay.core.floor`."""


@dataclass(slots=True, frozen=True)
class UserImage:
    """An image, or one frame of a camera."""

    data: bytes
    mime_type: str


@dataclass(slots=True, frozen=True)
class AudioEnd:
    """The microphone was muted: the model should answer now what it has heard so far."""


@dataclass(slots=True, frozen=True)
class Interrupt:
    """The user does not want to hear more of this answer."""


@dataclass(slots=True, frozen=True)
class UserTyping:
    """The user begins or stops typing."""

    typing: bool


ForModel = UserText | UserImage | UserAudio | AudioEnd
"""What is given to the model."""

Input = ForModel | Interrupt | UserTyping
"""What a listener sends."""

# ---- to listeners, numbered: what was said, in order ------------------------------------------
#
# `seq` counts them within an epoch, from 1. A listener is not told every number, but they always rise.


@dataclass(slots=True, frozen=True)
class Written:
    """A user has written a text. It is told to all listeners but the writer."""

    seq: int
    text: str
    connection_id: str
    """The writer's."""
    id: str
    """That of the `UserText`."""
    message_count: int
    """Messages of the conversation, this one included."""


@dataclass(slots=True, frozen=True)
class Text:
    """The next chunk of the agent's text."""

    seq: int
    text: str
    is_transcript: bool = False
    """Whether it is the transcript of what the agent says aloud."""
    number: int = 0
    """Which chunk of its answer it is: 1, 2, 3 …; 0: not known yet (see `History.record`)."""


@dataclass(slots=True, frozen=True)
class Audio:
    """The next chunk of the agent's sound: 16-bit little-endian mono PCM at 24 kHz."""

    seq: int
    pcm: bytes


@dataclass(slots=True, frozen=True)
class Transcript:
    """All that was understood of a user's utterance so far."""

    seq: int
    text: str
    final: bool
    """Whether it is complete: only then is it a message of the conversation."""
    connection_id: str = ""
    """Whose speech it is."""
    message_count: int = 0
    """Messages of the conversation, this one included; 0: it is not final."""


@dataclass(slots=True, frozen=True)
class ToolStart:
    """A tool is called."""

    seq: int
    tool_id: str
    tool_name: str
    arguments: Any
    """JSON-serializable."""
    timestamp: str
    """ISO 8601."""
    late: bool = False
    """The answer that it belongs to was interrupted before."""


@dataclass(slots=True, frozen=True)
class ToolComplete:
    """A tool has returned."""

    seq: int
    tool_id: str
    tool_name: str
    result: Any
    """JSON-serializable."""
    timestamp: str
    """ISO 8601."""
    late: bool = False
    """The answer that it belongs to was interrupted before."""


@dataclass(slots=True, frozen=True)
class Answer:
    """A whole answer of the agent."""

    text: str
    chunks: int
    """How many `Text` messages it came in."""
    tools: tuple[ToolCall, ...]
    seconds: float
    """From the question to the end; from the first chunk, if no question was before it."""
    message_count: int
    """Messages of the conversation, this one included."""
    interrupted: bool
    asked: Asked | None = None
    """The request that it answers; None: it answers what was said or written live."""


@dataclass(slots=True, frozen=True)
class Asked:
    """The request that an answer is to."""

    connection_id: str
    """Who made the request."""
    id: str
    """That of its `UserText`."""


@dataclass(slots=True, frozen=True)
class ToolCall:
    """A tool that was called in an answer; `result` is None until it has returned."""

    tool_id: str
    tool_name: str
    arguments: Any
    result: Any


@dataclass(slots=True, frozen=True)
class TurnEnd:
    """The agent's turn has ended."""

    seq: int
    interrupted: bool = False
    """It was cut off: sound that is not played yet is stale."""
    goes_on: bool = False
    """The model's connection was lost. The agent says the rest when it is remade."""
    answer: Answer | None = None
    """The whole answer; None: it goes on, or it is not known yet (see `History.record`)."""


# ---- to listeners, not numbered: the state of things ------------------------------------------


@dataclass(slots=True, frozen=True)
class TurnStart:
    """The agent begins to answer."""

    asked: Asked | None = None
    """The request that it answers; None: it answers what was said or written live."""


@dataclass(slots=True, frozen=True)
class Line:
    """A whole message of the conversation."""

    role: Literal["user", "agent"]
    text: str
    open: bool = False
    """The agent has not finished it: this is what it has said so far."""
    id: str = ""
    """That of the `UserText`. It is known while the conversation is in memory: no session keeps it."""
    chunks: int = 0
    """If it is open, how many `Text` messages it has come in so far."""


@dataclass(slots=True, frozen=True)
class Gap:
    """Numbered messages that cannot be replayed. The conversation as it is follows, in whole messages."""

    first: int
    """The `seq` of the first message that cannot be replayed."""
    last: int
    """The `seq` of the last one."""
    lines: int
    """How many `Line` messages follow."""


@dataclass(slots=True, frozen=True)
class Ack:
    """The text of this id is stored: it need not be sent again."""

    id: str


@dataclass(slots=True, frozen=True)
class Taken:
    """A request was accepted. It is told to the listener that made it."""

    text: UserText
    ahead: int
    """How many answers come before this one."""
    message_count: int
    """Messages of the conversation, the request not included."""


@dataclass(slots=True, frozen=True)
class Presence:
    """Listeners came or left."""

    joined: tuple[str, ...]
    """The connection ids of those that came."""
    left: tuple[str, ...]
    """The connection ids of those that left."""
    connections: int
    """How many listeners there are now."""


@dataclass(slots=True, frozen=True)
class Typing:
    """Another listener begins or stops typing."""

    connection_id: str
    typing: bool


@dataclass(slots=True, frozen=True)
class Reset:
    """The conversation was emptied, and goes on in a new epoch."""

    epoch: str
    deleted: bool
    """No session is kept of it until something is said; otherwise there is a new one already."""


@dataclass(slots=True, frozen=True)
class Dropped:
    """Sound was given up because the receiver could not keep up."""

    direction: Literal["down", "up"]
    """down: to the client; up: to the model."""
    audio_ms: float
    """How much, in milliseconds."""


@dataclass(slots=True, frozen=True)
class Status:
    """The state of the conversation, as its listener sees it."""

    state: Literal["reconnecting", "live", "elsewhere"]
    """reconnecting: the model's connection is being remade; live: it is there; elsewhere: a newer socket
    has taken the conversation over."""


@dataclass(slots=True, frozen=True)
class Error:
    """Something went wrong."""

    code: str
    message: str
    """For the user: what it was, and what to do."""
    id: str = ""
    """That of the text that was refused; "": it is about no text."""


@dataclass(slots=True, frozen=True)
class Ended:
    """The conversation is over for its listeners: their last message. If it failed, an `Error` is before."""

    why: Literal["idle", "failed", "stopping"]
    """idle: nothing was said for too long; failed: the agent did; stopping: the server is going to stop."""


Numbered = Written | Text | Audio | Transcript | ToolStart | ToolComplete | TurnEnd
"""What has a `seq`, and can be replayed."""

Notice = TurnStart | Line | Gap | Ack | Taken | Presence | Typing | Reset | Dropped | Status | Error | Ended
Message = Numbered | Notice
"""What a listener is told."""
