"""Counters: plain numbers that each layer raises where something happens. `adk_relay/metrics.py` reads them.

Counting adds to an attribute, and nothing else: some of it is done for each frame. Names that come from
outside, like those of tools, are bounded: beyond the first `MOST_NAMES`, all count as one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from adk_relay.core.credits import Usage
from adk_relay.core.logs import one_line

MOST_NAMES = 100
OTHER = "other"
"""The name that all names count as which have no counter of their own."""

Kind = Literal["text", "speech"]
"""How a user has asked."""

_SHORT = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_LONG = (0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Histogram:
    """How many of some durations, in seconds, were how long.

    Attributes:
        bounds: the upper bounds of the ranges, rising. One more range has no bound.
        counts: how many were in each range.
        sum: all of them added up.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Counts a duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Tally(dict[str, int]):
    """How many there were of each name, of a bounded number of names."""

    def count(self, name: str, by: int = 1) -> None:
        """Adds `by` to a name."""
        name = _bounded(self, name)
        self[name] = self.get(name, 0) + by


class Timings(dict[str, Histogram]):
    """How long something took, by a bounded number of names."""

    def observe(self, name: str, seconds: float) -> None:
        """Counts a duration of a name."""
        name = _bounded(self, name)
        if name not in self:
            self[name] = Histogram(_LONG)
        self[name].observe(seconds)


def _bounded(known: Mapping[str, object], name: str) -> str:
    if name in known:
        return name
    return one_line(name, 64) if len(known) < MOST_NAMES else OTHER


@dataclass(slots=True)
class Traffic:
    """What has passed through the sockets of one dialect since the start."""

    opened: int = 0
    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    """Payload of WebSocket messages, without their headers and before compression."""
    dropped_ms: float = 0.0
    """Sound that the clients were not sent, because they could not keep up."""
    returned: int = 0
    """Sockets whose client had been there before, and named the last message that it got."""
    gaps: int = 0
    """Those of them that could not be sent all that they had missed."""
    errors: Tally = field(default_factory=Tally)
    """Errors that the clients were told, by code."""


@dataclass(slots=True)
class Sound:
    """Seconds of sound that went past ADK (`short`), and through it (`long`)."""

    short: float = 0.0
    long: float = 0.0


@dataclass(slots=True)
class Stats:
    """Counters since the start. One object for each `Relay`."""

    # Requests for an answer, and conversations that were made.
    requests: int = 0
    successful: int = 0
    failed: int = 0
    seconds: float = 0.0
    """How long the successful ones took, all together."""
    created: int = 0

    # The wire.
    traffic: dict[str, Traffic] = field(default_factory=dict)
    """By dialect, and "http" for requests."""
    refused: Tally = field(default_factory=Tally)
    """WebSockets that were not accepted, by reason."""
    responses: Tally = field(default_factory=Tally)
    """HTTP responses, by status."""
    opening: Histogram = field(default_factory=lambda: Histogram(_SHORT))
    """From an accepted WebSocket until its conversation is open."""

    # Turns.
    turns: Tally = field(default_factory=lambda: Tally(complete=0, interrupted=0, unanswered=0))
    """By end: complete, interrupted, or unanswered: interrupted before the first piece."""
    first_piece: dict[Kind, Histogram] = field(
        default_factory=lambda: {"text": Histogram(_SHORT), "speech": Histogram(_SHORT)}
    )
    """From the end of the user's input to the first piece of the answer."""
    turn: dict[Kind, Histogram] = field(
        default_factory=lambda: {"text": Histogram(_LONG), "speech": Histogram(_LONG)}
    )
    """From the end of the user's input to the end of the answer."""
    tokens: Tally = field(default_factory=Tally)
    """By kind: input, output, thoughts; other: what the model's total has beyond them."""
    tools: Timings = field(default_factory=Timings)
    """Tool calls that have returned, by the tool's name."""
    tools_called: Tally = field(default_factory=Tally)
    tools_failed: Tally = field(default_factory=Tally)

    # Runs.
    runs_begun: int = 0
    runs_ended: Tally = field(default_factory=lambda: Tally(done=0, stopped=0, renewed=0, lost=0))
    """By end: done, stopped, renewed, lost."""
    failures: Tally = field(default_factory=Tally)
    """Conversations that ended because the agent or the model failed, by the code of the error."""
    connecting: Histogram = field(default_factory=lambda: Histogram(_SHORT))
    """Handshake and setup of the connections to the model."""
    connections: Tally = field(default_factory=Tally)
    """Connections to the model, by the way of the model's sound: short or long."""
    sound_up: Sound = field(default_factory=Sound)
    sound_down: Sound = field(default_factory=Sound)
    dropped_up_ms: float = 0.0
    """Sound that the model was not given, because it waited for too long."""

    # The process.
    loop_lag: Histogram = field(default_factory=lambda: Histogram(_LAG))
    """How late the event loop is."""

    def fail_early(self) -> None:
        """Counts a request that failed before its conversation was open."""
        self.requests += 1
        self.failed += 1

    def traffic_of(self, dialect: str) -> Traffic:
        """The counters of a dialect."""
        return self.traffic.setdefault(dialect, Traffic())

    def use(self, usage: Usage | None) -> None:
        """Counts the tokens that the model has reported."""
        if usage:
            named = {"input": usage.input, "output": usage.output, "thoughts": usage.thoughts}
            for kind, tokens in {**named, "other": max(usage.total - sum(named.values()), 0)}.items():
                self.tokens.count(kind, tokens)
