"""Time that passes only when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Clock:
    """Takes the place of the `time` module in a module that reads `time.monotonic()`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class TimedLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers fire when a test lets time pass."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._errors: list[BaseException] = []
        super().__init__()

    def time(self) -> float:
        return self.clock.now

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keeps the error of a timer for the test, in the place of logging it."""
        self._errors.append(context.get("exception") or RuntimeError(context["message"]))

    def call(self, function: Callable[[], T]) -> T:
        """Calls a function that needs a running loop."""

        async def running() -> T:
            return function()

        return self.run_until_complete(running())

    def wait(self, seconds: float) -> None:
        """Lets time pass, and the timers that are due fire. The error of one is raised."""
        self.clock.now += seconds
        for _ in range(2):  # one round finds the timers that are due, the next one runs them
            self.run_until_complete(asyncio.sleep(0))
        if self._errors:
            raise self._errors.pop()
