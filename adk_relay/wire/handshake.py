"""The first and the last events of a WebSocket: accept, refuse and close.

The peer may go at any moment, and servers report that in different ways: with an OSError as the
specification has it (ASGI 2.4), a RuntimeError, an exception of their own, or not at all. So no exception of
`send` gets out.
"""

from __future__ import annotations

import asyncio
import logging

from adk_relay.core.logs import failure, one_line
from adk_relay.core.stats import Tally
from adk_relay.wire.asgi import Event, Receive, Scope, Send
from adk_relay.wire.closing import RATE_LIMITED, CloseFrame
from adk_relay.wire.guard import Refused
from adk_relay.wire.responding import attempt
from adk_relay.wire.targets import offers_subprotocol, subprotocol_of

log = logging.getLogger("relay")

_CLOSE_WAIT = 1.0
"""Seconds for sending the close frame: `send` waits until a stalled peer reads."""


async def accept(scope: Scope, receive: Receive, send: Send) -> bool:
    """Accepts a WebSocket. False: the peer has gone."""
    return await _connected(receive) and await attempt(
        send, {"type": "websocket.accept", "subprotocol": subprotocol_of(scope)}
    )


async def refuse(scope: Scope, receive: Receive, send: Send, why: Refused, tally: Tally) -> None:
    """Refuses a WebSocket in a way that shows the client the reason.

    A browser cannot read the response to a refused upgrade. So a WebSocket that offers relay.v1 is accepted,
    and closed at once with the code and the reason. Any other gets an HTTP response, if the ASGI server can
    send one.

    With a Retry-After every client gets that response: a proxy in front then asks another server, and a
    browser comes back after a pause, as after a lost connection. Except 4429, which says the same by itself.

    Args:
        tally: counts it by the frame's own reason: that of `why` may hold what the client has sent.
    """
    frame, reason = why.frame, why.reason
    tally.count(frame.reason)
    client = scope.get("client")
    log.info(
        "a WebSocket from %s was refused: %d %s", client[0] if client else "?", frame.code, one_line(reason)
    )
    has_response = "websocket.http.response" in (scope.get("extensions") or {})
    is_passing = frame.code != RATE_LIMITED.code and any(name == b"retry-after" for name, _ in why.headers)
    is_told = why.is_told and not (is_passing and has_response)
    if is_told and offers_subprotocol(scope):
        if await accept(scope, receive, send):
            await send_close(send, frame.because(reason))
    elif not await _connected(receive):
        pass
    elif has_response:
        start, body = why.response()
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


async def _connected(receive: Receive) -> bool:
    """Takes the first event. False: the peer has gone before it was accepted."""
    event = await receive()
    return bool(event["type"] == "websocket.connect")


def _close(frame: CloseFrame) -> Event:
    return {"type": "websocket.close", "code": frame.code, "reason": frame.reason}
