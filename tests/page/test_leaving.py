"""The pages where the server is gone for long, and where the user goes away from them and comes back."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Browser, expect

from support.browser import NO_SERVER, rehearsal, until, visit
from support.gemini import Connection, GeminiLive, UserTurn
from support.proxy import network
from support.server import a_relay, serving

# One browser for all tests, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

QUICK = {"FIRST_DELAY": 1, "MAX_DELAY": 20}


@pytest.mark.parametrize("path", ["/", "/demo"])
async def test_no_websocket_is_tried_while_the_server_is_gone(browser: Browser, path: str) -> None:
    """Firefox holds the next one back longer after each that failed: up to minutes, over reloads too."""
    async with (
        serving(a_relay(rehearsal())) as port,
        network(port) as (between, there),
        visit(browser, there, path, noise=NO_SERVER, constants=QUICK) as tab,
    ):
        between.cut()

        async def asked() -> int:
            return len([url for url in tab.requests if url.endswith("/health")])

        await until(asked, lambda times: times > 5)
        assert len(tab.sockets) == 1
        between.mend()
        await tab.shows("connected")
        assert len(tab.sockets) == 2


async def test_an_answer_that_is_cut_off_is_not_mixed_with_one_over_http(
    gemini: GeminiLive, browser: Browser
) -> None:
    """What was written for a conversation waits for it; what is written without one goes to another."""
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await connection.say("First", complete=False)
            await go_on.wait()
            await connection.say(" half, second half.")
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with (
        serving(a_relay(grace=30)) as port,
        network(port) as (between, there),
        visit(browser, there, noise=NO_SERVER, constants=QUICK) as tab,
    ):
        await tab.say("one")
        await expect(tab.page.locator(".message.open .text")).to_have_text("First")
        between.takes_upgrades = False
        between.cut()
        await tab.shows("waiting")
        await tab.say("meanwhile")
        between.mend()
        await tab.shows("blocked")
        cut = tab.page.locator(".message.agent").first
        await expect(cut.locator(".mark")).to_have_text("Cut off")
        await tab.say("two")
        await tab.answered("You said: two.")
        assert await tab.texts() == ["one", "First", "meanwhile", "two", "You said: two."]
        await expect(tab.page.locator(".message.user", has_text="meanwhile")).to_have_class(
            re.compile("waiting")
        )

        go_on.set()
        between.takes_upgrades = True
        await tab.online()
        await tab.answered("You said: meanwhile.")
        await expect(cut.locator(".mark")).to_have_text("")
        assert await tab.page.locator(".message .text, .system").all_text_contents() == [
            "one",
            "First half, second half.",
            "two",
            "You said: two.",
            "The messages above are in a separate conversation: the agent does not know them here.",
            "meanwhile",
            "You said: meanwhile.",
        ]
    assert sorted(tuple(one.texts) for one in gemini.connections) == [("one", "meanwhile"), ("two",)]


@pytest.mark.parametrize("path", ["/", "/demo"])
async def test_a_page_that_was_left_is_not_there(browser: Browser, path: str) -> None:
    """The browser keeps it for the way back, with all that it holds: it must not hold a socket.

    Chromium without a window keeps no page, so the events come from here.
    """
    relay = a_relay(rehearsal())

    async def sockets() -> int:
        return len(relay.sockets)

    async def happens(event: str, persisted: str) -> None:
        await tab.page.evaluate(
            f"dispatchEvent(new PageTransitionEvent('{event}', {{ persisted: {persisted} }}))"
        )

    async with serving(relay) as port, visit(browser, port, path) as tab:
        for _ in range(2):
            await happens("pagehide", "true")
            await until(sockets, lambda count: count == 0)
            await happens("online", "false")  # a page that was left stays away
            await happens("pageshow", "true")
            await tab.shows("connected")
            await until(sockets, lambda count: count == 1)
        assert len(tab.sockets) == 3
        await happens("pagehide", "false")  # the browser ends the page by itself
        await happens("pageshow", "false")  # as after each load
        assert len(tab.sockets) == 3
