"""Listeners: what a conversation needs to know of those that attend it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from adk_relay.core.messages import Message


class Listener(Protocol):
    """A socket or an HTTP request that attends a conversation. No method may wait."""

    @property
    def connection_id(self) -> str:
        """Identifies it to the other listeners."""

    @property
    def name(self) -> str:
        """What its user is called, for the other listeners; "": that is not known."""

    @property
    def member(self) -> str:
        """Who its user is, the same for all its connections; "": nobody signs in, so that is not known."""

    @property
    def address(self) -> str:
        """Where its user is, if that is all that is known of the user; "": not known, or not needed."""

    @property
    def is_audio(self) -> bool:
        """Whether it gets sound."""

    @property
    def connects(self) -> bool:
        """Whether the model is connected as soon as it attends, and not only when something is said."""

    @property
    def attends(self) -> Literal["all", "newest", "own"]:
        """Which messages it gets.

        all: everything.
        newest: everything, while it is the newest listener with this value.
        own: the answers to its own requests.
        """

    def deliver(self, message: Message) -> None:
        """Takes a message."""

    def replay(self, messages: Sequence[Message]) -> None:
        """Takes the messages that it has missed."""


class Member(NamedTuple):
    """For whom the doings of listeners are counted.

    `id`: a user who has signed in, with all connections; or one connection, where nobody signs in.
    `address`: connections are easily made, so those of one address have a share of all together; "": there
    is no such share.
    """

    id: str
    address: str = ""


def member_of(listener: Listener) -> Member:
    """The member that a listener belongs to."""
    if listener.member:
        return Member(listener.member)
    if listener.attends == "own":  # it makes one request: all those of an address count together
        return Member(f"requests of {listener.address}", listener.address)
    return Member(listener.connection_id, listener.address)
