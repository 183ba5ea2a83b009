"""Paces what is given to a server whose `send` never waits.

Such a server keeps what the client has not taken in its own memory, without a bound, and the outbox never
fills. relay can't see what the client has taken, but it knows how fast sound is played.
"""

from __future__ import annotations

import logging
import time
from functools import cache, partial

from adk_relay.wire.asgi import Scope, Send

log = logging.getLogger("relay")

_RATE = 72_000
"""Bytes a second: a little more than sound takes as it is played, in base64 with its JSON (64,000)."""


class Pace:
    """At most `burst` bytes, and what has been played since, are given to `send`.

    There is no clock here: each method is given the time, in seconds of one monotonic clock.

    Invariant:
        `_debt` is what the client had still to take at `_at`, if it takes `_RATE`; it is not negative.
    """

    def __init__(self, burst: int, now: float) -> None:
        self._burst = burst
        self._debt = 0.0
        self._at = now

    def check(self) -> None:
        """Raises AssertionError if the invariant does not hold."""
        assert self._debt >= 0

    def wait(self, now: float) -> float:
        """Seconds until the next frame may be sent; 0: now."""
        self._debt = max(self._debt - (now - self._at) * _RATE, 0.0)
        self._at = now
        return max(self._debt - self._burst, 0.0) / _RATE

    def sent(self, size: int) -> None:
        """A frame of so many bytes was sent."""
        self._debt += size


def pace_for(scope: Scope, send: Send, burst: int) -> Pace | None:
    """How a WebSocket's `send` is paced; None: it waits for a slow peer, as far as is known here.

    The `send` of daphne never waits, and that of hypercorn over HTTP/2. No other server that is known here
    has WebSockets over HTTP/2.
    """
    if is_daphnes(send):
        _tell_of_daphne()
    elif scope.get("http_version") != "2":
        return None
    return Pace(burst, time.monotonic())


def is_daphnes(send: Send) -> bool:
    """Whether it is daphne's own `send`. One that a framework has wrapped is not recognized."""
    function = send.func if isinstance(send, partial) else send
    return str(getattr(function, "__module__", "")) == "daphne.server"


@cache
def _tell_of_daphne() -> None:
    """Says what is lost. daphne has no lifespan, so the first WebSocket is the first chance to see it."""
    log.warning(
        "The server is daphne. It keeps what slow clients have not read in its own memory, and does not tell"
        " relay when it stops. docs/production.md says what is lost."
    )
