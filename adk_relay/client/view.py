"""Views: what gets the events of a link, such as a terminal or a pipe."""

from __future__ import annotations

from typing import Protocol


class Problem(Exception):
    """An error, in words for the user."""


class View(Protocol):
    """Gets the events of a link. It is called in the event loop, so no method may block."""

    def notice(self, text: str) -> None:
        """Something that the user should know."""

    def problem(self, text: str) -> None:
        """Something that went wrong."""

    def line(self, speaker: str, text: str, name: str = "") -> None:
        """A whole text. `speaker` is "agent", "user" (in the history), or the connection id of its writer.

        `name`: what a "user" is called; "": that is not known.
        """

    def chunk(self, text: str, *, mine: bool) -> None:
        """The next chunk of an answer. `mine`: it is the answer to a text that was written here."""

    def end(self, rest: str, *, mine: bool, interrupted: bool) -> None:
        """The end of an answer, with the part that was not shown yet."""

    def sources(self, lines: list[str]) -> None:
        """What the answer that has just ended is based on: each line has a source, or the searches."""

    def call(self, question: str, how: str) -> None:
        """A tool call waits for the user. `how`: what the user types in a terminal to answer."""

    def typing(self, connection_id: str, typing: bool) -> None:
        """Another user begins to type, or stops. With an empty id: nobody types any more."""

    def changed(self) -> None:
        """The link's state or its conversation has changed."""


def name_of(connection_id: str) -> str:
    """A name for a user of whom only the connection id is known."""
    return f"Guest {connection_id[:4]}" if connection_id else "Somebody"
