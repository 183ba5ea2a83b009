"""The states of a link, and the allowed transitions between them."""

from __future__ import annotations

from enum import StrEnum


class StateError(Exception):
    """A transition that is not allowed. This is a defect of the client."""


class State(StrEnum):
    """The state of a link. The value is the word that the user sees."""

    DISCONNECTED = "disconnected"
    """There is no connection, and none will be opened until the user asks for it."""

    CONNECTING = "connecting"
    """The first connection is being opened, and has not been greeted by the server yet."""

    WAITING = "waiting"
    """There is no connection. Another one is tried after each pause."""

    HTTP = "http"
    """No WebSocket gets through. Texts go over plain HTTP; a WebSocket is tried after each pause."""

    JOINING = "joining"
    """The server has greeted. It was asked to join `session_id` and has not answered yet."""

    CREATING = "creating"
    """The server has greeted. It was asked for a new conversation and has not answered yet."""

    CONNECTED = "connected"
    """Texts are sent at once. Without a `session_id`, the first text creates a conversation."""

    ASLEEP = "asleep"
    """The server closed the connection for good. The next text opens another one."""

    @property
    def is_greeted(self) -> bool:
        """The server has greeted on a WebSocket that is open."""
        return self in (State.JOINING, State.CREATING, State.CONNECTED)

    @property
    def is_idle(self) -> bool:
        """Nothing is done to get a connection."""
        return self in (State.DISCONNECTED, State.ASLEEP)

    def to(self, state: State) -> State:
        """The state that follows.

        Raises:
            StateError: it can't follow this one.
        """
        if state is not self and state not in TRANSITIONS[self]:
            raise StateError(f"A link that is {self} can't become {state}.")
        return state


_ENDS = {State.ASLEEP, State.DISCONNECTED}

TRANSITIONS: dict[State, set[State]] = {
    State.DISCONNECTED: {State.CONNECTING},
    State.CONNECTING: {State.WAITING, State.HTTP, State.JOINING, State.CONNECTED, *_ENDS},
    State.WAITING: {State.HTTP, State.JOINING, State.CONNECTED, *_ENDS},
    State.HTTP: {State.JOINING, State.CONNECTED, *_ENDS},
    State.JOINING: {State.CONNECTED, State.WAITING, *_ENDS},
    State.CREATING: {State.CONNECTED, State.JOINING, State.WAITING, *_ENDS},
    State.CONNECTED: {State.JOINING, State.CREATING, State.WAITING, *_ENDS},
    State.ASLEEP: {State.CONNECTING, State.DISCONNECTED},
}
"""The states that may follow each state. To stay in a state is always allowed."""
