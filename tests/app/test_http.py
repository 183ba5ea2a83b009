"""The HTTP side of a server whose agent answers."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from support.api import STATIC
from support.client import Json, client
from support.gemini import GeminiLive
from support.plain_http import ask
from support.server import a_relay, serving

pytestmark = pytest.mark.usefixtures("no_errors")


async def test_health_says_how_it_goes(gemini: GeminiLive) -> None:
    async def health(port: int) -> Json:
        response = await ask(port, "/health")
        assert response.status == 200
        assert response.headers["content-type"] == "application/json"
        assert response.headers["cache-control"] == "no-store"
        said: Json = json.loads(response.body)
        return said

    async with serving(a_relay()) as port:
        first = await health(port)
        assert first.pop("uptime_seconds") >= 0
        assert first == {
            "status": "ok",
            "model": "gemini-3.8-live",
            "total_requests": 0,
            "successful_requests": 0,
            "failed_requests": 0,
            "active_sessions": 0,
            "websocket_connections": 0,
        }
        async with client(port), client(port, "bob"):
            assert (await health(port))["websocket_connections"] == 2
        while (await health(port))["websocket_connections"]:
            await asyncio.sleep(0.01)


async def test_mounted_in_another_application(gemini: GeminiLive) -> None:
    relay = a_relay(grace=60)
    host = Starlette(routes=[Mount("/deep/talk", app=relay)])
    async with serving(host) as port:
        assert (await ask(port, "/deep/talk/")).body == (STATIC / "index.html").read_bytes()
        assert (await ask(port, "/deep/talk/static/app.js")).status == 200
        assert (await ask(port, "/deep/talk/health")).status == 200
        assert (await ask(port, "/static/app.js")).status == 404
        assert (await ask(port, "/deep/talk/static/../../relay.py")).status == 404
        async with client(port, path="/deep/talk") as alice:
            assert await alice.ask("hello") == "You said: hello."
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}/deep/talk/nothing", proxy=None)
        assert refused.value.response.status_code == 404
        assert gemini.open_connections == 1
    # Starlette passes no lifespan events to a mounted application: the host closes the relay.
    assert gemini.open_connections == 1
    await relay.aclose()
    assert gemini.open_connections == 0
    await relay.aclose()  # twice does no harm


async def test_root_path_with_a_proxy_that_keeps_the_prefix(gemini: GeminiLive) -> None:
    """`uvicorn --root-path /talk` behind a proxy that takes the prefix away: uvicorn puts it back."""
    async with serving(a_relay(), root_path="/talk") as port:
        assert (await ask(port, "/static/app.js")).status == 200
        assert (await ask(port, "/")).status == 200
        async with client(port) as alice:
            assert await alice.ask("hello") == "You said: hello."


async def test_the_lifespans_end_ends_what_runs(gemini: GeminiLive) -> None:
    async with serving(a_relay(grace=60)) as port, client(port) as alice:
        await alice.ask("hello")
        assert gemini.open_connections == 1
    assert gemini.open_connections == 0
