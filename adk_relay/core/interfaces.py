"""Protocols of conversations: `wire` uses these, so that it need not import `adk`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from adk_relay.core.listener import Listener
from adk_relay.core.messages import Input, Line, ReadOlder, ToolResult, ToolStart, UserText
from adk_relay.core.requests import BusyError
from adk_relay.core.room import After, Standing
from adk_relay.core.stats import Stats
from adk_relay.core.voice import Choices


class StoppingError(Exception):
    """The server is stopping: conversations can't be opened any more."""


class FullError(BusyError):
    """As many conversations are in memory as may be."""

    TEXT = "Too many conversations are open now: try again later."

    def __init__(self) -> None:
        super().__init__(self.TEXT)


class UnreachableError(BusyError):
    """The processes that have the conversations can't be reached now."""

    TEXT = "The server's processes can't reach each other now: try again later."

    def __init__(self) -> None:
        super().__init__(self.TEXT)


class StoreError(Exception):
    """The session service failed; the failure is logged already."""


class StoreInUseError(RuntimeError):
    """Another process serves the same sessions. The text says what to set."""


class UnknownToolError(LookupError):
    """No tool call with this id waits for an answer."""

    def __init__(self) -> None:
        super().__init__("No call with this tool_id waits for an answer: it may have got one already.")


class ToolResultError(ValueError):
    """The tool can't use this answer. The message says what it needs."""


class UnknownConversationError(LookupError):
    """There is no such conversation, or it is another user's."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"There is no conversation {session_id!r}.")


def default_id(user_id: str) -> str:
    """The id of a live user's default conversation."""
    return f"live-{user_id}"


@dataclass(slots=True, frozen=True)
class Summary:
    """A conversation in numbers. Times are those of `time.time()`."""

    session_id: str
    created_at: float
    last_activity: float
    user_messages: int
    model_messages: int
    connections: int
    pending: tuple[ToolStart, ...] = ()
    """The tool calls that wait for a user. In a list of conversations there are none."""
    state: Any = None
    """What clients have set in the session's state, a flat JSON object. In a list there is none."""
    title: str = ""
    """What its users have named it; "": they have not."""
    first_text: str = ""
    """The beginning of what a user said first; "": nothing was said."""

    @property
    def messages(self) -> int:
        return self.user_messages + self.model_messages


class OlderMessages(Protocol):
    """The messages of a conversation that are not in memory."""

    def read(self, wanted: ReadOlder, listener: Listener) -> None:
        """Reads some of them. The listener then gets `Older` and the messages, or an `Error`."""


class Conversation(Protocol):
    """One conversation. No method waits."""

    @property
    def user_id(self) -> str: ...

    @property
    def session_id(self) -> str: ...

    @property
    def older(self) -> OlderMessages: ...

    def standing(self, listener: Listener | None) -> Standing:
        """How the conversation stands, for a listener that is about to come, or is there."""

    def is_attended_by(self, listener: Listener) -> bool:
        """Whether a listener is in the room."""

    def replay(self, listener: Listener, after: After) -> None:
        """Gives a listener in the room the messages that it has missed."""

    def attach(self, listener: Listener, after: After | None = None) -> None:
        """Adds a listener to the room. With `after`, it first gets the messages that it missed."""

    def detach(self, listener: Listener, *, at_once: bool = False) -> None:
        """Removes a listener; `at_once`: it will not come back."""

    def handle(self, user_input: Input, listener: Listener) -> None:
        """Takes the input of a listener.

        Raises:
            InboxFullError: too much text waits for the model already.
        """

    def ask(self, text: UserText, listener: Listener) -> None:
        """Takes a text whose answer `listener` waits for.

        Raises:
            BusyError: too many requests wait already.
        """


class Conversations(Protocol):
    """All conversations of one agent.

    Methods that use the session service raise StoreError if it fails, and StoppingError if the server is
    stopping. Where other processes have conversations, they raise UnreachableError if these can't be reached.
    """

    @property
    def model(self) -> str: ...

    @property
    def is_rehearsal(self) -> bool: ...

    @property
    def choices(self) -> Choices:
        """Which voices and languages users may choose."""

    @property
    def stats(self) -> Stats: ...

    def is_closing(self) -> bool:
        """Whether the server is stopping: no conversation is opened any more."""

    async def is_ready(self) -> bool:
        """Whether conversations can be opened and stored now."""

    @property
    def active(self) -> int:
        """How many conversations are in memory."""

    def has_place(self, user_id: str, session_id: str | None) -> bool:
        """Whether a conversation is in memory, or there is a place for it."""

    async def open(self, user_id: str, session_id: str | None = None) -> Conversation:
        """Opens a conversation of a user, which begins if there is none with this id.

        Args:
            session_id: None: the user's default conversation.

        Raises:
            UnknownConversationError: the conversation is another user's.
            FullError: too many are in memory already.
        """

    async def check(self, user_id: str, session_id: str) -> None:
        """Checks that an id is not another user's.

        Raises:
            UnknownConversationError: it is another user's.
        """

    async def find(self, user_id: str, session_id: str) -> Conversation:
        """Opens an existing conversation of a user.

        Raises:
            UnknownConversationError: there is none.
        """

    async def create(self, user_id: str) -> str:
        """Makes a conversation of a user, and returns its id."""

    async def reset(self, user_id: str, session_id: str, *, delete: bool) -> None:
        """Empties a conversation of a user, for all its listeners.

        Raises:
            UnknownConversationError: there is none.
        """

    async def rename(self, user_id: str, session_id: str, title: str) -> None:
        """Names a conversation of a user, for all its listeners; "": it has no name any more.

        Raises:
            UnknownConversationError: there is none.
        """

    async def answer(self, user_id: str, session_id: str, answer: ToolResult) -> None:
        """Takes the answer to a tool call that waits for a user.

        Raises:
            UnknownConversationError: the user has no such conversation.
            UnknownToolError: no such call waits.
            ToolResultError: the tool can't use the answer.
        """

    async def read(
        self, user_id: str, session_id: str, before: int | None = None
    ) -> tuple[Summary, list[Line], int]:
        """The summary of a conversation of a user, some of its messages, and the number of the first one.

        Args:
            before: the number of the message before which they are; None: the last messages.

        Raises:
            UnknownConversationError: there is none.
        """

    async def list(self, user_id: str, limit: int) -> list[Summary]:
        """A user's latest conversations, the one used last first."""
