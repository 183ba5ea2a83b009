"""The last text of a user is taken back, to be answered again or edited."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Rewind:
    """A user takes back what a user has written or said last, and all that came after it."""

    id: str = ""
    """That of the text, if it has one that is known: another one has not come meanwhile. "": the last one."""
    may_all: bool = False
    """Whether it may be somebody else's text: the conversation is the user's own."""


@dataclass(slots=True, frozen=True)
class Rewound:
    """What a user has written or said last is taken back, with all that came after it."""

    seq: int
    id: str
    """That of the text; "": it has none, or it is not known."""
    messages: int = 0
    """How many whole messages are gone; 0: not known yet (see `History.record`)."""
    message_count: int = 0
    """Number of messages that are left."""
