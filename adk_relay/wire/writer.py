"""The writing side of a socket: gives frames to the server's `send`, at once or from the outbox."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable
from typing import NoReturn

from adk_relay.core.stats import Traffic
from adk_relay.wire.asgi import Event, Send
from adk_relay.wire.closing import PeerGone
from adk_relay.wire.frame_log import brief
from adk_relay.wire.heartbeat import Heartbeat
from adk_relay.wire.outbox import Frame, Outbox, size
from adk_relay.wire.pacing import Pace
from adk_relay.wire.sending import begin_with

log = logging.getLogger("relay")

_READ_WAIT = 1.0
"""Seconds in which the socket can read its disconnect event after `send` has failed."""

_BURST = 0.001
"""Seconds. A frame that follows another one sooner is left to the task, and merged with those behind it."""


class Writer:
    """Sends the frames of one socket, one after the other.

    A frame is sent at once while the writer is parked. If its `send` has to wait, the task `run` finishes it,
    and then sends what has come to the outbox meanwhile.

    States:
        parked: the task waits.
        busy: the task sends.
        off: the task has not begun, or is over. Nothing is sent.

    Invariant:
        While it is parked, nothing waits in the outbox and no `send` goes on. So no frame overtakes another.

    Args:
        label: what the socket is called in the log.
        pace: holds back what is sent, because `send` never waits; None: `send` waits for a slow peer.
        traffic: counts what is sent.
    """

    def __init__(
        self,
        outbox: Outbox,
        send: Send,
        heartbeat: Heartbeat,
        label: str,
        pace: Pace | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self.label = label
        self.frames = 0
        """How many were sent."""
        self.ping: Frame | None = None
        """The last ping: the heartbeat is told when it was sent."""
        self._outbox = outbox
        self._send = send
        self._begin = begin_with(send)
        self._heartbeat = heartbeat
        self._pace = pace
        self._traffic = traffic or Traffic()
        self._debug = log.isEnabledFor(logging.DEBUG)
        self._parked: asyncio.Future[None] | None = None
        """What the task waits for; None: it is not parked."""
        self._began = -math.inf
        """When a frame was last sent at once."""
        self._begun: tuple[Frame, Awaitable[None]] | None = None
        """A frame and the rest of its `send`, which the task is to finish."""
        self._error: BaseException | None = None
        """What `send` has raised; the task raises it again."""
        outbox.wake = self._wake
        if self._begin and not pace:
            outbox.send_now = self._send_now

    def check(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        if self._parked:
            assert self._outbox.is_empty
            assert not self._begun

    async def run(self) -> NoReturn:
        """Sends until the socket is over.

        Raises:
            Close: the socket is to be closed now.
        """
        try:
            while True:
                await self._keep_pace()
                while (frame := self._outbox.take()) is not None:
                    if self._debug:
                        self._log(frame)
                    self._heartbeat.send_began(time.monotonic())
                    await self._finish(frame, self._send(_event(frame)))
                    await self._keep_pace()
                self._parked = parked = asyncio.get_running_loop().create_future()
                await parked
                if self._error:
                    await self._failed(self._error)
                if self._begun:
                    (frame, rest), self._begun = self._begun, None
                    await self._finish(frame, rest)
        finally:
            self._parked = None
            if self._begun and isinstance(self._begun[1], asyncio.Task):
                self._begun[1].cancel()
            self._begun = None

    async def _finish(self, frame: Frame, sending: Awaitable[None]) -> None:
        try:
            await sending
        except Exception as error:
            await self._failed(error)
        self._heartbeat.send_ended(time.monotonic(), is_ping=frame is self.ping)
        self._count(frame)
        if self._pace:
            self._pace.sent(size(frame))

    async def _failed(self, error: BaseException) -> NoReturn:
        """Ends the socket because `send` has raised an error.

        A peer that has gone raises OSError (ASGI spec 2.4). If the server itself has closed the socket,
        because of a broken frame, uvicorn raises RuntimeError, and other servers an exception of their own.
        The socket then gets the disconnect event, which has the close code. The wait lets it end with that.
        """
        if not isinstance(error, Exception):
            raise error
        await asyncio.sleep(_READ_WAIT)
        if isinstance(error, OSError | RuntimeError):
            raise PeerGone(1006, "") from None
        raise error

    async def _keep_pace(self) -> None:
        if self._pace and (pause := self._pace.wait(time.monotonic())):
            await asyncio.sleep(pause)

    def _send_now(self, frame: Frame) -> bool:
        """Sends a frame at once. Returns False if it has to wait in the outbox. Never raises."""
        if not self._parked:
            return False
        now = time.monotonic()
        if now - self._began < _BURST:
            return False
        assert self._begin
        if self._debug:
            self._log(frame)
        self._began = math.inf  # if a middleware's `send` makes relay send something, that has to wait
        try:
            rest = self._begin(_event(frame))
        except (Exception, asyncio.CancelledError) as error:
            self._error = error
            self._wake()
        else:
            if rest is None:
                self._count(frame)
            else:
                self._heartbeat.send_began(now)
                self._begun = frame, rest
                self._wake()
        self._began = now
        return True

    def _wake(self) -> None:
        """Leaves to the task what is to be done next."""
        if self._parked:
            if not self._parked.done():  # it is when the task was canceled just now
                self._parked.set_result(None)
            self._parked = None

    def _count(self, frame: Frame) -> None:
        self.frames += 1
        self._traffic.frames_out += 1
        self._traffic.bytes_out += size(frame)

    def _log(self, frame: Frame) -> None:
        log.debug("[AGENT TO CLIENT] %s: %s", self.label, brief(frame))


def _event(frame: Frame) -> Event:
    return {"type": "websocket.send", "bytes" if isinstance(frame, bytes) else "text": frame}
