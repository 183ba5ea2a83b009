"""Begins a call of an ASGI server's `send` without a task.

`send` returns without waiting, unless the peer is slow. Waking a task to call it costs almost as much as the
call. So `send` is called where the frame is made, and only a `send` that waits is finished in a task.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import copy_context
from inspect import iscoroutinefunction
from types import coroutine
from typing import Any

from adk_relay.wire.asgi import Event, Send

Begin = Callable[[Event], Awaitable[None] | None]
"""Calls `send`, and returns None if it is done, else its rest, to be awaited. Raises what `send` raises."""

_UVICORN = tuple(f"uvicorn.protocols.websockets.{name}_impl" for name in ("websockets_sansio", "wsproto"))
"""Modules whose `send` may be begun without a task: all that it ever waits for is one asyncio.Event. Other
code may need the task that it runs in, as `asyncio.timeout` does."""


def begin_with(send: Send) -> Begin | None:
    """How calls of `send` are begun in the running loop.

    Returns:
        None: `send` can only be awaited in a task. It is not uvicorn's, and Python 3.11 can't start a task
            at once.
    """
    if not iscoroutinefunction(send):
        return None
    if send.__module__ in _UVICORN:

        def begin(event: Event) -> Awaitable[None] | None:
            sending = send(event)
            try:
                return _rest(sending, sending.send(None))
            except StopIteration:
                return None

        return begin
    if sys.version_info >= (3, 12):
        loop = asyncio.get_running_loop()
        context = copy_context()  # a middleware's `send` sees the variables that are set for this socket

        def begin_task(event: Event) -> Awaitable[None] | None:
            task = asyncio.Task(send(event), loop=loop, context=context, eager_start=True)
            return task.result() if task.done() else task

        return begin_task
    return None


@coroutine
def _rest(sending: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Finishes a coroutine that was begun without a task.

    Args:
        waits_for: the future that the coroutine waits for. It is yielded again, now to a task.
    """
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as error:  # the task was canceled
                waits_for = sending.throw(error)
            else:
                waits_for = sending.send(value)
    except StopIteration:
        pass
