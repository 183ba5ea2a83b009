"""The writing side of a socket: gives the frames of its outbox to the server's `send`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from contextvars import copy_context
from typing import NoReturn

from adk_relay.core.logs import one_line
from adk_relay.wire.asgi import Event, Send
from adk_relay.wire.closing import PeerGone
from adk_relay.wire.heartbeat import Heartbeat
from adk_relay.wire.outbox import Frame, Outbox
from adk_relay.wire.sending import begin_with

log = logging.getLogger("relay")

_READ_WAIT = 1.0
"""Seconds in which the socket's disconnect event is read after `send` has failed."""


class Writer:
    """Sends the frames of one outbox, one after the other.

    States:
        parked: the task `run` waits. What comes is sent by `_flush`, a callback of the event loop.
        busy: the task sends what comes, because a `send` has to wait.
        off: `run` has not begun or is over. Nothing is sent.

    Invariants:
        Only one `send` goes on at a time.
        While it is parked and something waits in the outbox, a call of `_flush` is scheduled.

    Args:
        ping: the frame that the heartbeat has to know of; None: the dialect has none.
        label: what the socket is called in the log.
    """

    def __init__(
        self, outbox: Outbox, send: Send, heartbeat: Heartbeat, ping: Frame | None, label: str
    ) -> None:
        self.frames = 0
        """How many were sent."""
        self.label = label
        self._outbox = outbox
        self._send = send
        self._begin = begin_with(send)
        self._heartbeat = heartbeat
        self._ping = ping
        self._debug = log.isEnabledFor(logging.DEBUG)
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()  # for middleware: its `send` is to see what it has set for this socket
        self._parked: asyncio.Future[None] | None = None
        """What `run` waits for; None or done: it is not parked."""
        self._begun: tuple[Frame, Awaitable[None]] | None = None
        """A frame, and the rest of its `send`, which `run` is to wait for."""
        self._is_due = False
        """A call of `_flush` is scheduled."""
        outbox.wake = self._wake

    def check(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        if self._parked and not self._parked.done():
            assert not self._begun
            assert self._is_due or self._outbox.is_empty

    async def run(self) -> NoReturn:
        """Sends what comes.

        Raises:
            Close: the socket is to be closed now.
        """
        try:
            while True:
                while (frame := self._take()) is not None:
                    self._heartbeat.send_began(time.monotonic())
                    await self._finish(frame, self._send(_event(frame)))
                self._parked = self._loop.create_future()
                await self._parked
                if self._begun:
                    (frame, rest), self._begun = self._begun, None
                    await self._finish(frame, rest)
        except (OSError, RuntimeError):
            # A peer that has gone raises OSError (ASGI spec 2.4). If the server itself has closed the
            # socket, because of a broken frame, uvicorn raises RuntimeError. The socket then gets the
            # disconnect event, which has the close code. The wait lets it read that first.
            await asyncio.sleep(_READ_WAIT)
            raise PeerGone(1006, "") from None
        finally:
            self._parked = None
            if self._begun and isinstance(self._begun[1], asyncio.Task):
                self._begun[1].cancel()

    async def _finish(self, frame: Frame, sending: Awaitable[None]) -> None:
        await sending
        self._heartbeat.send_ended(time.monotonic(), is_ping=frame is self._ping)
        self.frames += 1

    def _wake(self) -> None:
        """Something came. It is sent in the next turn of the loop: until then, more can be merged into it."""
        if self._parked and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._flush, context=self._context)

    def _flush(self) -> None:
        """Sends what waits; leaves it to `run` where that needs a task."""
        self._is_due = False
        parked = self._parked
        if not parked or parked.done():
            return
        try:
            while self._begin and (frame := self._take()) is not None:
                if rest := self._begin(_event(frame)):
                    self._heartbeat.send_began(time.monotonic())
                    self._begun = frame, rest
                    break
                if frame is self._ping:
                    self._heartbeat.send_ended(time.monotonic(), is_ping=True)
                self.frames += 1
            else:
                if self._begin:
                    return
            parked.set_result(None)
        except (Exception, asyncio.CancelledError) as error:  # of `send`, or the Close of the outbox
            parked.set_exception(error)

    def _take(self) -> Frame | None:
        frame = self._outbox.take()
        if self._debug and frame is not None:
            log.debug("[AGENT TO CLIENT] %s: %s", self.label, brief(frame))
        return frame


def _event(frame: Frame) -> Event:
    return {"type": "websocket.send", "bytes" if isinstance(frame, bytes) else "text": frame}


def brief(frame: Frame) -> str:
    """A frame for the log: long base64 is cut."""
    if isinstance(frame, bytes):
        return f"{len(frame)} bytes of sound"
    return one_line(frame, 300) + (f"… ({len(frame)} characters)" if len(frame) > 300 else "")
