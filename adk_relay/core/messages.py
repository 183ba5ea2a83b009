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
    """A user's turn, as text. `id`: the client's own name for it, so that it can be sent again."""

    text: str
    id: str = ""
    stopped: bool = False
    """The user has had enough of the answer before it began."""


@dataclass(slots=True, frozen=True)
class UserAudio:
    """Sound from the microphone: 16-bit little-endian mono PCM at `rate` samples a second."""

    pcm: bytes
    rate: int = 16_000
    is_speech: bool = False
    """Somebody speaks in it; told by `adk_relay.core.floor`."""


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


@dataclass(slots=True, frozen=True)
class UserTyping:
    """Somebody begins to write, or stops."""

    typing: bool


ForModel = UserText | UserImage | UserAudio | AudioEnd
"""What the model is given."""

Input = ForModel | Interrupt | UserTyping

# ---- to the user: what was said, numbered ----------------------------------------------------


@dataclass(slots=True, frozen=True)
class Written:
    """Somebody has written a text; told to everybody else. `connection_id` is the writer's socket."""

    seq: int
    text: str
    connection_id: str
    id: str
    message_count: int
    """Messages of the conversation, this one included."""


@dataclass(slots=True, frozen=True)
class Text:
    """The next piece of the agent's text; `is_transcript`: of what it says aloud."""

    seq: int
    text: str
    is_transcript: bool = False
    number: int = 0
    """Which piece of the answer it is: 1, 2, 3 …"""


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
    connection_id: str = ""
    """Whose socket the speech came from."""
    message_count: int = 0


@dataclass(slots=True, frozen=True)
class ToolStart:
    """A tool is called. `arguments` is JSON-serializable; `timestamp` is ISO 8601.

    `late`: the answer that it belongs to was stopped.
    """

    seq: int
    tool_id: str
    tool_name: str
    arguments: Any
    timestamp: str
    late: bool = False


@dataclass(slots=True, frozen=True)
class ToolComplete:
    """A tool has answered. `result` is JSON-serializable; `timestamp` is ISO 8601."""

    seq: int
    tool_id: str
    tool_name: str
    result: Any
    timestamp: str
    late: bool = False


@dataclass(slots=True, frozen=True)
class Answer:
    """A whole answer of the agent's."""

    text: str
    chunks: int
    """How many `Text`s it came in."""
    tools: tuple[ToolCall, ...]
    seconds: float
    """From the question, or where there was none from the first piece, to the end."""
    message_count: int
    """Messages of the conversation, this one included."""
    interrupted: bool
    asked: Asked | None = None


@dataclass(slots=True, frozen=True)
class Asked:
    """Whose request it is that is answered; None in its place: what was said live.

    `connection_id`: the socket that asked; `id`: the client's own name for its text.
    """

    connection_id: str
    id: str


@dataclass(slots=True, frozen=True)
class ToolCall:
    """A tool that was used; `result` is None while it has not answered."""

    tool_id: str
    tool_name: str
    arguments: Any
    result: Any


@dataclass(slots=True, frozen=True)
class TurnEnd:
    """The agent's turn is over, or (`interrupted`) was cut off: sound still unplayed is stale.

    `goes_on`: the model's connection was lost, and when it is remade the agent says the rest.
    `answer`: the whole of it, unless it goes on.
    """

    seq: int
    interrupted: bool = False
    goes_on: bool = False
    answer: Answer | None = None


# ---- to the user: how things stand, not numbered ---------------------------------------------


@dataclass(slots=True, frozen=True)
class TurnStart:
    """The agent begins to answer."""

    asked: Asked | None = None


@dataclass(slots=True, frozen=True)
class Line:
    """A whole message of the conversation.

    `open`: the agent is still saying it, and these are the first so many `chunks` of it.
    The `id` that a text's client gave it is known while the conversation is in memory: no session keeps it.
    """

    role: Literal["user", "agent"]
    text: str
    open: bool = False
    id: str = ""
    chunks: int = 0


@dataclass(slots=True, frozen=True)
class Gap:
    """Messages `first` to `last` are no longer kept; `lines` Lines follow, the conversation as it is."""

    first: int
    last: int
    lines: int


@dataclass(slots=True, frozen=True)
class Ack:
    """The text of that id is stored: it need not be sent again."""

    id: str


@dataclass(slots=True, frozen=True)
class Taken:
    """A request was taken, for whoever made it; `ahead`: so many are answered before it."""

    text: UserText
    ahead: int
    message_count: int


@dataclass(slots=True, frozen=True)
class Presence:
    """Who came and who left, and how many listen now."""

    joined: tuple[str, ...]
    left: tuple[str, ...]
    connections: int


@dataclass(slots=True, frozen=True)
class Typing:
    """Somebody begins to write, or stops."""

    connection_id: str
    typing: bool


@dataclass(slots=True, frozen=True)
class Reset:
    """The conversation was emptied, and goes on in a new epoch; `deleted`: as one that is not kept yet."""

    epoch: str
    deleted: bool


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
    """What went wrong, in words that help; `id`: of the text that is not said because of it."""

    code: str
    message: str
    id: str = ""


@dataclass(slots=True, frozen=True)
class Ended:
    """The conversation is over for its sockets; always the last message, after its `Error`."""

    why: Literal["idle", "failed", "stopping"]


Numbered = Written | Text | Audio | Transcript | ToolStart | ToolComplete | TurnEnd
"""What is numbered, and can be replayed."""

Notice = TurnStart | Line | Gap | Ack | Taken | Presence | Typing | Reset | Dropped | Status | Error | Ended
Message = Numbered | Notice
