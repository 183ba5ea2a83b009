"""The main page where no WebSocket gets through."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Browser, expect

from support.browser import NO_SERVER, rehearsal, violations, visit
from support.gemini import Connection, GeminiLive, UserTurn
from support.proxy import network
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_it_goes_on_in_writing_where_no_websocket_gets_through(browser: Browser) -> None:
    async with (
        serving(a_relay(rehearsal(), grace=30)) as port,
        network(port) as (between, there),
    ):
        between.takes_upgrades = False
        async with visit(browser, there, state="blocked", noise=NO_SERVER) as tab:
            page = tab.page
            audio = page.get_by_role("button", name="Start audio")
            await expect(audio).to_be_disabled()
            await expect(audio).to_have_accessible_description(re.compile("^Audio needs a WebSocket"))
            notice = page.locator("#notice [data-kind=without]")
            await expect(notice).to_contain_text("No WebSocket gets through")
            await page.get_by_role("button", name="What time is it in Tokyo?").click()
            await expect(page.locator("details.tool.done")).to_have_count(1)
            await tab.answered(re.compile(r"in Asia/Tokyo\.$"))
            await tab.say("and now?")
            await tab.answered(re.compile(r"You said: and now\?$"))
            said = await tab.texts()
            assert len(said) == 4
            assert await violations(page) == []

            # A refusal is told, and nothing is lost of what one sees.
            between.cut()
            await tab.say("hello?")
            await expect(page.locator(".system.error")).to_contain_text("could not be reached")
            await expect(page.locator(".message.user .mark").last).to_have_text("Not answered")

            # A WebSocket was tried again: it is the server that is gone.
            await tab.shows("waiting")
            between.mend()
            between.takes_upgrades = True
            await tab.online()
            await expect(notice).to_have_count(0)
            await expect(audio).to_be_enabled()
            await expect(page.locator(".system.beside")).to_contain_text("a separate conversation")
            await tab.say("here again")
            await tab.answered(re.compile("You said: here again$"))
            assert (await tab.texts())[:4] == said
            await tab.page.reload()
            await tab.answered(re.compile("You said: here again$"))
            assert (await tab.texts("user")) == ["here again"]


async def test_a_server_that_falls_silent_without_a_websocket_is_given_up(
    gemini: GeminiLive, browser: Browser
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "anybody?":
            await asyncio.Event().wait()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with (
        serving(a_relay(grace=30)) as port,  # which says something each 25 s
        network(port) as (between, there),
    ):
        between.takes_upgrades = False
        async with visit(
            browser, there, state="blocked", noise=NO_SERVER, constants={"SILENCE": 1000}
        ) as tab:
            await tab.say("anybody?")
            await expect(tab.page.locator(".system.error")).to_contain_text("has stopped answering")
            await expect(tab.page.locator(".message.user .mark").last).to_have_text("Not answered")
            await tab.say("hello")
            await tab.answered("You said: hello.")


async def test_what_was_written_before_it_was_known_stays_beside(browser: Browser) -> None:
    async with (
        serving(a_relay(rehearsal(), grace=30)) as port,
        network(port) as (between, there),
    ):
        between.takes_upgrades = False
        async with visit(browser, there, state="waiting", noise=NO_SERVER) as tab:
            await tab.say("early")
            await tab.shows("blocked")
            await tab.answered(re.compile("You said: early$"))
            said = await tab.texts()
            assert len(said) == 2
            between.takes_upgrades = True
            await tab.online()
            await expect(tab.page.locator(".system.beside")).to_have_count(1)
            await tab.say("late")
            await tab.answered(re.compile("You said: late$"))
            assert (await tab.texts())[:3] == [*said, "late"]


async def test_an_answer_that_comes_beside_is_awaited_before_a_websocket_is_taken(
    gemini: GeminiLive, browser: Browser
) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "beside":
            await go_on.wait()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with (
        serving(a_relay(grace=30)) as port,
        network(port) as (between, there),
    ):
        between.takes_upgrades = False
        async with visit(browser, there, state="blocked", noise=NO_SERVER) as tab:
            await tab.say("beside")
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts)
            between.takes_upgrades = True
            opened = len(tab.sockets)
            await tab.page.evaluate("() => void dispatchEvent(new Event('online'))")
            await tab.say("beside, too")
            assert len(tab.sockets) == opened
            go_on.set()
            await tab.shows("connected")
            await tab.say("to the socket")
            await tab.answered("You said: to the socket.")
            assert await tab.page.locator(".message .text, .system").all_text_contents() == [
                "beside",
                "beside, too",
                "You said: beside.",
                "You said: beside, too.",
                "The messages above are in a separate conversation: the agent does not know them here.",
                "to the socket",
                "You said: to the socket.",
            ]


async def test_an_answer_without_a_websocket_can_be_stopped(gemini: GeminiLive, browser: Browser) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "count":
            await connection.say("One", complete=False)
            await asyncio.Event().wait()
        await connection.say("Yes.")

    gemini.answer = answer
    async with (
        serving(a_relay()) as port,
        network(port) as (between, there),
    ):
        between.takes_upgrades = False
        async with visit(browser, there, state="blocked", noise=NO_SERVER) as tab:
            await tab.say("count")
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].said)
            await tab.page.get_by_role("button", name="Stop").click()
            await expect(tab.page.locator(".expected")).to_have_count(0)
            await expect(tab.page.locator("#stop")).to_be_hidden()
            await expect(tab.page.locator(".message.user .mark")).to_have_text("Not answered")
            await tab.say("again")
            await tab.answered("Yes.")
