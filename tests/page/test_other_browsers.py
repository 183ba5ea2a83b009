"""The main page in Firefox and in WebKitGTK, with a microphone and a loudspeaker of the system."""

from __future__ import annotations

import pytest

from support.browser import rehearsal, until
from support.firefox import Firefox
from support.microphone import quiet, voice
from support.pulse import Pulse
from support.server import a_relay, serving
from support.webkit import WebKit
from support.window import visited

# One browser of a kind for all tests, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_text_is_answered(other: Firefox | WebKit) -> None:
    async with serving(a_relay(rehearsal())) as port, other.window() as window, visited(window, port):
        await window.say("hello")
        await window.answered("You said: hello$")
        await window.say("What time is it in Tokyo?")
        await window.answered("Tokyo")
        assert await window.all(".message.user .text") == ["hello", "What time is it in Tokyo?"]
        assert len(await window.all(".message.agent")) == 2


async def test_a_voice_is_heard_and_answered(other: Firefox | WebKit, pulse: Pulse) -> None:
    async with serving(a_relay(rehearsal())) as port, other.window() as window, visited(window, port):
        await window.call()
        async with pulse.recording() as recording:
            await pulse.hears(quiet(300), voice(1200), quiet(500))
            await window.sees(".message.user.heard .text", r"^\(\d\.\d seconds of speech\)$")
            await window.answered(r"^You said this, for \d\.\d seconds:$")
            stats = await window.heard_out()
            assert stats["flushedSamples"] == 0
            assert stats["playedNonSilent"] > 12_000

            async def heard() -> float:
                return sum(recording.sounds())

            await until(heard, lambda seconds: seconds > stats["playedNonSilent"] / 24_000 * 0.9)
        await window.click("#audio")
        await window.sees("#audio-label", "^Start audio$")
        await window.shows("connected")
