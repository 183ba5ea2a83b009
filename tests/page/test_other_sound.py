"""Echo, and a loudspeaker that is missing, in Firefox and in WebKitGTK."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.browser import rehearsal, until
from support.firefox import Firefox, firefox
from support.microphone import quiet, voice
from support.pulse import Pulse
from support.pulse import pulse as started_pulse
from support.server import a_relay, serving
from support.webkit import WebKit
from support.window import visited

# One browser of a kind for all tests, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("other", ["webkit"], indirect=True)
async def test_who_hears_itself_is_told(other: WebKit, pulse: Pulse) -> None:
    """WebKitGTK says that it cancels echo, and does not."""
    async with (
        serving(a_relay(rehearsal(words_per_second=3.0))) as port,
        other.window() as window,
        visited(window, port),
        pulse.echo(),
    ):
        await window.call()
        assert await window.evaluate("navigator.mediaDevices.getSupportedConstraints().echoCancellation")
        await window.say(
            "a b c d e f g h i j k l m n o p q r s t u v w x y z one two three four five six seven"
        )
        await window.sees("#notice [data-kind=echo]", "^The microphone hears the agent", timeout=30)


async def test_a_headset_that_is_pulled_out_does_not_end_the_call(
    other: Firefox | WebKit, pulse: Pulse
) -> None:
    """In WebKitGTK, PulseAudio gives the call another microphone, and nobody notices."""
    async with (
        serving(a_relay(rehearsal())) as port,
        pulse.headset() as pull_out,
        other.window() as window,
        visited(window, port),
    ):
        await window.call()
        await pull_out()
        if isinstance(other, Firefox):
            said = "^The microphone was disconnected. Now this one is used: Remapped Monitor"
            await window.sees("#notice [data-kind=microphone]", said)

        async def heard() -> list[str]:
            await pulse.hears(quiet(300), voice(1200), quiet(900))
            return await window.all(".message.user.heard .text")

        await until(heard, bool, timeout=60)  # it takes a while until the other one is open
        await window.sees(".message.user.heard .text", r"^\(\d\.\d seconds of speech\)$")
        await window.sees("#audio-label", "^End audio$")


async def test_firefox_without_a_loudspeaker_says_what_is_missing(tmp_path: Path) -> None:
    async with (
        started_pulse(tmp_path, has_loudspeaker=False) as silent,
        firefox(tmp_path, silent.environment) as browser,
        serving(a_relay(rehearsal())) as port,
        browser.window() as window,
        visited(window, port),
    ):
        await window.click("#audio")
        await window.sees("#notice [data-kind=microphone]", "^No loudspeaker was found", timeout=60)
        await window.say("in writing")
        await window.answered("You said: in writing$")
