"""A WebSocket peer by hand, for what no client library does: it reads only when it is told to."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

Json = dict[str, Any]

BINARY, CLOSE, PING = 2, 8, 9


class Peer:
    """One TCP connection to a relay. Only `next()` and the methods like it read from it.

    The kernel's buffers are kept small, so that the relay soon notices a peer that does not read.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()

    @classmethod
    @asynccontextmanager
    async def connected(cls, port: int) -> AsyncIterator[Self]:
        """A TCP connection, which is reset at the end."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
        sock.setblocking(False)
        peer = cls(sock)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            yield peer
        finally:
            peer.vanish()

    @classmethod
    @asynccontextmanager
    async def upgraded(
        cls, port: int, user: str = "alice", *, audio: bool = False, subprotocol: bool = True
    ) -> AsyncIterator[Peer]:
        """A peer that has made the handshake and has got the hello."""
        async with cls.connected(port) as peer:
            await peer.send_raw(upgrade(f"/ws/{user}?is_audio={str(audio).lower()}", subprotocol=subprotocol))
            head = await peer.head()
            assert head.startswith(b"HTTP/1.1 101 "), head
            assert (await peer.next())["type"] == "hello"
            yield peer

    async def send_raw(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def send(self, **said: Any) -> None:
        await self.send_raw(frame(json.dumps(said).encode()))

    async def head(self) -> bytes:
        """The head of an HTTP response."""
        while b"\r\n\r\n" not in self._buffer:
            await self._fill()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return bytes(head)

    async def next(self, timeout: float = 60) -> Json:
        """The next frame: JSON, or {"type": "binary", "seq", "pcm"}, or {"type": "close", "code", "reason"}.

        Raises:
            EOFError: there is none.
        """
        async with asyncio.timeout(timeout):
            while True:
                if (got := self._parse()) is not None:
                    return got
                await self._fill()

    async def until(self, done: Callable[[Json], Any], timeout: float = 60) -> list[Json]:
        """All frames up to the first that is `done`."""
        frames: list[Json] = []
        async with asyncio.timeout(timeout):
            while not frames or not done(frames[-1]):
                frames.append(await self.next(timeout))
        return frames

    async def rest(self, timeout: float = 60) -> list[Json]:
        """All frames up to the close frame or the end."""
        frames: list[Json] = []
        async with asyncio.timeout(timeout):
            while not frames or frames[-1].get("type") != "close":
                try:
                    frames.append(await self.next(timeout))
                except (EOFError, ConnectionError):
                    break
        return frames

    async def ended(self, timeout: float = 60) -> bytes:
        """All that still comes, to the end of the TCP connection."""
        async with asyncio.timeout(timeout):
            try:
                while True:
                    await self._fill()
            except (EOFError, ConnectionError):
                return bytes(self._buffer)

    def vanish(self) -> None:
        """Drops the TCP connection with a reset, and no closing handshake."""
        if self.sock.fileno() < 0:
            return
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    async def _fill(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        if not data:
            raise EOFError
        self._buffer += data

    def _parse(self) -> Json | None:
        if len(self._buffer) < 2:
            return None
        opcode, length, start = self._buffer[0] & 15, self._buffer[1] & 127, 2
        if length >= 126:
            size = 2 if length == 126 else 8
            if len(self._buffer) < 2 + size:
                return None
            length, start = int.from_bytes(self._buffer[2 : 2 + size], "big"), 2 + size
        if len(self._buffer) < start + length:
            return None
        payload = bytes(self._buffer[start : start + length])
        del self._buffer[: start + length]
        if opcode == CLOSE:
            return {
                "type": "close",
                "code": int.from_bytes(payload[:2], "big"),
                "reason": payload[2:].decode(),
            }
        if opcode == BINARY:
            return {"type": "binary", "seq": int.from_bytes(payload[:4], "big"), "pcm": payload[4:]}
        if opcode == PING:  # the server's own, if a test takes long: it closes only after another one
            return self._parse()
        assert opcode == 1, opcode
        said: Json = json.loads(payload)
        return said


def upgrade(target: str, *, subprotocol: bool = True) -> bytes:
    """The request that opens a WebSocket."""
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
        *(["Sec-WebSocket-Protocol: relay.v1"] if subprotocol else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """A whole frame of a client's, masked with zeros (RFC 6455 section 5.2)."""
    length = len(payload)
    if length < 126:
        head = bytes([0x80 | opcode, 0x80 | length])
    elif length < 65536:
        head = bytes([0x80 | opcode, 0x80 | 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + length.to_bytes(8, "big")
    return head + bytes(4) + payload
