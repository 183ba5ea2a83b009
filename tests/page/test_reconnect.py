"""The main page loses its connection, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from support.browser import NO_SERVER, RECORD, Tab, control, rehearsal, until, visit
from support.client import client
from support.gemini import Connection, GeminiLive, Plan, UserTurn
from support.killable import a_process
from support.ports import free_port
from support.proxy import network
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_it_comes_back_after_the_server_was_killed(tmp_path: Path, browser: Browser) -> None:
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        async with a_process(port, tmp_path):
            tab = await stack.enter_async_context(visit(browser, port, noise=NO_SERVER))
            await tab.say("before")
            await tab.answered(re.compile("You said: before$"))
        await tab.shows("waiting")
        await expect(tab.page.locator("#banner-text")).to_have_text(re.compile("connection was lost"))
        await expect(tab.page.locator("#retry-button")).to_be_visible()
        await tab.say("meanwhile")
        waiting = tab.page.locator(".message.user.waiting")
        await expect(waiting.locator(".mark")).to_have_text("Waiting to be sent")
        async with a_process(port, tmp_path):
            await tab.answered(re.compile(r"You said: meanwhile I remember 2 turns before this\.$"))
            await tab.shows("connected")
            await expect(waiting).to_have_count(0)
            await expect(tab.page.locator("#banner")).to_be_hidden()
            assert await tab.texts("user") == ["before", "meanwhile"]
            assert len(await tab.texts("agent")) == 2
            assert len(control(tab.got, "gap")) == 2  # when it was loaded, and now
            await stack.aclose()  # before the server goes


async def test_what_the_killed_server_had_stored_is_not_said_again(tmp_path: Path, browser: Browser) -> None:
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        async with a_process(port, tmp_path):
            between, there = await stack.enter_async_context(network(port))
            tab = await stack.enter_async_context(visit(browser, there, "/?user=alice", noise=NO_SERVER))
            await tab.say("again")
            await tab.answered(re.compile("You said: again$"))
            between.down.clear()  # so there is no ack
            async with client(port, "alice") as other:
                await tab.say("again")
                await other.until(lambda said: said.get("mime_type") == "text/plain")
        between.up.clear()
        await tab.say("again")
        between.cut()
        await tab.shows("waiting")
        await expect(tab.page.locator(".waiting")).to_have_count(2)
        async with a_process(port, tmp_path):
            between.mend()
            await tab.online()
            await expect(tab.page.locator(".waiting")).to_have_count(0)
            await tab.answered(re.compile("You said: again I remember"))
            # Of three texts that look the same two were there, and one was to be sent again.
            assert await tab.texts("user") == ["again"] * 3
            assert len([frame for frame in tab.sent if '"again"' in str(frame)]) == 4
            await tab.page.reload()
            await tab.answered(re.compile("You said: again I remember"))
            assert await tab.texts("user") == ["again"] * 3
            await stack.aclose()


async def is_marked(tab: Tab) -> None:
    """The question, and what was read of its answer."""
    await expect(tab.page.locator(".message .mark")).to_have_text(["Not answered", "Cut off"])


async def test_what_a_killed_server_has_not_answered_is_marked(tmp_path: Path, browser: Browser) -> None:
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        async with a_process(port, tmp_path):
            tab = await stack.enter_async_context(visit(browser, port, "/?user=alice", noise=NO_SERVER))
            await tab.say("hello " * 200)
            await expect(tab.page.locator(".message.open .text")).to_have_text(re.compile("hello"))
        await tab.shows("waiting")
        (read,) = await tab.texts("agent")
        async with a_process(port, tmp_path):
            await tab.online()
            await is_marked(tab)
            assert (await tab.texts("agent"))[0].startswith(read.strip())
            await tab.page.reload()
            await is_marked(tab)
            await tab.say("hello?")
            await tab.answered(re.compile(r"You said: hello\?"))
            await tab.page.reload()
            await expect(tab.page.locator(".message .mark")).to_have_text(["Not answered", "Cut off", "", ""])
            assert (await tab.texts())[2] == "hello?"
            await stack.aclose()


async def test_the_network_is_gone_for_five_seconds_of_an_answer(
    gemini: GeminiLive, browser: Browser
) -> None:
    words = " ".join(f"word-{n}" for n in range(100))

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(words, delay=0.08)  # as long as it is to be heard

    gemini.answer = answer
    async with (
        serving(a_relay(grace=30)) as port,
        network(port) as (between, there),
        visit(browser, there, noise=NO_SERVER, script=RECORD) as tab,
    ):
        await tab.call()
        await tab.say("tell")
        await expect(tab.page.locator(".message.agent.open .text")).to_have_text(re.compile("word-5"))
        await until(tab.stats, lambda stats: stats["playedSamples"] > 0)
        between.cut()
        await tab.shows("waiting")
        await asyncio.sleep(5)  # what is tested is time: there is nothing else to wait for
        assert not gemini.connections[0].said.endswith("word-99")
        between.mend()
        await tab.online()
        await tab.answered(words)
        stats = await tab.heard_out()
        assert await tab.recorded() == bytes(gemini.connections[0].sound)
        assert stats["playedSamples"] * 2 == len(gemini.connections[0].sound)
        assert stats["flushedSamples"] == 0
        assert await tab.texts() == ["tell", words]
        await expect(tab.page.locator(".interrupted, .system")).to_have_count(0)
    assert gemini.connects == 1


@pytest.mark.parametrize("lost", ["the text", "its ack"])
async def test_a_text_that_the_network_went_with_is_said_once(
    lost: str, gemini: GeminiLive, browser: Browser
) -> None:
    async with (
        serving(a_relay(grace=30)) as port,
        network(port) as (between, there),
        visit(browser, there, noise=NO_SERVER) as tab,
    ):
        await tab.say("one")
        await tab.answered("You said: one.")
        model = gemini.connections[0]
        (between.up if lost == "the text" else between.down).clear()
        await tab.say("two")
        await until(lambda: asyncio.sleep(0, str(tab.sent[-1])), lambda frame: '"two"' in frame)
        if lost == "its ack":
            await gemini.wait_for(lambda: "two" in model.texts and not model.turn_open)
        between.cut()
        await tab.shows("waiting")
        await expect(tab.page.locator(".message.user").last).to_have_class(re.compile("waiting"))
        between.mend()
        await tab.online()
        await tab.answered("You said: two.")
        await expect(tab.page.locator(".waiting")).to_have_count(0)
        assert await tab.texts() == ["one", "You said: one.", "two", "You said: two."]
        await tab.say("three")
        await tab.answered("You said: three.")
        assert len({text["id"] for text in control(tab.got, "ack")}) == 3
    assert [text for one in gemini.connections for text in one.texts] == ["one", "two", "three"]


@pytest.mark.parametrize("when", ["before the cut", "after the cut"])
async def test_what_was_said_meanwhile_comes_before_what_was_written_meanwhile(
    when: str, gemini: GeminiLive, browser: Browser
) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await go_on.wait()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with (
        serving(a_relay(grace=30)) as port,
        network(port) as (between, there),
        visit(browser, there, noise=NO_SERVER) as tab,
    ):
        await tab.say("one")
        await until(lambda: asyncio.sleep(0, control(tab.got, "ack")), len)
        if when == "before the cut":
            between.up.clear()
            await tab.say("two")
            await until(lambda: asyncio.sleep(0, str(tab.sent[-1])), lambda frame: '"two"' in frame)
        between.cut()
        await tab.shows("waiting")
        if when == "after the cut":
            await tab.say("two")
        go_on.set()
        await gemini.wait_for(lambda: gemini.connections[0].said and not gemini.connections[0].turn_open)
        between.mend()
        await tab.online()
        await tab.answered("You said: two.")
        assert await tab.texts() == ["one", "You said: one.", "two", "You said: two."]
    assert gemini.connections[0].texts == ["one", "two"]


async def test_somebody_elses_text_is_not_taken_for_the_same_one_that_was_lost(
    gemini: GeminiLive, browser: Browser
) -> None:
    async with (
        serving(a_relay(grace=30, replay_seconds=0)) as port,  # what was missed is told as a whole
        network(port) as (between, there),
        visit(browser, there, "/?user=alice", noise=NO_SERVER) as tab,
    ):
        between.up.clear()
        await tab.say("again")
        await until(lambda: asyncio.sleep(0, str(tab.sent[-1])), lambda frame: '"again"' in frame)
        between.cut()
        await tab.shows("waiting")
        async with client(port, "alice") as other:
            await other.send(mime_type="text/plain", data="again", id="another")
            await other.turn()
        between.mend()
        await tab.online()
        await expect(tab.page.locator(".message .text")).to_have_text(["again", "You said: again."] * 2)
        await expect(tab.page.locator(".waiting")).to_have_count(0)
    assert [text for one in gemini.connections for text in one.texts] == ["again"] * 2


async def test_a_text_that_is_refused_is_shown_as_such_and_not_sent_again(
    gemini: GeminiLive, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.core.inbox._CONTENT_MAX_BYTES", 1000)
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await go_on.wait()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with (
        serving(a_relay(grace=30)) as port,
        network(port) as (between, there),
        visit(browser, there, noise=NO_SERVER) as tab,
    ):
        await tab.say("one")
        await until(lambda: asyncio.sleep(0, control(tab.got, "ack")), len)
        await tab.say("x" * 1000)
        await expect(tab.page.locator("#notice [data-kind=busy]")).to_contain_text("Too much waits")
        refused = tab.page.locator(".message.user", has_text="xxx")
        await expect(refused.locator(".mark")).to_have_text("Not answered")
        await expect(tab.page.locator(".expected")).to_have_count(1)  # the other one is to be answered
        between.cut()
        await tab.shows("waiting")
        await expect(refused.locator(".mark")).to_have_text("Not answered")
        between.mend()
        await tab.online()
        go_on.set()
        await tab.answered("You said: one.")
        assert len([frame for frame in tab.sent if "xxx" in str(frame)]) == 1
    assert gemini.connections[0].texts == ["one"]


async def test_the_loss_of_the_models_connection_is_shown(
    gemini: GeminiLive, browser: Browser, quick_retries: None
) -> None:
    gemini.on_connect = {2: Plan(delay=1)}.get
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        await tab.say("one")
        await tab.answered("You said: one.")
        await gemini.connections[0].die(1011, "Internal error encountered.")
        await tab.shows("modelling")
        await tab.say("two")
        await tab.shows("connected")
        await tab.answered("You said: two.")
        assert len(tab.sockets) == 1


async def test_a_connection_that_never_stands_is_given_up(browser: Browser) -> None:
    constants = {"HELLO_TIMEOUT": 300, "FIRST_DELAY": 1, "BLOCKED_DELAY": 300}
    noise = f"{NO_SERVER}|closed before the connection is established"
    async with (
        serving(a_relay(rehearsal())) as port,
        network(port) as (between, there),
        visit(browser, there, noise=noise, constants=constants) as tab,
    ):
        between.cut()
        await tab.shows("waiting")
        between.mend()
        between.down.clear()  # the upgrade is not answered
        await tab.page.evaluate("() => void dispatchEvent(new Event('online'))")
        opened = len(tab.sockets)
        await until(lambda: asyncio.sleep(0, len(tab.sockets)), lambda now: now > opened + 1)
        between.down.set()
        await tab.shows("connected")


async def test_an_answer_comes_to_its_end_while_the_server_drains(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that comes meanwhile waits, and does not take the refusals for a missing WebSocket."""
    monkeypatch.setenv("RELAY_DRAIN", "60")
    port = free_port()
    text = " ".join(f"w{number}" for number in range(60))
    noise = rf"{NO_SERVER}|Unexpected response code: 503|status of 503"
    async with contextlib.AsyncExitStack() as stack:
        async with a_process(port, tmp_path, speed=8) as process:
            tab = await stack.enter_async_context(visit(browser, port, noise=noise))
            await tab.say(text)
            await expect(tab.page.locator(".message.agent").last).to_contain_text("You said: w0")
            process.terminate()
            other = await stack.enter_async_context(visit(browser, port, state="waiting", noise=noise))

            async def asked() -> bool:
                return any(url.endswith("/ready") for url in other.requests)

            await until(asked, bool)
            await tab.answered(re.compile(r"w58 w59$"))
            assert len(control(tab.got, "going_away")) == 1
            assert await other.page.locator("#state").get_attribute("data-state") != "blocked"
            assert await process.wait() == 0
        async with a_process(port, tmp_path):
            for page in (tab, other):
                await page.shows("connected")
            await tab.answered(re.compile(r"You said: w0 .* w59$"))
            assert await tab.texts("user") == [text]
            await stack.aclose()
