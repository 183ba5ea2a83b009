"""What the socket side needs of conversations, so that it need not import the side that runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from adk_relay.core.listener import Listener
from adk_relay.core.messages import Input, Line, UserText
from adk_relay.core.requests import Stats
from adk_relay.core.room import After, Room

GUEST = "guest"
"""The user of all conversations that no live user has begun: those of chat, turn and HTTP."""


class StoppingError(Exception):
    """The server is stopping: no conversation is begun any more."""


class StoreError(Exception):
    """The session service failed; it is logged already."""


class UnknownConversationError(LookupError):
    """There is no such conversation, or it is another user's."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"There is no conversation {session_id!r}.")


@dataclass(slots=True, frozen=True)
class Summary:
    """A conversation as it is kept. Times are as of `time.time()`."""

    session_id: str
    created_at: float
    last_activity: float
    user_messages: int
    model_messages: int
    connections: int


class Conversation(Protocol):
    """One conversation. Nothing here may wait."""

    @property
    def user_id(self) -> str: ...

    @property
    def session_id(self) -> str: ...

    @property
    def room(self) -> Room: ...

    def attach(self, listener: Listener, after: After | None = None) -> None:
        """Lets a listener attend: from now on, or from the message after the last one it has got."""

    def detach(self, listener: Listener, *, at_once: bool = False) -> None:
        """Removes a listener; `at_once`: it will not come back."""

    def handle(self, user_input: Input, listener: Listener) -> None:
        """Takes what a listener sends.

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

    Those that read or write the session service raise StoreError if it fails, and StoppingError if the
    server is stopping.
    """

    @property
    def model(self) -> str: ...

    @property
    def is_rehearsal(self) -> bool: ...

    @property
    def stats(self) -> Stats: ...

    @property
    def active(self) -> int:
        """How many conversations are in memory."""

    async def open(self, user_id: str, session_id: str | None = None) -> Conversation:
        """A conversation of the user's, which is begun if there is none; None: the user's default one.

        Raises:
            UnknownConversationError: the id is another user's.
        """

    async def find(self, session_id: str) -> Conversation:
        """An existing conversation of the guest's.

        Raises:
            UnknownConversationError: there is none.
        """

    async def create(self) -> str:
        """Makes a conversation of the guest's, and returns its id."""

    async def reset(self, session_id: str, *, delete: bool) -> None:
        """Empties a conversation of the guest's, for all that attend it.

        Raises:
            UnknownConversationError: there is none.
        """

    async def read(self, session_id: str) -> tuple[Summary, list[Line]]:
        """A conversation of the guest's, and its messages.

        Raises:
            UnknownConversationError: there is none.
        """

    async def list(self, limit: int) -> list[Summary]:
        """The guest's latest conversations, the one used last first."""
