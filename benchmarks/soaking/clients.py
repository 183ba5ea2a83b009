"""The clients of the soak: visitors, who speak and listen, and others, who do what visitors should not."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections import Counter
from contextlib import suppress
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from support.gemini import silence, speech
from support.tokens import SECRET, bearer, token

_MS = 40
_SPEECH, _SILENCE = speech(_MS), silence(_MS)
_PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(50_000)).decode()

_TTL = 60.0
"""Seconds that a token holds: most visitors need more than one."""


class Clients:
    """All of them, against the server at one port.

    Attributes:
        counts: what happened, and how often.
    """

    def __init__(self, port: int, most: int) -> None:
        self.counts = Counter[str]()
        self._port = port
        self._most = most
        self._open = set[ClientConnection]()
        self._numbers = count()

    @property
    def connected(self) -> int:
        """Visitors that are connected."""
        return len(self._open)

    async def run(self) -> None:
        """Until it is canceled: then all leave."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._most):
                group.create_task(self._place(number))
            group.create_task(self._others())

    def break_all(self) -> None:
        """All visitors lose their sockets at once."""
        for socket in self._open:
            socket.transport.abort()
        self.counts["storms"] += 1

    async def _place(self, number: int) -> None:
        """One visitor after the other."""
        await asyncio.sleep(number / self._most * 20)  # 5 in a second at the beginning
        while True:
            await self._visit(f"visitor-{next(self._numbers)}")
            await asyncio.sleep(random.uniform(0.1, 1))

    async def _visit(self, user: str) -> None:
        """A visitor who stays for a while, and comes back when the socket is lost."""
        self.counts["visits"] += 1
        leaves, after = time.monotonic() + random.uniform(30, 180), "0.0"
        while time.monotonic() < leaves:
            url = f"ws://127.0.0.1:{self._port}/ws/{user}?is_audio=true&after={after}"
            options: dict[str, Any] = {"additional_headers": bearer(_token(user)), "proxy": None}
            try:
                async with connect(
                    url,
                    subprotocols=[Subprotocol("relay.v1")],
                    compression=None,
                    ping_interval=None,
                    open_timeout=30,
                    close_timeout=5,
                    **options,
                ) as socket:
                    self.counts["sockets"] += 1
                    visitor = _Visitor(user, socket, self.counts, after)
                    self._open.add(socket)
                    try:
                        async with asyncio.timeout_at(_loop_time(leaves)):
                            await visitor.attend()
                    finally:
                        self._open.discard(socket)
                        after = visitor.after
            except TimeoutError:
                self.counts["timeouts"] += time.monotonic() < leaves
            except ConnectionClosed as error:
                self.counts[f"closed {error.rcvd.code if error.rcvd else 1006}"] += 1
            except (OSError, InvalidHandshake) as error:
                self.counts[f"not connected: {type(error).__name__}"] += 1
            # Some come back only when their conversation is not in memory any more.
            pause = random.uniform(35, 50) if random.random() < 0.05 else random.uniform(0.2, 3)
            await asyncio.sleep(min(pause, max(0.0, leaves - time.monotonic())))

    async def _others(self) -> None:
        """Those who are refused, who write over HTTP, and who stop reading."""
        kinds = [self._forged, self._foreign, self._http, self._chat, self._stalled]
        async with asyncio.TaskGroup() as group:
            while True:
                for kind in kinds:
                    group.create_task(self._other(kind))
                    await asyncio.sleep(1)

    async def _other(self, kind: Any) -> None:
        try:
            async with asyncio.timeout(60):
                await kind(f"other-{next(self._numbers)}")
            self.counts[kind.__name__[1:]] += 1
        except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake, httpx.HTTPError) as error:
            self.counts[f"{kind.__name__[1:]}: {type(error).__name__}"] += 1

    async def _forged(self, user: str) -> None:
        headers = bearer(token(user, secret="another secret, with 32 bytes and more", jti=uuid4().hex))
        with suppress(InvalidHandshake):
            async with self._connect(f"ws/{user}", headers=headers):
                self.counts["LET IN"] += 1

    async def _foreign(self, user: str) -> None:
        headers = bearer(_token(user)) | {"Origin": "https://elsewhere.example"}
        with suppress(InvalidHandshake):
            async with self._connect(f"ws/{user}", headers=headers):
                self.counts["LET IN"] += 1

    async def _http(self, user: str) -> None:
        async with httpx.AsyncClient(
            trust_env=False, base_url=f"http://127.0.0.1:{self._port}", timeout=60
        ) as web:
            web.headers.update(bearer(_token(user)))
            made = (await web.post("/sessions/new")).json()["session_id"]
            await web.post("/api/v1/chat", json={"session_id": made, "message": "Hello"})
            await web.get("/sessions")
            await web.get(f"/sessions/{made}")
            await web.post(f"/sessions/{made}/clear")
            if random.random() < 0.5:
                await web.delete(f"/sessions/{made}")

    async def _chat(self, user: str) -> None:
        """Writes in a room, and does not wait for all of the answer."""
        async with self._connect("ws", headers=bearer(_token(user))) as socket:
            await socket.send(json.dumps({"type": "chat", "message": "Hello", "id": uuid4().hex}))
            for _ in range(random.randrange(1, 12)):
                await socket.recv()

    async def _stalled(self, user: str) -> None:
        """Asks, stops reading and goes without a word."""
        url = f"ws/{user}?is_audio=true"
        async with self._connect(url, headers=bearer(_token(user))) as socket:
            await socket.send(json.dumps({"mime_type": "text/plain", "data": "Hello"}))
            await socket.recv()
            socket.transport.pause_reading()
            await asyncio.sleep(20)
            socket.transport.abort()

    def _connect(self, path: str, headers: dict[str, str]) -> connect:
        return connect(
            f"ws://127.0.0.1:{self._port}/{path}",
            additional_headers=headers,
            compression=None,
            ping_interval=None,
            proxy=None,
            open_timeout=30,
            close_timeout=5,
        )


class _Visitor:
    """A socket of a visitor, who speaks, listens, and at times writes or shows a picture."""

    def __init__(self, user: str, socket: ClientConnection, counts: Counter[str], after: str) -> None:
        self._user = user
        self._socket = socket
        self._counts = counts
        self._epoch, _, seq = after.partition(".")
        self._seq = int(seq)
        self._due = time.monotonic()

    @property
    def after(self) -> str:
        """Where the next socket goes on."""
        return f"{self._epoch}.{self._seq}"

    async def attend(self) -> None:
        """Until the socket is closed."""
        speaking = asyncio.create_task(self._speak())
        try:
            async for frame in self._socket:
                await self._take(frame)
            self._counts["closed 1000"] += 1
        finally:
            speaking.cancel()
            # To await the task itself would not tell its cancellation from that of this one.
            await asyncio.wait({speaking})
            if not speaking.cancelled():
                speaking.exception()

    async def _take(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            self._seq = int.from_bytes(frame[:4], "big")
            self._counts["chunks"] += (len(frame) - 4) // 1920
            return
        message = json.loads(frame)
        self._seq = message.get("seq", self._seq)
        match message.get("type"):
            case "hello":
                # What was missed follows, so `seq` counts only in an epoch that is new to the visitor.
                if self._epoch != message["epoch"]:
                    self._epoch, self._seq = message["epoch"], 0
            case "gap":
                self._counts["gaps"] += 1
                self._seq = message["to"]
            case "ping":
                await self._send(type="pong")
            case "token_expiring":
                self._counts["tokens renewed"] += 1
                await self._send(type="token", token=_token(self._user))
            case "error":
                self._counts[f"error {message['code']}"] += 1
            case None if message.get("turn_complete"):
                self._counts["turns"] += 1
            case None if message.get("interrupted"):
                self._counts["interruptions"] += 1

    async def _speak(self) -> None:
        is_open = random.random() < 0.2  # the microphone, while the visitor listens
        while True:
            chance = random.random()
            if chance < 0.1:
                await self._send(mime_type="text/plain", data="Hello " * 20, id=uuid4().hex)
            elif chance < 0.12:
                await self._send(mime_type="image/png", data=_PICTURE)
            else:
                await self._sound(_SPEECH, random.uniform(0.6, 3))
                await self._sound(_SILENCE, 0.5)
            pause = random.choice((1.0, 4.0, 8.0, 12.0))  # some wait for the answer, some interrupt it
            if is_open:
                await self._sound(_SILENCE, pause)
            else:
                await self._send(type="audio_end")
                await asyncio.sleep(pause)
                self._due = time.monotonic()

    async def _sound(self, pcm: bytes, seconds: float) -> None:
        for _ in range(round(seconds * 1000 / _MS)):
            self._due = max(self._due + _MS / 1000, time.monotonic() - 1)
            await asyncio.sleep(self._due - time.monotonic())
            await self._socket.send(pcm)

    async def _send(self, **message: Any) -> None:
        await self._socket.send(json.dumps(message))


def _token(user: str) -> str:
    return token(user, secret=SECRET, exp=time.time() + _TTL, jti=uuid4().hex, name="A visitor")


def _loop_time(monotonic: float) -> float:
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()
