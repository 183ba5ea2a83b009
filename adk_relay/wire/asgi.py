"""ASGI in a few lines: its types, and where in a URL an application is mounted.

The server calls the application once for each connection, with a `scope` that says what it is, and two
coroutines to `receive` and to `send` events, which are dicts.
Source: https://asgi.readthedocs.io, spec versions 2.3 to 2.5.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
