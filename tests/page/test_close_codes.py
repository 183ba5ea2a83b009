"""What the pages do when the server closes their socket: the close code decides."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Browser, expect

from support.browser import control, rehearsal, until, visit
from support.gemini import GeminiLive, Plan
from support.server import a_relay, serving

# One browser for all tests, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_it_sleeps_when_idle_until_something_is_written(browser: Browser) -> None:
    async with serving(a_relay(rehearsal(), idle_timeout=2)) as port, visit(browser, port) as tab:
        await tab.say("What time is it in Tokyo?")
        await tab.answered(re.compile(r"in Asia/Tokyo\.$"))
        said = await tab.texts()
        await tab.shows("asleep")
        assert len(tab.sockets) == 1
        await tab.say("good morning")
        await tab.answered(re.compile(r"You said: good morning I remember \d+ turns before this\.$"))
        assert len(tab.sockets) == 2
        # It is told the conversation anew, and shows more than it is told.
        assert len(control(tab.got, "gap")) == 2
        assert await tab.texts() == [*said, "good morning", (await tab.texts())[-1]]
        await expect(tab.page.locator("details.tool.done")).to_have_count(1)
        await expect(tab.page.locator(".message time")).to_have_count(4)


async def test_a_refusal_is_told_and_not_tried_again(browser: Browser) -> None:
    async with (
        serving(a_relay(rehearsal())) as port,
        visit(browser, port, "/?user=a%20b", state="ended") as tab,
    ):
        await expect(tab.page.locator("#banner-text")).to_have_text(re.compile("^user_id is 1 to 128 of"))
        assert len(tab.sockets) == 1
        await tab.page.clock.install()
        await tab.page.reload()
        await tab.shows("ended")
        await tab.page.clock.fast_forward("05:00")
        await tab.shows("ended")
        assert len(tab.sockets) == 2
        await tab.page.get_by_role("button", name="Try again").click()
        await until(lambda: asyncio.sleep(0, len(tab.sockets)), lambda opened: opened == 3)
        await tab.shows("ended")


async def test_credentials_that_are_refused_are_told_once(gemini: GeminiLive, browser: Browser) -> None:
    gemini.on_connect = lambda number: Plan(http_status=403)
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        await tab.say("hello")
        await tab.shows("ended")
        await expect(tab.page.locator(".system.error")).to_contain_text("The server has no credentials")
        assert len(tab.sockets) == 1
