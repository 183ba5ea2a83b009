"""Two browsers and a terminal in one conversation, each in the dialect that it knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from support.browser import visit
from support.chat import created
from support.rooms import window
from support.server import serving
from support.terminal import connected, talkative

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

GUEST = r"Guest \S{4}"


async def test_two_browsers_and_a_terminal_see_what_the_others_see(tmp_path: Path, browser: Browser) -> None:
    async with serving(talkative()) as port:
        room = await created(port)
        async with (
            visit(browser, port, f"/?user=guest&session={room}") as page,
            window(browser, port, room) as demo,
            connected(port, tmp_path, "--session", room) as terminal,
        ):
            await expect(page.page.locator("#here")).to_contain_text("3 here")
            terminal.types("from the ter")
            await expect(page.page.locator("#writing")).to_have_text("Somebody is typing…")
            await expect(demo.page.locator("#typing")).to_have_text(re.compile(f"^{GUEST} is typing…$"))
            terminal.types("minal\r")
            for tab in (page, demo):
                await tab.answered(re.compile("You said: from the terminal$"))
            await terminal.sees("(?m)^agent +This is a rehearsal: .* You said: from the terminal$")

            await page.page.get_by_label("Message", exact=True).press_sequentially("from the page")
            await terminal.sees(f"{GUEST} is typing…")
            await expect(demo.page.locator("#typing")).to_have_text(re.compile(f"^{GUEST} is typing…$"))
            await page.page.keyboard.press("Enter")
            for tab in (page, demo):
                await tab.answered(re.compile("You said: from the page$"))
            await terminal.sees(rf"(?m)^{GUEST} +from the page\nagent +.*You said: from the page$")

            await demo.page.get_by_label("Message", exact=True).press_sequentially("from the demo")
            await terminal.sees(f"{GUEST} is typing…")
            await expect(page.page.locator("#writing")).to_have_text("Somebody is typing…")
            await demo.page.keyboard.press("Enter")
            for tab in (page, demo):
                await tab.answered(re.compile("You said: from the demo$"))
            await terminal.sees(rf"(?m)^{GUEST} +from the demo\nagent +.*You said: from the demo$")

            said = await page.texts()
            assert said[::2] == ["from the terminal", "from the page", "from the demo"]
            assert await demo.texts() == said
            others = [["from the terminal", "from the demo"], ["from the terminal", "from the page"]]
            assert [await page.texts("other"), await demo.texts("other")] == others
            # Whoever comes later is told the same.
            async with connected(port, tmp_path, "--session", room) as late:
                for text in said:
                    await late.sees(rf"(?m)^(user|agent) +{re.escape(text)}$")
            assert await terminal.leaves() == 0
