"""Limits and tokens of relays that share a bus: two with sockets, and one that runs the agent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from google.adk.sessions import InMemorySessionService

from relay import Relay
from support.api import rehearsal
from support.guarded import opened, status_of
from support.redis_server import RedisServer, until
from support.server import serving
from support.tokens import SECRET, token


@asynccontextmanager
async def two_of_web(redis: RedisServer, **settings: Any) -> AsyncIterator[tuple[int, int]]:
    """The ports of the two."""
    options: dict[str, Any] = {"bus": redis.url, "secret": SECRET, "grace": 0, "drain": 0} | settings
    async with AsyncExitStack() as stack:
        worker = Relay(rehearsal(), role="worker", sessions=InMemorySessionService(), **options)
        await stack.enter_async_context(serving(worker))
        webs = [Relay(None, role="web", **options) for _ in range(2)]
        ports = [await stack.enter_async_context(serving(web)) for web in webs]
        for relay in webs:
            await until(relay.served.is_ready)
        yield ports[0], ports[1]


async def test_sockets_of_a_user_count_in_all(redis: RedisServer) -> None:
    with_token = f"/ws?token={token()}"
    async with two_of_web(redis, user_sockets=2) as (one, other):
        async with opened(one, with_token), opened(other, with_token):
            assert [await status_of(port, with_token) for port in (one, other)] == [429, 429]
            assert await status_of(other, f"/ws?token={token('bob')}") == 101

        async def is_free() -> bool:
            return await status_of(one, with_token) == 101

        await until(is_free)


async def test_a_token_opens_one_socket_in_all(redis: RedisServer) -> None:
    once, again = (f"/ws?token={token(jti=jti)}" for jti in ("once", "again"))
    async with two_of_web(redis, one_use="true") as (one, other):
        assert [await status_of(port, once) for port in (one, other, one)] == [101, 401, 401]
        # Without Redis a process knows only what was used there.
        await redis.kill()
        assert [await status_of(port, again) for port in (one, one, other)] == [101, 401, 101]
        await redis.start()


async def test_the_sound_of_a_day_counts_in_all(redis: RedisServer) -> None:
    def spoken(hello: bytes | str) -> Any:
        return json.loads(hello)["limits"]["sound_seconds_today"]

    with_token = f"/ws/alice?is_audio=true&token={token()}"
    async with two_of_web(redis, user_sound_day=60) as (one, other), opened(one, with_token) as alice:
        assert spoken(await alice.recv()) == 60
        await alice.send(bytes(32_000 * 2))

        async def is_counted() -> bool:
            async with opened(other, with_token) as bob:
                return bool(spoken(await bob.recv()) == 58)

        await until(is_counted)
