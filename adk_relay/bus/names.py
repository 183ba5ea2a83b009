"""The names of processes. Each says which messages its process knows."""

from __future__ import annotations

import os
import secrets
import socket

from adk_relay.bus.codec import PROTOCOL


def new_name() -> str:
    """A name for this process."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}+{PROTOCOL}"


def protocol_of(process: str) -> str:
    """The `codec.PROTOCOL` of a process."""
    return process.partition("+")[2]


def understand(one: str, other: str) -> bool:
    """Whether two processes understand each other."""
    return protocol_of(one) == protocol_of(other)
