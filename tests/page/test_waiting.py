"""The main page: tool calls that wait for the user, sources under an answer, and push to talk."""

from __future__ import annotations

from typing import Literal

import pytest
from app.test_credits import with_sources
from app.test_speech import MANUAL
from app.test_waiting import agent, calling
from playwright.async_api import Browser, expect

from support.browser import control, until, violations, visit
from support.client import client
from support.gemini import GeminiLive
from support.microphone import Microphone
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

Scheme = Literal["light", "dark"]
schemes = pytest.mark.parametrize("scheme", ["light", "dark"])


@schemes
async def test_a_confirmation_is_asked_for(gemini: GeminiLive, browser: Browser, scheme: Scheme) -> None:
    gemini.answer = calling("delete_file", {"name": "<b>a.txt</b>"})
    async with (
        serving(a_relay(agent())) as port,
        visit(browser, port, "/?user=alice", color_scheme=scheme) as tab,
    ):
        await tab.shows("connected")
        await tab.say("go")
        card = tab.page.get_by_role("region", name="May the agent use delete_file?")
        await expect(card).to_contain_text("<b>a.txt</b>")
        await expect(tab.page.locator(".tool .tool-state")).to_have_text("asks first")
        await expect(tab.page.locator(".open, .expected")).to_have_count(0)
        assert await violations(tab.page) == []
        await tab.page.reload()  # it still waits
        await expect(card).to_have_count(1)
        await card.get_by_role("button", name="Allow", exact=True).click()
        await expect(card).to_contain_text("Allowed")
        await expect(card.get_by_role("button")).to_have_count(0)
        await expect(tab.page.locator(".message.agent .text").last).to_contain_text("You said: ")
        assert await violations(tab.page) == []


async def test_any_page_may_answer_and_all_are_told(gemini: GeminiLive, browser: Browser) -> None:
    gemini.answer = calling("ask_office", {"amount": 5})
    async with serving(a_relay(agent())) as port, client(port) as alice:
        await alice.say("go")
        await alice.turn()
        async with visit(browser, port, "/?user=alice") as one, visit(browser, port, "/?user=alice") as two:
            cards = [
                tab.page.get_by_role("region", name="ask_office waits for your answer.") for tab in (one, two)
            ]
            for card in cards:
                await expect(card).to_contain_text('"ticket": 5')
            field = cards[0].get_by_label("Answer (JSON or text)")
            await cards[0].get_by_role("button", name="Answer").click()
            await expect(cards[0].get_by_role("status")).to_have_text("Write an answer first.")
            await field.fill('{"approved": tru')
            await cards[0].get_by_role("button", name="Answer").click()
            await expect(cards[0].get_by_role("status")).to_have_text(
                "This is not valid JSON. Please correct it."
            )
            await field.fill('{"approved": true}')
            await cards[0].get_by_role("button", name="Answer").click()
            for card in cards:
                await expect(card).to_contain_text("Answered")
            completed = await alice.until(lambda said: said.get("type") == "tool_complete")
            assert completed[-1]["result"] == {"approved": True}


@schemes
async def test_sources_stand_under_the_answer(gemini: GeminiLive, browser: Browser, scheme: Scheme) -> None:
    gemini.answer = with_sources
    async with (
        serving(a_relay()) as port,
        visit(browser, port, "/?user=alice", color_scheme=scheme) as tab,
    ):
        await tab.shows("connected")
        await tab.say("hello")
        sources = tab.page.locator(".message.agent .sources")
        await expect(sources.locator("li")).to_have_text(["One", "Two"])
        links = sources.get_by_role("link")
        await expect(links).to_have_count(1)  # the other address is no web address
        assert await links.get_attribute("href") == "https://one.example/"
        assert await links.get_attribute("rel") == "noopener noreferrer"
        await expect(sources).to_contain_text("Searched for: what is one")
        assert await violations(tab.page) == []
        await tab.say("plain")
        await tab.answered("You said: plain.")
        await expect(sources).to_have_count(1)


async def test_push_to_talk(microphone: Microphone, gemini: GeminiLive, browser: Browser) -> None:
    async with (
        serving(a_relay(run_config=MANUAL)) as port,
        visit(browser, port, "/?user=alice") as tab,
    ):
        await tab.shows("connected")
        await tab.page.get_by_role("button", name="Start audio").click()
        talk = tab.page.get_by_role("button", name="Hold to talk")
        await expect(talk).to_be_enabled()
        await tab.shows("connected")
        await expect(tab.page.get_by_role("button", name="Mute")).to_be_hidden()
        await expect(tab.page.locator("#speaker")).to_have_text("Hold the button to talk")
        assert (await tab.stats())["sentFrames"] == 0
        for number in (1, 2):
            await talk.focus()
            if number == 1:
                await tab.page.keyboard.down("Space")
            else:
                await talk.hover()
                await tab.page.mouse.down()
            await expect(talk).to_have_attribute("aria-pressed", "true")
            before = (await tab.stats())["sentFrames"]
            await until(tab.stats, lambda stats: stats["sentFrames"] > before + 3)  # noqa: B023
            await (tab.page.keyboard.up("Space") if number == 1 else tab.page.mouse.up())
            await expect(talk).to_have_attribute("aria-pressed", "false")
            connection = await gemini.connection()
            await gemini.wait_for(lambda: len(connection.activities) == number)  # noqa: B023
            await tab.answered("I heard you.")
        assert control(tab.sent, "configure") == []  # it is the operator's
        async with client(port) as other:  # it changes that for all in the conversation
            await other.send(type="configure", push_to_talk=False)
            await expect(tab.page.get_by_role("button", name="Mute")).to_be_visible()
            await expect(talk).to_be_hidden()
            await other.send(type="configure", push_to_talk=True)
            await expect(talk).to_be_visible()
        assert await violations(tab.page) == []
