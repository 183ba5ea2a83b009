"""Several people in one room."""

from __future__ import annotations

import asyncio
import re
from typing import Literal

import pytest
from playwright.async_api import Browser, expect

from support.chat import created, guest
from support.gemini import Connection, GeminiLive, UserTurn
from support.rooms import GUEST, Held, Script, room_of, shows, told, window
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_two_windows_see_the_same(gemini: GeminiLive, browser: Browser) -> None:
    script = Script(gemini)
    async with serving(a_relay()) as port, window(browser, port) as one:
        await expect(one.page.locator("#model")).to_have_text("gemini-3.8-live")
        await expect(one.page.locator("#room-name")).to_have_text("No room yet")
        await expect(one.page.locator("#hint")).to_be_visible()
        await expect(one.page.locator("#send")).to_be_disabled()
        await one.say("<b>Hello</b>")
        answer = one.page.locator(".message.agent .text")
        await expect(answer).to_have_text("<b>Hello</b>: one")  # as it streams
        await expect(one.page.locator("#announcer")).to_have_text("")  # not word by word
        await expect(one.page.locator("#hint")).to_be_hidden()
        room = await room_of(one)
        script.may_go_on.set()
        await expect(answer).to_have_text("<b>Hello</b>: one two.")
        await expect(one.page.locator("#announcer p")).to_have_text(["Agent: <b>Hello</b>: one two."])
        said = ["<b>Hello</b>", "<b>Hello</b>: one two."]
        await shows(one, *said)

        async with window(browser, port, room) as two:
            await shows(two, *said)  # before it came
            await expect(one.page.locator(".system")).to_have_text(re.compile(f"^{GUEST} came in.$"))
            await expect(one.page.locator("#rooms .facts")).to_have_text("2 messages · 2 here")

            await two.page.get_by_label("Message", exact=True).fill("And")
            await expect(one.page.locator("#typing")).to_have_text(re.compile(f"^{GUEST} is typing…$"))
            await expect(two.page.locator("#typing")).to_have_text("")
            await two.page.get_by_label("Message", exact=True).fill("")
            await expect(one.page.locator("#typing")).to_have_text("")
            await two.page.get_by_label("Message", exact=True).fill("And I")
            await expect(one.page.locator("#typing")).to_contain_text("is typing")

            script.may_go_on.clear()
            await two.say("And I <i>too")
            others = one.page.locator(".message.other")
            await expect(others.locator(".text")).to_have_text("And I <i>too")
            await expect(others.locator(".who")).to_have_text(re.compile(f"^{GUEST}$"))
            await expect(one.page.locator("#typing")).to_have_text("")
            for tab in (one, two):
                await expect(tab.page.locator(".message.agent .text").last).to_have_text("And I <i>too: one")
            script.may_go_on.set()
            said += ["And I <i>too", "And I <i>too: one two."]
            await shows(one, *said)
            await shows(two, *said)
            await expect(one.page.locator("#announcer p").last).to_have_text("Agent: And I <i>too: one two.")
            await expect(one.page.locator("#rooms .facts")).to_have_text("4 messages · 2 here")
            # Text is text: nothing of it has become markup.
            assert await one.page.locator(".message :is(b, i)").count() == 0
            await two.page.get_by_label("Message", exact=True).fill("I must")
            await expect(one.page.locator("#typing")).to_contain_text("is typing")
        await expect(one.page.locator(".system").last).to_have_text(re.compile(f"^{GUEST} left.$"))
        await expect(one.page.locator("#typing")).to_have_text("")
        await expect(one.page.locator("#rooms .facts")).to_have_text("4 messages · 1 here")
        await shows(one, *said)


async def test_one_is_answered_after_the_other_and_all_see_the_same_order(
    gemini: GeminiLive, browser: Browser
) -> None:
    go_on = asyncio.Semaphore(0)

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(f"{turn.text}: one", complete=False)
        await go_on.acquire()
        await connection.say(" two.")

    gemini.answer = answer
    async with serving(a_relay()) as port:
        room = await created(port)
        async with window(browser, port, room) as one, window(browser, port, room) as two:
            await one.say("a")
            await expect(two.page.locator(".message.agent .text")).to_have_text("a: one")
            await two.say("b")
            waiting = two.page.locator(".message.waiting")
            await expect(waiting.locator(".meta")).to_have_text("Your message waits for 1 before it.")
            await one.say("c")
            waiting = one.page.locator(".message.waiting")
            await expect(waiting.locator(".meta")).to_have_text("Your message waits for 2 before it.")
            await expect(two.page.locator(".message.other")).to_have_count(1)  # c is not said yet
            go_on.release()
            # The answer to b comes before c, which still waits.
            said = ["a", "a: one two.", "b", "b: one", "c"]
            await expect(one.page.locator(".message .text")).to_have_text(said)
            await expect(waiting.locator(".text")).to_have_text("c")
            go_on.release()
            go_on.release()
            for tab in (one, two):
                await shows(tab, "a", "a: one two.", "b", "b: one two.", "c", "c: one two.")
            assert await one.texts("other") == ["b"]
            assert await two.texts("other") == ["a", "c"]


async def test_a_live_client_interrupts_in_the_room(gemini: GeminiLive, browser: Browser) -> None:
    Script(gemini)
    async with serving(a_relay()) as port:
        room = await created(port)
        async with window(browser, port, room) as tab, guest(port, room) as live:
            await tab.say("a")
            await expect(tab.page.locator(".message.agent .text")).to_have_text("a: one")
            gemini.answer = say_yes
            await live.say("stop")
            await shows(tab, "a", "a: one", "stop", "Yes.")
            assert await tab.texts("other") == ["stop"]
            marks = tab.page.locator(".message.agent .meta")
            await expect(marks).to_have_text(["Interrupted", ""])


async def say_yes(connection: Connection, turn: UserTurn) -> None:
    await connection.say("Yes.")


async def test_who_comes_in_mid_answer_sees_the_whole(gemini: GeminiLive, browser: Browser) -> None:
    script = Script(gemini)
    async with serving(a_relay()) as port:
        room = await created(port)
        async with window(browser, port, room) as one:
            await one.say("a")
            await expect(one.page.locator(".message.agent .text")).to_have_text("a: one")
            async with window(browser, port, room) as two:
                await shows(two, "a", "a: one")
                script.may_go_on.set()
                await shows(two, "a", "a: one two.")
                await two.say("b")
                await shows(two, "a", "a: one two.", "b", "b: one two.")
                await shows(one, "a", "a: one two.", "b", "b: one two.")


@pytest.mark.parametrize("read", ["before", "after"])
async def test_what_is_said_while_the_history_is_read_is_shown_once(
    gemini: GeminiLive, browser: Browser, read: Literal["before", "after"]
) -> None:
    script = Script(gemini)
    history = Held(read=read)
    async with serving(a_relay()) as port:
        room = await created(port)
        async with window(browser, port, room) as one, window(browser, port) as two:
            await two.page.route(f"**/sessions/{room}", history)
            await two.page.get_by_label("Name of a room").fill(room)
            await two.page.keyboard.press("Enter")
            await asyncio.wait_for(history.asked.wait(), 15)
            await one.say("a")
            await expect(one.page.locator(".message.agent .text")).to_have_text("a: one")
            await told(two, "a: one")
            history.may_come.set()
            await shows(two, "a", "a: one")
            script.may_go_on.set()
            await shows(two, "a", "a: one two.")
            assert len([url for url in two.requests if url.endswith(f"/sessions/{room}")]) == 1


async def test_who_comes_in_while_two_answers_are_given_sees_each_word_once(
    gemini: GeminiLive, browser: Browser
) -> None:
    go_on = asyncio.Semaphore(0)

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(f"{turn.text}: one", complete=False)
        for word in (" two", " three"):
            await go_on.acquire()
            await connection.say(word, complete=False)
        await go_on.acquire()
        await connection.turn_complete()

    gemini.answer = answer
    history = Held()
    async with serving(a_relay()) as port:
        room = await created(port)
        async with window(browser, port, room) as one, window(browser, port) as two:
            await one.say("a")
            await expect(one.page.locator(".message.agent .text")).to_have_text("a: one")
            await two.page.route(f"**/sessions/{room}", history)
            await two.page.get_by_label("Name of a room").fill(room)
            await two.page.keyboard.press("Enter")
            await asyncio.wait_for(history.asked.wait(), 15)
            # Of the one answer it is told the end, of the other the beginning, and the history has both.
            for _ in range(3):
                go_on.release()
            await shows(one, "a", "a: one two three")
            await one.say("b")
            go_on.release()
            await shows(one, "a", "a: one two three", "b", "b: one two")
            await told(two, " two", times=2)
            history.may_come.set()
            await shows(two, "a", "a: one two three", "b", "b: one two")
            await expect(two.page.locator("#announcer")).to_have_text("")
            go_on.release()
            go_on.release()
            await shows(two, "a", "a: one two three", "b", "b: one two three")
            await expect(two.page.locator("#announcer p")).to_have_text(["Agent: b: one two three"])
