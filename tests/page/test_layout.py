"""The conversation has room on small screens, and where the page is zoomed in."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from support.browser import Tab, rehearsal, visit
from support.client import Json
from support.microphone import Microphone
from support.rooms import room_of
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG = "Tell me something that needs several lines on any screen that is as small as this one. " * 2

LAYOUT = """() => {
  const pane = document.getElementById("messages");
  const { paddingBottom } = getComputedStyle(pane);
  const bubbles = [...document.querySelectorAll(".bubble")].map((each) => each.getBoundingClientRect());
  const box = document.getElementById("text").getBoundingClientRect();
  return {
    lines: Math.floor((pane.clientHeight - parseFloat(paddingBottom)) / 24),
    margins: Math.min(
      ...bubbles.map(({ left }) => left - pane.getBoundingClientRect().left),
      ...bubbles.map(({ right }) => pane.getBoundingClientRect().right - right),
    ),
    isBoxSeen: box.bottom <= innerHeight && box.top > 0,
    overflow: document.documentElement.scrollWidth - innerWidth,
  };
}"""
"""How many lines of the conversation are seen, and how far the bubbles are from the edges."""


async def has_room(tab: Tab, lines: int) -> None:
    layout: Json = await tab.page.evaluate(LAYOUT)
    assert layout["lines"] >= lines, layout
    assert layout["margins"] >= 12, layout
    assert layout["isBoxSeen"] and layout["overflow"] <= 0, layout


@pytest.mark.parametrize(
    ("width", "height", "lines", "calling"),
    [(640, 400, 8, 6), (360, 640, 14, 9), (390, 844, 23, 17)],
    ids=["twice as large", "a small phone", "a phone"],
)
async def test_the_conversation_has_room(
    microphone: Microphone, browser: Browser, width: int, height: int, lines: int, calling: int
) -> None:
    """Also with a notice, and in a call."""
    small: Any = {"viewport": {"width": width, "height": height}}
    async with serving(a_relay(rehearsal())) as port:
        async with visit(browser, port, **small) as tab:
            await tab.say(LONG)
            await tab.answered(re.compile("You said: "))
            await expect(tab.page.locator("#notice .card")).to_be_visible()
            await has_room(tab, lines)
            for link in ("Rooms", "Docs"):
                await expect(tab.page.get_by_role("link", name=link, exact=True)).to_be_in_viewport(ratio=1)
            await tab.call()
            await has_room(tab, calling)
        async with visit(browser, port, "/demo", **small) as tab:
            await expect(tab.page.locator("#text")).to_be_in_viewport(ratio=1)
            await tab.say(LONG)
            room = await room_of(tab)
            await expect(tab.page.locator(".message.agent .text")).to_contain_text("You said: ")
            await has_room(tab, lines)
            await expect(tab.page.locator("#room-name")).to_have_text(f"Room {room}")
            await expect(tab.page.locator("#room-name")).to_be_in_viewport(ratio=1)
            for link in ("Talk", "Docs"):
                await expect(tab.page.get_by_role("link", name=link, exact=True)).to_be_in_viewport(ratio=1)
            await tab.page.get_by_role("button", name="Rooms").click()
            await expect(tab.page.get_by_role("button", name="Join")).to_be_in_viewport(ratio=1)


PLACES = """() => [...document.querySelectorAll(".bubble")].map((each) => each.getBoundingClientRect().top)"""

BESIDE_TIME = """() => [...document.querySelectorAll(".meta")].map((each) => {
  const [time, button] = ["time", ".action"].map((one) => each.querySelector(one)?.getBoundingClientRect());
  return time && button ? button.left - time.right : null;
}).filter((each) => each !== null)"""

OVERLAPS = """() => {
  const isSeen = document.querySelector(".speaking").clientWidth > 1; // or it is for screen readers only
  const boxes = [...document.querySelectorAll(isSeen ? "#speaker, .call-controls > *" : ".call-controls > *")]
    .map((each) => each.getBoundingClientRect())
    .filter(({ width }) => width);
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.5
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.5;
  const call = document.getElementById("call").getBoundingClientRect();
  return boxes.filter((a) => boxes.some((b) => a !== b && meet(a, b))
    || a.left < call.left || a.right > call.right || a.bottom > call.bottom || a.top < call.top).length;
}"""
"""How much of the call stands on something else, or outside of it."""


@pytest.mark.parametrize("touches", [False, True])
async def test_buttons_of_messages_move_nothing(browser: Browser, touches: bool) -> None:
    """Those of the last messages come and go."""
    phone: Any = {"viewport": {"width": 390, "height": 844}, "has_touch": touches, "is_mobile": touches}
    async with (
        serving(a_relay(rehearsal(words_per_second=4.0))) as port,
        visit(browser, port, **phone) as tab,
    ):
        await tab.say("hi")
        await tab.answered(re.compile("You said: "))
        edit = tab.page.get_by_role("button", name="Edit this message")
        await expect(edit).to_be_visible()
        assert min(await tab.page.evaluate(BESIDE_TIME)) >= 4
        before = await tab.page.evaluate(PLACES)
        await edit.evaluate("(button) => button.remove()")
        assert await tab.page.evaluate(PLACES) == before


async def test_a_call_has_room_on_the_smallest_screen(microphone: Microphone, browser: Browser) -> None:
    """640 by 400, and twice as large; all that can be chosen is as large as a finger."""
    small: Any = {"viewport": {"width": 320, "height": 200}, "permissions": ["microphone", "camera"]}
    async with (
        serving(a_relay(rehearsal(), voices="Puck,Kore", languages="de-DE")) as port,
        visit(browser, port, **small) as tab,
    ):
        page = tab.page
        await page.get_by_role("button", name="Start audio").click()
        await expect(page.get_by_role("button", name="Camera")).to_be_enabled()
        await page.get_by_role("button", name="Camera").click()
        await expect(page.get_by_role("button", name="Camera")).to_have_attribute("aria-pressed", "true")
        assert await page.evaluate(OVERLAPS) == 0
        await page.locator("#settings-button").click()
        sizes = await page.locator("#settings select:visible").evaluate_all(
            "(all) => all.map((each) => each.getBoundingClientRect().height)"
        )
        assert len(sizes) >= 5
        assert min(sizes) >= 44
        await page.get_by_label("The microphone in a call").select_option("push_to_talk")
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("button", name="Hold to talk")).to_be_visible()
        assert await page.evaluate(OVERLAPS) == 0
