"""Sends to a peer that may go at any moment, or not read: no exception of `send` gets out."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from adk_relay.core.logs import failure
from adk_relay.wire.asgi import Event, Send
from adk_relay.wire.http import Response

log = logging.getLogger("relay")


async def attempt(send: Send, event: Event) -> bool:
    """Sends an event. False: that failed, because the peer has gone."""
    try:
        await send(event)
    except Exception as error:
        log.debug("%s was not sent: %s", event["type"], failure(error))
        return False
    return True


async def send_response(send: Send, response: Response, method: str, seconds: float) -> None:
    """Sends the response to a request with this method; `seconds`: how long that may take."""
    start, body = response
    # The response to HEAD has no body, but the same Content-Length (RFC 9110 section 9.3.2).
    sent = b"" if method == "HEAD" else body
    with suppress(TimeoutError):  # a peer that does not read
        async with asyncio.timeout(seconds):
            if await attempt(send, start):
                await attempt(send, {"type": "http.response.body", "body": sent})
