"""Quotas across processes: each tells what its users and addresses have, and learns what they have in all."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import NamedTuple

from adk_relay.core.allowance import Allowance
from adk_relay.core.shared import Bucket, Left, Shared, Use
from adk_relay.core.visitor import Visitor
from adk_relay.wire.quotas import ADDRESS_IS_FULL, USER_IS_FULL, OverQuotaError, Quotas, User

_EVERY = 1.0
"""Seconds between two times that the others are told. So long, somebody may take more than is allowed."""

_AT_ONCE = 50
"""Users and addresses that are told of at once: it takes some milliseconds, in which nothing else happens."""

_ALL_EVERY = 3600.0
"""Seconds after which all are told of again: what is known of them expires."""


class _Somebody(NamedTuple):
    """Somebody who has a limit: a user, or an address."""

    name: str
    sockets: int
    """That are open here now."""
    most: int
    user: User | None = None


class Sharing:
    """Lets quotas count in all processes.

    Only a new socket waits for the others. Rates are counted here; every second the others are told what was
    taken, and the allowances are set to what is left in all. While the others can't be reached, this process
    counts alone.

    Invariants:
        `_told` has no zeros.

    Args:
        quotas: those of this process.
        shared: where processes count together.
    """

    def __init__(self, quotas: Quotas, shared: Shared) -> None:
        self._quotas = quotas
        self._shared = shared
        self._told: dict[str, int] = {}
        """How many sockets here the others know of, by whose they are."""
        self._told_at = time.monotonic()
        """When all were told last."""
        self._generation = shared.generation
        self._turn = asyncio.Lock()
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Asserts the invariants."""
        assert all(self._told.values()), f"{self._told}"

    def start(self) -> None:
        """From now on, in the running event loop, the others are told every second."""
        loop = asyncio.get_running_loop()
        if not self._task or self._task.done() or self._task.get_loop() is not loop:
            self._turn, self._over = asyncio.Lock(), asyncio.Event()
            self._task = asyncio.create_task(self._run(), name="limits of all processes")

    async def aclose(self) -> None:
        """Ends. The others learn that nothing is open here any more, though sockets may still be closing."""
        task, self._task = self._task, None
        if task and task.get_loop() is asyncio.get_running_loop():
            self._over.set()  # not cancelled at once: a command to Redis may be under way
            await asyncio.wait({task}, timeout=_EVERY)
            task.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._tell_changes()
                    await self._tell([_Somebody(name, 0, 0) for name in self._told])

    async def enter(self, visitor: Visitor, address: str) -> None:
        """Counts a new socket, which has a place in this process: see `Quotas.enter`.

        Raises:
            OverQuotaError: there is no place in all processes.
        """
        self.start()
        whose = {_name("address", address): ADDRESS_IS_FULL}
        if visitor.user_id is not None:
            whose[_name("user", visitor.user_id)] = USER_IS_FULL
        async with self._turn:
            found = [each for name in whose if (each := self._find(name))]
            left = await self._tell(found, is_new=True)
        for somebody, known in zip(found, left, strict=False):
            if not known.has_place:
                raise OverQuotaError(429, whose[somebody.name])

    async def take_once(self, name: str, seconds: float) -> bool | None:
        """Whether nobody else has taken this in so many seconds; None: the others can't be reached."""
        return await self._shared.take_once(name, seconds)

    async def _run(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._over.wait()
            await self._tell_changes()

    async def _tell_changes(self) -> None:
        now = time.monotonic()
        if self._shared.generation != self._generation or now - self._told_at > _ALL_EVERY:
            self._generation, self._told_at = self._shared.generation, now
            self._told.clear()
        names = dict.fromkeys([*self._names(), *self._told])
        changed = [name for name in names if self._has_changed(self._find(name) or _Somebody(name, 0, 0))]
        for start in range(0, len(changed), _AT_ONCE):
            async with self._turn:
                some = [
                    self._find(name) or _Somebody(name, 0, 0) for name in changed[start : start + _AT_ONCE]
                ]
                if not await self._tell(some):
                    return

    def _has_changed(self, each: _Somebody) -> bool:
        is_used = each.user and (each.user.untold or any(bucket.taken for bucket in _allowances(each.user)))
        return bool(is_used) or each.sockets != self._told.get(each.name, 0)

    async def _tell(self, whose: list[_Somebody], *, is_new: bool = False) -> list[Left]:
        """Tells what these have, and sets what is left of it. Empty: the others can't be reached."""
        uses = [_use(each, is_new=is_new) for each in whose]
        left = await self._shared.tell(uses) if uses else []
        if left is None:
            for each, use in zip(whose, uses, strict=True):
                if each.user and each.user.day == use.day:
                    each.user.untold += use.spoken  # what was taken of the rates is forgiven
            return []
        for each, use, known in zip(whose, uses, left, strict=True):
            sockets = use.sockets - (not known.has_place)
            self._told[each.name] = sockets
            if not sockets:
                del self._told[each.name]
            if each.user:
                _settle(each.user, use.day, known)
        return left

    def _names(self) -> list[str]:
        """Those who may have a limit."""
        return [
            *(_name("user", user_id) for user_id in self._quotas.users),
            *(_name("address", address) for address in self._quotas.addresses),
        ]

    def _find(self, name: str) -> _Somebody | None:
        """Somebody who has a limit; None: nobody, or without one."""
        quotas, (kind, _, who) = self._quotas, name.partition(" ")
        if kind == "address":
            is_limited = who and quotas.address_sockets
            return _Somebody(name, quotas.addresses[who], quotas.address_sockets) if is_limited else None
        user = quotas.users.get(who)
        if not user or not (quotas.user_sockets or _allowances(user) or quotas.user_sound_day):
            return None
        return _Somebody(name, user.sockets, quotas.user_sockets, user)


def _name(kind: str, who: str) -> str:
    return f"{kind} {who}"


def _allowances(user: User) -> list[Allowance]:
    return [each for each in (user.messages, user.sound) if each]


def _use(each: _Somebody, *, is_new: bool) -> Use:
    """What somebody has and has taken. From now on, it counts as told."""
    user = each.user
    if not user:
        return Use(each.name, each.sockets, each.most, is_new)
    user.begin_day()
    taken = [Bucket(bucket.rate, bucket.most, bucket.taken) for bucket in _allowances(user)]
    use = Use(each.name, each.sockets, each.most, is_new, tuple(taken), user.day, user.untold)
    user.untold = 0.0
    for bucket in _allowances(user):
        bucket.taken = 0.0
    return use


def _settle(user: User, day: int, known: Left) -> None:
    """Sets what is left for a user. Some may have been taken since it was told."""
    for bucket, left in zip(_allowances(user), known.buckets, strict=True):
        bucket.set_left(left - bucket.taken)
    if user.day == day:
        user.sound_today = known.spoken + user.untold
