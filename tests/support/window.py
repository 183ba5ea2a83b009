"""A page in one of the browsers that are not Chromium: see support.firefox and support.webkit.

Playwright drives only builds of its own of these browsers. What Debian ships is asked over the protocol that
it has itself; here is what both have in common.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from support.browser import is_heard_out, until
from support.client import Json

ENTER = "\ue007"
"""WebDriver's name of the key."""


class Window(ABC):
    """A page, in a browser profile of its own."""

    @abstractmethod
    async def open(self, url: str) -> None:
        """Loads the first page, and listens to its console."""

    @abstractmethod
    async def go(self, url: str) -> None:
        """Goes on to another page, and returns when it is loaded."""

    @abstractmethod
    async def back(self) -> None:
        """Goes back to the page before."""

    @abstractmethod
    async def told(self) -> list[str]:
        """The warnings and errors in the console."""

    @abstractmethod
    async def _value(self, script: str) -> str:
        """What this script returns, which is the body of an async function and returns a string."""

    @abstractmethod
    async def _perform(self, actions: list[Json]) -> None:
        """Does what a user does: `actions` are WebDriver's."""

    # ---- what the user does

    async def click(self, selector: str) -> None:
        """Clicks on what can be seen and used; waits for that."""

        async def find() -> list[float] | None:
            found: list[float] | None = await self.evaluate(
                f"""(() => {{
                  const found = document.querySelector({json.dumps(selector)});
                  if (!found || found.disabled || !found.checkVisibility()) return null;
                  found.scrollIntoView({{ block: "nearest", behavior: "instant" }});
                  const {{ x, y, width, height }} = found.getBoundingClientRect();
                  return [x + width / 2, y + height / 2];
                }})()"""
            )
            return found

        place = await until(find, bool)
        assert place
        x, y = (int(value) for value in place)
        press = [{"type": f"pointer{what}", "button": 0} for what in ("Down", "Up")]
        move = {"type": "pointerMove", "x": x, "y": y, "origin": "viewport", "duration": 0}
        await self._perform([{"type": "pointer", "id": "mouse", "actions": [move, *press]}])

    async def type(self, text: str) -> None:
        """Types into what has the focus."""
        keys = [{"type": f"key{what}", "value": key} for key in text for what in ("Down", "Up")]
        await self._perform([{"type": "key", "id": "keyboard", "actions": keys}])

    async def say(self, text: str) -> None:
        await self.click("#text")
        await self.type(text + ENTER)

    async def call(self) -> None:
        """Starts a call, and returns when sound is being sent."""
        sent = (await self.stats())["sentFrames"]
        await self.click("#audio")
        await until(self.stats, lambda stats: stats["sentFrames"] > sent)
        await self.shows("connected")

    # ---- what the user sees and hears

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, when it is kept."""
        return json.loads(await self._value(f"return JSON.stringify((await ({expression})) ?? null)"))

    async def shows(self, state: str, timeout: float = 15) -> None:
        await until(
            lambda: self.evaluate("document.getElementById('state')?.dataset.state"), state.__eq__, timeout
        )

    async def all(self, selector: str) -> list[str]:
        """The texts of all elements that are found, from the first to the last."""
        texts: list[str] = await self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((found) => found.textContent)"
        )
        return texts

    async def sees(self, selector: str, pattern: str, timeout: float = 15) -> None:
        """Waits until the last of these elements has such a text."""
        await until(
            lambda: self.all(selector), lambda texts: texts and re.search(pattern, texts[-1]), timeout
        )

    async def answered(self, pattern: str) -> None:
        """Waits until the last thing that the agent said is this, and complete."""
        await self.sees(".message.agent .text", pattern)
        await until(lambda: self.all(".open, .expected"), lambda found: not found)

    async def stats(self) -> dict[str, int]:
        counters: dict[str, int] = await self.evaluate("({ ...window.relayStats })")
        return counters

    async def heard_out(self) -> dict[str, int]:
        """The counters, when all the sound that came has been played or flushed."""
        return await until(self.stats, is_heard_out)


@asynccontextmanager
async def visited(
    window: Window, port: int, path: str = "/", *, noise: str = "$.", state: str = "connected"
) -> AsyncIterator[Window]:
    """The page in this window. In the end nothing may be in the console but what matches `noise`."""
    try:
        await window.open(f"http://127.0.0.1:{port}{path}")
        await window.shows(state)
        yield window
        console = await window.told()
    except Exception as error:
        with suppress(Exception):
            error.add_note(f"console: {await window.told()}")
        raise
    assert [line for line in console if not re.search(noise, line)] == []
