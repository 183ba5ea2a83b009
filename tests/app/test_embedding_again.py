"""A relay that is started again after it was closed, and test clients without a server."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from relay import Relay
from support.browser import rehearsal
from support.client import client
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
