"""What goes wrong in a room: refusals, an agent that fails, a history that does not come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from playwright.async_api import Browser, Route, expect

from adk_relay.core.interfaces import StoreError
from support.browser import COUNT_LAYOUTS, NO_SERVER, control, rehearsal, until
from support.chat import created
from support.gemini import GeminiLive, Plan
from support.proxy import network
from support.rooms import Held, Script, room_of, shows, window
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_too_many_that_wait_are_refused_in_words(gemini: GeminiLive, browser: Browser) -> None:
    script = Script(gemini)
    async with serving(a_relay()) as port, window(browser, port) as tab:
        for number in range(18):
            await tab.say(str(number))
        await expect(tab.page.locator("#problem")).to_contain_text("16")
        await expect(tab.page.locator("#text")).to_have_value("17")
        script.may_go_on.set()
        numbers = range(17)
        await shows(tab, *(text for n in numbers for text in (str(n), f"{n}: one two.")))


async def test_a_text_that_is_too_long_stays_in_the_box(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, window(browser, port) as tab:
        long = "ä" * (16 * 1024) + "x"
        await tab.say(long)
        await expect(tab.page.locator("#problem")).to_contain_text("32 KiB")
        await expect(tab.page.locator("#text")).to_have_value(long)
        assert control(tab.sent, "chat") == []


async def test_an_agent_that_fails_is_told_and_one_can_go_on(gemini: GeminiLive, browser: Browser) -> None:
    gemini.on_connect = lambda number: Plan(http_status=403)
    # With a grace, the conversation knows the text that failed, and the page need not send it again.
    async with serving(a_relay(grace=60)) as port, window(browser, port) as tab:
        await tab.say("a")
        problem = tab.page.get_by_role("alert")
        await expect(problem).to_contain_text("credentials")
        await until(tab.texts, lambda _: len(tab.sockets) == 2)
        await tab.shows("connected")
        gemini.on_connect = lambda number: None
        await expect(problem).to_contain_text("credentials")  # it can still be read
        await tab.say("b")
        await expect(tab.page.locator(".message.agent .text").last).to_have_text("You said: b.")
        await expect(problem).to_be_hidden()
        assert await tab.texts("user") == ["a", "b"]


async def test_an_agent_that_fails_again_and_again_is_left_in_peace(
    gemini: GeminiLive, browser: Browser
) -> None:
    all_said = asyncio.Event()  # the box takes no text while the page reconnects
    gemini.on_connect = lambda number: Plan(http_status=403, gate=all_said)
    constants = {"FIRST_DELAY": 1, "MAX_FAILURES": 3}
    async with serving(a_relay(grace=60)) as port:
        room = await created(port)
        async with window(browser, port, room, constants=constants) as tab:
            await tab.say("a")
            await tab.say("b")
            await tab.say("c")
            await expect(tab.page.locator(".message.waiting .meta").last).to_contain_text("waits for 2")
            all_said.set()  # those that wait are sent again, and fail one after the other
            await tab.shows("asleep")
            assert len(tab.sockets) == 3
            gemini.on_connect = lambda number: None
            await tab.page.get_by_label("Message", exact=True).fill("d")
            await tab.shows("connected")
            await expect(tab.page.locator(".message.waiting")).to_have_count(0)
            await tab.page.keyboard.press("Enter")
            await expect(tab.page.locator(".message.agent .text")).to_have_text(["You said: d."])
            assert await tab.texts("user") == ["a", "b", "c", "d"]


async def test_a_failure_that_passes_throws_nobody_out_of_their_room(
    gemini: GeminiLive, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = a_relay(grace=60)
    async with serving(relay) as port, network(port) as (between, near):
        room = await created(port)
        async with window(browser, near, room, noise=NO_SERVER) as tab:
            await tab.say("a")
            await shows(tab, "a", "You said: a.")

            async def find(user_id: str, session_id: str) -> Any:
                monkeypatch.undo()
                raise StoreError

            between.cut()
            await tab.shows("waiting")
            with monkeypatch.context() as monkeypatch:
                monkeypatch.setattr(relay.conversations, "find", find)
                between.mend()
                await tab.page.evaluate("() => void dispatchEvent(new Event('online'))")
                await until(lambda: asyncio.sleep(0, control(tab.got, "error")), len)
            await tab.shows("connected")
            await expect(tab.page.locator("#problem")).to_be_hidden()
            assert await room_of(tab) == room
            await shows(tab, "a", "You said: a.")


async def test_a_history_that_does_not_come_holds_nobody_up(gemini: GeminiLive, browser: Browser) -> None:
    history = Held()
    constants = {"ASK_TIMEOUT": 300, "RETRY": 1000}
    async with serving(a_relay()) as port:
        room = await created(port)
        async with (
            window(browser, port, room) as one,
            window(browser, port, noise="ERR_", constants=constants) as two,
        ):
            await one.say("a")
            await shows(one, "a", "You said: a.")
            await two.page.route(f"**/sessions/{room}", history)
            await two.page.get_by_label("Name of a room").fill(room)
            await two.page.keyboard.press("Enter")
            await asyncio.wait_for(history.asked.wait(), 15)
            await one.say("b")
            await shows(two, "b", "You said: b.")
            await expect(two.page.get_by_role("alert")).to_contain_text("does not answer")
            await shows(two, "a", "You said: a.", "b", "You said: b.")  # it was asked for again
            await expect(two.page.get_by_role("alert")).to_be_hidden()
            history.may_come.set()


async def test_a_long_history_is_laid_out_once(browser: Browser) -> None:
    lines = [{"role": "user", "text": f"line {number}"} for number in range(500)]

    async def tell(route: Route) -> None:
        await route.fulfill(json={"history": lines, "message_count": len(lines)})

    async with serving(a_relay(rehearsal())) as port:
        room = await created(port)
        async with window(browser, port, script=COUNT_LAYOUTS) as tab:
            await tab.page.route(f"**/sessions/{room}", tell)
            await tab.page.get_by_label("Name of a room").fill(room)
            await tab.page.keyboard.press("Enter")
            await shows(tab, *(f"line {number}" for number in range(500)))
            await expect(tab.page.locator(".message").last).to_be_in_viewport()
            assert await tab.page.evaluate("() => window.layouts") < 100
