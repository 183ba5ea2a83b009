"""Limits that hold for all processes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True, frozen=True)
class Bucket:
    """What was taken of an allowance: a token bucket (see `core.allowance`)."""

    rate: float
    most: float
    taken: float


@dataclass(slots=True, frozen=True)
class Use:
    """What somebody has in a process, and has taken there since it was told last."""

    whose: str
    """Somebody who has a limit: a user, or an address."""
    sockets: int
    """That are open in this process."""
    most_sockets: int
    """In all processes; 0: any number."""
    is_new: bool = False
    """The last of the sockets is to be refused if it is one too many."""
    buckets: tuple[Bucket, ...] = ()
    day: int = 0
    """The day, in UTC since 1970, that `spoken` is about."""
    spoken: float = 0.0
    """Seconds of sound."""


@dataclass(slots=True, frozen=True)
class Left:
    """What somebody has in all processes together."""

    has_place: bool
    """False: the new socket is one too many, and was not counted."""
    buckets: tuple[float, ...]
    """What is left in each."""
    spoken: float
    """Seconds of sound on that day."""


class Shared(Protocol):
    """Where processes count together. It may be away: then each counts alone."""

    @property
    def generation(self) -> int:
        """Rises if what this process has was forgotten: it has to be told again."""

    async def tell(self, uses: Sequence[Use]) -> list[Left] | None:
        """Adds what was taken, and returns what is left; None: it is away."""

    async def take_once(self, name: str, seconds: float) -> bool | None:
        """Whether nobody else has taken this in so many seconds; None: it is away."""
