"""A WebSocket on a stream of HTTP/2 (RFC 8441), which is what browsers open where the server allows it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RemoteSettingsChanged, ResponseReceived, StreamEnded

from support.raw import Peer

_STREAM = 1


class Http2Peer(Peer):
    """One TCP connection with one WebSocket on it. It reads only when it is told to, as any `Peer`.

    What it has not read, the server may not send: HTTP/2 gives a stream 64 KiB to begin with.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.response: dict[str, str] = {}
        """The headers with which the server has answered."""
        self._http2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._has_settings = self._has_ended = False

    @classmethod
    @asynccontextmanager
    async def opened(cls, port: int, target: str, *, subprotocol: bool = True) -> AsyncIterator[Http2Peer]:
        """A peer that has got the response to its handshake."""
        async with cls.connected(port) as peer:
            peer._http2.initiate_connection()
            await peer._flush()
            while not peer._has_settings:  # they allow the method CONNECT for a WebSocket
                await peer._read()
            headers = {
                ":method": "CONNECT",
                ":protocol": "websocket",
                ":scheme": "http",
                ":path": target,
                ":authority": "127.0.0.1",
                "sec-websocket-version": "13",
                **({"sec-websocket-protocol": "relay.v1"} if subprotocol else {}),
            }
            peer._http2.send_headers(_STREAM, list(headers.items()))
            await peer._flush()
            while not peer.response:
                await peer._read()
            yield peer

    async def send_raw(self, data: bytes) -> None:
        """Sends bytes on the stream, as far and as soon as the server takes them."""
        while data:
            window = self._http2.local_flow_control_window(_STREAM)
            if not window:
                await self._read()
                continue
            part = data[: min(window, self._http2.max_outbound_frame_size)]
            self._http2.send_data(_STREAM, part)
            await self._flush()
            data = data[len(part) :]

    async def _fill(self) -> None:
        if self._has_ended:
            raise EOFError
        await self._read()

    async def _read(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        if not data:
            raise EOFError
        for event in self._http2.receive_data(data):
            self._take(event)
        await self._flush()

    def _take(self, event: Event) -> None:
        match event:
            case RemoteSettingsChanged():
                self._has_settings = True
            case ResponseReceived():
                self.response = {str(name): str(value) for name, value in event.headers or ()}
            case DataReceived():
                self._buffer += event.data or b""
                self._http2.acknowledge_received_data(event.flow_controlled_length or 0, _STREAM)
            case StreamEnded():
                self._has_ended = True

    async def _flush(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, self._http2.data_to_send())
