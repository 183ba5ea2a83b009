"""The first and the last events of a WebSocket: accept, refuse and close.

The peer may go at any moment, and servers report that in different ways: with an OSError as the
specification has it (ASGI 2.4), a RuntimeError, an exception of their own, or not at all. So no exception of
`send` gets out.
"""

from __future__ import annotations

import asyncio
import logging

from adk_relay.core.logs import failure, one_line
from adk_relay.wire import http
from adk_relay.wire.asgi import Event, Receive, Scope, Send
from adk_relay.wire.closing import CloseFrame
from adk_relay.wire.dialects.live import SUBPROTOCOL
from adk_relay.wire.targets import offers_subprotocol

log = logging.getLogger("relay")

_CLOSE_WAIT = 1.0
"""Seconds for sending the close frame: `send` waits until a stalled peer reads."""


async def accept(scope: Scope, receive: Receive, send: Send) -> bool:
    """Accepts a WebSocket. False: the peer has gone."""
    subprotocol = SUBPROTOCOL if offers_subprotocol(scope) else None
    return await _connected(receive) and await attempt(
        send, {"type": "websocket.accept", "subprotocol": subprotocol}
    )


async def refuse(
    scope: Scope,
    receive: Receive,
    send: Send,
    frame: CloseFrame,
    status: int,
    reason: str,
    *headers: tuple[bytes, bytes],
    told: bool = True,
) -> None:
    """Refuses a WebSocket in a way that shows the client the reason.

    A browser cannot read the response to a refused upgrade. So a WebSocket that offers relay.v1 is accepted,
    and closed at once with the code and the reason, unless `told` is false. Any other gets an HTTP
    response, if the ASGI server can send one.
    """
    client = scope.get("client")
    log.info(
        "a WebSocket from %s was refused: %d %s", client[0] if client else "?", frame.code, one_line(reason)
    )
    if told and offers_subprotocol(scope):
        if await accept(scope, receive, send):
            await send_close(send, frame.because(reason))
    elif not await _connected(receive):
        pass
    elif "websocket.http.response" in (scope.get("extensions") or {}):
        start, body = http.HttpError(status, reason, *headers).response()
        if await attempt(send, {**start, "type": "websocket.http.response.start"}):
            await attempt(send, {"type": "websocket.http.response.body", "body": body})
        await asyncio.sleep(0)  # uvicorn logs an error unless the connection is gone when this returns
    else:
        await send_close(send, frame.because(reason))


async def send_close(send: Send, frame: CloseFrame) -> None:
    """Sends the close frame. Also while the task is being canceled."""
    try:
        async with asyncio.timeout(_CLOSE_WAIT):
            try:
                await send(_close(frame))
            except (OSError, RuntimeError):
                raise
            except Exception:  # daphne sends no standard code but 1000
                await send(_close(frame.private()))
    except Exception as error:  # the peer stalls, or has gone: the server drops the connection
        log.debug("a close was not sent: %s", failure(error))


async def attempt(send: Send, event: Event) -> bool:
    """Sends an event. False: that failed, because the peer has gone."""
    try:
        await send(event)
    except Exception as error:
        log.debug("%s was not sent: %s", event["type"], failure(error))
        return False
    return True


async def _connected(receive: Receive) -> bool:
    """Takes the first event. False: the peer has gone before it was accepted."""
    event = await receive()
    return bool(event["type"] == "websocket.connect")


def _close(frame: CloseFrame) -> Event:
    return {"type": "websocket.close", "code": frame.code, "reason": frame.reason}
