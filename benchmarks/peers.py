"""The event loop of the model and the clients."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

PAUSE = 0.001


class _Polling(selectors.DefaultSelector):
    """Looks every millisecond whether something has come, instead of being woken.

    A peer in a network is not woken by the process that sends to it. On one machine it would be, and the
    sender's CPU time would include that: a tenth of what relay needs for a chunk, and more on some machines.
    """

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        time.sleep(PAUSE if timeout is None else min(timeout, PAUSE))
        return super().select(0)


def run(main: Coroutine[Any, Any, T]) -> T:
    """What `asyncio.run` does, with such a loop."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(_Polling())) as runner:
        return runner.run(main)
