"""The types of ASGI, and what several modules read in a scope.

The server calls the application once for each HTTP request or WebSocket, with a `scope` that describes it and
two coroutine functions, `receive` and `send`, for events. The scope and the events are dicts.
Source: https://asgi.readthedocs.io, spec versions 2.3 to 2.5.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, quote

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


def query_of(scope: Scope) -> dict[str, str]:
    """The fields of a URL's query. If there are several of a name, the last one counts."""
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    return {name: values[-1] for name, values in query.items()}


def header_values(scope: Scope, name: bytes) -> list[str]:
    """The values of a header, whose name is in lower case."""
    return [value.decode("latin-1") for key, value in scope.get("headers", ()) if key.lower() == name]


def sent_path(scope: Scope) -> str:
    """The path as the client has sent it; "": the server does not tell."""
    raw: bytes = scope.get("raw_path") or b""
    return raw.partition(b"?")[0].decode("latin-1")


def raw_path(scope: Scope) -> str:
    """The path as the client has sent it, mount point and escapes included; else as it must have been."""
    return sent_path(scope) or quote(scope["path"])
