"""The bodies of requests."""

from __future__ import annotations

import asyncio
from typing import Any

from adk_relay.wire.asgi import Receive
from adk_relay.wire.http import HttpError
from adk_relay.wire.http_listener import ClientGoneError
from adk_relay.wire.strict_json import JSON_LIMITS, read_json

MAX_BODY_BYTES = 64 * 1024
TOO_LONG = f"The body may have at most {MAX_BODY_BYTES} bytes."


async def read_body(receive: Receive, timeout: float) -> bytes:
    """A request's body, which has to be there within `timeout` seconds.

    Raises:
        HttpError: it is too long, or does not come in time.
        ClientGoneError: the client has gone.
    """
    body, more = b"", True
    try:
        async with asyncio.timeout(timeout):
            while more:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise ClientGoneError
                body += event.get("body", b"")
                more = event.get("more_body", False)
                if len(body) > MAX_BODY_BYTES:
                    raise HttpError(413, TOO_LONG)
    except TimeoutError:
        raise HttpError(408, f"The body did not come within {timeout:g} s.") from None
    return body


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        HttpError: there is none.
    """
    try:
        value = read_json(body)
    except ValueError:
        raise HttpError(400, f"The body must be JSON{JSON_LIMITS}.") from None
    if not isinstance(value, dict):
        raise HttpError(400, "The body must be a JSON object.")
    return value
