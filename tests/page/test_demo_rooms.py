"""Rooms are made, listed, entered, left, cleared and deleted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from support.browser import NO_SERVER, rehearsal, visit
from support.chat import chat, created
from support.gemini import GeminiLive
from support.long import write
from support.proxy import network
from support.rooms import Answers, Script, room_of, shows, window
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_rooms_are_made_listed_and_entered(browser: Browser) -> None:
    async with serving(a_relay(rehearsal(pace=50))) as port, window(browser, port) as tab:
        page = tab.page
        await expect(page.locator("#no-rooms")).to_be_visible()
        await page.get_by_role("button", name="New room").click()
        first = await room_of(tab)
        await expect(page.locator("#no-rooms")).to_be_hidden()
        await tab.say("in the first")
        await shows(tab, "in the first", "This is a rehearsal: no model is connected. You said: in the first")
        await page.get_by_role("button", name="New room").click()
        await expect(page.locator("#room-name")).not_to_have_text(f"Room {first}")
        second = await room_of(tab)
        await shows(tab)
        links = page.locator("#rooms a")
        await expect(links).to_have_count(2)
        await expect(page.locator("#rooms [aria-current]")).to_contain_text(second)

        await links.filter(has_text=first).click()
        await expect(page.locator("#room-name")).to_have_text(f"Room {first}")
        await expect(page.locator("#rooms [aria-current]")).to_contain_text(first)
        await expect(page.locator(".message.user:not(.other) .text")).to_have_text("in the first")
        assert re.fullmatch("[a-z]+-[a-z]+-[0-9]{2}", second)
        await page.get_by_label("Name of a room").fill(second.replace("-", " ").title())  # as it is told
        await page.keyboard.press("Enter")
        await expect(page.locator("#room-name")).to_have_text(f"Room {second}")
        await shows(tab)
        await page.go_back()
        await expect(page.locator("#room-name")).to_have_text(f"Room {first}")
        await shows(tab, "in the first", "This is a rehearsal: no model is connected. You said: in the first")

        async with page.expect_popup() as opened:
            await page.get_by_role("link", name="Open another window").click()
        other = await opened.value
        assert other.url == page.url
        await expect(other.locator("#room-name")).to_have_text(f"Room {first}")
        await expect(page.locator("#rooms [aria-current] .facts")).to_have_text("2 messages · 2 here")
        await other.close()
        await expect(page.locator("#rooms [aria-current] .facts")).to_have_text("2 messages · 1 here")


async def test_a_room_is_the_same_in_the_main_page(browser: Browser) -> None:
    async with serving(a_relay(rehearsal(pace=50))) as port:
        room = await created(port)
        async with window(browser, port, room) as tab:
            await tab.say("in writing")
            await expect(tab.page.locator(".message.agent .text")).to_contain_text("in writing")
            path = await tab.page.get_by_role("link", name="Speak here").get_attribute("href")
            assert path
            async with visit(browser, port, path) as main:
                await expect(main.page.locator(".message.user .text")).to_have_text("in writing")


async def test_a_room_that_there_is_not(browser: Browser) -> None:
    async with serving(a_relay(rehearsal(pace=50))) as port, visit(browser, port, "/demo#nosuch") as tab:
        await expect(tab.page.get_by_role("alert")).to_contain_text("nosuch")
        await expect(tab.page.locator("#announcer")).to_have_text("")  # an alert is spoken as it is
        await expect(tab.page.locator("#room-name")).to_have_text("No room yet")
        assert tab.page.url.endswith("/demo")
        await tab.say("then in a new one")
        await room_of(tab)
        await expect(tab.page.locator("#problem")).to_be_hidden()


async def test_who_asks_for_a_room_that_there_is_not_stays_where_they_are(browser: Browser) -> None:
    async with serving(a_relay(rehearsal(pace=50))) as port:
        room = await created(port)
        async with window(browser, port, room) as tab:
            await tab.page.get_by_label("Name of a room").fill("nosuch")
            await tab.page.keyboard.press("Enter")
            await expect(tab.page.locator("#problem")).to_contain_text("nosuch")
            assert await room_of(tab) == room
            await tab.say("a")
            await expect(tab.page.locator(".message.agent .text")).to_contain_text("You said: a")


async def test_who_goes_back_from_a_room_has_left_it(gemini: GeminiLive, browser: Browser) -> None:
    async with serving(a_relay()) as port, window(browser, port) as tab:
        await tab.say("a")
        await shows(tab, "a", "You said: a.")
        room = await room_of(tab)
        async with window(browser, port, room) as other:
            await expect(tab.page.locator(".system")).to_contain_text(["came in"])
            await tab.page.go_back()
            await expect(tab.page.locator("#room-name")).to_have_text("No room yet")
            await shows(tab)
            await expect(other.page.locator(".system")).to_contain_text(["left"])
            await expect(other.page.locator("#rooms .facts")).to_have_text("2 messages · 1 here")
            await tab.say("b")
            await shows(tab, "b", "You said: b.")
            assert await room_of(tab) != room
            await shows(other, "a", "You said: a.")


async def test_a_room_is_cleared_for_all(gemini: GeminiLive, browser: Browser) -> None:
    async with serving(a_relay()) as port:
        room = await created(port)
        async with window(browser, port, room) as one, window(browser, port, room) as two:
            await one.say("a")
            await shows(two, "a", "You said: a.")
            asked = Answers(two, accept=[False, True])
            await two.page.get_by_role("button", name="Clear").click()
            await asked.number(1)
            await shows(one, "a", "You said: a.")  # on second thoughts
            await two.page.get_by_role("button", name="Clear").click()
            for tab in (one, two):
                await expect(tab.page.locator(".system")).to_contain_text(["The room was cleared"])
                await shows(tab)
            await one.say("b")
            for tab in (one, two):
                await shows(tab, "b", "You said: b.")
            async with chat(port, room) as other:  # the pages cannot, but show it
                await other.send(type="rewind")
                for tab in (one, two):
                    await shows(tab)
    assert [words for _, words in gemini.connections[-1].context] == ["b", "You said: b."]


async def test_a_room_is_deleted_for_all(gemini: GeminiLive, browser: Browser) -> None:
    async with serving(a_relay()) as port:
        room = await created(port)
        async with window(browser, port, room) as one, window(browser, port, room) as two:
            await one.say("a")
            await shows(two, "a", "You said: a.")
            asked = Answers(two, accept=[False, True])
            await two.page.get_by_role("button", name="Delete").click()
            await asked.number(1)
            await shows(one, "a", "You said: a.")  # on second thoughts
            await two.page.get_by_role("button", name="Delete").click()
            for tab in (one, two):
                await expect(tab.page.locator(".system").last).to_have_text("The room was deleted.")
                await shows(tab)
                await expect(tab.page.locator("#room-actions")).to_be_hidden()
                await expect(tab.page.locator("#rooms a")).to_have_count(0)
                assert tab.page.url.endswith("/demo")
            await one.say("b")
            await shows(one, "b", "You said: b.")
            assert await room_of(one) != room
            await shows(two)


async def test_what_waits_in_a_room_that_one_leaves_is_answered_there(
    gemini: GeminiLive, browser: Browser
) -> None:
    script = Script(gemini)
    async with serving(a_relay(grace=60)) as port:
        rooms = await created(port), await created(port)
        async with window(browser, port, rooms[0]) as tab:
            await tab.say("a")
            await expect(tab.page.locator(".message.agent .text")).to_have_text("a: one")
            await tab.say("b")
            await expect(tab.page.locator(".message.waiting .meta")).to_contain_text("waits for 1")
            await tab.page.locator("#rooms a", has_text=rooms[1]).click()
            await expect(tab.page.locator("#room-name")).to_have_text(f"Room {rooms[1]}")
            await shows(tab)
            await expect(tab.page.locator("#text")).to_have_value("")
            script.may_go_on.set()
            await tab.say("c")
            await shows(tab, "c", "c: one two.")
            await tab.page.locator("#rooms a", has_text=rooms[0]).click()
            await shows(tab, "a", "a: one two.", "b", "b: one two.")


async def test_what_was_not_said_in_a_room_that_one_leaves_is_in_the_box_again(browser: Browser) -> None:
    async with serving(a_relay(rehearsal(), grace=60)) as port, network(port) as (between, near):
        rooms = await created(port), await created(port)
        async with window(browser, near, rooms[0], noise=NO_SERVER) as tab:
            between.up.clear()  # the server hears nothing of it
            await tab.say("a")
            between.cut()
            await tab.shows("waiting")
            await tab.page.evaluate(f"() => void (location.hash = '{rooms[1]}')")
            between.mend()
            await tab.online()
            await expect(tab.page.get_by_role("alert")).to_contain_text("entered another room")
            await expect(tab.page.locator("#text")).to_have_value("a")
            await shows(tab)


async def test_older_messages_come_when_one_scrolls_up(browser: Browser, tmp_path: Path) -> None:
    await write(f"{tmp_path}/s.db", "long", 450, app_name="rehearsal")
    relay = a_relay(rehearsal(), app_name="rehearsal", sessions=f"sqlite:///{tmp_path}/s.db")
    async with serving(relay) as port, window(browser, port, "long") as tab:
        page = tab.page
        messages = page.locator(".message .text")
        await expect(messages).to_have_count(200)
        await expect(messages.last).to_contain_text("message 450 ")
        for shown in (400, 450):
            await page.locator("#messages").evaluate("messages => messages.scrollTop = 0")
            await expect(messages).to_have_count(shown)
        await expect(messages.first).to_contain_text("message 1 ")
        await expect(messages.first).not_to_be_in_viewport()
        for number in (1, 200, 201, 251):
            await expect(messages.nth(number - 1)).to_contain_text(f"message {number} ")
