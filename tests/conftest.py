"""What the tests share: a relay on a real socket, a client that speaks its wire, the stand-in."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from gemini import GeminiLive
from google.adk.agents import LlmAgent
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from relay import Relay

Json = dict[str, Any]


def need(program: str, package: str) -> str:
    """The path of a program from outside; its test is skipped without it, and fails in CI."""
    if path := shutil.which(program):
        return path
    message = f"{program} is missing: apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[int]:
    """Serves an ASGI application with uvicorn on a free port of the loopback, in this event loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_config=None, timeout_graceful_shutdown=3, **({"lifespan": "on"} | options)
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    running = asyncio.create_task(server._serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.005)
        if running.done():
            running.result()
            raise AssertionError("uvicorn did not start")
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running


@dataclass
class Client:
    """A WebSocket client of the relay's, which keeps all that it got."""

    socket: ClientConnection
    hello: Json
    frames: list[Json] = field(default_factory=list)
    presence: list[Json] = field(default_factory=list)
    audio: bytes = b""

    async def next(self, timeout: float = 10) -> Json:
        """The next frame; binary sound as a message of type `binary`.

        Pings are answered, and who comes and goes is kept in `presence`: neither comes in any order.
        """
        while True:
            frame = await asyncio.wait_for(self.socket.recv(), timeout)
            if isinstance(frame, bytes):
                said: Json = {"type": "binary", "seq": int.from_bytes(frame[:4], "big"), "pcm": frame[4:]}
                self.audio += frame[4:]
            else:
                said = json.loads(frame)
                if said.get("mime_type") == "audio/pcm":
                    self.audio += base64.b64decode(said["data"])
            if said.get("type") == "ping":
                await self.send(type="pong")
                continue
            if said.get("type") == "presence":
                self.presence.append(said)
                continue
            self.frames.append(said)
            return said

    async def until(self, done: Callable[[Json], Any], timeout: float = 10) -> list[Json]:
        """All frames up to the first that is `done`."""
        got = []
        async with asyncio.timeout(timeout):
            while True:
                got.append(await self.next(timeout))
                if done(got[-1]):
                    return got

    async def turn(self, timeout: float = 10) -> list[Json]:
        """All frames up to the end of a turn, however it ends."""
        return await self.until(lambda said: said.get("turn_complete") or said.get("interrupted"), timeout)

    async def send(self, **said: Any) -> None:
        await self.socket.send(json.dumps(said))

    async def say(self, text: str) -> None:
        await self.send(mime_type="text/plain", data=text)

    async def ask(self, text: str) -> str:
        """Says a text and returns the words of the whole answer."""
        await self.say(text)
        frames = await self.turn()
        assert frames[-1].get("turn_complete"), frames
        return words(frames)


def words(frames: list[Json]) -> str:
    """What the agent says in some frames."""
    return "".join(said["data"] for said in frames if said.get("mime_type") == "text/plain")


@asynccontextmanager
async def client(
    port: int,
    user: str = "alice",
    *,
    audio: bool = False,
    subprotocol: bool = True,
    path: str = "",
    query: str = "",
    **options: Any,
) -> AsyncIterator[Client]:
    """A client that has been greeted."""
    url = f"ws://127.0.0.1:{port}{path}/ws/{user}?is_audio={str(audio).lower()}{query}"
    subprotocols = [Subprotocol("relay.v1")] if subprotocol else None
    async with connect(url, subprotocols=subprotocols, proxy=None, **options) as connection:
        hello = json.loads(await connection.recv())
        assert hello["type"] == "hello"
        yield Client(connection, hello)


@asynccontextmanager
async def stand_in(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GeminiLive]:
    """The stand-in for the Gemini Live service, which google-genai takes for the real one."""
    async with GeminiLive() as service:
        for name, value in service.env.items():
            monkeypatch.setenv(name, value)
        yield service
        assert service.violations == []


@pytest.fixture
async def gemini(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GeminiLive]:
    """The stand-in, in the test's own event loop."""
    async with stand_in(monkeypatch) as service:
        yield service


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """relay tries again at once; how long it waits is the library's affair."""
    monkeypatch.setattr("agent.conversation.wait_random_exponential", lambda **_: lambda _state: 0.01)


@pytest.fixture
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client does is worth an error in the server's log."""
    yield
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert [(record.name, record.getMessage(), record.exc_text) for record in errors] == []


def a_relay(agent: Any = None, **settings: Any) -> Relay:
    """A relay of its own, with everything in memory, that ends its runs at once."""
    agent = agent or LlmAgent(name="tester", model="gemini-3.8-live")
    options: dict[str, Any] = {"sessions": "memory://", "grace": 0} | settings
    return Relay(agent, **options)
