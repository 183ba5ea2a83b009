"""The rooms: tool calls that wait for a user, and sources under an answer."""

from __future__ import annotations

from typing import Literal

import pytest
from app.test_credits import with_sources
from app.test_waiting import agent, calling
from playwright.async_api import Browser, expect

from support.browser import NO_SERVER, Tab, violations
from support.chat import created, http
from support.gemini import GeminiLive
from support.proxy import network
from support.rooms import shows, window
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

Scheme = Literal["light", "dark"]
schemes = pytest.mark.parametrize("scheme", ["light", "dark"])


async def announced(tab: Tab, text: str) -> None:
    """Waits until screen readers were told this."""
    await expect(tab.page.locator("#announcer p", has_text=text)).to_have_count(1)


@schemes
async def test_a_confirmation_is_asked_for_and_given_by_keyboard(
    gemini: GeminiLive, browser: Browser, scheme: Scheme
) -> None:
    gemini.answer = calling("delete_file", {"name": "<b>a.txt</b>"})
    async with serving(a_relay(agent())) as port:
        room = await created(port)
        async with window(browser, port, room, color_scheme=scheme) as tab:
            card = tab.page.get_by_role("region", name="May the agent use delete_file?")
            await tab.say("go")
            await expect(card).to_contain_text("<b>a.txt</b>")
            await announced(tab, "Your answer is needed: May the agent use delete_file?")
            assert await violations(tab.page) == []
            await tab.page.reload()  # it still waits
            await expect(card).to_have_count(1)
            await card.get_by_role("button", name="Allow", exact=True).focus()
            await tab.page.keyboard.press("Enter")
            await expect(card).to_contain_text("Allowed")
            await expect(card.get_by_role("button")).to_have_count(0)
            await expect(card).to_be_focused()
            await announced(tab, "May the agent use delete_file? Allowed.")
            await expect(tab.page.locator(".message.agent .text").last).to_contain_text("You said: ")
            assert await violations(tab.page) == []


async def test_any_window_may_answer_and_a_mistake_can_be_corrected(
    gemini: GeminiLive, browser: Browser
) -> None:
    gemini.answer = calling("ask_office", {"amount": 5})
    async with serving(a_relay(agent())) as port:
        room = await created(port)
        async with window(browser, port, room) as one, window(browser, port, room) as two:
            await one.say("go")
            cards = [
                tab.page.get_by_role("region", name="ask_office waits for your answer.") for tab in (one, two)
            ]
            for card in cards:
                await expect(card).to_contain_text('"ticket": 5')
            field = cards[0].get_by_label("Answer (JSON or text)")
            await field.fill('{"approved": tru')
            await cards[0].get_by_role("button", name="Answer").click()
            await expect(field).to_be_focused()
            await expect(field).to_have_accessible_description("This is not valid JSON. Please correct it.")
            await field.fill('"' + "x" * 70_000 + '"')
            await cards[0].get_by_role("button", name="Answer").click()
            await expect(cards[0].get_by_role("status")).to_contain_text("at most 65536 are allowed")
            await field.fill('{"approved": true}')
            await cards[0].get_by_role("button", name="Answer").click()
            for card in cards:
                await expect(card).to_contain_text("Answered")


async def test_a_call_that_was_answered_meanwhile_is_not_asked_any_more(
    gemini: GeminiLive, browser: Browser
) -> None:
    gemini.answer = calling("ask_office", {"amount": 5})
    async with serving(a_relay(agent())) as port, network(port) as (between, near), http(port) as web:
        room = await created(port)
        constants = {"TOLD_WITHIN": 5000}
        async with window(browser, near, room, noise=NO_SERVER, constants=constants) as tab:
            await tab.say("go")
            card = tab.page.get_by_role("region", name="ask_office waits for your answer.")
            await expect(card).to_contain_text('"ticket": 5')  # it is made anew when the tool has returned
            await card.get_by_label("Answer (JSON or text)").fill("half an answer")
            between.cut()
            await tab.shows("waiting")
            between.mend()
            await tab.online()
            await expect(card).to_have_count(1)
            await expect(card.get_by_label("Answer (JSON or text)")).to_have_value("half an answer")
            between.cut()
            await tab.shows("waiting")
            body = {"tool_id": "call-1", "result": {"approved": True}}
            assert (await web.post(f"/sessions/{room}/tool_result", json=body)).status_code == 200
            between.mend()
            await tab.online()
            await expect(card).to_contain_text("No longer asked")
            await expect(card.get_by_role("button")).to_have_count(0)


async def test_two_windows_answer_at_once(gemini: GeminiLive, browser: Browser) -> None:
    gemini.answer = calling("delete_file", {"name": "a.txt"})
    async with serving(a_relay(agent())) as port, network(port) as (between, near):
        room = await created(port)
        async with window(browser, near, room) as one, window(browser, port, room) as two:
            await two.say("go")
            cards = [
                tab.page.get_by_role("region", name="May the agent use delete_file?") for tab in (one, two)
            ]
            await expect(cards[0]).to_have_count(1)
            between.down.clear()  # the first window does not hear that the second one has answered
            await cards[1].get_by_role("button", name="Do not allow").click()
            await expect(cards[1]).to_contain_text("Not allowed")
            await cards[0].get_by_role("button", name="Allow", exact=True).click()
            await expect(cards[0].get_by_role("status")).to_have_text("Sending…")
            between.down.set()
            await expect(cards[0]).to_contain_text("Not allowed")
            await expect(one.page.locator("#problem")).to_have_text("")


async def test_another_room_has_no_cards_of_this_one(gemini: GeminiLive, browser: Browser) -> None:
    gemini.answer = calling("ask_manager", {"amount": 5})
    async with serving(a_relay(agent())) as port:
        room = await created(port)
        async with window(browser, port, room) as tab:
            await tab.say("go")
            cards = tab.page.locator(".waiting-card")
            await expect(cards).to_have_count(1)
            await tab.page.get_by_role("button", name="New room").click()
            await expect(cards).to_have_count(0)
            await tab.page.go_back()
            await expect(cards).to_have_count(1)


@schemes
async def test_sources_stand_under_the_answer(gemini: GeminiLive, browser: Browser, scheme: Scheme) -> None:
    gemini.answer = with_sources
    async with serving(a_relay()) as port, window(browser, port, color_scheme=scheme) as tab:
        await tab.say("hello")
        await shows(tab, "hello", "You said: hello.")
        sources = tab.page.locator(".message.agent .sources")
        await expect(sources.locator("li")).to_have_text(["One", "Two"])
        await expect(sources.get_by_role("link")).to_have_count(1)  # the other address is no web address
        await expect(sources).to_contain_text("Searched for: what is one")
        assert await violations(tab.page) == []
        await tab.say("plain")
        await shows(tab, "hello", "You said: hello.", "plain", "You said: plain.")
        await expect(sources).to_have_count(1)
