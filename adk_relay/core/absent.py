"""Listeners of an owner before: a new owner knows what they wait for, until they come again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adk_relay.core.messages import Message


@dataclass(slots=True, frozen=True, eq=False)
class Absent:
    """A listener that does not attend. What it is told is lost; it asks again when it comes."""

    connection_id: str
    name: str = ""
    member: str = ""
    address: str = ""
    attends: Literal["all", "newest", "own"] = "all"
    is_audio: bool = False
    connects: bool = False

    def deliver(self, message: Message) -> None:
        """Takes a message, and forgets it."""

    def replay(self, messages: Sequence[Message]) -> None:
        """The same."""
