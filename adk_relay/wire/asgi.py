"""ASGI in a few lines: its types.

The server calls the application once for each connection, with a `scope` that describes the connection
and two coroutines, to `receive` and to `send` events. All of them are dicts.
Source: https://asgi.readthedocs.io, spec versions 2.3 to 2.5.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
