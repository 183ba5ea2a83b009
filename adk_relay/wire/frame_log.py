"""Frames in the debug log."""

from __future__ import annotations

import logging

from adk_relay.core.logs import one_line
from adk_relay.wire.dialects import Command, Dialect, Event, NewToken
from adk_relay.wire.outbox import Frame

log = logging.getLogger("relay")


def brief(frame: Frame) -> str:
    """A frame for the log: long base64 is cut."""
    if isinstance(frame, bytes):
        return f"{len(frame)} bytes of sound"
    return one_line(frame, 300) + (f"… ({len(frame)} characters)" if len(frame) > 300 else "")


def decode(dialect: Dialect, frame: Frame, label: str | None) -> Command | Event:
    """The command or the event in a client's frame, which is logged; but no token is.

    Args:
        label: what the socket is called in the log; None: nothing is logged.

    Raises:
        BadFrameError: the frame is not a valid command.
    """
    if label is None:
        return dialect.decode(frame)
    shown = brief(frame)
    try:
        command = dialect.decode(frame)
        if isinstance(command, NewToken):
            shown = "a new token"
        return command
    finally:
        log.debug("[CLIENT TO AGENT] %s: %s", label, shown)
