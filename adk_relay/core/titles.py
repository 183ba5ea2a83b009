"""What conversations are called: the title that their users have given them, or how they began."""

from __future__ import annotations

from dataclasses import dataclass

MAX_TITLE_CHARS = 80
"""Characters of a title, and of the beginning of a text that stands in its place."""


@dataclass(slots=True, frozen=True)
class Renamed:
    """The conversation has another title; "": it has none any more."""

    title: str


def one_line(text: str) -> str:
    """A text in one line, without what cannot be printed."""
    return "".join(char for char in " ".join(text.split()) if char.isprintable())


def beginning(text: str) -> str:
    """The beginning of a text, in place of a title."""
    line = one_line(text[: 4 * MAX_TITLE_CHARS])
    return line if len(line) <= MAX_TITLE_CHARS else line[: MAX_TITLE_CHARS - 1].rstrip() + "…"
