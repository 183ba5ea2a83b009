"""What an answer has cost, and what it is based on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Usage:
    """Tokens that the model has reported. `total` may count more than the others together."""

    input: int
    output: int
    thoughts: int
    total: int

    def plus(self, other: Usage | None) -> Usage:
        """The sum of both."""
        if other is None:
            return self
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.thoughts + other.thoughts,
            self.total + other.total,
        )


@dataclass(slots=True, frozen=True)
class Source:
    """Something that an answer is based on. Neither field can be trusted: they come from the web."""

    title: str
    url: str


@dataclass(slots=True, frozen=True)
class Grounding:
    """What an answer is based on."""

    sources: tuple[Source, ...]
    searches: tuple[str, ...]
    """What was searched for."""
    suggestions: str
    """Google's search suggestions, as HTML; "": there are none."""
