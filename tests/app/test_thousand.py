"""A thousand sockets in one conversation."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from support.client import Json, client, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.raw import Peer
from support.server import a_relay, serving

THOUSAND = 1_000


@pytest.fixture
def _files() -> Iterator[None]:
    """Each socket needs two file descriptors in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * THOUSAND
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Reader:
    """A text client that counts frames and keeps little, because the test has a thousand of them."""

    def __init__(self, socket: ClientConnection, greeting: Json) -> None:
        self.socket = socket
        self.name: str = greeting["connection_id"]
        self.presence = 0
        self.joined: set[str] = set()
        self.words = ""
        self.messages: list[str] = []
        self.turns = 0
        self.changed = asyncio.Event()
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for frame in self.socket:
            said = json.loads(frame)
            match said.get("type"):
                case "presence":
                    self.presence += 1
                    self.joined.update(said["joined"])
                case "message":
                    self.messages.append(said["text"])
                case None if "turn_complete" in said:
                    self.turns += 1
                    self.changed.set()
                case None:
                    self.words += said["data"]

    async def turn(self, number: int) -> None:
        while self.turns < number:
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def readers(port: int, count: int) -> AsyncIterator[list[Reader]]:
    """`count` clients in one conversation, connected in batches."""
    url = f"ws://127.0.0.1:{port}/ws/alice"

    async def one() -> Reader:
        raw = await connect(
            url, subprotocols=[Subprotocol("relay.v1")], proxy=None, compression=None, ping_interval=None
        )
        return Reader(raw, json.loads(await raw.recv()))

    found: list[Reader] = []
    try:
        while len(found) < count:
            found += await asyncio.gather(*(one() for _ in range(min(100, count - len(found)))))
        yield found
    finally:
        for reader in found:
            reader.reading.cancel()
            reader.socket.transport.abort()
        await asyncio.gather(*(reader.reading for reader in found), return_exceptions=True)


@pytest.mark.usefixtures("no_errors", "_files", "small_send_buffer")
async def test_a_thousand_sockets_get_everything_though_one_of_them_stalls(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pieces = [f"{number:03} " * 2_000 for number in range(24)]  # 192 kB

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "much":
            for piece in pieces:
                await connection.send_text_parts(piece)
            await connection.turn_complete()
        else:
            await connection.say("Good.", audio=False)

    gemini.answer = answer
    caplog.set_level(logging.INFO, "relay")
    relay = a_relay(slow_timeout=3.0)
    began = time.monotonic()
    async with serving(relay) as port, Peer.upgraded(port) as stalled:
        async with readers(port, THOUSAND - 2) as many, client(port) as writer:
            attached = time.monotonic() - began
            assert writer.hello["connections"] == THOUSAND
            await writer.say("much")
            async with asyncio.timeout(60):
                frames = await writer.turn()
                await asyncio.gather(*(reader.turn(1) for reader in many))
            assert words(frames) == "".join(pieces)
            assert all(reader.words == "".join(pieces) for reader in many)
            assert all(reader.messages == ["much"] for reader in many)
            # The stalled socket is closed, all others are told that it left, and they are served further.
            async with asyncio.timeout(60):
                while "1013 too slow" not in caplog.text:
                    await writer.send(type="ping")
                    await writer.next()
            await writer.say("and now?")
            await asyncio.gather(*(reader.turn(2) for reader in many))
            assert all(reader.words == "".join(pieces) + "Good." for reader in many)
            # All are told who has come, in few frames: together, not a thousand times a thousand frames.
            told = sum(reader.presence for reader in many)
            assert many[0].joined >= {reader.name for reader in many[100:]}
            assert told < THOUSAND * (attached / 0.1 + 10)
            assert told < THOUSAND * THOUSAND / 5
        assert stalled.sock.fileno() >= 0
    assert gemini.connects == 1
