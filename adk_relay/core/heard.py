"""How much of an answer a user has heard: a model makes sound faster than it is played."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Heard:
    """Of the answer that is open, or else of the last one, the user has heard only the beginning.

    Only the words that fit stay in the conversation. A second one for the same answer may only shorten it. For
    an answer without sound, or from a listener without sound, it is ignored.
    """

    ms: float
    """How many milliseconds of its sound were played; 0: nothing was heard."""
