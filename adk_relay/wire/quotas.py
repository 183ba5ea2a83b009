"""Quotas: how many sockets and requests may be open, and how much one socket and one user may send.

A user is counted if clients have to sign in; otherwise anybody could take any name. Each process counts for
itself, from its start; with a bus, `sharing.py` lets what users and addresses have count in all processes.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any, Literal

from adk_relay.core.allowance import Allowance
from adk_relay.core.messages import UserAudio
from adk_relay.core.visitor import Visitor
from adk_relay.wire.asgi import Scope

_BURST_SECONDS = 10.0
"""Seconds of a rate of messages that may come at once, after a pause."""

_PINGS = 5
"""How many pings and pongs may come for each other message: they cost least."""

_SOUND_AT_ONCE = 60.0
"""Seconds of sound that may come at once, after a pause: as much as may wait for the model."""

_REFUSALS = 20
"""Messages that are refused before the socket is closed. One more is forgiven every two seconds."""

_RETRY_AFTER = 30
"""Seconds after which a client that found no place may try again."""

_MAX_USERS = 10_000
"""Users that are remembered without having anything open."""

ADDRESS_IS_FULL = "Too many clients are connected from your address."
USER_IS_FULL = "You have too many connections already."

_DAY = 24 * 3600
_NEAR = 0.9
"""The part of a day's sound after which a user is told that little is left."""


class OverQuotaError(Exception):
    """There is no place for the client. The message says why.

    Attributes:
        status: the HTTP status: 429 if it has too much itself, 503 if all together have.
        retry_after: in how many seconds it may try again.
    """

    def __init__(self, status: Literal[429, 503], reason: str, retry_after: float = _RETRY_AFTER) -> None:
        self.status = status
        self.retry_after = math.ceil(retry_after)
        super().__init__(reason)


class RateLimitedError(Exception):
    """A client has sent too much. The message says when it may go on.

    Attributes:
        retry_after: in how many seconds.
        is_last: it was told too often already: the socket is to be closed.
    """

    def __init__(self, what: str, retry_after: float, *, is_last: bool = False) -> None:
        self.retry_after = math.ceil(retry_after)
        self.is_last = is_last
        super().__init__(f"{what}: wait {_duration(self.retry_after)}.")


@dataclass(slots=True)
class User:
    """What one user has open and has sent. None: there is no limit."""

    messages: Allowance | None
    sound: Allowance | None
    sockets: int = 0
    day: int = 0
    """The day, in UTC since 1970, that `sound_today` is about."""
    sound_today: float = 0.0
    """Seconds of sound."""
    untold: float = 0.0
    """The part of it that other processes were not told of yet."""

    def begin_day(self) -> None:
        """Sets back what is counted for each day, if another one has begun."""
        if self.day != (today := _today()):
            self.day, self.sound_today, self.untold = today, 0.0, 0.0


@dataclass(slots=True)
class _Held:
    """The places that a socket or a request has."""

    is_socket: bool
    address: str
    user_id: str | None


@dataclass(slots=True)
class Quotas:
    """Counts what clients have open. 0: there is no limit. `adk_relay/settings.py` has the meaning of each.

    Invariants:
        The counts are the sums over `_held`. No address is kept that has no socket.
    """

    max_sockets: int = 0
    user_sockets: int = 0
    address_sockets: int = 0
    max_requests: int = 0
    message_rate: float = 0
    user_message_rate: float = 0
    sound_rate: float = 0
    user_sound_rate: float = 0
    user_sound_day: float = 0
    addresses: Counter[str] = field(default_factory=Counter)
    """The sockets that each has open."""
    users: dict[str, User] = field(default_factory=dict)
    _held: dict[int, _Held] = field(default_factory=dict)  # by the id of the scope
    _sockets: int = 0
    _requests: int = 0

    def check(self) -> None:
        """Asserts the invariants."""
        sockets = [held for held in self._held.values() if held.is_socket]
        assert self._sockets == len(sockets)
        assert self._requests == len(self._held) - len(sockets)
        assert self.addresses == Counter(held.address for held in sockets if held.address)
        of_users = Counter(held.user_id for held in sockets if held.user_id is not None)
        assert of_users == {user_id: user.sockets for user_id, user in self.users.items() if user.sockets}

    # ---- at the door ----

    def enter(self, scope: Scope, visitor: Visitor, address: str) -> None:
        """Takes a place for a socket or a request, until `leave`.

        Args:
            address: which one it counts for, see `address_of`; "": for none.

        Raises:
            OverQuotaError: there is none.
        """
        user_id = visitor.user_id
        user = None if user_id is None else self._user(user_id)
        is_socket = scope["type"] == "websocket"
        if is_socket:
            if 0 < self.max_sockets <= self._sockets:
                raise OverQuotaError(503, "Too many clients are connected now.")
            if address and 0 < self.address_sockets <= self.addresses[address]:
                raise OverQuotaError(429, ADDRESS_IS_FULL)
            if user and 0 < self.user_sockets <= user.sockets:
                raise OverQuotaError(429, USER_IS_FULL)
            self._sockets += 1
            if address:
                self.addresses[address] += 1
            if user:
                user.sockets += 1
        else:
            if 0 < self.max_requests <= self._requests:
                raise OverQuotaError(503, "Too many requests are under way now.", 5)
            if user and user.messages:
                if wait := user.messages.wait(time.monotonic()):
                    raise OverQuotaError(429, "You send too many requests.", wait)
                user.messages.take(1)
            self._requests += 1
        self._held[id(scope)] = _Held(is_socket, address, user_id)

    def leave(self, scope: Scope) -> None:
        """Gives back the place of a socket or a request, if it has one."""
        held = self._held.pop(id(scope), None)
        if held is None:
            return
        if not held.is_socket:
            self._requests -= 1
            return
        self._sockets -= 1
        if held.address:
            self.addresses[held.address] -= 1
            if not self.addresses[held.address]:
                del self.addresses[held.address]
        if held.user_id is not None:
            self.users[held.user_id].sockets -= 1

    def rates(self, visitor: Visitor) -> Rates:
        """The rates of a new socket, which has a place."""
        return Rates(
            _messages(self.message_rate),
            _sound(self.sound_rate),
            None if visitor.user_id is None else self._user(visitor.user_id),
            self.user_sound_day,
        )

    def _user(self, user_id: str) -> User:
        user = self.users.get(user_id)
        if user is None:
            if len(self.users) >= _MAX_USERS:
                self._forget()
            user = self.users[user_id] = User(_messages(self.user_message_rate), _sound(self.user_sound_rate))
        return user

    def _forget(self) -> None:
        """Forgets users of whom nothing is open, and who have not spoken today if that counts."""
        today = _today()
        self.users = {
            user_id: user
            for user_id, user in self.users.items()
            if user.sockets or (self.user_sound_day and user.sound_today and user.day == today)
        }


class Rates:
    """How much one socket may still send.

    Args:
        messages, sound: what the socket itself may send; None: without a limit.
        user: what its user has sent through all sockets; None: that does not count.
        sound_day: seconds of sound that the user may send in a day; 0: without a limit.
    """

    def __init__(
        self,
        messages: Allowance | None = None,
        sound: Allowance | None = None,
        user: User | None = None,
        sound_day: float = 0,
    ) -> None:
        own, users = (messages, user.messages if user else None), (sound, user.sound if user else None)
        self._messages = [allowance for allowance in own if allowance]
        self._sound = [allowance for allowance in users if allowance]
        self._pings = messages and _messages(messages.rate * _PINGS)
        self._refusals = Allowance(0.5, _REFUSALS)
        self._user = user if sound_day else None
        self._sound_day = sound_day
        self._is_told = False
        """The client was told that it may speak no more today."""
        self.is_near = False
        """Little is left of the day's sound."""

    @property
    def limits(self) -> dict[str, float]:
        """What the client is told when it comes, by the names of the wire, without what is not limited."""
        limits: dict[str, float] = {}
        if self._messages:
            limits["messages_per_second"] = min(allowance.rate for allowance in self._messages)
        if self._user:
            spoken = self._user.sound_today if self._user.day == _today() else 0.0
            limits["sound_seconds_today"] = round(max(0.0, self._sound_day - spoken), 1)
        return limits

    def take_message(self) -> None:
        """Counts a message that is neither sound nor a ping.

        Raises:
            RateLimitedError: it comes too early.
        """
        now = time.monotonic()
        wait = max((allowance.wait(now) for allowance in self._messages), default=0.0)
        if wait:
            self._refusals.take(1)
            raise RateLimitedError("You send too many messages", wait, is_last=self._refusals.wait(now) > 0)
        for allowance in self._messages:
            allowance.take(1)

    def take_ping(self) -> None:
        """Counts a ping or a pong. They are counted apart: too many are only read later, like sound."""
        if self._pings:
            self._pings.take(1)

    def take_sound(self, sound: UserAudio) -> bool:
        """Counts sound. False: it is more than the user may send in a day.

        Raises:
            RateLimitedError: the same, the first time: sound comes in many frames.
        """
        seconds = len(sound.pcm) / 2 / sound.rate
        if self._user and not self._take_of_day(self._user, seconds):
            if self._is_told:
                return False
            self._is_told = True
            raise RateLimitedError("You have spoken as much as you may today", _DAY - time.time() % _DAY)
        for allowance in self._sound:
            allowance.take(seconds)
        return True

    def sound_wait(self) -> float:
        """Seconds to wait before more is read: more sound has come than in real time."""
        now = time.monotonic()
        return max((allowance.wait(now) for allowance in self._sound), default=0.0)

    def ping_wait(self) -> float:
        """Seconds to wait before more is read: too many pings have come."""
        return self._pings.wait(time.monotonic()) if self._pings else 0.0

    def _take_of_day(self, user: User, seconds: float) -> bool:
        user.begin_day()
        if user.sound_today >= self._sound_day:
            return False
        self._is_told = False
        user.sound_today += seconds
        user.untold += seconds
        self.is_near = user.sound_today >= _NEAR * self._sound_day
        return True


def quotas_of(values: Mapping[str, Any]) -> Quotas:
    """The quotas that the settings ask for."""
    names = (name for name in Quotas.__dataclass_fields__ if name in values)
    return Quotas(**{name: values[name] for name in names})


def address_of(scope: Scope) -> str:
    """The address that sockets are counted for; "": it is not known, or this machine's own.

    It is the one that the server tells: what a proxy says of its client counts only if the server trusts the
    proxy (`--forwarded-allow-ips` of uvicorn). One household has a /64 of IPv6 addresses (RFC 6177).
    """
    client = scope.get("client")
    try:
        address = ip_address(client[0]) if client else None
    except ValueError:
        return ""
    if address is None:
        return ""
    if not isinstance(address, IPv4Address):
        address = address.ipv4_mapped or address
    if address.is_loopback:
        return ""
    return str(address if isinstance(address, IPv4Address) else ip_network((int(address), 64), strict=False))


def _messages(rate: float) -> Allowance | None:
    return Allowance(rate, max(1.0, rate * _BURST_SECONDS)) if rate else None


def _sound(rate: float) -> Allowance | None:
    return Allowance(rate, rate * _SOUND_AT_ONCE) if rate else None


def _today() -> int:
    return int(time.time() // _DAY)


def _duration(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
