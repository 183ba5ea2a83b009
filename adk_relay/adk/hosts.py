"""What the parts of a conversation need from it. No method may wait."""

from __future__ import annotations

from typing import Protocol

from adk_relay.adk.meter import Meter
from adk_relay.core.messages import Message, UserText
from adk_relay.core.room import Room


class Teller(Protocol):
    """What all that have something to tell need."""

    def number(self) -> int:
        """The next message's `seq`."""

    def emit(self, message: Message) -> None:
        """Sends a message of the conversation to the listeners."""


class RunHost(Teller, Protocol):
    """What a run needs."""

    @property
    def meter(self) -> Meter: ...

    @property
    def room(self) -> Room:
        """It gives messages their numbers and places."""

    def speaker(self) -> str:
        """The name of the user who spoke last; "": it is not known."""

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
