"""Ownership: which process runs a conversation. A token fences off an owner that was replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from adk_relay.bus import keys
from adk_relay.bus.server import Script, Server

EXPIRY_MS = 60 * 60 * 1000
"""How long it is known who owned a conversation, if its owner has died and nobody asks for it."""

_RENEW_SECONDS = 20 * 60
_AT_ONCE = 200
"""Conversations that are renewed in one round trip."""

_FIND = Script("return redis.call('GET', KEYS[1])")

_PARTS = """
local found = redis.call('GET', KEYS[1])
local token, process = 0, ''
if found then
    local first, rest = string.match(found, '^(%d+) (.*)$')
    token, process = tonumber(first), rest
end
"""

_TAKE = Script(
    _PARTS
    + """
-- ARGV: the token that was seen, the process that takes it, ms until it expires
if process ~= '' and token ~= tonumber(ARGV[1]) then
    return {string.format('%.0f', token), process}
end
local now = redis.call('TIME')
token = math.max(token + 1, now[1] * 1000 + math.floor(now[2] / 1000))
redis.call('SET', KEYS[1], string.format('%.0f %s', token, ARGV[2]), 'PX', ARGV[3])
return {string.format('%.0f', token), ARGV[2]}
"""
)

KEEP = """
-- ARGV: the token, the process, ms until it expires. The highest token is the owner's. A key that is
-- missing, or has an older one, was in a Redis that was emptied, or that had not got the last writes of the
-- one that it has replaced.
if token > tonumber(ARGV[1]) or (token == tonumber(ARGV[1]) and process ~= ARGV[2]) then
    return {string.format('%.0f', token), process}
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
"""
"""The part of a script that ends it where a newer owner is known."""

_KEEP = Script(_PARTS + KEEP + "return {ARGV[1], ARGV[2]}")

GUARD = _PARTS + KEEP
"""The same, to begin another script with; its KEYS[1] is the owner's key."""

_RELEASE = Script(
    _PARTS
    + """
-- ARGV: the token, ms until it expires. The token stays, so that the next one is higher.
if token == tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], ARGV[1] .. ' ', 'PX', ARGV[2])
end
"""
)


class Owner(NamedTuple):
    """The owner of a conversation."""

    token: int
    """Each owner has a higher one than the one before; of the order of ms since 1970."""
    process: str
    """"": it was released, and nobody owns it."""


class Ownership:
    """The conversations that this process owns.

    Args:
        on_lost: called with a conversation that has a newer owner, and with that owner.

    Invariants:
        Tokens are positive.
    """

    def __init__(self, server: Server, process: str, on_lost: Callable[[str, Owner], None]) -> None:
        self.held: dict[str, int] = {}
        """The tokens, by conversation."""
        self._server = server
        self._process = process
        self._on_lost = on_lost
        self._renew = asyncio.Event()

    def check(self) -> None:
        """Asserts the invariants."""
        assert all(token > 0 for token in self.held.values()), f"{self.held}"

    async def find(self, conversation: str) -> Owner | None:
        """Who owns a conversation; None: nobody is known to have owned it lately.

        Raises:
            AwayError: Redis is away.
        """
        return (await self.find_all([conversation])).get(conversation)

    async def find_all(self, conversations: Sequence[str]) -> dict[str, Owner]:
        """Who owns these, by conversation: those that nobody is known to have owned lately are missing.

        Raises:
            AwayError: Redis is away.
        """
        found = await self._server.scripts(_FIND, [([keys.owner(each)], ()) for each in conversations])
        owners = {}
        for conversation, value in zip(conversations, found, strict=True):
            if value is not None:
                token, _, process = value.decode().partition(" ")
                owners[conversation] = Owner(int(token), process)
        return owners

    async def take(self, conversation: str, seen: int) -> Owner:
        """Takes a conversation if nobody owns it, or if its owner's token still is the one that was seen.

        Args:
            seen: the token of the owner that has died; 0: there was none.

        Returns:
            Its owner now: this process, or another one that was quicker.

        Raises:
            AwayError: Redis is away. It may be taken nevertheless: take it again with this `seen`.
        """
        found = await self._server.script(_TAKE, [keys.owner(conversation)], seen, self._process, EXPIRY_MS)
        owner = Owner(int(found[0]), found[1].decode())
        if owner.process == self._process:
            self.held[conversation] = owner.token
        return owner

    async def release(self, conversation: str) -> None:
        """Gives a conversation up, so that anybody can take it.

        Raises:
            AwayError: Redis is away. This process does not keep it nevertheless.
        """
        if token := self.held.pop(conversation, 0):
            await self._server.script(_RELEASE, [keys.owner(conversation)], token, EXPIRY_MS)

    async def is_held(self, conversation: str) -> bool:
        """Asks Redis whether this process still owns a conversation; if not, `on_lost` is called first.

        Raises:
            AwayError: Redis is away.
        """
        await self._keep([conversation])
        return conversation in self.held

    def lose(self, conversation: str, owner: Owner) -> None:
        """There is a newer owner."""
        if self.held.get(conversation, owner.token) < owner.token:
            del self.held[conversation]
            self._on_lost(conversation, owner)

    def renew(self) -> None:
        """Asks about all of them soon: this process may have been taken for dead."""
        self._renew.set()

    async def run(self) -> None:
        """Keeps what is owned from expiring, until it is cancelled."""
        while True:
            try:
                async with asyncio.timeout(_RENEW_SECONDS):
                    await self._renew.wait()
            except TimeoutError:
                pass
            self._renew.clear()
            conversations = [*self.held]
            for start in range(0, len(conversations), _AT_ONCE):
                some = conversations[start : start + _AT_ONCE]
                await self._server.attempt(partial(self._keep, some))

    async def _keep(self, conversations: list[str]) -> None:
        held = [(each, self.held[each]) for each in conversations if each in self.held]
        calls = [([keys.owner(each)], [token, self._process, EXPIRY_MS]) for each, token in held]
        for (each, _), (token, process) in zip(held, await self._server.scripts(_KEEP, calls), strict=True):
            self.lose(each, Owner(int(token), process.decode()))
