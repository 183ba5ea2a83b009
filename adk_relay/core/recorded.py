"""What is recorded of a conversation, so that another process can go on with it: see `core.recording`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adk_relay.core.answer import Asked
from adk_relay.core.listener import Member
from adk_relay.core.messages import Numbered, Place, TurnStart, UserText
from adk_relay.core.shape import PLAIN, Shape
from adk_relay.core.voice import MODELS_OWN, Voice

# ---- what the listeners were told ----------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Told:
    """A message to the listeners. Neighboring chunks of sound are merged to 200 ms."""

    message: Numbered | TurnStart


@dataclass(slots=True, frozen=True)
class Came:
    """A listener attends, and the others are told so."""

    connection_id: str
    name: str


@dataclass(slots=True, frozen=True)
class Left:
    """A listener has left."""

    connection_id: str


# ---- texts ---------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class TextSaid:
    """A text waits for the model. Its place is known; the number in it identifies it."""

    text: UserText
    connection_id: str
    """The writer's."""


@dataclass(slots=True, frozen=True)
class TextDone:
    """A text is in the session, or given up: it is not to be said again."""

    seq: int
    """The number in its place."""


@dataclass(slots=True, frozen=True)
class Stopped:
    """A user has stopped the agent: no answer is wanted to the texts that wait."""


@dataclass(slots=True, frozen=True)
class Requested:
    """A request waits for its turn."""

    number: int
    """Identifies it."""
    text: UserText
    connection_id: str
    name: str
    member: Member
    is_own: bool
    """Its listener attends as "own": when that is gone, nobody wants the answer."""
    before: int
    """How many of the requests that wait are before it."""


@dataclass(slots=True, frozen=True)
class RequestBegan:
    """A request is being answered: a `TextSaid` of its text follows."""

    number: int


@dataclass(slots=True, frozen=True)
class RequestEnded:
    """A request was answered, or given up."""

    number: int


# ---- the agent -----------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Owing:
    """A question whose answer a user waits for."""

    seq: int
    """The number in the place of its text; 0: it was not a text."""
    is_rest: bool
    """Its answer has begun: the rest would be owed if the connection were lost now."""


@dataclass(slots=True, frozen=True)
class ToolAnswered:
    """A user has answered a tool call."""

    tool_id: str
    tool_name: str
    response: Any
    """JSON-serializable: what the function returns."""


@dataclass(slots=True, frozen=True)
class AgentState:
    """Where the agent is."""

    owed: tuple[Owing, ...] = ()
    """The questions that the model was given and has not answered, the oldest first."""
    agent: str = ""
    """The name of the agent that speaks; "": it is not known."""
    handle: str = ""
    """The model's resumption handle, if it covers all; "": there is none."""
    answers: tuple[ToolAnswered, ...] = ()
    """Those that are not in the session yet."""
    voice: Voice = MODELS_OWN
    """What users have chosen."""


@dataclass(slots=True, frozen=True)
class Shaped:
    """Clients have changed how the agent answers. It is large, so it is recorded only then."""

    shape: Shape


# ---- the conversation ----------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class OpenAnswer:
    """An answer of the agent, as far as the listeners were told of it."""

    seq: int
    """The number of its first text; 0: it has none."""
    text: str
    chunks: int
    """How many messages the text came in."""
    asked: Asked | None
    """The request that it answers."""
    interrupted: bool = False
    """It has ended so."""


@dataclass(slots=True, frozen=True)
class Emptying:
    """The session is about to be deleted, and a new epoch will begin. If that fails, a checkpoint follows."""

    delete: bool
    """No new session is made until something is said."""


@dataclass(slots=True, frozen=True)
class Rewinding:
    """What was said last is about to be taken back. If that fails, a checkpoint follows."""

    place: Place
    """Where it is, with all after it."""
    id: str
    """That of the text; "": it is not known."""
    messages: int
    """How many whole messages will be gone."""


@dataclass(slots=True, frozen=True)
class Checkpoint:
    """All that a new owner needs, but the messages that are kept to be replayed.

    It is recorded at the beginning, and then again and again: what is kept is bounded in bytes and in age, so
    it may begin anywhere, but it has one of these.
    """

    epoch: str
    seq: int
    """The number of the last message."""
    is_new: bool = False
    """The epoch begins: what was recorded before does not count any more."""
    is_given: bool = False
    """The owner has given the conversation away, between two turns: nothing follows from this owner."""
    emptying: Emptying | None = None
    lines: int = 0
    """The place in the history after the last message: see `core.history`."""
    texts: tuple[TextSaid, ...] = ()
    """Those that wait for the model, or whose answers are owed."""
    waiting: tuple[int, ...] = ()
    """The numbers of those that wait for the model."""
    requests: tuple[Requested, ...] = ()
    """Those that wait, in order, after the one that is being answered."""
    current: int = 0
    """The number of the request that is being answered; 0: none is."""
    state: AgentState = AgentState()
    answer: OpenAnswer | None = None
    """The answer that is open; None: none is."""
    is_cut: bool = False
    """The listeners know that its connection was lost."""
    present: tuple[tuple[str, str], ...] = ()
    """The connection ids and the names of the listeners."""
    has_gap: bool = False
    """Some of what was recorded before is missing: the messages before this can't be replayed."""
    rewinding: Rewinding | None = None
    shape: Shape = PLAIN


@dataclass(slots=True, frozen=True)
class Over:
    """The conversation is over, and nothing is left to do. Whoever opens it again begins a new epoch."""


Recorded = (
    Told
    | Came
    | Left
    | TextSaid
    | TextDone
    | Stopped
    | Requested
    | RequestBegan
    | RequestEnded
    | AgentState
    | Shaped
    | Checkpoint
    | Emptying
    | Rewinding
    | Over
)
"""What is recorded. `TextSaid` comes before the `Told` of the same text."""
