"""Writing in the main page."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest
from google.adk.agents import LlmAgent
from google.adk.events import Event
from google.genai import types
from playwright.async_api import Browser, expect

from adk_relay.adk.rehearsal import Rehearsal
from support.browser import COUNT_LAYOUTS, FRAME, control, rehearsal, until, visit
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_text_turn_streams_and_ends(gemini: GeminiLive, browser: Browser) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("<b>One</b>", complete=False)
        await go_on.wait()
        await connection.say(" two.")

    gemini.answer = answer
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        page = tab.page
        await expect(page.locator("#model")).to_have_text("gemini-3.8-live")
        await expect(page.get_by_label("Message", exact=True)).to_be_focused()
        await expect(page.locator("#send")).to_be_disabled()
        await page.keyboard.type("Count <i>for")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("me</i>")
        await page.keyboard.press("Enter")
        await expect(page.locator(".message.user .text")).to_have_text("Count <i>for\nme</i>")
        await expect(page.locator(".message.agent.open .text")).to_have_text("<b>One</b>")
        await expect(page.locator("#stop")).to_be_visible()
        await expect(page.locator("#announcer")).to_have_text("")  # not word by word
        go_on.set()
        await tab.answered("<b>One</b> two.")
        await expect(page.locator("#announcer")).to_have_text("Agent: <b>One</b> two.")
        await expect(page.locator("#stop")).to_be_hidden()
        await expect(page.locator("#welcome")).to_have_count(0)
        await expect(page.locator("#text")).to_have_value("")
        assert await page.evaluate("() => document.querySelectorAll('.message :is(b, i)').length") == 0
        assert (await tab.stats())["receivedFrames"] == 0
    assert gemini.connections[0].texts == ["Count <i>for\nme</i>"]


async def test_a_tool_is_shown_while_it_runs_and_when_it_has_answered(browser: Browser) -> None:
    go_on = threading.Event()

    def get_current_time(timezone: str) -> dict[str, str]:
        """The time."""
        go_on.wait(30)
        return {"timezone": timezone, "local_time": "2030-05-06T07:08:00+09:00"}

    agent = LlmAgent(name="tester", model=Rehearsal(words_per_second=40), tools=[get_current_time])
    async with serving(a_relay(agent)) as port, visit(browser, port) as tab:
        page = tab.page
        await expect(page.locator("#model")).to_have_text("Rehearsal agent")
        await expect(page.locator("#notice [data-kind=rehearsal]")).to_contain_text("GOOGLE_API_KEY")
        await page.get_by_role("button", name="What time is it in Tokyo?").click()
        card = page.locator(".message.agent details.tool")
        await expect(card.locator(".tool-name")).to_have_text("get_current_time")
        await expect(card.locator(".tool-state")).to_have_text("running")
        go_on.set()
        await expect(card).to_have_class("tool done")
        await tab.answered(re.compile(r"it is 07:08 on Monday in Asia/Tokyo\.$"))
        await card.locator("summary").click()
        await expect(card.locator("pre").first).to_contain_text('"timezone": "Asia/Tokyo"')
        await expect(card.locator("pre").last).to_contain_text('"local_time": "2030-05-06T07:08:00+09:00"')
        # What has been read once and put away stays away.
        await page.get_by_role("button", name="Dismiss").click()
        await page.reload()
        await tab.shows("connected")
        await expect(page.locator("#notice .card")).to_have_count(0)


async def test_stop_ends_an_answer_in_writing(gemini: GeminiLive, browser: Browser) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "count":
            await connection.say("One two", complete=False)
            await go_on.wait()
            await connection.say(" three.")
        else:
            await connection.say("Yes.")

    gemini.answer = answer
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        await tab.say("count")
        await expect(tab.page.locator(".message.agent.open .text")).to_have_text("One two")
        await tab.page.keyboard.press("Escape")
        stopped = tab.page.locator(".message.agent.interrupted")
        await expect(stopped.locator(".mark")).to_have_text("Interrupted")
        await expect(tab.page.locator("#stop")).to_be_hidden()
        assert len(control(tab.sent, "interrupt")) == 1
        go_on.set()
        await gemini.wait_for(lambda: not gemini.connections[0].turn_open)
        await tab.say("again")
        await tab.answered("Yes.")
        await expect(stopped.locator(".text")).to_have_text("One two")


async def test_a_reload_shows_the_conversation(gemini: GeminiLive, browser: Browser) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await connection.say("First.")
        else:
            await connection.say("<b>Second", complete=False)
            await go_on.wait()
            await connection.say("</b> answer.")

    gemini.answer = answer
    async with serving(a_relay(grace=30)) as port, visit(browser, port) as tab:
        await tab.say("one")
        await tab.answered("First.")
        await tab.say("two")
        opened = tab.page.locator(".message.agent.open .text")
        await expect(opened).to_have_text("<b>Second")
        await tab.page.reload()
        await expect(opened).to_have_text("<b>Second")
        await expect(tab.page.locator("#welcome")).to_have_count(0)
        await expect(tab.page.locator("#stop")).to_be_visible()
        go_on.set()
        await tab.answered("<b>Second</b> answer.")
        assert await tab.texts() == ["one", "First.", "two", "<b>Second</b> answer."]
    assert gemini.connections[0].texts == ["one", "two"]


async def test_a_long_history_is_laid_out_once(browser: Browser) -> None:
    relay = a_relay(rehearsal())
    service = relay.conversations.service
    session = await service.create_session(
        app_name=relay.conversations.app_name, user_id="alice", session_id="live-alice"
    )
    for number in range(500):
        content = types.Content(role="user", parts=[types.Part(text=f"line {number}")])
        await service.append_event(session, Event(author="user", content=content))
    async with (
        serving(relay) as port,
        visit(browser, port, "/?user=alice", script=COUNT_LAYOUTS) as tab,
    ):
        await expect(tab.page.locator(".message .text")).to_have_text([f"line {n}" for n in range(300, 500)])
        await expect(tab.page.locator(".message").last).to_be_in_viewport()
        assert await tab.page.evaluate("() => window.layouts") < 50


async def test_frames_are_logged_when_one_asks_for_it(browser: Browser) -> None:
    # That nothing is logged otherwise, every other test sees.
    noise = r"^log: \[(CLIENT TO AGENT|AGENT TO CLIENT)\] "
    async with (
        serving(a_relay(rehearsal())) as port,
        visit(browser, port, "/?debug", noise=noise) as tab,
    ):
        await tab.say("hello")
        await tab.answered(re.compile("You said: hello$"))
        await tab.call()
        lines = await until(lambda: asyncio.sleep(0, list(tab.console)), lambda lines: "sound" in lines[-1])
    assert any(
        re.fullmatch(r'log: \[CLIENT TO AGENT\] {"mime_type":"text/plain","data":"hello","id":"\w+"}', line)
        for line in lines
    )
    assert any(line.startswith('log: [AGENT TO CLIENT] {"type":"hello"') for line in lines)
    assert any(re.match(r'log: \[AGENT TO CLIENT\] {"turn_complete":true', line) for line in lines)
    assert f"log: [CLIENT TO AGENT] sound, {FRAME} bytes" in lines
