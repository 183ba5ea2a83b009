"""The rooms in real browsers: what one does in a window, and what is seen in the others."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
from page.test_page import (
    COUNT_LAYOUTS,
    NO_SERVER,
    Tab,
    a_process,
    chromium,
    control,
    rehearsal,
    until,
    violations,
    visit,
)
from playwright.async_api import Browser, Dialog, Error, Route, expect
from starlette.applications import Starlette
from starlette.routing import Mount

from adk_relay.core.interfaces import StoreError
from support.chat import created, guest, http
from support.gemini import Connection, GeminiLive, Plan, UserTurn
from support.proxy import network
from support.server import a_relay, serving, stand_in

# One browser for all tests, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

GUEST = r"Guest [\w-]{4}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def gemini(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GeminiLive]:
    """The stand-in, in the browser's event loop."""
    async with stand_in(monkeypatch) as service:
        yield service


class Script:
    """A model that says "one", and "two" when it may go on."""

    def __init__(self, gemini: GeminiLive) -> None:
        self.may_go_on = asyncio.Event()
        gemini.answer = self.answer

    async def answer(self, connection: Connection, turn: UserTurn) -> None:
        await connection.say(f"{turn.text}: one", complete=False)
        await self.may_go_on.wait()
        await connection.say(" two.")


@asynccontextmanager
async def window(
    browser: Browser, port: int, room: str = "", *, path: str = "/demo", **options: Any
) -> AsyncIterator[Tab]:
    """A window of its own, in a room if one is named."""
    async with visit(browser, port, f"{path}{room and '#'}{room}", **options) as tab:
        if room:
            await expect(tab.page.locator("#room-name")).to_have_text(f"Room {room}")
        yield tab


async def room_of(tab: Tab) -> str:
    """The id of the room that a window is in."""
    await expect(tab.page.locator("#room-actions")).to_be_visible()
    name = await tab.page.locator("#room-name").inner_text()
    assert tab.page.url.endswith("#" + name.removeprefix("Room "))
    return name.removeprefix("Room ")


async def shows(tab: Tab, *texts: str) -> None:
    """These messages, from the first to the last, and no others."""
    await expect(tab.page.locator(".message .text")).to_have_text(list(texts))
    await expect(tab.page.locator(".message.waiting")).to_have_count(0)


class Answers:
    """What one says when the page asks whether one means it."""

    def __init__(self, tab: Tab, accept: list[bool]) -> None:
        self._asked = 0
        self._accept = accept
        tab.page.on("dialog", self._answer)

    async def _answer(self, dialog: Dialog) -> None:
        assert "for everybody" in dialog.message
        accept = self._accept[self._asked]
        self._asked += 1
        await (dialog.accept() if accept else dialog.dismiss())

    async def number(self, count: int) -> None:
        """Until it has asked so often."""
        await until(lambda: asyncio.sleep(0, self._asked), lambda asked: asked == count)


class Held:
    """Requests of a page for a room's history, which get their answers when they may.

    Attributes:
        asked: there is such a request.
        may_come: it may be answered.
    """

    def __init__(self, *, read: Literal["before", "after"] = "after", times: int = 1) -> None:
        self.asked, self.may_come = asyncio.Event(), asyncio.Event()
        self._read = read
        self._times = times

    async def __call__(self, route: Route) -> None:
        if not self._times:
            return await route.continue_()
        self._times -= 1
        response = await route.fetch() if self._read == "before" else None
        self.asked.set()
        await self.may_come.wait()
        with contextlib.suppress(Error):  # nobody waits for it any more
            await route.fulfill(response=response or await route.fetch())


# ---- in company ------------------------------------------------------------------------------


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
            await two.page.get_by_label("Id of a room").fill(room)
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
            await two.page.get_by_label("Id of a room").fill(room)
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


async def told(tab: Tab, text: str, times: int = 1) -> None:
    """Until a window was told that, of answers, so many times."""
    await until(
        lambda: asyncio.sleep(0, "".join(frame["text"] for frame in control(tab.got, "chunk"))),
        lambda said: said.count(text) == times,
    )


# ---- rooms -----------------------------------------------------------------------------------


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
        await page.get_by_label("Id of a room").fill(second)
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
            await tab.page.get_by_label("Id of a room").fill("nosuch")
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


# ---- the connection --------------------------------------------------------------------------


async def test_the_way_to_the_server_is_measured(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, window(browser, port) as tab:
        await expect(tab.page.locator("#state-text")).to_have_text(re.compile(r"^Connected · \d+ ms$"))
        assert len(control(tab.sent, "ping")) == len(control(tab.got, "pong")) == 1


async def test_it_comes_back_after_the_server_was_killed(tmp_path: Path, browser: Browser) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = ["before", "This is a rehearsal: no model is connected. You said: before"]
    async with contextlib.AsyncExitStack() as stack:
        async with a_process(port, tmp_path):
            tab = await stack.enter_async_context(window(browser, port, noise=NO_SERVER))
            await tab.say("before")
            await shows(tab, *said)
            room = await room_of(tab)
            async with http(port) as web:  # an answer is stored at the end of its sound
                while (await web.get("/stats")).json()["successful_requests"] < 1:
                    await asyncio.sleep(0.01)
        await tab.shows("waiting")
        await tab.page.get_by_label("Message", exact=True).fill("after")
        await expect(tab.page.locator("#send")).to_be_disabled()
        await tab.page.keyboard.press("Enter")
        await expect(tab.page.locator("#text")).to_have_value("after")  # it waits in the box
        async with a_process(port, tmp_path):
            await tab.online()
            await shows(tab, *said)
            assert await room_of(tab) == room
            await tab.page.keyboard.press("Enter")
            answer = tab.page.locator(".message.agent .text").last
            await expect(answer).to_have_text(re.compile("You said: after I remember 2 turns before this.$"))
            assert (await tab.texts())[:3] == [*said, "after"]


async def test_what_was_missed_is_shown_and_nothing_twice(gemini: GeminiLive, browser: Browser) -> None:
    script = Script(gemini)
    async with serving(a_relay(grace=60)) as port, network(port) as (between, near):
        room = await created(port)
        async with window(browser, near, room, noise=NO_SERVER) as one, window(browser, port, room) as two:
            script.may_go_on.set()
            await one.say("a")
            await shows(two, "a", "a: one two.")
            script.may_go_on.clear()
            await one.say("b")
            await expect(one.page.locator(".message.agent .text").last).to_have_text("b: one")
            between.cut()
            await one.shows("waiting")
            await expect(two.page.locator(".system").last).to_contain_text("left")
            script.may_go_on.set()
            await two.say("c")
            said = ["a", "a: one two.", "b", "b: one two.", "c", "c: one two."]
            await shows(two, *said)
            between.mend()
            await one.online()
            await shows(one, *said)
            assert await one.texts("other") == ["c"]
            await two.say("d")
            await shows(one, *said, "d", "d: one two.")


@pytest.mark.parametrize("lost", ["the text", "its ack"])
async def test_a_text_that_the_network_went_with_is_said_once(
    lost: str, gemini: GeminiLive, browser: Browser
) -> None:
    async with serving(a_relay(grace=60)) as port, network(port) as (between, near):
        room = await created(port)
        async with window(browser, near, room, noise=NO_SERVER) as tab:
            await tab.say("a")
            await shows(tab, "a", "You said: a.")
            (between.up if lost == "the text" else between.down).clear()
            await tab.say("b")
            await until(lambda: asyncio.sleep(0, control(tab.sent, "chat")), lambda said: len(said) == 2)
            if lost == "its ack":
                await gemini.wait_for(lambda: "b" in gemini.connections[0].texts)
            between.cut()
            await tab.shows("waiting")
            await expect(tab.page.locator(".message.waiting .meta")).to_have_text("Waiting to be sent")
            between.mend()
            await tab.online()
            await shows(tab, "a", "You said: a.", "b", "You said: b.")
            await expect(tab.page.locator("#text")).to_have_value("")
            assert len({frame["id"] for frame in control(tab.sent, "chat")}) == 2
            assert await tab.texts("other") == []
    assert [text for one in gemini.connections for text in one.texts] == ["a", "b"]


async def test_what_waited_for_its_turn_when_the_network_went_is_said_once(
    gemini: GeminiLive, browser: Browser
) -> None:
    script = Script(gemini)
    async with serving(a_relay(grace=60)) as port, network(port) as (between, near):
        room = await created(port)
        async with window(browser, near, room, noise=NO_SERVER) as tab:
            for text in ("a", "b", "c"):
                await tab.say(text)
            await expect(tab.page.locator(".message.waiting .meta")).to_have_text(
                ["Your message waits for 1 before it.", "Your message waits for 2 before it."]
            )
            between.cut()
            await tab.shows("waiting")
            between.mend()
            await tab.online()
            script.may_go_on.set()
            await shows(tab, "a", "a: one two.", "b", "b: one two.", "c", "c: one two.")


@pytest.mark.parametrize("lost", ["the request for a room", "the room", "the text"])
async def test_a_first_text_that_the_network_went_with_is_said_once(
    lost: str, gemini: GeminiLive, browser: Browser
) -> None:
    relay = a_relay(grace=60)
    async with serving(relay) as port, network(port) as (between, near):
        async with window(browser, near, noise=NO_SERVER) as tab:
            (between.up if lost == "the request for a room" else between.down).clear()
            await tab.say("a")
            await until(lambda: asyncio.sleep(0, control(tab.sent, "create_session")), len)
            if lost != "the request for a room":
                await until(lambda: asyncio.sleep(0, relay.conversations.active), lambda active: active == 1)
            if lost == "the text":
                between.up.clear()
                between.down.set()
                await until(lambda: asyncio.sleep(0, control(tab.sent, "chat")), len)
            between.cut()
            await tab.shows("waiting")
            await expect(tab.page.locator(".message.waiting .text")).to_have_text("a")
            between.mend()
            await tab.online()
            await shows(tab, "a", "You said: a.")
            room = await room_of(tab)
        async with http(port) as web:
            rooms = (await web.get("/sessions")).json()["sessions"]
        assert [one["session_id"] for one in rooms if one["message_count"]] == [room]
    assert [text for one in gemini.connections for text in one.texts] == ["a"]


async def test_what_the_killed_server_had_stored_is_not_said_again(tmp_path: Path, browser: Browser) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with contextlib.AsyncExitStack() as stack:
        async with a_process(port, tmp_path):
            between, near = await stack.enter_async_context(network(port))
            tab = await stack.enter_async_context(window(browser, near, noise=NO_SERVER))
            await tab.say("again")
            answers = tab.page.locator(".message.agent .text")
            await expect(answers).to_have_text(re.compile("You said: again$"))
            between.down.clear()  # so there is no ack
            await tab.say("again")
            async with http(port) as web:  # an answer is stored at the end of its sound
                while (await web.get("/stats")).json()["successful_requests"] < 2:
                    await asyncio.sleep(0.01)
        between.cut()
        await tab.shows("waiting")
        async with a_process(port, tmp_path):
            between.mend()
            await tab.online()
            await expect(tab.page.locator(".waiting")).to_have_count(0)
            await expect(answers).to_have_count(2)
            assert await tab.texts("user") == ["again"] * 2
            assert await tab.texts("other") == []
            assert len(control(tab.sent, "chat")) == 2
            await stack.aclose()


async def test_what_can_not_be_sent_any_more_is_in_the_box_again(
    gemini: GeminiLive, browser: Browser
) -> None:
    async with serving(a_relay(grace=60)) as port, network(port) as (between, near):
        room = await created(port)
        async with window(browser, near, room, noise=NO_SERVER) as tab:
            between.up.clear()
            await tab.say("a")
            await until(lambda: asyncio.sleep(0, control(tab.sent, "chat")), len)
            await tab.page.get_by_label("Message", exact=True).fill("b")
            between.cut()
            await tab.shows("waiting")
            async with http(port) as web:
                assert (await web.delete(f"/sessions/{room}")).is_success
            between.mend()
            await tab.online()
            await expect(tab.page.get_by_role("alert")).to_have_text(
                re.compile(f"{room}.*What was not said is in the box again.$")
            )
            await expect(tab.page.locator("#text")).to_have_value("a\nb")
            await shows(tab)
            await expect(tab.page.locator("#room-name")).to_have_text("No room yet")
            await tab.page.get_by_label("Message", exact=True).press("Enter")
            await shows(tab, "a\nb", "You said: a\nb.")


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


async def test_a_connection_that_never_stands_is_given_up(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, network(port) as (between, near):
        room = await created(port)
        constants = {"HELLO_TIMEOUT": 300, "FIRST_DELAY": 1}
        noise = f"{NO_SERVER}|closed before the connection is established"
        async with window(browser, near, room, noise=noise, constants=constants) as tab:
            between.cut()
            await tab.shows("waiting")
            between.mend()
            between.down.clear()
            await tab.page.evaluate("() => void dispatchEvent(new Event('online'))")
            opened = len(tab.sockets)
            await until(lambda: asyncio.sleep(0, len(tab.sockets)), lambda now: now > opened + 1)
            between.down.set()
            await tab.shows("connected")
            assert await room_of(tab) == room


async def test_a_window_that_is_idle_sleeps_and_wakes_up(gemini: GeminiLive, browser: Browser) -> None:
    async with serving(a_relay(idle_timeout=1.5)) as port:
        room = await created(port)
        async with window(browser, port, room) as tab:
            await tab.say("a")
            await shows(tab, "a", "You said: a.")
            await tab.shows("asleep")
            assert len(tab.sockets) == 1
            await tab.page.get_by_label("Message", exact=True).fill("b")
            await tab.shows("connected")
            await tab.page.keyboard.press("Enter")
            await shows(tab, "a", "You said: a.", "b", "You said: b.")
            assert len(tab.sockets) == 2


async def test_the_history_counts_that_was_read_after_coming_back(
    gemini: GeminiLive, browser: Browser
) -> None:
    history = Held(read="before")
    async with serving(a_relay(grace=60)) as port, network(port) as (between, near):
        room = await created(port)
        noise = f"{NO_SERVER}|ERR_FAILED"
        async with window(browser, port, room) as one, window(browser, near, noise=noise) as two:
            await two.page.route(f"**/sessions/{room}", history)
            await two.page.get_by_label("Id of a room").fill(room)
            await two.page.keyboard.press("Enter")
            await asyncio.wait_for(history.asked.wait(), 15)
            between.cut()
            await two.shows("waiting")
            await one.say("a")
            await shows(one, "a", "You said: a.")
            between.mend()
            await two.online()
            await shows(two, "a", "You said: a.")
            history.may_come.set()
            await one.say("b")
            await shows(two, "a", "You said: a.", "b", "You said: b.")


# ---- what goes wrong -------------------------------------------------------------------------


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
    async with serving(a_relay()) as port, window(browser, port) as tab:
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
    gemini.on_connect = lambda number: Plan(http_status=403)
    constants = {"FIRST_DELAY": 1, "MAX_FAILURES": 3}
    async with serving(a_relay(grace=60)) as port:
        room = await created(port)
        async with window(browser, port, room, constants=constants) as tab:
            await tab.say("a")
            await tab.say("b")  # waits, and so is sent again
            await tab.shows("asleep")
            assert len(tab.sockets) == 3
            await expect(tab.page.locator(".message.waiting .text")).to_have_text("b")
            gemini.on_connect = lambda number: None
            await tab.page.get_by_label("Message", exact=True).fill("c")
            await expect(tab.page.locator(".message.agent .text").last).to_have_text("You said: b.")
            await expect(tab.page.locator(".message.waiting")).to_have_count(0)


async def test_a_failure_that_passes_throws_nobody_out_of_their_room(
    gemini: GeminiLive, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = a_relay(grace=60)
    async with serving(relay) as port, network(port) as (between, near):
        room = await created(port)
        async with window(browser, near, room, noise=NO_SERVER) as tab:
            await tab.say("a")
            await shows(tab, "a", "You said: a.")

            async def find(session_id: str) -> Any:
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
            await two.page.get_by_label("Id of a room").fill(room)
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
            await tab.page.get_by_label("Id of a room").fill(room)
            await tab.page.keyboard.press("Enter")
            await shows(tab, *(f"line {number}" for number in range(500)))
            await expect(tab.page.locator(".message").last).to_be_in_viewport()
            assert await tab.page.evaluate("() => window.layouts") < 100


# ---- for everybody ---------------------------------------------------------------------------


async def test_enter_sends_and_shift_enter_breaks_the_line(gemini: GeminiLive, browser: Browser) -> None:
    async with serving(a_relay()) as port, window(browser, port) as tab:
        box = tab.page.get_by_label("Message", exact=True)
        await box.press("Enter")
        await box.fill("  ")
        await box.press("Enter")
        assert control(tab.sent, "chat") == []
        await box.fill("one")
        await box.press("Shift+Enter")
        await tab.page.keyboard.type("two")
        await box.press("Enter")
        await expect(tab.page.locator(".message.agent .text")).to_have_text("You said: one\ntwo.")
        await expect(box).to_be_focused()
        assert [frame["message"] for frame in control(tab.sent, "chat")] == ["one\ntwo"]


async def test_enter_that_chooses_a_word_sends_nothing(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, window(browser, port) as tab:
        box = tab.page.get_by_label("Message", exact=True)
        await box.fill("ni hao")
        # As Safari tells it: the composition is over, and the key is none.
        await box.evaluate(
            """(box) => void box.dispatchEvent(
              new KeyboardEvent("keydown", { key: "Enter", keyCode: 229, bubbles: true, cancelable: true }),
            )"""
        )
        await expect(box).to_have_value("ni hao")
        await expect(tab.page.locator(".message")).to_have_count(0)


async def test_on_a_phone_the_screen_is_for_the_conversation(browser: Browser) -> None:
    phone: Any = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True}
    async with serving(a_relay(rehearsal(pace=50))) as port:
        for _ in range(3):
            await created(port)
        async with window(browser, port, **phone) as tab:
            join = tab.page.get_by_role("button", name="Join")
            await expect(join).to_be_in_viewport(ratio=1)
            await tab.say("a")
            await expect(tab.page.locator(".message.agent .text")).to_contain_text("You said: a")
            box = await tab.page.locator("#messages").bounding_box()
            assert box
            assert box["y"] < 180
            assert await tab.page.evaluate("() => document.documentElement.scrollWidth") == 390
            await expect(tab.page.locator("#rooms [aria-current]")).to_be_in_viewport(ratio=1)
            await join.scroll_into_view_if_needed()
            await expect(join).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
async def test_everybody_can_use_it(gemini: GeminiLive, browser: Browser, scheme: Any, width: int) -> None:
    script = Script(gemini)
    viewport: Any = {"width": width, "height": 700}
    options: Any = {"color_scheme": scheme, "viewport": viewport}
    async with serving(a_relay()) as port, window(browser, port, **options) as tab:
        assert await violations(tab.page) == []
        await tab.say("a")
        await expect(tab.page.locator(".message.agent .text")).to_have_text("a: one")
        await tab.say("b " * 200)
        await expect(tab.page.locator(".message.waiting .meta")).to_contain_text("waits for 1")
        async with window(browser, port, await room_of(tab)) as other:
            await other.say("c")
            await other.page.get_by_label("Message", exact=True).fill("d")
            await expect(tab.page.locator("#typing")).to_contain_text("typing")
            await expect(tab.page.locator("#rooms .facts")).to_contain_text("2 here")
            await tab.page.locator("#messages").focus()
            assert await violations(tab.page) == []
            script.may_go_on.set()
            await expect(tab.page.locator(".message.other .text")).to_have_text("c")
            await expect(tab.page.locator(".message.waiting")).to_have_count(0)
            assert await violations(tab.page) == []
        assert await tab.page.evaluate("() => document.documentElement.scrollWidth") == width
        # The box to write in is always on the screen.
        await expect(tab.page.locator("#text")).to_be_in_viewport(ratio=1)


async def test_it_works_under_a_prefix(browser: Browser) -> None:
    app = Starlette(routes=[Mount("/talk", a_relay(rehearsal(pace=50)))])
    async with (
        serving(app, lifespan="off") as port,
        window(browser, port, path="/talk/demo") as tab,
    ):
        await tab.say("a")
        await expect(tab.page.locator(".message.agent .text")).to_contain_text("You said: a")
        await expect(tab.page.locator("#rooms .facts")).to_have_text("2 messages · 1 here")
        Answers(tab, accept=[True])
        await tab.page.get_by_role("button", name="Clear").click()
        await expect(tab.page.locator(".system")).to_contain_text("cleared")
        await tab.page.locator("nav.links a", has_text="Docs").click()
        await expect(tab.page.locator(".operation").first).to_be_visible()
