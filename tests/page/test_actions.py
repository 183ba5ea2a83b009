"""What can be done with messages: copying and writing them."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from support.browser import Tab, visit
from support.chat import created
from support.gemini import Connection, GeminiLive, UserTurn
from support.rooms import window
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

ANSWER = "# Two\n\n- **one**\n- two\n\n```js\nlet x = 1;\n  // y\n```"


async def say_it(connection: Connection, turn: UserTurn) -> None:
    await connection.say(ANSWER)


async def copies(page: Page) -> None:
    """By keyboard; what was copied is pasted into the box."""
    box = page.get_by_label("Message", exact=True)
    for name, text in (("Copy this answer", ANSWER), ("Copy this code", "let x = 1;\n  // y")):
        button = page.get_by_role("button", name=name).last
        await button.focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#announcer p", has_text="Copied").last).to_be_attached()
        await expect(button).to_be_focused()
        await box.fill("")
        await box.focus()
        await page.keyboard.press("Control+V")
        await expect(box).to_have_value(text)
        await page.locator("#announcer").evaluate("(node) => node.replaceChildren()")


async def test_answers_and_code_can_be_copied(gemini: GeminiLive, browser: Browser) -> None:
    gemini.answer = say_it
    async with serving(a_relay(grace=60, hosts="relay.test,127.0.0.1")) as port:
        room = await created(port)
        for host in ("127.0.0.1", "relay.test"):  # the latter is an insecure origin, which has no clipboard
            permissions = ["microphone", "clipboard-write", "clipboard-read"] if host == "127.0.0.1" else []
            path = f"/?user=guest&session={room}"
            async with visit(browser, port, path, host=host, permissions=permissions) as tab:
                await tab.say("go")
                await expect(tab.page.locator(".message.agent .code")).not_to_have_count(0)
                await expect(tab.page.locator(".open, .expected")).to_have_count(0)
                await copies(tab.page)
        async with window(browser, port, room, permissions=["clipboard-write", "clipboard-read"]) as tab:
            await copies(tab.page)
            phone: Any = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True}
        async with visit(browser, port, f"/?user=guest&session={room}", **phone) as tab:
            box = await tab.page.get_by_role("button", name="Copy this answer").last.bounding_box()
            assert box and box["width"] >= 44 <= box["height"]
            await breaks_lines(tab)
        async with window(browser, port, room, **phone) as tab:
            await breaks_lines(tab)


async def breaks_lines(tab: Tab) -> None:
    """On a touch keyboard Enter does, and the box grows with them up to a limit."""
    box = tab.page.get_by_label("Message", exact=True)
    await expect(tab.page.locator(".message.user")).not_to_have_count(0)  # the history is shown
    count = await tab.page.locator(".message.user").count()
    await expect(box).to_have_attribute("enterkeyhint", "enter")
    await box.fill("one")
    low = await box.bounding_box()
    await box.press("End")
    await box.press("Enter")
    await box.press("x")
    await expect(box).to_have_value("one\nx")
    high = await box.bounding_box()
    await box.fill("x\n" * 40)
    highest = await box.bounding_box()
    assert low and high and highest
    assert low["height"] < high["height"] < highest["height"] <= 192
    await box.fill("sent")
    await box.press("Control+Enter")
    await expect(tab.page.locator(".message.user")).to_have_count(count + 1)
