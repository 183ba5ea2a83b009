"""Push to talk, captions, camera and screen in a call of the main page."""

from __future__ import annotations

import asyncio
import re
import struct

import pytest
from playwright.async_api import Browser, expect

from support.browser import NO_SERVER, STORY, Tab, control, rehearsal, until, violations, visit
from support.client import client
from support.gemini import Connection, GeminiLive, UserTurn
from support.microphone import Microphone, quiet, voice
from support.proxy import network
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


def sound(tab: Tab) -> int:
    """How many frames of the microphone were sent."""
    return sum(isinstance(frame, bytes) for frame in tab.sent)


def pictures(tab: Tab) -> int:
    return sum('"image/jpeg"' in frame for frame in tab.sent if isinstance(frame, str))


async def when(tab: Tab, count: int, of: object = sound) -> None:
    """Waits until so many more were sent."""
    assert callable(of)
    wanted = of(tab) + count
    await until(lambda: asyncio.sleep(0, of(tab)), lambda now: now >= wanted, timeout=30)


async def test_push_to_talk_where_others_are_in_the_conversation(
    gemini: GeminiLive, microphone: Microphone, browser: Browser
) -> None:
    microphone.hears(voice(60_000))

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "tell":
            await connection.say(STORY, complete=False)
            return await connection.turn_complete()  # it is played long after that
        await connection.say("I heard you." if turn.audio else "Yes.")

    gemini.answer = answer
    async with (
        serving(a_relay()) as port,
        client(port),
        visit(browser, port, "/?user=alice") as tab,
    ):
        page = tab.page
        await page.get_by_role("button", name="Settings").click()
        await page.get_by_label("The microphone in a call").select_option(label="Push to talk")
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Start audio").click()
        await expect(page.locator("#speaker")).to_have_text("Hold the button to talk")
        await expect(page.get_by_role("button", name="Mute")).to_be_hidden()
        hold = page.get_by_role("button", name="Hold to talk")
        await expect(hold).to_be_focused()
        await tab.say("one two three four five six seven eight")  # some time passes
        await tab.answered("Yes.")
        await tab.heard_out()
        assert sound(tab) == 0
        model = gemini.connections[0]

        # The space bar. The model finds out by itself when somebody speaks, but not that no more sound comes.
        await page.locator("#messages").focus()
        await page.keyboard.down(" ")
        await expect(hold).to_have_attribute("aria-pressed", "true")
        await when(tab, 10)
        await page.keyboard.up(" ")
        await tab.answered("I heard you.")
        assert model.audio_stream_ends == 1
        assert len(model.audio) == sound(tab) * 1280 + 16_000  # and the silence that ends it
        sent = sound(tab)

        # In a field it is a letter.
        await page.get_by_label("Message", exact=True).focus()
        await page.keyboard.press("a")
        await page.keyboard.press(" ")
        await expect(page.get_by_label("Message", exact=True)).to_have_value("a ")

        # The button, which stops the agent.
        await tab.heard_out()
        before = (await tab.stats())["playedSamples"]
        await tab.say("tell")
        await until(tab.stats, lambda stats: stats["playedSamples"] > before + 12_000)
        assert sound(tab) == sent
        await hold.hover()
        await page.mouse.down()
        await expect(page.locator(".message.agent.interrupted .text").last).to_have_text(
            re.compile(r"^word-001\b")
        )
        await expect(page.locator("#call")).not_to_have_attribute("data-speaker", "agent")
        await when(tab, 10)
        await page.mouse.up()
        await gemini.wait_for(lambda: model.audio_stream_ends == 2)
        await tab.answered("I heard you.")

        # Who chooses it in mid sentence has finished, too.
        mode = page.get_by_label("The microphone in a call")
        await page.get_by_role("button", name="Settings").click()
        await mode.select_option("Always on")
        await when(tab, 10)
        await mode.select_option("Push to talk")
        await gemini.wait_for(lambda: model.audio_stream_ends == 3)
        assert control(tab.sent, "configure") == []  # it would change the turns of the others


async def test_captions_can_be_switched_off(
    gemini: GeminiLive, microphone: Microphone, browser: Browser
) -> None:
    microphone.hears(quiet(2500), voice(800), quiet(1000))
    async with serving(a_relay(rehearsal())) as port, visit(browser, port) as tab:
        page = tab.page
        await tab.say("before")
        await expect(page.locator(".message.agent.open, .expected")).to_have_count(0)
        shown = page.locator(".message:visible")
        await expect(shown).to_have_count(2)
        await tab.call()
        captions = page.get_by_role("button", name="Captions")
        await expect(captions).to_have_attribute("aria-pressed", "true")
        await captions.click()
        await expect(captions).to_have_attribute("aria-pressed", "false")
        await expect(page.locator("#uncaptioned")).to_be_visible()
        await expect(page.locator(".message.heard")).to_have_count(1)
        await tab.say("written")
        await expect(page.locator(".message")).to_have_count(6)
        await expect(page.locator(".message.open, .expected")).to_have_count(0)
        await expect(shown.locator(".text")).to_have_text(
            ["before", re.compile("You said: before$"), "written"]
        )
        # As it is said, too: what is said now comes with the rest.
        await captions.click()
        await expect(shown).to_have_count(6)
        await captions.click()
        await expect(shown).to_have_count(3)
        await page.get_by_role("button", name="End audio").click()
        await expect(shown).to_have_count(6)
        await expect(page.locator("#uncaptioned")).to_be_hidden()
        await page.reload()
        await tab.shows("connected")
        await tab.call()
        await expect(captions).to_have_attribute("aria-pressed", "false")
        await expect(page.locator("#uncaptioned")).to_be_visible()
        await expect(shown).to_have_count(6)  # they are older than this call


def size(jpeg: bytes) -> tuple[int, int]:
    """Width and height, from the frame header (ITU-T T.81, section B.2.2)."""
    assert jpeg[:2] == b"\xff\xd8"
    place = 2
    while jpeg[place + 1] not in (0xC0, 0xC1, 0xC2):
        place += 2 + struct.unpack(">H", jpeg[place + 2 : place + 4])[0]
    height, width = struct.unpack(">HH", jpeg[place + 5 : place + 9])
    return width, height


async def test_camera_and_screen_are_shown(gemini: GeminiLive, browser: Browser) -> None:
    async with (
        serving(a_relay(grace=30)) as port,
        network(port) as (between, there),
        visit(browser, there, permissions=["microphone", "camera"], noise=NO_SERVER) as tab,
    ):
        page = tab.page
        camera = page.get_by_role("button", name="Show the camera")
        screen = page.get_by_role("button", name="Show the screen")
        await tab.call()
        model = await gemini.connection(0)
        await expect(camera).to_have_attribute("aria-pressed", "false")
        await camera.click()
        await expect(camera).to_have_attribute("aria-pressed", "true")
        await expect(page.locator("#shown")).to_be_visible()
        await gemini.wait_for(lambda: len(model.images) >= 2)
        assert {size(image) for image in model.images} == {(768, 432)}

        assert await violations(page) == []

        # One a second; sound goes on meanwhile: 25 frames a second.
        await when(tab, 1, pictures)
        before = sound(tab)
        await when(tab, 3, pictures)
        assert sound(tab) - before > 50

        # The network is slow: the next picture waits until the last one has been read, and none queue.
        between.down.clear()
        before = pictures(tab)
        await when(tab, 75)  # 3 s
        assert pictures(tab) <= before + 1
        # There is none: what the camera shows then is never sent.
        between.cut()
        await tab.shows("waiting")
        before = pictures(tab)
        await expect(page.locator("#shown")).to_be_visible()
        await page.wait_for_timeout(1500)
        assert pictures(tab) == before
        between.mend()
        await tab.online()
        await when(tab, 2, pictures)

        # The screen takes the place of the camera, and is ended in the browser's own bar.
        await page.evaluate("() => { window.camera = document.getElementById('shown').srcObject; }")
        await screen.click()
        await expect(screen).to_have_attribute("aria-pressed", "true")
        await expect(camera).to_have_attribute("aria-pressed", "false")
        await until(lambda: page.evaluate("() => window.camera.active"), lambda active: active is False)
        await when(tab, 2, pictures)
        await page.evaluate(
            """() => {
              const [track] = document.getElementById("shown").srcObject.getTracks();
              track.stop();
              track.dispatchEvent(new Event("ended"));
            }"""
        )
        await expect(screen).to_have_attribute("aria-pressed", "false")
        await expect(page.locator("#shown")).to_be_hidden()
        before = pictures(tab)
        await when(tab, 40)
        assert pictures(tab) == before

        # It ends with the call.
        await camera.click()
        await when(tab, 1, pictures)
        await page.evaluate("() => { window.camera = document.getElementById('shown').srcObject; }")
        await page.get_by_role("button", name="End audio").click()
        await tab.shows("connected")
        await until(lambda: page.evaluate("() => window.camera.active"), lambda active: active is False)
        before = pictures(tab)
        await tab.say("no more")
        await tab.answered("You said: no more.")
        assert pictures(tab) == before
        assert control(tab.got, "error") == []


async def test_a_camera_that_is_refused_and_no_screen_to_show(browser: Browser) -> None:
    lacking = """() => {
      delete MediaDevices.prototype.getDisplayMedia;
      const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wanted) => {
        if (wanted.video) throw new DOMException("no", "NotAllowedError");
        return ask(wanted);
      };
    }"""
    async with serving(a_relay(rehearsal())) as port, visit(browser, port, script=lacking) as tab:
        await tab.call()
        await expect(tab.page.get_by_role("button", name="Show the screen")).to_be_hidden()
        camera = tab.page.get_by_role("button", name="Show the camera")
        await camera.click()
        await expect(tab.page.locator("#notice [data-kind=showing]")).to_contain_text(
            "The camera was refused."
        )
        await expect(camera).to_have_attribute("aria-pressed", "false")
        await expect(tab.page.locator("#mute")).to_be_enabled()
