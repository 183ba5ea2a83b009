"""Begins a call of an ASGI server's `send` outside of the socket's task.

`send` returns without waiting, unless the peer is slow. To wake a task for each frame costs more than the frame.
So `send` is begun where there is a frame, and only what is left of a `send` that waits needs a task.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from inspect import iscoroutinefunction
from types import coroutine
from typing import Any

from adk_relay.wire.asgi import Event, Send

Begin = Callable[[Event], Awaitable[None] | None]
"""Sends an event. Returns None if that is done, else the rest, to be awaited. Raises what `send` raises."""

_UVICORN = tuple(f"uvicorn.protocols.websockets.{name}_impl" for name in ("websockets_sansio", "wsproto"))
"""Modules of uvicorn. All that their `send` waits for is an asyncio.Event, which no task need wait for."""


def begin_with(send: Send) -> Begin | None:
    """How a call of `send` is begun outside of a task.

    Returns:
        None: it can't be. The server is not known, and Python 3.11 has no eager tasks.
    """
    if not iscoroutinefunction(send):
        return None
    if sys.version_info >= (3, 12):

        def begin_task(event: Event) -> Awaitable[None] | None:
            task = asyncio.Task(send(event), eager_start=True)
            return task.result() if task.done() else task

        return begin_task
    elif send.__module__ in _UVICORN:

        def begin_step(event: Event) -> Awaitable[None] | None:
            sending = send(event)
            try:
                return _rest(sending, sending.send(None))
            except StopIteration:
                return None

        return begin_step
    return None


@coroutine
def _rest(sending: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """What is left of a coroutine that has run without a task, up to the future that it waits for.

    The task that awaits this gets the future as if the coroutine had yielded it only now.
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
