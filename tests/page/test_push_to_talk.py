"""Push to talk that the user of the main page has chosen: the user says where a turn begins and ends."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Browser, expect

from support.browser import NO_SERVER, Tab, control, until, violations, visit
from support.gemini import GeminiLive
from support.microphone import Microphone, quiet, voice
from support.proxy import network
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

ALICE = "/?user=alice"
ON, OFF = {"type": "configure", "push_to_talk": True}, {"type": "configure", "push_to_talk": False}
SECONDS = 2 * 16_000
"""Bytes of a second of the microphone."""


async def told(tab: Tab, count: int) -> None:
    """Waits until the page was told so often how the agent answers."""
    await until(lambda: asyncio.sleep(0), lambda _: len(control(tab.got, "configured")) >= count)


async def choose(tab: Tab, mode: str) -> None:
    await tab.page.get_by_role("button", name="Settings").click()
    await tab.page.get_by_label("The microphone in a call").select_option(label=mode)
    await tab.page.keyboard.press("Escape")


async def start(tab: Tab) -> None:
    await tab.page.get_by_role("button", name="Start audio").click()
    await expect(tab.page.locator("#speaker")).to_have_text("Hold the button to talk")


async def test_the_turn_is_the_users(gemini: GeminiLive, microphone: Microphone, browser: Browser) -> None:
    microphone.hears(voice(700), quiet(1300))
    async with (
        serving(a_relay(grace=30)) as port,
        network(port) as (between, there),
        visit(browser, there, ALICE, noise=NO_SERVER) as tab,
    ):
        page = tab.page
        modes = page.get_by_label("The microphone in a call")
        hold = page.get_by_role("button", name="Hold to talk")

        async def talk(seconds: float) -> None:
            await hold.hover()
            await page.mouse.down()
            await gemini.wait_for(lambda: any(each.is_listening for each in gemini.connections))
            [model] = [each for each in gemini.connections if each.is_listening]
            before, turns = len(model.audio), len(model.activities)
            await gemini.wait_for(lambda: len(model.audio) > before + seconds * SECONDS)
            assert model.is_listening  # it was not answered in the pauses
            await page.mouse.up()
            await gemini.wait_for(lambda: len(model.activities) > turns)
            await tab.answered("I heard you.")
            assert not model.detects_speech
            assert model.audio_stream_ends == 0

        await choose(tab, "Push to talk")
        assert control(tab.sent, "configure") == []  # before a call, it is of no use
        await start(tab)
        await told(tab, 1)
        await talk(3)
        await expect(page.locator(".message.agent")).to_have_count(1)
        assert await violations(page) == []

        # It holds already: after a loss of the connection, after a reload, and in the next call.
        between.cut()
        await tab.shows("waiting")
        between.mend()
        await tab.online()
        await talk(1)
        await page.reload()
        await tab.shows("connected")
        await start(tab)
        await talk(1)
        assert control(tab.sent, "configure") == [ON]

        # Who comes later is told, and can't change it; but another window of this browser can.
        async with visit(browser, port, ALICE) as other:
            await expect(other.page.locator("#mode-choice")).to_be_disabled()
            await expect(other.page.locator("#mode-choice")).to_have_value("push_to_talk")
            await expect(other.page.locator("#mode-hint")).to_have_text(
                "This conversation needs push to talk."
            )
        second = Tab(await page.context.new_page())
        await second.page.goto(ALICE)
        await second.shows("connected")
        await choose(second, "Always on")
        await told(tab, 2)
        await expect(modes).to_have_value("push_to_talk")  # that window has chosen it, and only mutes now
        await second.page.close()
        await until(
            lambda: asyncio.sleep(0, control(tab.got, "presence")[-1]), lambda last: last["connections"] == 1
        )

        # Another mode ends it.
        await choose(tab, "Always on")
        await choose(tab, "Push to talk")
        await told(tab, 3)
        await talk(1)
        await choose(tab, "Always on")
        await told(tab, 4)
        await expect(page.get_by_role("button", name="Mute")).to_be_visible()
        await gemini.wait_for(lambda: gemini.connections[-1].detects_speech)
        assert control(second.sent, "configure") == [OFF]
        assert control(tab.sent, "configure") == [ON, ON, OFF]
