"""A room's page loses its connection, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from support.browser import NO_SERVER, control, rehearsal, until
from support.chat import created, http
from support.gemini import GeminiLive
from support.killable import a_process
from support.ports import free_port
from support.proxy import network
from support.rooms import Held, Script, room_of, shows, window
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_way_to_the_server_is_measured(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, window(browser, port) as tab:
        await expect(tab.page.locator("#state-text")).to_have_text(re.compile(r"^Connected · \d+ ms$"))
        assert len(control(tab.sent, "ping")) == len(control(tab.got, "pong")) == 1


async def test_it_comes_back_after_the_server_was_killed(tmp_path: Path, browser: Browser) -> None:
    port = free_port()
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
    port = free_port()
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
                re.compile(f"{room}.*Your unsent text is in the box again.$")
            )
            await expect(tab.page.locator("#text")).to_have_value("a\nb")
            await shows(tab)
            await expect(tab.page.locator("#room-name")).to_have_text("No room yet")
            await tab.page.get_by_label("Message", exact=True).press("Enter")
            await shows(tab, "a\nb", "You said: a\nb.")


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
            await two.page.get_by_label("Name of a room").fill(room)
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
