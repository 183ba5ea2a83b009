"""Who attends a conversation, as the conversation sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from adk_relay.core.messages import Message


class Listener(Protocol):
    """Who attends a conversation: a socket or an HTTP request. None of its methods may wait."""

    @property
    def connection_id(self) -> str:
        """Identifies it to the other listeners."""

    @property
    def is_audio(self) -> bool:
        """Whether it wants to hear and to speak, and so needs the model's connection at once."""

    @property
    def attends(self) -> Literal["all", "newest", "own"]:
        """What it is told.

        all: everything.
        newest: everything, while it is the newest of the listeners that attend so.
        own: the answers to its own requests.
        """

    def deliver(self, message: Message) -> None:
        """Takes a message."""

    def replay(self, messages: Sequence[Message]) -> None:
        """Takes the messages that it has missed."""
