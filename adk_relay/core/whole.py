"""What all processes that share conversations are together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal, Protocol

from adk_relay.core.stats import Stats

Role = Literal["both", "web", "worker"]


@dataclass(slots=True, frozen=True)
class Counts:
    """What a process has counted since its start, and has now."""

    conversations: int = 0
    """That run there now."""
    sockets: int = 0
    """That are open now."""
    requests: int = 0
    successful: int = 0
    failed: int = 0
    seconds: float = 0.0
    """How long the successful requests took, all together."""
    created: int = 0
    """Conversations that were made."""


@dataclass(slots=True, frozen=True)
class Agent:
    """What a process that runs the agent tells of it."""

    app_name: str = ""
    model: str = ""
    is_rehearsal: bool = False
    voices: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    """Those that users may choose."""


@dataclass(slots=True, frozen=True)
class About:
    """A process."""

    role: Role
    counts: Counts
    agent: Agent | None = None
    """None: it does not run it."""


class Whole(Protocol):
    """All processes that share conversations."""

    @property
    def is_reached(self) -> bool:
        """Whether the others can be reached now."""

    @property
    def has_failed(self) -> bool:
        """Whether this process can't reach them until it is started again."""

    @property
    def processes(self) -> list[About]:
        """Those that live, as far as is known, with this one."""


def counts_of(stats: Stats, conversations: int, sockets: int) -> Counts:
    """What a process has, and has counted."""
    requests = stats.requests, stats.successful, stats.failed, stats.seconds
    return Counts(conversations, sockets, *requests, stats.created)


def total(processes: Iterable[About]) -> Counts:
    """The sums of what processes have counted."""
    counts = [process.counts for process in processes]
    return Counts(**{each.name: sum(getattr(one, each.name) for one in counts) for each in fields(Counts)})
