"""What one socket or request is granted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Limits:
    """Bytes that may wait in a queue, and seconds. `relay.Relay` says what each is for."""

    queue_bytes: int
    slow_timeout: float
    ping_interval: float
    pong_timeout: float
    idle_timeout: float
