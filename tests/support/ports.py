"""Ports for programs that are started a moment later."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

_RANDOM = random.SystemRandom()  # hypothesis gives the other one the same seed in all processes


def free_port() -> int:
    """A port that nobody listens on.

    It is below those that the system itself gives out (on Linux from 32768 on), so nobody gets it meanwhile.
    """
    while True:
        port = _RANDOM.randrange(10_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
