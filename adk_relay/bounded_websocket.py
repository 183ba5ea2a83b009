"""uvicorn's WebSocket protocol with bounds on frames and bytes, and with small turns."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from adk_relay.bounds import (
    BYTES,
    BYTES_AT_ONCE,
    FRAMES,
    FRAMES_AT_ONCE,
    MAX_FRAGMENTS,
    MAX_FRAME,
    UNFINISHED,
    response,
)
from adk_relay.core.allowance import Allowance

_FRAGMENT = 64 * 1024 - 4
"""A longer WebSocket frame is parsed in fragments of this length: a multiple of 4, as the mask is, and with a
length of 2 bytes on the wire."""

_SLICE = 0.002
"""Seconds of parsing WebSocket frames in one turn of the event loop."""

_QUEUED = 32
"""Messages that may wait for the application."""


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket whose frames are parsed a few at a time, and long ones in fragments.

    Invariant: while `_held` has a frame that could be parsed, reading is paused, and `_go_on` is scheduled or
    the application is to call `receive`.
    """

    leans_on = (
        *("data_received", "connection_lost", "receive", "handle_ping", "handle_parser_exception"),
        *("send_receive_event_to_app", "close_sent", "conn", "curr_msg_data_type", "frames"),
        *("handshake_complete", "handshake_initiated", "loop", "queue", "read_paused", "transport"),
        "writable",
    )
    """What is used of uvicorn's class: methods and attributes, none of them private, and none documented."""

    _unfinished = 0
    """Of all connections together: bytes of messages that have begun and not ended."""

    _step: asyncio.Handle | None = None
    _own = 0
    """What this connection has of `_unfinished`."""
    _left = 0
    """Bytes of a long frame that are not parsed yet. Its fragments have these first bytes, and its mask:"""
    _first, _fin, _mask = 0, 0, b""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._held = bytearray()
        self._frames = Allowance(FRAMES, FRAMES_AT_ONCE)
        self._bytes = Allowance(BYTES, BYTES_AT_ONCE)

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated:
            self._held += data
            if not self._step:
                self._go_on()
            return
        super().data_received(data)
        if not self.handshake_initiated:  # websockets can't parse the request, and says nothing
            self.handshake_complete = self.close_sent = True
            self.transport.write(response(b"400 Bad Request"))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._step:
            self._step.cancel()
        self._held.clear()
        self._count(0)
        super().connection_lost(exc)

    async def receive(self) -> Any:
        event = await self.queue.get()
        if self.queue.empty() and self.read_paused and not self._step:
            if self._held:
                self._go_on()
            else:
                self._resume()
        return event

    def handle_ping(self) -> None:
        """Answers a ping, unless the peer does not read: RFC 6455 section 5.5.3 wants only the last pong."""
        pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(pong)

    def send_receive_event_to_app(self) -> None:
        """As uvicorn's, but what is not UTF-8 is no traceback in the log."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            data = b"".join(self.frames)
            self.frames = [data]
            try:
                text = data.decode()
            except UnicodeDecodeError:
                self._fail(1007, "invalid UTF-8")
                return
            self.frames = []
            self.queue.put_nowait({"type": "websocket.receive", "text": text})
            self._pause()
        else:
            super().send_receive_event_to_app()

    def _go_on(self) -> None:
        """Parses frames until there is no whole one, or it is somebody else's turn."""
        self._step = None
        began = now = time.monotonic()
        while not self.transport.is_closing():
            if self.queue.qsize() >= _QUEUED and not self.close_sent:
                return self._pause()  # `receive` goes on
            if pause := max(self._frames.wait(now), self._bytes.wait(now)):
                self._step = self.loop.call_later(pause, self._go_on)
                return self._pause()
            if now - began > _SLICE:
                self._step = self.loop.call_soon(self._go_on)
                return self._pause()
            piece = self._next()
            if piece is None:
                return self._rest()
            self._bytes.take(len(piece))
            super().data_received(piece)
            if self.frames or self._own:  # a message that has not ended, or was one
                self._count(self._own + len(piece) if self.frames else 0)
                if len(self.frames) > MAX_FRAGMENTS:
                    self._fail(1008, "too many fragments")
                elif BoundedWebSocket._unfinished > UNFINISHED:
                    self._fail(1013, "too much is being received: try again later")
            if not self._held:  # the usual case: one frame has come, and no more
                return self._rest()
            now = time.monotonic()
        self._held.clear()
        return None

    def _rest(self) -> None:
        """There is no whole frame: reads on, unless the application has something to take."""
        if self.read_paused and self.queue.empty():
            self._resume()

    def _next(self) -> bytes | None:
        """The next frame, or the next fragment of a long one; None: it is not here yet.

        A frame (RFC 6455 section 5.2) has two bytes, a longer length in 2 or 8 bytes if the first one is 126
        or 127, the mask in 4 bytes, and the payload.
        """
        held = self._held
        if self._left:
            return self._fragment()
        if len(held) < 2:
            return None
        length = held[1] & 127
        if not held[1] & 128 or (held[0] & 8 and length > 125):
            self._fail(1002, "a frame without a mask, or a long control frame")
            return None
        start = {126: 8, 127: 14}.get(length, 6)
        if len(held) < start:
            return None
        if start > 6:
            length = int.from_bytes(held[2 : start - 4], "big")
        if length > MAX_FRAME:
            self._fail(1009, f"a frame may have at most {MAX_FRAME} bytes")
            return None
        if length > _FRAGMENT:
            self._left, self._mask = length, bytes(held[start - 4 : start])
            self._first, self._fin = held[0] & 0x7F, held[0] & 0x80
            del held[:start]
            self._frames.take(1)
            return self._fragment()
        if len(held) < start + length:
            return None
        frame = bytes(held[: start + length])
        del held[: start + length]
        self._frames.take(1)
        return frame

    def _fragment(self) -> bytes | None:
        """The next fragment of a long frame: the first has its opcode, and the last one its FIN bit."""
        size = min(self._left, _FRAGMENT)
        if len(self._held) < size:
            return None
        self._left -= size
        head = bytes([self._first if self._left else self._first | self._fin])
        head += bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        fragment = head + self._mask + self._held[:size]
        del self._held[:size]
        self._first = 0
        return fragment

    def _count(self, size: int) -> None:
        BoundedWebSocket._unfinished += size - self._own
        self._own = size

    def _fail(self, code: int, why: str) -> None:
        """Closes the WebSocket because of what the peer has sent."""
        self.conn.fail(code, why)
        self.handle_parser_exception()

    def _pause(self) -> None:
        if not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()
