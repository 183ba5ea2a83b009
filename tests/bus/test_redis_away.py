"""Redis is away, or a process is cut off from it."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from adk_relay.bus import server
from adk_relay.bus.owned import Owned
from adk_relay.bus.owning import Owning
from adk_relay.core.past import Past
from support.chat import chat, end
from support.client import client, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.pods import pods
from support.process import SERVE, warm_relay
from support.proxy import network
from support.redis_server import RedisServer, until


async def test_nobody_hangs_while_redis_hangs(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What needs other processes is refused; what does not goes on, and is not slower."""
    caplog.set_level(logging.INFO, "relay")
    async with (
        pods(redis, tmp_path, "both", "web") as (both, web),
        client(web.port) as alice,
        client(both.port, "bob") as bob,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{web.port}", verify=False) as http,
    ):
        await alice.ask("before")
        await bob.ask("before")
        redis.pause()
        await alice.until(lambda said: said.get("state") == "degraded")
        began = time.monotonic()
        assert await bob.ask("meanwhile") == "You said: meanwhile."
        assert time.monotonic() - began < 2.5  # each write of the session would have waited for an answer
        await alice.send(mime_type="text/plain", data="late", id="1")

        body = {"message": "hello", "session_id": "s"}
        refused = [
            http.get("/sessions"),
            http.get("/sessions/live-bob"),
            http.post("/sessions/new"),
            http.post("/sessions/live-bob/clear"),
            http.post("/api/v1/chat", json=body),
        ]
        for response in await asyncio.gather(*refused):
            assert response.status_code == 503, response.text
            assert response.headers["retry-after"] == "5"
        with pytest.raises(ConnectionClosed, match="1013"):
            async with client(web.port, "carol"):
                pass
        async with chat(web.port) as carol:
            await carol.send(type="join_session", session_id="live-bob")
            assert (await end(carol))[1] == 1013
        began = time.monotonic()
        codes = [(await http.get(path)).status_code for path in ("/health", "/stats", "/ready", "/sessions")]
        assert codes == [200, 200, 503, 503]
        assert time.monotonic() - began < 2

        redis.go_on()
        told = await alice.until(lambda said: said.get("turn_complete"))
        assert {"type": "status", "state": "live"} in told
        assert words(told) == "You said: late."
        await until(web.relay.served.is_ready)
        assert (await http.post("/api/v1/chat", json=body)).status_code == 200
        await http.delete("/sessions/s")
    lines = [line for line in caplog.messages if "Redis" in line or "lease" in line]
    assert sorted(lines) == ["Redis is away: no answer"] * 2 + ["Redis is back"] * 2


async def test_redis_goes_away_while_a_conversation_is_opened_here(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Owning._past

    async def pausing(self: Owning, owned: Owned) -> Past:
        redis.pause()
        return await past(self, owned)

    monkeypatch.setattr(Owning, "_past", pausing)
    monkeypatch.setattr(server, "_ANSWER_SECONDS", 0.5)
    async with pods(redis, tmp_path, "both") as (both,):

        async def comes() -> None:
            with pytest.raises(ConnectionClosed, match="1013"):
                async with client(both.port):
                    pass

        await asyncio.gather(comes(), comes())
        monkeypatch.undo()
        redis.go_on()
        await until(both.relay.served.is_ready)
        async with client(both.port) as alice:
            assert await alice.ask("hello") == "You said: hello."


async def test_an_owner_that_is_cut_off_writes_nothing_that_another_could_write(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its conversation has another owner soon, and the session what that one has done."""
    late = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("The beginning", complete=False)
            await late.wait()
            await connection.say(" that nobody hears.")
        else:
            await connection.say(" and the end.")

    gemini.answer = answer
    async with AsyncExitStack() as stack:
        cable, port = await stack.enter_async_context(network(redis.port, is_http=False))
        [owner] = await stack.enter_async_context(
            pods(redis, tmp_path, "worker", bus=f"redis://127.0.0.1:{port}")
        )
        [web] = await stack.enter_async_context(pods(redis, tmp_path, "web"))
        alice = await stack.enter_async_context(client(web.port, "guest"))
        await alice.send(mime_type="text/plain", data="hello", id="1")
        await alice.until(lambda said: "beginning" in str(said))
        [heir] = await stack.enter_async_context(pods(redis, tmp_path, "worker"))
        cable.cut()
        told = await alice.until(lambda said: said.get("turn_complete"), 20)
        assert {"type": "status", "state": "reconnecting"} in told
        assert (owner.active, heir.active) == (1, 1)
        late.set()
        await gemini.wait_for(lambda: "nobody" in gemini.connections[0].said)
        await alice.ask("again")
        cable.mend()
        await until(lambda: owner.active == 0)
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{web.port}", verify=False)
        )
        history = (await http.get("/sessions/live-guest")).json()["history"]
        said: list[Any] = [line["text"] for line in history]
        assert said == ["hello", "The beginning and the end.", "again", " and the end."], said
    # Not even tried: not all session services refuse a writer whose session is stale.
    assert [line for line in caplog.messages if "Stale" in line] == []


async def test_a_worker_that_is_stopped_while_redis_is_away_ends(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    """It can't give its conversation away, and waits with what it would write."""
    settings = {
        "RELAY_ROLE": "worker",
        "RELAY_BUS": redis.url,
        "RELAY_SESSIONS": f"sqlite:///{tmp_path}/sessions.db",
        "RELAY_APP_NAME": "tester",
        "RELAY_DRAIN": "1",
    }
    async with warm_relay(SERVE, tmp_path, **gemini.env, **settings) as worker:
        await worker.started()
        async with pods(redis, tmp_path, "web") as (web,), client(web.port) as alice:
            await alice.ask("hello")
            redis.pause()
            await alice.until(lambda said: said.get("state") == "degraded")
            await worker.says("Redis is away")
            assert await worker.stop() == 0
            redis.go_on()
    assert not [line for line in worker.log if "Traceback" in line]
