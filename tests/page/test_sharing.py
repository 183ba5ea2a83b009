"""Several people in one conversation of the main page."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Browser, expect

from support.browser import Tab, control, rehearsal, until, visit
from support.gemini import Connection, GeminiLive, UserTurn
from support.microphone import Microphone, quiet, voice
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_two_share_a_conversation(gemini: GeminiLive, browser: Browser) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("You said:", complete=False)
        if turn.text == "from here":
            await go_on.wait()
        await connection.say(f" {turn.text}.")

    gemini.answer = answer
    path = "/?user=alice&session=kitchen"
    async with serving(a_relay()) as port, visit(browser, port, path) as here:
        await expect(here.page.locator("#here")).to_be_hidden()
        async with visit(browser, port, path) as there:
            for tab in (here, there):
                await expect(tab.page.locator("#here")).to_have_text("2 here, connected to this conversation")
                await expect(tab.page.locator("#announcer")).to_contain_text(
                    "2 are connected to this conversation now."
                )
            writing = there.page.locator("#writing")
            await here.page.keyboard.type("from ")
            await expect(writing).to_have_text("Somebody is typing…")
            await here.page.keyboard.type("here")
            await here.page.keyboard.press("Enter")
            await expect(writing).to_be_hidden()
            await expect(there.page.locator(".message.other .who")).to_have_text("Somebody else: ")
            await expect(there.page.locator(".message.open .text")).to_have_text("You said:")
            go_on.set()
            for tab in (here, there):
                await tab.answered("You said: from here.")
            await there.say("from there")
            for tab in (here, there):
                await tab.answered("You said: from there.")
            said = ["from here", "You said: from here.", "from there", "You said: from there."]
            assert await here.texts() == await there.texts() == said
            assert (await here.texts("other"), await there.texts("other")) == (["from there"], ["from here"])
            # Who goes on typing and says nothing more is told of once, and until they pause.
            await there.page.keyboard.type("well")
            await expect(here.page.locator("#writing")).to_have_text("Somebody is typing…")
            await expect(here.page.locator("#writing")).to_be_hidden()
            assert len(control(there.sent, "typing_start")) == len(control(there.sent, "typing_stop")) == 2
            # What is read of before: whose it was is known of this page only.
            await there.page.reload()
            await expect(there.page.locator(".message .text")).to_have_text(said)
            assert await there.texts("other") == ["from here", "from there"]
            await expect(there.page.locator(".message.other .who").first).to_have_text("Somebody: ")
        await expect(here.page.locator("#here")).to_be_hidden()
        await expect(here.page.locator("#announcer")).to_contain_text("Nobody else is here now.")
        async with visit(browser, port, "/?user=bob&session=kitchen", state="ended") as stranger:
            assert len(stranger.sockets) == 1
            assert await stranger.texts() == []
    assert gemini.connections[0].texts == ["from here", "from there"]


async def test_two_windows_share_a_conversation(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, visit(browser, port) as here:
        await here.say("from here")
        await here.answered(re.compile("You said: from here$"))
        there = Tab(await here.page.context.new_page())
        await there.page.goto("/")
        await there.answered(re.compile("You said: from here$"))
        await there.say("from there")
        for tab in (here, there):
            await tab.answered(re.compile("You said: from there$"))
        assert await here.texts() == await there.texts()
        await expect(here.page.locator(".message.other .who")).to_have_text("You, in another window: ")
        assert there.console == []


async def test_one_is_heard_at_a_time(gemini: GeminiLive, microphone: Microphone, browser: Browser) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.heard("Good evening.")
        await connection.say("Good evening to you.")

    gemini.answer = answer
    path = "/?user=alice"
    async with (
        serving(a_relay()) as port,
        visit(browser, port, path) as here,
        visit(browser, port, path) as there,
    ):
        microphone.hears(voice(6000), quiet(1000))
        await here.call()
        microphone.hears(quiet(300), voice(3500), quiet(1000))
        await there.call()
        busy = there.page.locator("#notice [data-kind=busy]")
        await expect(busy).to_contain_text("Somebody else is speaking")
        await until(lambda: asyncio.sleep(0, control(there.got, "error")), lambda errors: len(errors) > 1)
        await expect(busy).to_have_count(1)
        told = there.page.locator("#announcer p", has_text="Somebody else is speaking")
        assert await told.count() == 1
        await here.answered("Good evening to you.")
        await expect(here.page.locator(".message.heard .text").last).to_have_text("Good evening.")
        await expect(here.page.locator(".message.other")).to_have_count(0)
        await expect(there.page.locator(".message.heard.other .text").last).to_have_text("Good evening.")
        await expect(busy).to_have_count(0)  # when it is over


@pytest.mark.parametrize("how", ["cleared", "deleted"])
async def test_it_begins_anew_when_it_was_emptied(how: str, gemini: GeminiLive, browser: Browser) -> None:
    path = "/?user=guest&session=kitchen"
    async with serving(a_relay(grace=30)) as port, visit(browser, port, path) as tab:
        await tab.say("one")
        await tab.answered("You said: one.")
        request = tab.page.request
        if how == "cleared":
            response = await request.post("/sessions/kitchen/clear")
        else:
            response = await request.delete("/sessions/kitchen")
        assert response.ok
        await expect(tab.page.locator(".system")).to_have_text(f"This conversation was {how}.")
        await expect(tab.page.locator("#announcer")).to_contain_text(f"This conversation was {how}.")
        await expect(tab.page.locator("#welcome")).to_be_visible()
        await expect(tab.page.locator(".message")).to_have_count(0)
        await tab.say("two")
        await tab.answered("You said: two.")
        assert await tab.texts() == ["two", "You said: two."]
        await tab.page.reload()
        await expect(tab.page.locator(".message")).to_have_count(2)
        assert await tab.texts() == ["two", "You said: two."]
        assert len(tab.sockets) == 2
    assert gemini.connections[-1].context == [("user", "two"), ("model", "You said: two.")]
