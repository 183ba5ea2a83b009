"""A client of the live dialect."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

Json = dict[str, Any]


@dataclass
class Client:
    """A WebSocket client that keeps all frames it has got."""

    socket: ClientConnection
    hello: Json
    frames: list[Json] = field(default_factory=list)
    presence: list[Json] = field(default_factory=list)
    audio: bytes = b""

    async def next(self, timeout: float = 60) -> Json:
        """The next frame; binary sound as a message of type `binary`.

        Pings are answered, and presence is kept in `presence`: both may come at any time.
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

    async def until(self, done: Callable[[Json], Any], timeout: float = 60) -> list[Json]:
        """All frames up to the first that is `done`."""
        got = []
        async with asyncio.timeout(timeout):
            while True:
                got.append(await self.next(timeout))
                if done(got[-1]):
                    return got

    async def turn(self, timeout: float = 60) -> list[Json]:
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
    host: str = "127.0.0.1",
    **options: Any,
) -> AsyncIterator[Client]:
    """A connected client, which has got its hello; with `ssl`, over TLS. `host`: in its URL."""
    scheme = "wss" if "ssl" in options else "ws"
    url = f"{scheme}://{host}:{port}{path}/ws/{user}?is_audio={str(audio).lower()}{query}"
    subprotocols = [Subprotocol("relay.v1")] if subprotocol else None
    # Frames are read at once, or closing a client that has not got all of them would take ten seconds.
    options = {"open_timeout": 60, "max_queue": None, "host": "127.0.0.1"} | options
    async with connect(url, subprotocols=subprotocols, proxy=None, **options) as connection:
        hello = json.loads(await connection.recv())
        assert hello["type"] == "hello"
        yield Client(connection, hello)
