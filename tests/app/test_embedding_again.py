"""A relay that is started again after it was closed, and test clients without a server."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from relay import Relay
from support.browser import rehearsal
from support.client import client
from support.databases import database
from support.gemini import GeminiLive
from support.server import a_relay, serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it recommends another HTTP library
    from starlette.testclient import TestClient


def words_of(http: TestClient, text: str, path: str = "") -> str:
    """What the agent says to a text, over Starlette's test client."""
    words = ""
    with http.websocket_connect(f"{path}/ws/alice", subprotocols=["relay.v1"]) as socket:
        assert socket.receive_json()["type"] == "hello"
        socket.send_json({"mime_type": "text/plain", "data": text})
        while not (frame := socket.receive_json()).get("turn_complete"):
            if frame.get("mime_type") == "text/plain":
                words += frame["data"]
    return words


def mounted(relay: Relay) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with relay:
            yield

    return Starlette(routes=[Mount("/talk", relay)], lifespan=lifespan)


# A connection to a database that an event loop has left open can't be closed any more.
left_open = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URI of an empty session store."""
    if request.param == "postgresql":
        async with database("postgresql") as server:
            yield server.uri
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()  # the connections that were left open, before another test is blamed for them
    else:
        yield "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/s.db"


@left_open
@pytest.mark.parametrize("has_lifespan", [True, False])
async def test_what_is_stored_is_there_after_a_start(store: str, has_lifespan: bool) -> None:
    """Each time in another event loop, where all that the former one had opened is of no use."""
    relay = a_relay(rehearsal(pace=1000), grace=30, sessions=store)

    def visits(number: int) -> None:
        asked = {"session_id": "s", "message": f"hi {number}"}
        with TestClient(relay) if has_lifespan else nullcontext(TestClient(relay)) as http:
            assert http.get("/ready").status_code == 200
            assert len(http.get("/sessions").json()["sessions"]) == min(number, 1)
            assert f"You said: hi {number}" in http.post("/api/v1/chat", json=asked).json()["content"]
            read = http.get("/sessions/s").json()
            assert (read["message_count"], read["user_messages"]) == (2 * number + 2, number + 1)

    for number in range(3):
        await asyncio.to_thread(visits, number)
    await asyncio.to_thread(asyncio.run, relay.aclose())


@left_open
async def test_many_read_at_once_in_each_event_loop(store: str) -> None:
    """A lock that somebody has waited for belongs to the event loop of that wait."""
    relay = a_relay(rehearsal(pace=1000), grace=0, sessions=store)

    async def reads() -> None:
        transport = httpx.ASGITransport(relay)
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as http:
            asked = {"session_id": "s", "message": "hi"}
            (await http.post("/api/v1/chat", json=asked)).raise_for_status()
            while relay.conversations.active:
                await asyncio.sleep(0.01)
            paths = ["/sessions/s", "/sessions", "/ready"]
            for response in await asyncio.gather(*(http.get(path) for path in paths * 5)):
                response.raise_for_status()

    for _ in range(2):
        await asyncio.to_thread(asyncio.run, reads())
    await asyncio.to_thread(asyncio.run, relay.aclose())


@pytest.mark.parametrize("path", ["", "/talk"], ids=["alone", "mounted"])
def test_each_test_of_a_suite_starts_it_anew(path: str) -> None:
    relay = a_relay(rehearsal(pace=1000), grace=30)
    app: Any = mounted(relay) if path else relay
    for number in range(3):
        with TestClient(app) as http:
            assert f"You said: hello {number}" in words_of(http, f"hello {number}", path)
            asked = {"session_id": "s", "message": "hi"}
            assert "You said: hi" in http.post(f"{path}/api/v1/chat", json=asked).json()["content"]
        assert relay.conversations.active == 0


def test_test_clients_without_a_lifespan_have_an_event_loop_each() -> None:
    """What a former loop has left is gone with it."""
    http = TestClient(a_relay(rehearsal(pace=1000), grace=30))
    for number in range(3):
        assert f"You said: {number}" in words_of(http, str(number))
        asked = {"session_id": "s", "message": f"hi {number}"}
        assert f"You said: hi {number}" in http.post("/api/v1/chat", json=asked).json()["content"]


async def test_httpx_without_a_server() -> None:
    relay = a_relay(rehearsal(pace=1000), grace=30)
    transport = httpx.ASGITransport(relay)
    for _ in range(2):
        async with relay, httpx.AsyncClient(transport=transport, base_url="http://relay") as http:
            assert (await http.get("/health")).json()["status"] == "ok"
            answer = await http.post("/api/v1/chat", json={"session_id": "s", "message": "hi"})
            assert "You said: hi" in answer.json()["content"]


async def test_with_gemini_it_is_started_again_on_another_port(gemini: GeminiLive) -> None:
    relay = a_relay(grace=30)
    for _ in range(2):
        async with serving(relay) as port, client(port) as alice:
            assert await alice.ask("hello") == "You said: hello."
        assert relay.conversations.is_closing()
    await gemini.wait_for(lambda: not gemini.open_connections)
