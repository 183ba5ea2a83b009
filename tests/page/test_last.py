"""What was said last is edited, or answered again."""

from __future__ import annotations

import asyncio

import pytest
from page.test_pictures import give
from playwright.async_api import Browser, expect

from support.browser import NO_SERVER, Tab, violations, visit
from support.chat import created, guest
from support.gemini import Connection, GeminiLive, UserTurn
from support.proxy import network
from support.rooms import window
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def says(tab: Tab, *texts: str) -> None:
    """All that is in the conversation."""
    await expect(tab.page.locator(".message .text")).to_have_text(list(texts))
    await expect(tab.page.locator(".open, .expected")).to_have_count(0)


async def test_the_last_text_is_edited_and_answered_again(gemini: GeminiLive, browser: Browser) -> None:
    go_on = asyncio.Event()
    asked = 0

    async def answer(connection: Connection, turn: UserTurn) -> None:
        nonlocal asked
        asked += 1
        await connection.say(f"Answer {asked}", complete=False)
        if turn.text == "slowly":
            await go_on.wait()
        await connection.say(f" to {turn.text}.")

    gemini.answer = answer
    async with (
        serving(a_relay(grace=60)) as port,
        network(port) as (between, there),
        visit(browser, there, "/?user=alice", noise=NO_SERVER) as tab,
        visit(browser, port, "/?user=alice") as other,
    ):
        page = tab.page
        box = page.get_by_label("Message", exact=True)
        edit = page.get_by_role("button", name="Edit this message")
        again = page.get_by_role("button", name="Answer this again")
        await expect(edit).to_have_count(0)
        await tab.say("one")
        await says(tab, "one", "Answer 1 to one.")
        await give(tab)
        await tab.say("two")
        await says(tab, "one", "Answer 1 to one.", "two", "Answer 2 to two.")
        await expect(page.locator(".message.user").last.get_by_role("button")).to_have_count(1)
        assert await violations(page) == []

        # Once more, with its picture.
        await again.press("Enter")
        await says(tab, "one", "Answer 1 to one.", "two", "Answer 3 to two.")
        await says(other, "one", "Answer 1 to one.", "two", "Answer 3 to two.")
        await expect(page.locator(".message.user img")).to_have_count(1)
        assert [len(connection.images) for connection in gemini.connections][-1] >= 1

        # What was being written comes back when one edits no more.
        await box.fill("a draft")
        await edit.click()
        await expect(box).to_be_focused()
        await expect(box).to_have_value("two")
        await expect(page.locator("#editing")).to_be_visible()
        assert await violations(page) == []
        await page.keyboard.press("Escape")
        await expect(box).to_have_value("a draft")
        await expect(page.locator("#editing")).to_be_hidden()
        await edit.click()
        await box.fill("three")
        await page.keyboard.press("Enter")
        await says(tab, "one", "Answer 1 to one.", "three", "Answer 4 to three.")
        await says(other, "one", "Answer 1 to one.", "three", "Answer 4 to three.")
        await expect(box).to_have_value("a draft")
        await page.reload()
        await says(tab, "one", "Answer 1 to one.", "three", "Answer 4 to three.")
        await edit.click()
        await box.fill("slowly")
        await page.keyboard.press("Enter")

        # Not while there is an answer to come, and not without a connection.
        await expect(page.locator(".message.agent.open")).to_have_count(1)
        await expect(edit).to_have_count(0)
        await expect(again).to_have_count(0)
        go_on.set()
        await says(tab, "one", "Answer 1 to one.", "slowly", "Answer 5 to slowly.")
        await expect(again).to_have_count(1)
        await edit.click()
        between.cut()
        await tab.shows("waiting")
        await expect(edit).to_have_count(0)
        await box.fill("four")
        await page.keyboard.press("Enter")
        await expect(page.locator("#notice [data-kind=last]")).to_contain_text("There is no connection now.")
        await expect(box).to_have_value("four")
        between.mend()
        await tab.online()
        await box.press("Enter")
        await says(tab, "one", "Answer 1 to one.", "four", "Answer 6 to four.")

        # Another text has come meanwhile: what is in the box is a new one.
        await edit.click()
        await other.say("five")
        await expect(page.locator("#editing")).to_be_hidden()
        await expect(box).to_have_value("four")


async def test_a_room_sees_what_is_taken_back(gemini: GeminiLive, browser: Browser) -> None:
    asked = 0

    async def answer(connection: Connection, turn: UserTurn) -> None:
        nonlocal asked
        asked += 1
        await connection.say(f"Answer {asked} to {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay(grace=60)) as port:
        room = await created(port)
        async with (
            visit(browser, port, f"/?user=guest&session={room}") as tab,
            window(browser, port, room) as other,
        ):
            await tab.say("one")
            await says(other, "one", "Answer 1 to one.")
            await tab.page.get_by_role("button", name="Edit this message").click()
            await tab.page.get_by_label("Message", exact=True).fill("two")
            await tab.page.keyboard.press("Enter")
            await says(other, "two", "Answer 2 to two.")
            # What others have written can't be edited here.
            await other.say("three")
            await says(tab, "two", "Answer 2 to two.", "three", "Answer 3 to three.")
            await expect(tab.page.get_by_role("button", name="Edit this message")).to_have_count(0)
            await expect(tab.page.get_by_role("button", name="Answer this again")).to_have_count(0)
            # Nothing need follow.
            async with guest(port, room) as live:
                await live.send(type="rewind")
                await says(tab, "two", "Answer 2 to two.")
                await says(other, "two", "Answer 2 to two.")
