"""A Redis, and the parts of the bus that speak to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from adk_relay.bus.server import Server
from support.redis_server import RedisServer, redis_server


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    """A Redis of its own for the test. In the end nothing is left in it that would stay for ever."""
    async with redis_server() as server:
        yield server
        assert await server.stays() == []


@pytest.fixture
async def server(redis: RedisServer) -> AsyncIterator[Server]:
    """A connection to it."""
    server = Server(redis.url)
    yield server
    await server.close()
