"""The rooms by keyboard, on small screens, for screen readers, and under a prefix."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser, expect
from starlette.applications import Starlette
from starlette.routing import Mount

from support.browser import control, rehearsal, violations_in_both_schemes
from support.chat import created
from support.gemini import GeminiLive
from support.rooms import Answers, Script, room_of, window
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_enter_sends_and_shift_enter_breaks_the_line(gemini: GeminiLive, browser: Browser) -> None:
    async with serving(a_relay()) as port, window(browser, port) as tab:
        box = tab.page.get_by_label("Message", exact=True)
        await box.press("Enter")
        await box.fill("  ")
        await box.press("Enter")
        assert control(tab.sent, "chat") == []
        await box.fill("one")
        await box.press("Shift+Enter")
        await tab.page.keyboard.type("two")
        await box.press("Enter")
        await expect(tab.page.locator(".message.agent .text")).to_have_text("You said: one\ntwo.")
        await expect(box).to_be_focused()
        assert [frame["message"] for frame in control(tab.sent, "chat")] == ["one\ntwo"]


async def test_enter_that_chooses_a_word_sends_nothing(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, window(browser, port) as tab:
        box = tab.page.get_by_label("Message", exact=True)
        await box.fill("ni hao")
        # As Safari tells it: the composition is over, and the key is none.
        await box.evaluate(
            """(box) => void box.dispatchEvent(
              new KeyboardEvent("keydown", { key: "Enter", keyCode: 229, bubbles: true, cancelable: true }),
            )"""
        )
        await expect(box).to_have_value("ni hao")
        await expect(tab.page.locator(".message")).to_have_count(0)


async def test_on_a_phone_the_screen_is_for_the_conversation(browser: Browser) -> None:
    phone: Any = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True}
    async with serving(a_relay(rehearsal(pace=50))) as port:
        for _ in range(3):
            await created(port)
        async with window(browser, port, **phone) as tab:
            join = tab.page.get_by_role("button", name="Join")
            await expect(join).to_be_in_viewport(ratio=1)
            await tab.say("a")
            await expect(tab.page.locator(".message.agent .text")).to_contain_text("You said: a")
            box = await tab.page.locator("#messages").bounding_box()
            assert box
            assert box["y"] < 180
            assert await tab.page.evaluate("() => document.documentElement.scrollWidth") == 390
            await expect(tab.page.locator("#room-name")).to_be_in_viewport(ratio=1)
            button = tab.page.get_by_role("button", name="Rooms")
            await button.tap()
            await expect(tab.page.locator("#rooms [aria-current]")).to_be_in_viewport(ratio=1)
            await expect(join).to_be_in_viewport(ratio=1)
            await join.focus()
            await tab.page.keyboard.press("Escape")
            await expect(join).to_be_hidden()
            await expect(button).to_be_focused()
            await button.tap()
            await tab.page.locator("#rooms a").last.tap()  # another room
            await expect(join).to_be_hidden()


@pytest.mark.parametrize("width", [1280, 360])
async def test_everybody_can_use_it(gemini: GeminiLive, browser: Browser, width: int) -> None:
    script = Script(gemini)
    viewport: Any = {"width": width, "height": 700}
    async with serving(a_relay()) as port, window(browser, port, viewport=viewport) as tab:
        assert await violations_in_both_schemes(tab.page) == []
        await tab.say("a")
        await expect(tab.page.locator(".message.agent .text")).to_have_text("a: one")
        await tab.say("b " * 200)
        await expect(tab.page.locator(".message.waiting .meta")).to_contain_text("waits for 1")
        async with window(browser, port, await room_of(tab)) as other:
            await other.say("c")
            await other.page.get_by_label("Message", exact=True).fill("d")
            await expect(tab.page.locator("#typing")).to_contain_text("typing")
            await expect(tab.page.locator("#rooms .facts")).to_contain_text("2 here")
            await tab.page.locator("#messages").focus()
            assert await violations_in_both_schemes(tab.page) == []
            script.may_go_on.set()
            await expect(tab.page.locator(".message.other .text")).to_have_text("c")
            await expect(tab.page.locator(".message.waiting")).to_have_count(0)
            assert await violations_in_both_schemes(tab.page) == []
        assert await tab.page.evaluate("() => document.documentElement.scrollWidth") == width
        # The box to write in is always on the screen.
        await expect(tab.page.locator("#text")).to_be_in_viewport(ratio=1)


async def test_it_works_under_a_prefix(browser: Browser) -> None:
    app = Starlette(routes=[Mount("/talk", a_relay(rehearsal(pace=50)))])
    async with (
        serving(app, lifespan="off") as port,
        window(browser, port, path="/talk/demo") as tab,
    ):
        await tab.say("a")
        await expect(tab.page.locator(".message.agent .text")).to_contain_text("You said: a")
        await expect(tab.page.locator("#rooms .facts")).to_have_text("2 messages · 1 here")
        Answers(tab, accept=[True])
        await tab.page.get_by_role("button", name="Clear").click()
        await expect(tab.page.locator(".system")).to_contain_text("cleared")
        await tab.page.locator("nav.links a", has_text="Docs").click()
        await expect(tab.page.locator(".operation").first).to_be_visible()
