"""The limits of one socket or HTTP request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from adk_relay.wire.dialects.state_delta import Allowed
from adk_relay.wire.local import ClientTools


@dataclass(slots=True, frozen=True)
class Limits:
    """Bytes that may wait in a queue, seconds, and what clients may set.

    `adk_relay/settings.py` has the meaning of each.
    """

    queue_bytes: int
    slow_timeout: float
    ping_interval: float
    pong_timeout: float
    idle_timeout: float
    state_delta: Allowed = "session"
    client_tools: ClientTools = "loopback"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The limits that the settings ask for."""
        return cls(**{name: values[name] for name in cls.__slots__})
