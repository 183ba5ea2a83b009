"""The types of ASGI.

The server calls the application once for each HTTP request or WebSocket, with a `scope` that describes it and
two coroutine functions, `receive` and `send`, for events. The scope and the events are dicts.
Source: https://asgi.readthedocs.io, spec versions 2.3 to 2.5.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
