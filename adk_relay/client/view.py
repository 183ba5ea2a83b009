"""What a link reports, and to whom: a terminal, a pipe, or a test."""

from __future__ import annotations

from typing import Protocol


class Problem(Exception):
    """What went wrong, in words for the user."""


class View(Protocol):
    """What a link tells about what happens. It is called in the event loop, so no method may block."""

    def notice(self, text: str) -> None:
        """Something that the user should know."""

    def problem(self, text: str) -> None:
        """Something that went wrong."""

    def line(self, who: str, text: str) -> None:
        """A whole text. `who` is "agent", "user" (in the history), or the connection id of its writer."""

    def chunk(self, text: str, *, mine: bool) -> None:
        """The next piece of an answer. `mine`: it answers what was written here."""

    def end(self, rest: str, *, mine: bool, interrupted: bool) -> None:
        """The end of an answer, with the part that was not shown yet."""

    def typing(self, who: str, typing: bool) -> None:
        """Somebody begins to type, or stops. With an empty `who`: nobody types any more."""

    def changed(self) -> None:
        """The link's state or its conversation is another."""


def name_of(connection_id: str) -> str:
    """What to call somebody of whom only the connection id is known."""
    return f"Guest {connection_id[:4]}" if connection_id else "Somebody"
