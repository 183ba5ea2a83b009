"""When a conversation has been idle for too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Idleness:
    """Notes when there was content last, and reports once that there was none for too long.

    Args:
        seconds: how long; 0: any time is allowed.
        on_idle: called then.

    Invariants:
        The timer is set from `watch` until idleness is reported or `close` is called.
    """

    def __init__(self, seconds: float, on_idle: Callable[[], None]) -> None:
        self._seconds = seconds
        self._on_idle = on_idle
        self._last = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def touch(self) -> None:
        """There is content."""
        self._last = time.monotonic()  # the timer looks at it when it fires: it is not set anew each time

    def watch(self) -> None:
        """Begins to measure; does nothing if it has begun."""
        self.touch()
        if self._timer is None and self._seconds > 0:
            self._look()

    def close(self) -> None:
        """Stops for good."""
        if self._timer:
            self._timer.cancel()

    def _look(self) -> None:
        left = self._last + self._seconds - time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(left, self._look) if left > 0 else None
        if not self._timer:
            self._on_idle()
