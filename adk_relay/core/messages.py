"""The plain data that passes between listeners and a conversation.

`adk_relay.wire` turns frames into `Input`, and `Message` into frames. `adk_relay.adk` turns `Input` into
ADK's live requests, and ADK's events into `Message`. All of it can be serialized.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from adk_relay.core.answer import Answer, Asked, ToolCall
from adk_relay.core.credits import Grounding, Usage
from adk_relay.core.going_away import GoingAway
from adk_relay.core.heard import Heard, Shortened
from adk_relay.core.rewind import Rewind, Rewound
from adk_relay.core.titles import Renamed
from adk_relay.core.voice import Configure, Configured

# ---- from the user ---------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a message stands among all that the listeners were told. Only within an epoch it has an order."""

    epoch: str
    seq: int


@dataclass(slots=True, frozen=True)
class UserText:
    """A text that a user wrote."""

    text: str
    id: str = ""
    """Chosen by the client. A text that is sent again with the same id counts once; "": there is none."""
    stopped: bool = False
    """The user has interrupted the answer before the model was given the text."""
    is_stored: bool = False
    """It is in the session already, but no model was given it."""
    place: Place | None = field(default=None, compare=False)
    """Where the other listeners were shown it; None: they were not."""
    name: str = field(default="", compare=False)
    """What its writer is called; "": that is not known."""
    member: str = ""
    """Who wrote it: see `core.listener.Listener`. Ids of texts are those of a member."""
    state_delta: Any = field(default=None, compare=False)
    """What it changes in the session's state, a flat JSON object; None: nothing."""

    @property
    def key(self) -> tuple[str, str]:
        """What identifies it among the texts of all members."""
        return self.member, self.id

    def is_same(self, other: UserText) -> bool:
        """Whether this is the same text, whatever has happened to it."""
        return (self.text, self.key) == (other.text, other.key)


class UserAudio(NamedTuple):
    """Sound from the microphone: 16-bit little-endian mono PCM at `rate` samples a second.

    It is a tuple because most frames hold sound, and making a frozen dataclass takes twice as long.
    """

    pcm: bytes
    rate: int = 16_000
    is_speech: bool = False
    """Whether it contains speech; set by `adk_relay.core.floor`."""


@dataclass(slots=True, frozen=True)
class UserImage:
    """An image, or one frame of a camera."""

    data: bytes
    mime_type: str


@dataclass(slots=True, frozen=True)
class ActivityStart:
    """The user begins to speak: needed only if the model's own detection of speech is switched off."""


@dataclass(slots=True, frozen=True)
class AudioEnd:
    """The microphone was muted: the model should now answer what it has heard so far."""


@dataclass(slots=True, frozen=True)
class Interrupt:
    """The user stops the answer."""


@dataclass(slots=True, frozen=True)
class UserTyping:
    """The user begins or stops typing."""

    typing: bool


@dataclass(slots=True, frozen=True)
class ToolResult:
    """The user answers a tool call that waits for an answer (`ToolStart.is_pending`)."""

    tool_id: str
    result: Any
    """JSON-serializable."""


@dataclass(slots=True, frozen=True)
class ReadOlder:
    """The client asks for older messages than it has."""

    before: str
    """The `older` of the last `Gap` or `Older` that it got."""


ForModel = UserText | UserImage | UserAudio | ActivityStart | AudioEnd
"""The input that the model is given."""

Input = ForModel | Interrupt | UserTyping | ToolResult | Configure | Rewind | Heard
"""What a listener sends."""

# ---- to listeners, numbered: the content of the conversation, in order -------------------------
# `seq` counts them within an epoch, from 1. A listener does not get every number, but they always rise.


@dataclass(slots=True, frozen=True)
class Written:
    """A user has written a text. All listeners except the writer get it."""

    seq: int
    text: str
    connection_id: str
    """The writer's."""
    id: str
    """The `UserText`'s."""
    message_count: int
    """Number of messages in the conversation, this one included."""
    name: str = ""
    """What the writer is called; "": that is not known."""


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
    """The whole text that was recognized of a user's utterance so far."""

    seq: int
    text: str
    final: bool
    """Whether it is complete: only then is it a message of the conversation."""
    connection_id: str = ""
    """The speaker's."""
    message_count: int = 0
    """Number of messages in the conversation, this one included; 0: it is not final."""
    name: str = ""
    """What the speaker is called; "": that is not known."""


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
    is_pending: bool = False
    """It waits for an answer of a user (`ToolResult`). `seq` is 0 if it was told before."""
    interim: Any = None
    """What the tool has returned meanwhile, if it waits; JSON-serializable."""


@dataclass(slots=True, frozen=True)
class ToolComplete:
    """A tool has returned."""

    seq: int
    tool_id: str
    tool_name: str
    result: Any
    timestamp: str
    """ISO 8601."""
    late: bool = False
    """The answer that it belongs to was interrupted before."""
    was_pending: bool = False
    """A user has answered it."""


@dataclass(slots=True, frozen=True)
class TurnEnd:
    """The agent's turn has ended."""

    seq: int
    interrupted: bool = False
    """It was cut off: sound that is not played yet is stale."""
    goes_on: bool = False
    """The model's connection was lost. The agent says the rest when there is a new connection."""
    usage: Usage | None = None
    """Since the last end of a turn; None: the model has reported none."""
    grounding: Grounding | None = None
    answer: Answer | None = None
    """The whole answer; None: it goes on, or it is not known yet (see `History.record`)."""


# ---- to listeners, not numbered: the state of things ------------------------------------------


@dataclass(slots=True, frozen=True)
class TurnStart:
    """The agent begins to answer."""

    asked: Asked | None = None
    """The request that it answers; None: it answers live speech or a live text."""


@dataclass(slots=True, frozen=True)
class Line:
    """A whole message of the conversation."""

    role: Literal["user", "agent"]
    text: str
    open: bool = False
    """The agent has not finished it: this is what it has said so far."""
    id: str = ""
    """That of the `UserText`. It is known while the conversation is in memory; sessions don't keep it."""
    chunks: int = 0
    """If it is open: the number of `Text` messages that it has come in so far."""
    name: str = ""
    """What the user is called who wrote or said it; "": that is not known."""
    timestamp: str = field(default="", compare=False)
    """When it was written or said (ISO 8601); "": that is not known."""
    interrupted: bool = False
    """The agent did not say the rest."""
    unanswered: bool = False
    """It is a user's, and no answer will come any more."""
    tools: tuple[ToolCall, ...] = ()
    """The tools that the answer has used: see `core.used_tools`."""


@dataclass(slots=True, frozen=True)
class Gap:
    """Numbered messages that cannot be replayed. The conversation follows in whole messages (`Line`)."""

    first: int
    """The `seq` of the first message that cannot be replayed."""
    last: int
    """The `seq` of the last one."""
    lines: int
    """How many `Line` messages follow."""
    older: str = ""
    """Names the place before those, for `ReadOlder`; "": there are no older messages."""
    epoch: str = ""
    """The epoch that begins with it, without the listener having been told; "": it was."""


@dataclass(slots=True, frozen=True)
class Older:
    """The messages that a listener has asked for by `ReadOlder` follow, in whole (`Line`)."""

    lines: int = 0
    """How many follow."""
    older: str = ""
    """Names the place before those; "": there are no older ones."""


@dataclass(slots=True, frozen=True)
class Ack:
    """The text of this id is stored: it need not be sent again."""

    id: str


@dataclass(slots=True, frozen=True)
class Taken:
    """A request was accepted. The listener that made it gets this."""

    text: UserText
    ahead: int
    """How many answers come before this one."""
    message_count: int
    """Number of messages in the conversation, the request not included."""


@dataclass(slots=True, frozen=True)
class Presence:
    """Listeners came or left."""

    joined: tuple[str, ...]
    """The connection ids of those that came."""
    left: tuple[str, ...]
    """The connection ids of those that left."""
    connections: int
    """How many listeners there are now."""
    names: tuple[tuple[str, str], ...] = ()
    """The connection id and the name of those that came or left and have a name."""


@dataclass(slots=True, frozen=True)
class Typing:
    """Another listener begins or stops typing."""

    connection_id: str
    typing: bool
    name: str = ""
    """What its user is called; "": that is not known."""


@dataclass(slots=True, frozen=True)
class Reset:
    """The conversation was emptied, and goes on in a new epoch."""

    epoch: str
    deleted: bool
    """There is no session until something is said. If False, there is a new session already."""


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

    state: Literal["reconnecting", "live", "elsewhere", "degraded"]
    """reconnecting: the model's connection or the process that held it was lost, and a new one is being
    made; live: it is there; elsewhere: a newer socket has taken the conversation over; degraded: the bus
    between the processes is away, and all that is sent waits."""


@dataclass(slots=True, frozen=True)
class Error:
    """Something went wrong."""

    code: str
    message: str
    """For the user: what went wrong, and what to do."""
    id: str = ""
    """That of the text that was refused; "": the error is not about a text."""
    tool_id: str = ""
    """That of the tool call whose answer was refused; "": the error is not about one."""
    retry_after: int = 0
    """Seconds after which the client may try again; 0: that is not known."""


@dataclass(slots=True, frozen=True)
class Ended:
    """The conversation is over: the last message of its listeners. If it failed, an `Error` is before it."""

    why: Literal["idle", "failed", "stopping", "moved"]
    """idle: nothing was said for too long; failed: the agent failed; stopping: the server is stopping; moved:
    the conversation goes on in another process."""


Numbered = Written | Text | Audio | Transcript | ToolStart | ToolComplete | TurnEnd | Rewound | Shortened
"""Messages that have a `seq`, and can be replayed."""

Earlier = Gap | Older | Line
"""Messages from before a listener came."""

Ending = Ended | GoingAway
Changed = Reset | Configured | Renamed | Status
Notice = TurnStart | Earlier | Ack | Taken | Presence | Typing | Dropped | Error | Changed | Ending
Message = Numbered | Notice
"""Everything that a listener gets."""
