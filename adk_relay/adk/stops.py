"""Why the runs of a conversation are stopped."""

from __future__ import annotations

from enum import IntEnum, auto


class Stop(IntEnum):
    """Why the runs are stopped. A greater reason replaces a smaller one that is not dealt with yet."""

    IDLE = auto()
    """Nothing was said for too long."""
    LEFT = auto()
    """The last listener has left, and the grace is over."""
    RESET = auto()
    """The conversation is to be emptied, or what was said last taken back."""
    UNREADABLE = auto()
    """The session could not be read: the conversation never began."""
    CLOSING = auto()
    """The server is stopping."""
    GIVEN = auto()
    """The conversation is to go on in another process."""
    LOST = auto()
    """It goes on in another process already."""
