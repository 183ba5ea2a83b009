"""When a client is pinged, and when its socket is closed because the client stalls, is dead or is idle.

There is no clock and no I/O here: each method is given the time, in seconds of one monotonic clock.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from adk_relay.wire.closing import IDLE, NO_PONG, TOO_SLOW, CloseFrame
from adk_relay.wire.limits import Limits

_MUTE_INTERVALS = 3
"""Ping intervals that a client has for its first pong: it may still be loading a page."""


class Look(NamedTuple):
    """What is due now.

    `close`: the socket is to be closed; `ping`: a ping is to be sent; `again`: when to look next, which
    is later than now.
    """

    close: CloseFrame | None
    ping: bool
    again: float


class Heartbeat:
    """The times of one socket, and what follows from them.

    - A `send` that takes `slow_timeout`: the client is too slow.
    - No frame for `ping_interval`: the client is pinged. Any frame counts as a sign of life.
    - No frame for `pong_timeout` after a ping was sent: the client is dead. This holds only for a client
      that has answered a ping before; other clients may not know pings.
    - No frame for three times `ping_interval` after a ping was sent, and at least for `pong_timeout`, from a
      client that has to know pings but has not answered one yet: it is dead, too.
    - No content for `idle_timeout` while the socket attends no conversation: the client is idle. (A
      conversation closes its own sockets when it is idle.) Pings and pongs are not content.

    No timer is set or canceled for each frame, because sound comes in many frames. Instead the caller looks
    again at the time that the last `look` returned. If a deadline has moved meanwhile, `look` returns the
    new one.

    Args:
        limits: the times.
        now: when the socket began.
        knows_pings: the client has said that it answers pings.

    Invariants:
        - No time lies in the future: `check` is given the present time.
        - Content comes in frames: the last content is not newer than the last frame.
        - A ping is sent after it was due.
    """

    def __init__(self, limits: Limits, now: float, *, knows_pings: bool = False) -> None:
        self._limits = limits
        self._knows_pings = knows_pings
        self._last_frame = now
        self._last_content = now
        self._sending_since: float | None = None
        self._ping_due = -math.inf
        """When a ping was due last; -inf: never."""
        self._ping_sent = -math.inf
        """When the first ping after the last frame was sent; a time before the last frame: none was."""
        self._has_ponged = False

    def check(self, now: float) -> None:
        """Raises AssertionError if an invariant does not hold."""
        assert self._last_content <= self._last_frame <= now
        assert self._sending_since is None or self._sending_since <= now
        assert self._ping_due <= now
        assert self._ping_sent <= now
        assert self._ping_due > -math.inf or self._ping_sent == -math.inf

    def frame_came(self, now: float) -> None:
        """The client has sent something."""
        self._last_frame = now

    def content_came(self) -> None:
        """The last frame was more than a ping or pong."""
        self._last_content = self._last_frame

    def pong_came(self) -> None:
        """The client answers pings."""
        self._has_ponged = True

    def send_began(self, now: float) -> None:
        """A frame is being sent."""
        self._sending_since = now

    def send_ended(self, now: float, *, is_ping: bool) -> None:
        """The frame was sent."""
        self._sending_since = None
        if is_ping and self._ping_sent <= self._last_frame:
            self._ping_sent = now

    def look(self, now: float, *, attends: bool) -> Look:
        """What is due now.

        Args:
            attends: the socket attends a conversation.
        """
        limits = self._limits
        stalled_at = (now if self._sending_since is None else self._sending_since) + limits.slow_timeout
        if now >= stalled_at:
            return Look(TOO_SLOW, False, math.inf)
        dead_at = math.inf
        if (self._has_ponged or self._knows_pings) and self._ping_sent > self._last_frame:
            wait = 0.0 if self._has_ponged else _MUTE_INTERVALS * limits.ping_interval
            dead_at = self._ping_sent + max(wait, limits.pong_timeout)
            if now >= dead_at:
                return Look(NO_PONG, False, math.inf)
        idle_at = math.inf
        if limits.idle_timeout:
            # A socket that leaves its conversation is looked at within this time, too.
            idle_at = now + limits.idle_timeout
            if not attends:
                idle_at = self._last_content + limits.idle_timeout
                if now >= idle_at:
                    return Look(IDLE, False, math.inf)
        ping_at = max(self._last_frame, self._ping_due) + limits.ping_interval
        is_ping_due = now >= ping_at
        if is_ping_due:
            self._ping_due = now
            ping_at = now + min(limits.ping_interval, limits.pong_timeout)
        return Look(None, is_ping_due, min(stalled_at, dead_at, idle_at, ping_at))
