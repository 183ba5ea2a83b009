"""Speaking in the main page."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Browser, expect

from support.api import get
from support.browser import FRAME, NO_SERVER, RATE, STORY, Tab, chromium, control, rehearsal, until, visit
from support.chat import http
from support.client import Json
from support.gemini import Connection, GeminiLive, UserTurn
from support.microphone import Microphone, quiet, voice
from support.proxy import network
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
WORD_MS = 80
"""How long the stand-in speaks each word."""

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.voice]


def told_of_what_was_heard(tab: Tab) -> Callable[[], Awaitable[list[Json]]]:
    async def told() -> list[Json]:
        return control(tab.got, "heard")

    return told


async def test_a_voice_turn_is_heard_and_played(microphone: Microphone, browser: Browser) -> None:
    microphone.hears(quiet(500), voice(1200), quiet(1000))
    agent = rehearsal()
    async with serving(a_relay(agent)) as port, visit(browser, port) as tab:
        page = tab.page
        # The call's own display is gone again when one looks: it is written down while it changes.
        await page.evaluate(
            """() => {
              window.seen = { speakers: [], input: 0, output: 0 };
              const level = (id) => Number(document.getElementById(id).style.getPropertyValue("--level"));
              new MutationObserver(() => {
                const speaker = document.getElementById("call").dataset.speaker;
                if (speaker && speaker !== window.seen.speakers.at(-1)) window.seen.speakers.push(speaker);
                window.seen.input = Math.max(window.seen.input, level("meter-in"));
                window.seen.output = Math.max(window.seen.output, level("meter-out"));
              }).observe(document.getElementById("call"), { attributes: true, subtree: true });
            }"""
        )
        await tab.call()
        heard = page.locator(".message.user.heard .text")
        await expect(heard).to_have_text(re.compile(r"^\(\d\.\d seconds of speech\)$"))
        await tab.answered(re.compile(r"^You said this, for \d\.\d seconds:$"))
        stats = await tab.heard_out()
        binary = [frame for frame in tab.got if isinstance(frame, bytes)]
        assert stats["receivedFrames"] == len(binary)
        assert stats["receivedAudioBytes"] == sum(len(frame) - 4 for frame in binary)
        assert stats["playedSamples"] > 12_000
        assert stats["playedNonSilent"] > stats["playedSamples"] / 2
        assert stats["flushedSamples"] == 0
        seen: Json = await page.evaluate("() => window.seen")
        speakers = [who for who in seen["speakers"] if who != "none"]
        assert speakers[:2] == ["user", "agent"]
        assert seen["input"] > 0.2
        assert seen["output"] > 0.2

        await page.get_by_role("button", name="End audio").click()
        await expect(page.locator("#call")).to_be_hidden()
        await tab.shows("connected")
        stats = await tab.stats()
        frames = [frame for frame in tab.sent if isinstance(frame, bytes)]
        assert {len(frame) for frame in frames} == {FRAME}
        assert stats["sentFrames"] == len(frames)
        assert stats["sentBytes"] == len(frames) * FRAME
        await tab.say("and in writing")  # the conversation is the same
        await tab.answered(re.compile(r"You said: and in writing$"))


def assert_is_what_was_heard(text: str, tab: Tab) -> None:
    """Of the story, these are the words of which the page has told last that they were heard."""
    words, heard = text.split(), control(tab.sent, "heard")[-1]
    assert abs(len(words) - heard["audio_ms"] / WORD_MS) < 2 and words
    assert words == STORY.split()[: len(words)] != STORY.split()


async def test_speaking_into_an_answer_stops_it_at_once(
    gemini: GeminiLive, microphone: Microphone, browser: Browser
) -> None:
    microphone.hears(quiet(300), voice(800), quiet(1500), voice(800), quiet(1000))
    turns = 0

    async def answer(connection: Connection, turn: UserTurn) -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            await connection.heard("Tell me everything.")
            await connection.say(STORY, complete=False)
            await asyncio.Event().wait()
        await connection.heard("Stop.")
        await connection.turn_complete()

    gemini.answer = answer
    async with serving(a_relay()) as port, visit(browser, port) as tab, http(port) as web:
        await tab.call()
        stopped = tab.page.locator(".message.agent.interrupted")
        await expect(stopped.locator(".text")).to_have_text(re.compile(r"^word-001\b"))
        await expect(tab.page.locator(".message.user.heard .text").last).to_have_text("Stop.")
        stats = await tab.heard_out()
        played = stats["playedSamples"] / 24
        [told] = await until(told_of_what_was_heard(tab), bool)
        [heard] = control(tab.sent, "heard")
        assert played - 500 < heard["audio_ms"] <= played + 1  # not yet what is on its way to the loudspeaker
        assert_is_what_was_heard(told["text"], tab)
        await expect(stopped.locator(".text")).to_have_text(told["text"])
        hello = control(tab.got, "hello")[0]
        path = f"/sessions/{hello['session_id']}?user_id={hello['user_id']}"
        assert (await get(web, path))["history"][1]["text"] == told["text"]
        assert stats["flushedSamples"] > 24_000
        assert 0 < stats["playedSamples"] < 24_000 * 6
        await expect(tab.page.locator("#stop")).to_be_hidden()
        cut = next(n for n, frame in enumerate(tab.got) if '"interrupted":true' in str(frame))
        assert not any(isinstance(frame, bytes) for frame in tab.got[cut:])
        assert len(gemini.connections[0].audio) % FRAME == 0
    assert gemini.connections[0].rates == {RATE}


async def test_stop_ends_an_answer_aloud(gemini: GeminiLive, browser: Browser) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "tell":
            await connection.say(STORY, complete=False)
            await go_on.wait()
            await connection.say(" there was more.")
        else:
            await connection.say("Yes." if turn.text == "again" else STORY)

    gemini.answer = answer
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        await tab.call()
        await tab.say("tell")
        await expect(tab.page.locator("#call")).to_have_attribute("data-speaker", "agent")
        await until(tab.stats, lambda stats: stats["playedSamples"] > 12_000)
        await tab.page.get_by_role("button", name="Stop").click()
        stopped = tab.page.locator(".message.agent.interrupted .text")
        [told] = await until(told_of_what_was_heard(tab), bool)
        await expect(stopped).to_have_text(told["text"])
        assert_is_what_was_heard(told["text"], tab)
        await expect(tab.page.locator("#call")).not_to_have_attribute("data-speaker", "agent")
        before = await tab.heard_out()
        assert before["flushedSamples"] > 24_000
        go_on.set()
        await gemini.wait_for(lambda: not gemini.connections[0].turn_open)
        await tab.say("again")
        await tab.answered("Yes.")
        after = await tab.heard_out()
        # Two chunks of 40 ms for the one word, and nothing of what was stopped.
        assert after["playedSamples"] == before["playedSamples"] + 2 * 960
        await tab.say("all")  # the answer is complete when it is stopped
        await tab.answered(STORY)
        await until(tab.stats, lambda stats: stats["playedSamples"] > after["playedSamples"] + 12_000)
        await tab.page.get_by_role("button", name="Stop").click()
        _, told = await until(told_of_what_was_heard(tab), lambda frames: len(frames) == 2)
        await expect(stopped.last).to_have_text(told["text"])
        assert_is_what_was_heard(told["text"], tab)


async def test_mute_ends_the_sound_and_says_so(gemini: GeminiLive, browser: Browser) -> None:
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        await tab.call()
        model = await gemini.connection(0)
        mute = tab.page.get_by_role("button", name="Mute")
        await mute.click()
        await expect(mute).to_have_attribute("aria-pressed", "true")
        await expect(tab.page.locator("#speaker")).to_have_text("You are muted")
        await gemini.wait_for(lambda: model.audio_stream_ends == 1)
        sent, heard = (await tab.stats())["sentFrames"], len(model.audio)
        await tab.say("one two three four five six seven eight")  # 0.8 s of sound, which takes as long
        await tab.answered("You said: one two three four five six seven eight.")
        await tab.heard_out()
        assert (await tab.stats())["sentFrames"] == sent
        assert len(model.audio) == heard
        sound = [n for n, frame in enumerate(tab.sent) if isinstance(frame, bytes)]
        assert '"audio_end"' in str(tab.sent[sound[-1] + 1])  # with nothing after it but what is written
        await mute.click()
        await expect(mute).to_have_attribute("aria-pressed", "false")
        await until(tab.stats, lambda stats: stats["sentFrames"] > sent)
        assert model.audio_stream_ends == 1


async def test_a_refused_microphone_is_told_and_writing_goes_on() -> None:
    async with (
        chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream=deny") as browser,
        serving(a_relay(rehearsal())) as port,
        visit(browser, port) as tab,
    ):
        await tab.page.get_by_role("button", name="Start audio").click()
        notice = tab.page.locator("#notice [data-kind=microphone]")
        await expect(notice).to_contain_text("The microphone was refused.")
        await expect(tab.page.locator("#call")).to_be_hidden()
        await expect(tab.page.locator("#announcer")).to_contain_text("The microphone was refused.")
        await tab.say("then in writing")
        await tab.answered(re.compile("You said: then in writing$"))
        assert len(tab.sockets) == 1


async def test_a_missing_microphone_is_told_and_writing_goes_on() -> None:
    # On a machine that has one it is hidden from the browser.
    hidden = os.environ | {"ALSA_CONFIG_PATH": os.devnull, "PULSE_SERVER": "none"}
    async with (
        chromium(env=hidden) as browser,
        serving(a_relay(rehearsal())) as port,
        visit(browser, port) as tab,
    ):
        await tab.page.get_by_role("button", name="Start audio").click()
        notice = tab.page.locator("#notice [data-kind=microphone]")
        await expect(notice).to_contain_text("No microphone was found.")
        await tab.say("then in writing")
        await tab.answered(re.compile("You said: then in writing$"))


async def test_an_insecure_origin_is_told_and_writing_goes_on(browser: Browser) -> None:
    async with (
        serving(a_relay(rehearsal(), hosts="relay.test")) as port,
        visit(browser, port, host="relay.test", permissions=[]) as tab,
    ):
        await tab.page.get_by_role("button", name="Start audio").click()
        notice = tab.page.locator("#notice [data-kind=microphone]")
        await expect(notice).to_contain_text("only to pages that came over https")
        await tab.say("then in writing")
        await tab.answered(re.compile("You said: then in writing$"))


async def test_a_text_on_its_way_while_audio_is_started_is_said_once(
    gemini: GeminiLive, browser: Browser
) -> None:
    async with (
        serving(a_relay()) as port,
        network(port) as (between, there),
        visit(browser, there) as tab,
    ):
        between.down.clear()
        await tab.say("one")
        await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts)
        await tab.page.get_by_role("button", name="Start audio").click()
        await until(lambda: asyncio.sleep(0, len(tab.sockets)), lambda opened: opened == 2)
        between.mend()
        await tab.answered("You said: one.")
        # What the first socket is told goes by; the second is told it again, and that counts.
        await until(lambda: asyncio.sleep(0, control(tab.got, "ack")), lambda acks: len(acks) == 2)
        await tab.say("two")
        await tab.answered("You said: two.")
        assert await tab.texts() == ["one", "You said: one.", "two", "You said: two."]
    assert gemini.connections[0].texts == ["one", "two"]


async def test_going_over_to_audio_and_back_loses_no_word(gemini: GeminiLive, browser: Browser) -> None:
    is_back = asyncio.Event()
    words = ["word-0"]

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(words[0], complete=False)
        while not is_back.is_set():
            words.append(f" word-{len(words)}")
            await connection.say(words[-1], delay=0.02, complete=False)
        words.append(" end")
        await connection.say(words[-1])

    gemini.answer = answer
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        await tab.say("tell")
        opened = tab.page.locator(".message.agent.open .text")
        await expect(opened).to_have_text(re.compile("word-3"))
        await tab.call()
        await until(tab.stats, lambda stats: stats["playedSamples"] > 0)
        assert await opened.count() == 1
        await tab.page.get_by_role("button", name="End audio").click()
        await tab.shows("connected")
        is_back.set()
        await tab.answered(re.compile(" end$"))
        assert await tab.texts() == ["tell", "".join(words)]
        assert [opened.is_closed() for opened in tab.sockets] == [True, True, False]
    assert gemini.connects == 1


async def test_stop_is_heard_when_the_network_is_back(gemini: GeminiLive, browser: Browser) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(STORY, complete=False)
        await asyncio.Event().wait()

    gemini.answer = answer
    async with (
        serving(a_relay(grace=30)) as port,
        network(port) as (between, there),
        visit(browser, there, noise=NO_SERVER) as tab,
    ):
        await tab.call()
        await tab.say("tell")
        await until(tab.stats, lambda stats: stats["playedSamples"] > 12_000)
        between.cut()
        await tab.shows("waiting")
        await tab.page.get_by_role("button", name="Stop").click()
        await tab.heard_out()
        between.mend()
        await tab.online()
        stopped = tab.page.locator(".message.agent.interrupted")
        [told] = await until(told_of_what_was_heard(tab), bool)
        await expect(stopped.locator(".text")).to_have_text(told["text"])
        await expect(tab.page.locator("#stop")).to_be_hidden()
