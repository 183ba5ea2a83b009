"""What the parts of a conversation need from it. No method may wait."""

from __future__ import annotations

from typing import Protocol

from adk_relay.core.messages import Message, Place, UserText


class Teller(Protocol):
    """What all that have something to tell need."""

    def number(self) -> int:
        """The next message's `seq`."""

    def emit(self, message: Message) -> None:
        """Sends a message of the conversation to the listeners."""


class RunHost(Teller, Protocol):
    """What a run needs."""

    def place(self, of_answer: bool) -> Place:
        """The place of the next message; with `of_answer`, that of the open answer if it has text."""

    def connected(self) -> None:
        """The connection to the model is there."""

    def stored(self, text: UserText) -> None:
        """A text is in the session."""

    def crossed(self) -> None:
        """Two questions are on their way: whose answer comes next is not known."""


class RunsHost(RunHost, Protocol):
    """What the series of runs needs."""

    def tell(self, message: Message) -> None:
        """Sends a message without a number to the listeners."""

    def lost_speech(self) -> None:
        """The connection broke while somebody spoke: what they said is lost."""
