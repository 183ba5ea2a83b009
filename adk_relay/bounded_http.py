"""uvicorn's HTTP protocol with bounds on connections and requests.

Requests are parsed by h11, because it bounds the head of a request, and parses one request at a time.
httptools has no such bound, and uvicorn's protocol for it makes an object of each pipelined request at once.
"""

from __future__ import annotations

import asyncio
import logging

import h11
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.h11_impl import H11Protocol

from adk_relay.bounds import HEAD_SECONDS, MAX_HEADERS, MAX_REQUEST, response
from adk_relay.wire.http import retry_after

log = logging.getLogger("relay")

_PIECE = 2048
"""Bytes of HTTP that are parsed in one turn of the event loop."""

_TURNED_AWAY = 32
"""Connections beyond the bound that get a response; those beyond these are dropped."""


class BoundedHttp(H11Protocol):
    """HTTP/1.1 without pipelining, with a bound on the number of connections and on each request.

    A request that comes before the answer to the last one is dropped, and the connection closed behind the
    answer, as RFC 9112 section 9.3.2 allows: uvicorn would go on reading as fast as it answers.

    States: turned away; between requests (the timer runs from the first byte on); in a request.

    Invariant: while `_held` has something, reading is paused and `_go_on` is scheduled.
    """

    leans_on = (
        *("connection_made", "data_received", "connection_lost"),
        *("conn", "connections", "cycle", "flow", "loop", "transport"),
    )
    """What is used of uvicorn's class: methods and attributes, none of them private, and none documented."""

    most = 512
    """Connections at the same time. The rest of the file descriptors is for the model and the store."""

    _turned_away = 0

    _is_turned_away = False
    _timer: asyncio.TimerHandle | None = None
    _step: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._held = bytearray()
        self._bytes = self._lines = 0
        if len(self.connections) >= self.most:
            self.transport = transport
            self._is_turned_away = True
            BoundedHttp._turned_away += 1
            if BoundedHttp._turned_away == 1:
                log.warning("there are %d connections: no more are taken", len(self.connections))
            if BoundedHttp._turned_away > _TURNED_AWAY:
                transport.abort()
        else:
            super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_turned_away:
            BoundedHttp._turned_away -= 1
        self._unwatch()
        self._held.clear()
        if self._step:
            self._step.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_turned_away:
            self._bytes += len(data)
            self._end(b"503 Service Unavailable", retry_after(1))
        elif self._is_answering():
            self._stop_after_answer()
        else:
            self._held += data
            if not self._step:
                self._go_on()

    def _go_on(self) -> None:
        """Parses one piece."""
        self._step = None
        piece = bytes(self._held[:_PIECE])
        del self._held[:_PIECE]
        before = self.cycle
        self._bytes += len(piece)
        if self.conn.their_state is h11.IDLE:
            self._lines += piece.count(b"\n")
            if self._lines > MAX_HEADERS and b"\r\n\r\n" not in piece:
                return self._end(b"431 Request Header Fields Too Large")
        if not self._timer and (before is None or before.response_complete):
            self._watch()
        if self._bytes > MAX_REQUEST:
            return self._end(b"413 Content Too Large")
        super().data_received(piece)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._unwatch()  # it is over, or a WebSocket now
            self._held.clear()
            self.flow.resume_reading()
            return None
        if self.cycle is not before:  # a request has begun
            self._unwatch()
            self._bytes, self._lines = len(piece), 0
        if self._is_answering() and (self._held or self.conn.trailing_data[0]):
            self._stop_after_answer()
        elif self._held:
            self.flow.pause_reading()
            self._step = self.loop.call_soon(self._go_on)
        elif self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()
        return None

    def _is_answering(self) -> bool:
        """A request is complete, and the response to it is not."""
        return bool(self.cycle and not self.cycle.more_body and not self.cycle.response_complete)

    def _stop_after_answer(self) -> None:
        self.cycle.keep_alive = False
        self._held.clear()
        self.flow.pause_reading()

    def _watch(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._end, b"408 Request Timeout")

    def _unwatch(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _end(self, status: bytes, *headers: tuple[bytes, bytes]) -> None:
        """Closes the connection, with a response if none has begun and something was asked."""
        self._held.clear()
        if self.transport.is_closing():
            return
        if self._bytes and self.conn.our_state is h11.IDLE:
            self.transport.write(response(status, *headers))
        self.transport.close()
