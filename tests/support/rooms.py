"""Windows in rooms: the page `/demo`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from playwright.async_api import Browser, Dialog, Error, Route, expect

from support.browser import Tab, control, until, visit
from support.gemini import Connection, GeminiLive, UserTurn

GUEST = r"Guest [\w-]{4}"


class Script:
    """A model that says "one", and "two" when it may go on."""

    def __init__(self, gemini: GeminiLive) -> None:
        self.may_go_on = asyncio.Event()
        gemini.answer = self.answer

    async def answer(self, connection: Connection, turn: UserTurn) -> None:
        await connection.say(f"{turn.text}: one", complete=False)
        await self.may_go_on.wait()
        await connection.say(" two.")


@asynccontextmanager
async def window(
    browser: Browser, port: int, room: str = "", *, path: str = "/demo", **options: Any
) -> AsyncIterator[Tab]:
    """Opens the rooms in a browser context of its own, in a room if one is named (`ROOM&token=…`)."""
    async with visit(browser, port, f"{path}{room and '#'}{room}", **options) as tab:
        if room:
            name = f"Room {room.partition('&')[0]}"
            await expect(tab.page.locator("#room-name")).to_have_text(name)
        yield tab


async def room_of(tab: Tab) -> str:
    """The id of the room that a window is in."""
    await expect(tab.page.locator("#room-actions")).to_be_visible()
    name = await tab.page.locator("#room-name").inner_text()
    assert tab.page.url.endswith("#" + name.removeprefix("Room "))
    return name.removeprefix("Room ")


async def shows(tab: Tab, *texts: str) -> None:
    """These messages, from the first to the last, and no others."""
    await expect(tab.page.locator(".message .text")).to_have_text(list(texts))
    await expect(tab.page.locator(".message.waiting")).to_have_count(0)


class Answers:
    """Answers the page when it asks whether a room is really to be cleared or deleted."""

    def __init__(self, tab: Tab, accept: list[bool]) -> None:
        self._asked = 0
        self._accept = accept
        tab.page.on("dialog", self._answer)

    async def _answer(self, dialog: Dialog) -> None:
        assert "for everybody" in dialog.message
        accept = self._accept[self._asked]
        self._asked += 1
        await (dialog.accept() if accept else dialog.dismiss())

    async def number(self, count: int) -> None:
        """Returns when it has asked so often."""
        await until(lambda: asyncio.sleep(0, self._asked), lambda asked: asked == count)


class Held:
    """Holds back a page's requests for a room's history until the test lets them go.

    Attributes:
        asked: a request has come.
        may_come: it may be answered.
    """

    def __init__(self, *, read: Literal["before", "after"] = "after", times: int = 1) -> None:
        self.asked, self.may_come = asyncio.Event(), asyncio.Event()
        self._read = read
        self._times = times

    async def __call__(self, route: Route) -> None:
        if not self._times:
            return await route.continue_()
        self._times -= 1
        response = await route.fetch() if self._read == "before" else None
        self.asked.set()
        await self.may_come.wait()
        with contextlib.suppress(Error):  # nobody waits for it any more
            await route.fulfill(response=response or await route.fetch())


async def told(tab: Tab, text: str, times: int = 1) -> None:
    """Returns when a window has got this text of answers, so many times."""
    await until(
        lambda: asyncio.sleep(0, "".join(frame["text"] for frame in control(tab.got, "chunk"))),
        lambda said: said.count(text) == times,
    )
