"""The main page in Firefox and in WebKitGTK, with a microphone and a loudspeaker of the system."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from support.browser import STORY, rehearsal, until
from support.firefox import Firefox
from support.gemini import Connection, GeminiLive, UserTurn
from support.killable import a_process
from support.microphone import quiet, voice
from support.ports import free_port
from support.pulse import Pulse
from support.server import a_relay, serving
from support.webkit import WebKit
from support.window import visited

ASKED = "performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/health')).length"
"""How often the page has asked whether the server is there. WebKit tells only of what was answered."""

# One browser of a kind for all tests, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_texts_are_answered_and_a_page_that_was_left_holds_no_socket(other: Firefox | WebKit) -> None:
    relay = a_relay(rehearsal())

    async def sockets() -> int:
        return len(relay.sockets)

    async with serving(relay) as port, other.window() as window, visited(window, port):
        await window.say("hello")
        await window.answered("You said: hello$")
        await window.say("What time is it in Tokyo?")
        await window.answered("in Asia/Tokyo")

        await window.evaluate("(window.isKept = true, 0)")
        await window.go(f"http://127.0.0.1:{port}/docs")
        await until(sockets, lambda count: count == 0)
        await window.back()
        await window.shows("connected")
        if isinstance(other, WebKit):  # Firefox keeps no page that had a WebSocket
            assert await window.evaluate("window.isKept")
        await until(sockets, lambda count: count == 1)
        await window.answered("in Asia/Tokyo")
        assert await window.all(".message.user .text") == ["hello", "What time is it in Tokyo?"]


async def test_a_voice_is_heard_and_answered_aloud(
    other: Firefox | WebKit, pulse: Pulse, gemini: GeminiLive
) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        match turn.text:
            case "tell":
                await connection.say(" ".join(["word"] * 25), delay=0.08)  # as long as it is to be heard
            case "tell more":
                await connection.say(STORY, complete=False)
                await go_on.wait()
                await connection.turn_complete()
            case _:
                await connection.heard("Hello.")
                await connection.turn_complete()

    gemini.answer = answer
    async with serving(a_relay()) as port, other.window() as window, visited(window, port):
        await window.call()
        await pulse.hears(quiet(300), voice(1000), quiet(800))
        await window.sees(".message.user.heard .text", r"^Hello\.$")
        await window.click("#mute")

        async with pulse.recording() as recording:

            async def heard() -> float:
                return sum(recording.sounds())

            await window.say("tell")
            await window.answered("^(word ?){25}$")
            assert (await window.heard_out())["playedSamples"] == 48_000
            # A busy browser is late a few times, and throws sound away; but not after each chunk.
            await until(heard, lambda seconds: seconds > 1.2)
            assert len(recording.sounds()) < 10

            await window.say("tell more")
            # All of it has come: what comes later is not even given to the player.
            await until(window.stats, lambda stats: stats["receivedAudioBytes"] == 576_000)
            await until(window.stats, lambda stats: stats["playedSamples"] > 60_000)
            await window.click("#stop")
            await window.sees(".message.agent.interrupted .text", r"^word-001\b")
            assert (await window.heard_out())["flushedSamples"] > 24_000 * 3

            async def silent() -> float:
                return recording.silent()

            await until(silent, lambda seconds: seconds > 1)
        go_on.set()
        await window.click("#audio")
        await window.sees("#audio-label", "^Start audio$")
        await window.shows("connected")


async def test_it_comes_back_when_the_server_was_gone(other: Firefox | WebKit, tmp_path: Path) -> None:
    """After each WebSocket that failed, Firefox holds the next one back longer, up to minutes: none is tried.

    It would complain about it in the console.
    """
    port = free_port()
    async with AsyncExitStack() as stack:
        async with a_process(port, tmp_path):
            window = await stack.enter_async_context(other.window())
            await stack.enter_async_context(visited(window, port))
            await window.say("before")
            await window.answered("You said: before$")
        await window.shows("waiting")
        await window.say("meanwhile")
        await window.sees(".message.user .mark", "^Waiting to be sent$")
        if isinstance(other, Firefox):
            await until(lambda: window.evaluate(ASKED), lambda times: times > 2)
        async with a_process(port, tmp_path):
            await window.shows("connected", timeout=60)
            await window.answered(r"You said: meanwhile I remember 2 turns before this\.$")
            await stack.aclose()
