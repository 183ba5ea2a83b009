"""What the client of an open socket may do, and until when."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from adk_relay.core.listener import Listener
from adk_relay.core.messages import Error, ReadOlder, UserAudio
from adk_relay.core.visitor import Visitor
from adk_relay.core.voice import Configure
from adk_relay.wire.closing import SIGN_IN, CloseFrame
from adk_relay.wire.dialects import Attend, BadFrameError, Command, Join
from adk_relay.wire.guard import Refused
from adk_relay.wire.heartbeat import Heartbeat
from adk_relay.wire.quotas import Rates

_NOTICE = 30.0
"""Seconds before the end of its token that a client is told of it."""

_LISTENS = "You were invited to listen only."
_IS_NOT_USERS = "Only the user whose conversation this is may set instructions and tools."

Renew = Callable[[Visitor, str], Awaitable[Visitor]]
"""Takes a new token in place of what the one before it said; raises Refused. See `Guard.renew`."""

SignIn = Callable[[Visitor, Attend], Awaitable[tuple[Visitor, Rates, str, str]]]
"""Finds out who a client is that was admitted without that; raises Refused. See `Guard.sign_in`."""


class NotAllowedError(Exception):
    """The visitor may not do this. The message says what it may do."""


class Due(NamedTuple):
    """What is due now.

    `close`: the socket is to be closed; `expires_in`: the client is to be told that its token expires in so
    many seconds; `again`: in how many seconds to look next.
    """

    close: CloseFrame | None
    expires_in: float | None
    again: float


class Admission:
    """The visitor of one socket.

    Args:
        visitor: who the socket was opened by.
        renew: takes a new token.
        rates: how much it may send.
        no_shape: why its client may not set instructions and tools; "": it may, if the visitor may.
        sign_in: finds out who the client is, if it says so in its frames; None: it does not.
    """

    def __init__(
        self, visitor: Visitor, renew: Renew, rates: Rates, no_shape: str = "", sign_in: SignIn | None = None
    ) -> None:
        self.visitor = visitor
        self._no_shape = no_shape
        self._renew = renew
        self._rates = rates
        self._sign_in = sign_in
        self._is_warned = False
        self._is_told = False
        self._was_heard = False
        """Whether the client has tried to speak and may not."""

    @property
    def limits(self) -> dict[str, float]:
        """How much the client may send: see `Rates.limits`."""
        return self._rates.limits

    def look(self, now: float) -> Due:
        """What is due now.

        Args:
            now: `time.time()`.
        """
        if self.visitor.expires_at is None:
            return Due(None, None, math.inf)
        left = self.visitor.expires_at - now
        if left <= 0:
            return Due(SIGN_IN.because("the token has expired"), None, math.inf)
        if left > _NOTICE:
            return Due(None, None, left - _NOTICE)
        told, self._is_told = self._is_told, True
        return Due(None, None if told else left, left)

    async def renew(self, token: str) -> None:
        """Takes a new token of the same user.

        Raises:
            BadFrameError: it does not let the client stay.
        """
        try:
            self.visitor = await self._renew(self.visitor, token)
        except Refused as refused:
            raise BadFrameError("bad_token", refused.reason) from None
        self._is_told = False

    async def attend(self, command: Attend) -> tuple[str, str]:
        """Who the client is, as it says in its frames: the user and the conversation that it reaches.

        Raises:
            Refused: it is nobody.
        """
        assert self._sign_in
        self.visitor, self._rates, user_id, session_id = await self._sign_in(self.visitor, command)
        return user_id, session_id

    async def check(self, command: Command, heartbeat: Heartbeat) -> None:
        """Counts a command that is no sound. Too many pings are only slowed down.

        Raises:
            NotAllowedError: the visitor only listens, and the command does more than that; or it may not set
                instructions and tools.
            RateLimitedError: it sends too many of them.
        """
        if command in ("ping", "pong"):
            self._rates.take_ping()
            await _pause(self._rates.ping_wait, heartbeat)
            return
        self._rates.take_message()
        if not (self.visitor.may_write or isinstance(command, Join | ReadOlder)):
            raise NotAllowedError(_LISTENS)
        if isinstance(command, Configure) and command.shapes_agent:
            if self._no_shape:
                raise NotAllowedError(self._no_shape)
            if not self.visitor.may_empty:  # the agent would take them for the user's own
                raise NotAllowedError(_IS_NOT_USERS)

    def takes_sound(self, sound: UserAudio, listener: Listener) -> bool:
        """Counts sound, and returns whether the visitor may speak.

        Raises:
            NotAllowedError, RateLimitedError: it may not. It is told the first time only: sound comes in many
                frames.
        """
        if not (self.visitor.may_write or self._was_heard):
            self._was_heard = True
            raise NotAllowedError(_LISTENS)
        if not (self.visitor.may_write and self._rates.take_sound(sound)):
            return False
        if self._rates.is_near and not self._is_warned:
            self._is_warned = True
            listener.deliver(Error("limit_near", "You have little time left to speak today."))
        return True

    @property
    def sound_is_early(self) -> bool:
        """Whether more sound has come than in real time: nothing is to be read for a while."""
        return self._rates.sound_wait() > 0

    async def slow_down(self, heartbeat: Heartbeat) -> None:
        """Waits until more sound may come."""
        await _pause(self._rates.sound_wait, heartbeat)


async def _pause(wait: Callable[[], float], heartbeat: Heartbeat) -> None:
    """Waits as long as `wait` says. No pong can be read meanwhile, so the client is not pinged."""
    while seconds := wait():
        await asyncio.sleep(min(seconds, 1.0))
        heartbeat.frame_came(time.monotonic())
