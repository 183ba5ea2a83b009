"""A network that fails: TCP proxies that break connections.

`Proxy` sees where a WebSocket server's messages end, and cuts there:

    async with Proxy(port) as network:
        network.cuts.append(Cut(messages=7))
        ...connect to network.port...

A cut is abrupt: no close frame, nothing flushed. Only what the server says is understood; what a client
says goes through as it comes. `Network` understands less, and can stay down.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Cut:
    """When a connection is lost: after so many of the server's messages, or of its bytes (those of
    its answer to the upgrade included), or seconds. What comes first counts; with none, it is kept.

    `silent`: the server is not told. It goes on writing to a peer that is no more.
    """

    messages: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    silent: bool = False


class Line:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter, cut: Cut) -> None:
        self.messages = 0  # of the server's, that the client was sent as a whole
        self.was_cut = False
        self._client = client
        self._server = server
        self._cut = cut
        self._bytes = 0
        self._flows = asyncio.Event()
        self._flows.set()
        # `drain` is to mean that the kernel has it all: what it has still arrives after an abort.
        client.transport.set_write_buffer_limits(high=0)

    def hold(self) -> None:
        """Keeps the server's messages from the client from now on; what the client says still arrives."""
        self._flows.clear()

    def flow(self) -> None:
        """Lets them through again."""
        self._flows.set()

    def cut(self) -> None:
        """Loses the connection now."""
        self.was_cut = True
        self._client.transport.abort()
        if not self._cut.silent:
            self._server.transport.abort()

    async def serve(
        self, client: asyncio.StreamReader, server: asyncio.StreamReader, closing: asyncio.Event
    ) -> None:
        timer = None
        if self._cut.seconds is not None:
            timer = asyncio.get_running_loop().call_later(self._cut.seconds, self.cut)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(client))
                group.create_task(self._down(server))
        except* (EOFError, OSError):
            pass
        finally:
            if timer:
                timer.cancel()
            self._client.close()
            if self.was_cut and self._cut.silent:
                await closing.wait()
            self._server.close()

    async def _up(self, client: asyncio.StreamReader) -> None:
        while data := await client.read(65536):
            self._server.write(data)
            await self._server.drain()
        raise EOFError

    async def _down(self, server: asyncio.StreamReader) -> None:
        head = await server.readuntil(b"\r\n\r\n")
        await self._pass(head)
        if b" 101 " not in head.partition(b"\r\n")[0]:  # plain HTTP
            while data := await server.read(65536):
                await self._pass(data)
            raise EOFError
        while True:
            if self.messages == self._cut.messages:
                self.cut()
                raise EOFError
            message = await _message(server)
            await self._flows.wait()
            await self._pass(message)
            self.messages += 1

    async def _pass(self, data: bytes) -> None:
        room = len(data) if self._cut.bytes is None else self._cut.bytes - self._bytes
        self._bytes += len(data)
        self._client.write(data[:room])
        await self._client.drain()
        if room < len(data):
            self.cut()
            raise EOFError


class Proxy:
    """Stands between clients and a server on a port of the loopback."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.cuts: deque[Cut] = deque()  # of the connections that are made next, in order
        self.lines: list[Line] = []  # all connections there were
        self._server_port = port
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._listener.close()
        for line in self.lines:
            line.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._listener.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            cut = self.cuts.popleft() if self.cuts else Cut()
            server_reader, server_writer = await self._connect()
            line = Line(writer, server_writer, cut)
            self.lines.append(line)
            await line.serve(reader, server_reader, self._closing)
        finally:
            self._tasks.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        # The loopback would take megabytes from the server for a client that is held.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._server_port))
        return await asyncio.open_connection(sock=sock)


async def _message(server: asyncio.StreamReader) -> bytes:
    """The server's next message, with the headers of its frames (RFC 6455 section 5.2)."""
    message = b""
    while True:
        head = await server.readexactly(2)
        length = head[1] & 127
        if length >= 126:
            more = await server.readexactly(2 if length == 126 else 8)
            head, length = head + more, int.from_bytes(more, "big")
        message += head + await server.readexactly(length)
        if head[0] & 0x80:
            return message


class Network:
    """What lies between a client and a server: a TCP proxy that can be cut.

    Args:
        port: the server's.
        is_http: only WebSockets are held back; otherwise, all connections are.

    Attributes:
        up, down: what the one side of a WebSocket sends reaches the other; cleared, it is held back.
        takes_upgrades: WebSockets get through, or are answered with 403 on the way.
    """

    def __init__(self, port: int, *, is_http: bool = True) -> None:
        self.up, self.down = asyncio.Event(), asyncio.Event()
        self.takes_upgrades = True
        self._target = port
        self._is_http = is_http
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Every connection breaks, and no new one stands."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._is_cut = False
        self.up.set()
        self.down.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n") if self._is_http else b""
            upgrade = not self._is_http or b"\r\nupgrade: websocket\r\n" in head.lower()
            if upgrade and not self.takes_upgrades:
                writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await writer.drain()
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(far_writer)
            try:
                far_writer.write(head)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass_on(reader, far_writer, self.up if upgrade else None))
                    group.create_task(self._pass_on(far_reader, writer, self.down if upgrade else None))
            finally:
                self._writers.discard(far_writer)
                far_writer.transport.abort()
        except* (OSError, asyncio.IncompleteReadError):
            pass  # one side has gone
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event | None
    ) -> None:
        while data := await reader.read(65536):
            if flows:
                await flows.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError  # the other direction ends too


@asynccontextmanager
async def network(port: int, *, is_http: bool = True) -> AsyncIterator[tuple[Network, int]]:
    """A network to a server, and the port at which it is reached through it."""
    between = Network(port, is_http=is_http)
    between.mend()
    carrying: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(between.carry(reader, writer))
        carrying.add(task)
        task.add_done_callback(carrying.discard)

    server = await asyncio.start_server(connected, "127.0.0.1")
    try:
        yield between, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)
