"""An HTTP request as a listener: it sends one text, waits for the answer, and leaves."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Literal

from adk_relay.core.messages import Ended, Error, Message, TurnEnd
from adk_relay.wire.asgi import Receive
from adk_relay.wire.closing import BUSY, CONVERSATION_ENDED, CONVERSATION_ENDED_TEXT, DONE, Close
from adk_relay.wire.http import HttpError, retry_after
from adk_relay.wire.outbox import Frame, Outbox

_ENDED_STATUS = {"idle": 504, "failed": 502, "stopping": 503, "moved": 503}
"""The HTTP status if the conversation of a request ends, by `Ended.why` (RFC 9110 section 15.6)."""

_ERROR_STATUS = {"refused": 403}
"""The HTTP status of an error, if it is not 502."""

_KEEP_ALIVE = ": still here\n\n"
"""A comment in a stream of server-sent events, which clients ignore."""


class HttpListener:
    """Listens for the answer to one request.

    States: waiting; answered (`answer` is set); failed (`error` is set).

    Args:
        name: what the others in the conversation are told of its user.
        member, address: see `core.listener.Listener`.
        outbox: gets all messages, for a request whose answer is streamed. Closing it ends the request.
    """

    is_audio = False
    connects = False
    attends: Literal["own"] = "own"

    def __init__(self, outbox: Outbox, name: str = "", member: str = "", address: str = "") -> None:
        self.name = name
        self.member = member
        self.address = address
        self.connection_id = secrets.token_urlsafe(9)
        self.answer: TurnEnd | None = None
        self.error: HttpError | None = None
        self._outbox = outbox

    # ---- for the conversation (adk_relay.core.room.Listener): nothing here waits ----

    def deliver(self, message: Message) -> None:
        """Takes a message of the conversation."""
        match message:
            case Ended(why):
                if not self.error:
                    self.error = ended(why)
                    self._outbox.enqueue(Error(why, self.error.detail))
                self._outbox.close(CONVERSATION_ENDED[why])
            case Error(code, text):
                self.error = busy(text) if code == "busy" else HttpError(_ERROR_STATUS.get(code, 502), text)
                self._outbox.enqueue(message)
                if code in ("busy", "refused"):
                    self._outbox.close(BUSY)
            case TurnEnd(goes_on=False):
                self.answer = message
                self._outbox.enqueue(message)
                self._outbox.close(DONE)
            case _:
                self._outbox.enqueue(message)

    def replay(self, messages: Sequence[Message]) -> None:
        """Is never called: an HTTP request does not come back."""

    # ---- for the request ----

    async def finish(self) -> None:
        """Waits until the request is answered or has failed."""
        async for _ in self.frames(None):
            pass

    async def first_frame(self) -> Frame:
        """The first frame, or a comment after a second: until then, a status can say what is wrong.

        Raises:
            HttpError: too many requests wait. Another process may say so, after a moment.
        """
        async with aclosing(self.frames(1.0)) as frames:
            frame = await anext(frames, _KEEP_ALIVE)
        if self.error and self.error.status == 429:
            raise self.error
        return frame

    async def frames(self, keep_alive: float | None) -> AsyncGenerator[Frame, None]:
        """Yields the frames to send, until the request is answered or has failed.

        Args:
            keep_alive: after so many seconds without a frame a comment is sent; None: never.
        """
        while True:
            try:
                async with asyncio.timeout(keep_alive):
                    frame = await self._outbox.dequeue()
            except TimeoutError:
                frame = _KEEP_ALIVE
            except Close:
                if not (self.answer or self.error):  # the queue has overflowed
                    encoded = self._outbox.encode(Error("too_slow", "You read too slowly to get the answer."))
                    for last in encoded if isinstance(encoded, tuple) else ():
                        if isinstance(last, str | bytes):
                            yield last
                return
            yield frame


class ClientGoneError(Exception):
    """The client has gone: there is nobody to answer."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` to its end, or until the client has gone.

    Raises:
        ClientGoneError: the client has gone before `work` ended; `work` was canceled.
    """
    tasks = asyncio.create_task(work), asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        is_done = tasks[0].done()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not is_done:
        raise ClientGoneError
    tasks[0].result()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def ended(why: str) -> HttpError:
    """The error of a request whose conversation has ended."""
    later = [retry_after(1)] if _ENDED_STATUS[why] == 503 else []
    return HttpError(_ENDED_STATUS[why], CONVERSATION_ENDED_TEXT[why], *later)


def busy(why: str) -> HttpError:
    """The error of a request that is refused because too many wait already."""
    return HttpError(429, why, (b"retry-after", b"5"))
