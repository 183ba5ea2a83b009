"""The main page shows older messages than those that it gets when it comes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from adk_relay.adk.archive import Archive
from support.browser import Tab, control, rehearsal, until, violations, visit
from support.chat import http
from support.long import message, write
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def a_long_conversation(tmp_path: Path, messages: int = 330, user: str = "alice", **named: Any) -> Any:
    session_id = named.get("session_id", f"live-{user}")
    path = f"{tmp_path}/s.db"
    await write(path, session_id, messages, app_name="tester", user_id=user)
    return a_relay(rehearsal(), grace=60, sessions=f"sqlite:///{path}")


async def shows(tab: Tab, first: int, last: int) -> None:
    """The page shows these messages, and no other."""
    await expect(tab.page.locator(".message")).to_have_count(last - first + 1)
    texts = [text.strip() for text in await tab.texts()]
    assert texts == [message(number).strip() for number in range(first, last + 1)]


async def scroll_up(tab: Tab) -> None:
    await tab.page.locator("#messages").evaluate("messages => void (messages.scrollTop = 0)")


async def test_they_come_when_one_scrolls_up(browser: Browser, tmp_path: Path) -> None:
    relay = await a_long_conversation(tmp_path)
    async with serving(relay) as port, visit(browser, port, "/?user=alice") as tab:
        page = tab.page
        await shows(tab, 131, 330)
        first = page.locator(".message").first
        await expect(page.get_by_role("button", name="Show older messages")).to_have_count(1)
        for number in (81, 31, 1):
            old = await first.element_handle()
            assert old
            await first.evaluate("item => item.parentElement.scrollTop = 150")
            before = await old.bounding_box()
            await shows(tab, number, 330)
            after = await old.bounding_box()
            assert before
            assert after
            assert abs(after["y"] - before["y"]) < 1  # what the reader sees stays where it is
        await expect(page.get_by_role("button", name="Show older messages")).to_have_count(0)
        assert len(control(tab.sent, "history")) == 3
        await tab.say("Hello.")
        await tab.answered(re.compile("You said: Hello."))
        await expect(page.locator(".message").last).to_be_in_viewport()


async def test_they_come_by_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    relay = await a_long_conversation(tmp_path, 230)
    constants = {"NEAR": -1}  # scrolling, as the focus does, asks for nothing
    async with serving(relay) as port, visit(browser, port, "/?user=alice", constants=constants) as tab:
        page = tab.page
        await shows(tab, 31, 230)
        await page.locator("#messages").focus()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Show older messages")).to_be_focused()
        assert await violations(page) == []
        await page.keyboard.press("Enter")
        await shows(tab, 1, 230)
        await expect(page.locator("#messages")).to_be_focused()
        await expect(page.locator("#announcer")).to_have_text("30 older messages, the first ones")


async def test_a_failure_is_told_and_they_are_asked_for_again(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = await a_long_conversation(tmp_path, 310)
    async with serving(relay) as port, visit(browser, port, "/?user=alice") as tab:
        button = tab.page.locator("#messages > button")
        with monkeypatch.context() as broken:
            broken.setattr(Archive, "count", _fail)
            await scroll_up(tab)
            await expect(button).to_have_text("Older messages can't be read just now. Try again")
        await button.click()
        await shows(tab, 61, 310)
        await expect(button).to_have_text("Show older messages")


async def test_an_emptied_conversation_has_none(browser: Browser, tmp_path: Path) -> None:
    relay = await a_long_conversation(tmp_path, 400, "guest", session_id="long")
    async with (
        serving(relay) as port,
        visit(browser, port, "/?user=guest&session=long") as tab,
        http(port) as web,
    ):
        button = tab.page.locator("#messages > button")
        await scroll_up(tab)
        await shows(tab, 151, 400)
        (await web.post("/sessions/long/clear")).raise_for_status()
        await expect(tab.page.locator(".message")).to_have_count(0)
        await expect(button).to_have_count(0)


async def test_after_a_restart_there_are_none_twice(browser: Browser, tmp_path: Path) -> None:
    relay = await a_long_conversation(tmp_path)
    noise = r"WebSocket|ERR_|\$\."
    async with serving(relay) as port, visit(browser, port, "/?user=alice", noise=noise) as tab:
        await scroll_up(tab)
        await shows(tab, 81, 330)
        await relay.aclose()
        await tab.shows("waiting")
        await relay.conversations.prepare()
        await tab.online()
        # The reader is still above, and so gets them anew.
        await until(lambda: _asked(tab), lambda asked: asked == 2)
        await shows(tab, 81, 330)
        assert len(control(tab.got, "gap")) == 2


async def _asked(tab: Tab) -> int:
    return len(control(tab.sent, "history"))


async def _fail(*_: object, **__: object) -> None:
    raise OSError("No space left on device")
