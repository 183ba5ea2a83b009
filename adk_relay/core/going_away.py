"""The message that tells all listeners of a stop before it comes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class GoingAway:
    """The server is about to stop. Its sockets are closed as soon as no answer is under way."""

    after: float
    """Seconds after which they are closed at the latest."""
