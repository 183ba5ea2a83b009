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
    ("width", "height", "lines"),
    [(640, 400, 6), (360, 640, 7), (390, 844, 12)],
    ids=["twice as large", "a small phone", "a phone"],
)
async def test_the_conversation_has_room(
    microphone: Microphone, browser: Browser, width: int, height: int, lines: int
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
            await has_room(tab, lines)
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
