"""A call that can't begin, devices that come and go, and a call in two windows."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, expect

from support.browser import Tab, rehearsal, until, violations, visit
from support.gemini import GeminiLive
from support.microphone import Microphone, quiet, voice
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

WATCH = """() => {
  window.contexts = []; // all that were made
  window.tracks = []; // all microphones that were given
  window.stuck = ""; // what never ends
  window.gone = []; // labels of devices that are disconnected
  const never = () => new Promise(() => {});

  window.AudioContext = class extends AudioContext {
    constructor(options) {
      super(options);
      window.contexts.push(this);
      if (window.stuck === "loudspeaker") Object.defineProperty(this, "state", { value: "suspended" });
    }
    resume() {
      return window.stuck === "loudspeaker" ? never() : super.resume();
    }
    createMediaStreamSource(stream) {
      const silent = { connect() {}, disconnect() {} };
      return window.stuck === "sound" ? silent : super.createMediaStreamSource(stream);
    }
  };

  const { mediaDevices } = navigator;
  const list = mediaDevices.enumerateDevices.bind(mediaDevices);
  const isThere = ({ label }) => !window.gone.includes(label);
  mediaDevices.enumerateDevices = async () => (await list()).filter(isThere);
  const ask = mediaDevices.getUserMedia.bind(mediaDevices);
  mediaDevices.getUserMedia = async (wanted) => {
    if (window.stuck === "permission") return never();
    const inputs = (await list()).filter(({ kind }) => kind === "audioinput");
    const there = inputs.filter(isThere);
    const { audio } = wanted;
    const isWanted = ({ deviceId }) => deviceId === audio.deviceId?.exact;
    const isGone = !there.some(isWanted) && inputs.some(isWanted);
    if (!there.length || isGone) throw new DOMException("none", "NotFoundError");
    if (window.gone.length) audio.deviceId ??= { exact: there[0].deviceId };
    const stream = await ask(wanted);
    window.tracks.push(...stream.getAudioTracks());
    return stream;
  };

  // As a browser tells that devices were connected or disconnected.
  window.disconnect = (...labels) => {
    window.gone = labels;
    mediaDevices.dispatchEvent(new Event("devicechange"));
    const track = window.tracks.at(-1);
    if (!labels.includes(track.label)) return;
    track.stop();
    track.dispatchEvent(new Event("ended"));
  };
}"""
"""Browsers offer no way to pull out their own stand-ins for devices."""


async def test_what_is_missing_is_told_and_nothing_waits_for_ever(browser: Browser) -> None:
    limits = {"ANSWERED": 500, "STARTED": 500, "FIRST_FRAME": 500}
    async with (
        serving(a_relay(rehearsal())) as port,
        visit(browser, port, script=WATCH, constants=limits) as tab,
    ):
        start = tab.page.get_by_role("button", name="Start audio")
        said = tab.page.locator("#notice [data-kind=microphone]")
        for stuck, why in (
            ("permission", "Nobody has allowed the microphone"),
            ("loudspeaker", "No loudspeaker was found"),
            ("sound", "The microphone gives no sound"),
        ):
            await tab.page.evaluate("(stuck) => { window.stuck = stuck; }", stuck)
            await start.click()
            await expect(said).to_contain_text(why)
            await expect(tab.page.locator("#call")).to_be_hidden()
        live = await tab.page.evaluate(
            "() => window.tracks.filter((each) => each.readyState === 'live').length"
        )
        assert live == 0
        await tab.say("then in writing")
        await tab.answered(re.compile("You said: then in writing$"))


async def test_listening_is_said_after_the_first_sound(browser: Browser) -> None:
    late = """() => {
      const connect = AudioNode.prototype.connect;
      AudioNode.prototype.connect = function (target, ...which) {
        if (!(this instanceof MediaStreamAudioSourceNode)) return connect.call(this, target, ...which);
        window.begin = () => connect.call(this, target, ...which);
      };
      document.addEventListener("DOMContentLoaded", () => {
        const speaker = document.getElementById("speaker");
        window.shown = [];
        const watch = new MutationObserver(() => window.shown.push(speaker.textContent));
        watch.observe(speaker, { childList: true });
      });
    }"""
    async with serving(a_relay(rehearsal())) as port, visit(browser, port, script=late) as tab:
        await tab.page.get_by_role("button", name="Start audio").click()
        await expect(tab.page.locator("#speaker")).to_have_text("Starting…")
        await until(lambda: tab.page.evaluate("() => Boolean(window.begin)"), bool)
        await tab.page.wait_for_timeout(300)  # as a microphone that is slow
        assert (await tab.stats())["sentFrames"] == 0
        assert "Listening" not in await tab.page.evaluate("() => window.shown")
        await expect(tab.page.locator("#mute")).to_be_disabled()
        await tab.page.evaluate("() => void window.begin()")
        await expect(tab.page.locator("#speaker")).to_have_text("Listening")
        assert (await tab.stats())["sentFrames"] > 0


async def test_devices_are_chosen_and_come_and_go(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, visit(browser, port, script=WATCH) as tab:
        page = tab.page

        async def uses(microphone: str, loudspeaker: str) -> None:
            """The call goes on with these."""
            track = "() => { const { readyState, label } = window.tracks.at(-1); return readyState + label; }"
            await until(lambda: page.evaluate(track), lambda found: found == f"live{microphone}")
            sink = """async () => {
              const id = window.contexts.at(-1).sinkId;
              const devices = await navigator.mediaDevices.enumerateDevices();
              const outputs = devices.filter(({ kind }) => kind === "audiooutput");
              return outputs.find(({ deviceId }) => deviceId === id)?.label ?? "";
            }"""
            await until(lambda: page.evaluate(sink), lambda label: label == loudspeaker)
            sent = (await tab.stats())["sentFrames"]
            await until(tab.stats, lambda stats: stats["sentFrames"] > sent + 2)

        await tab.call()
        await page.get_by_role("button", name="Settings").click()
        await page.get_by_label("Microphone", exact=True).select_option("Fake Audio Input 2")
        await page.get_by_label("Loudspeaker").select_option("Fake Audio Output 2")
        assert await violations(page) == []
        await page.keyboard.press("Escape")
        await uses("Fake Audio Input 2", "Fake Audio Output 2")

        # It is remembered.
        await page.get_by_role("button", name="End audio").click()
        await page.reload()
        await tab.shows("connected")
        await tab.call()
        await uses("Fake Audio Input 2", "Fake Audio Output 2")

        # A headset is pulled out, and plugged in again.
        await page.evaluate("() => window.disconnect('Fake Audio Input 2', 'Fake Audio Output 2')")
        said = page.locator("#notice [data-kind=microphone]")
        await expect(said).to_contain_text(
            "The microphone was disconnected. Now this one is used: Fake Default"
        )
        await uses("Fake Default Audio Input", "")
        await page.get_by_role("button", name="Settings").click()
        chosen = page.get_by_label("Microphone", exact=True).locator("option:checked")
        await expect(chosen).to_have_text("Fake Audio Input 2 (not connected)")
        await page.keyboard.press("Escape")
        await page.evaluate("() => window.disconnect()")
        await uses("Fake Audio Input 2", "Fake Audio Output 2")

        # The last one is pulled out.
        await page.evaluate(
            "(labels) => window.disconnect(...labels)",
            ["Fake Default Audio Input", "Fake Audio Input 1", "Fake Audio Input 2"],
        )
        await expect(said).to_contain_text("The microphone was disconnected, so audio has ended.")
        await expect(page.locator("#call")).to_be_hidden()


async def test_of_two_windows_one_has_the_call(
    gemini: GeminiLive, microphone: Microphone, browser: Browser
) -> None:
    microphone.hears(quiet(100_000))
    async with serving(a_relay()) as port, visit(browser, port) as first:
        await first.call()
        second = Tab(await first.page.context.new_page())
        await second.page.goto("/")
        await second.shows("connected")
        await second.call()
        await expect(first.page.locator("#speaker")).to_have_text("In another window")
        await expect(first.page.locator("#announcer")).to_contain_text("in another window of this browser")
        sent = (await first.stats())["sentFrames"]

        await second.say("one two three")
        await second.answered("You said: one two three.")
        await first.answered("You said: one two three.")
        assert (await second.heard_out())["playedSamples"] > 0
        stats = await first.stats()
        assert (stats["playedSamples"], stats["sentFrames"]) == (0, sent)
        assert stats["receivedAudioBytes"] > 0

        await first.page.get_by_role("button", name="Continue here").click()
        await expect(second.page.locator("#speaker")).to_have_text("In another window")
        await expect(first.page.locator("#speaker")).to_have_text("Listening")
        played = (await second.stats())["playedSamples"]
        await first.say("again")
        await second.answered("You said: again.")
        await until(first.stats, lambda stats: stats["playedSamples"] > 0 and stats["sentFrames"] > sent)
        assert (await second.stats())["playedSamples"] == played

        # The one that has it ends it: nothing goes on by itself where nobody looks.
        await first.page.get_by_role("button", name="End audio").click()
        await expect(second.page.get_by_role("button", name="Continue here")).to_be_visible()
        await second.page.get_by_role("button", name="Continue here").click()
        await expect(second.page.locator("#speaker")).to_have_text("Listening")
        assert second.console == []


async def test_who_hears_the_agent_is_told_and_the_microphone_waits(
    microphone: Microphone, browser: Browser
) -> None:
    microphone.hears(voice(200))
    loop = """() => {
      // The microphone hears what the loudspeaker plays, 120 ms later.
      const { connect } = AudioNode.prototype;
      let into;
      AudioNode.prototype.connect = function (target, ...which) {
        if (target instanceof AudioDestinationNode) {
          const late = new DelayNode(this.context, { delayTime: 0.12 });
          const quiet = new GainNode(this.context, { gain: 0.5 });
          [late, quiet, into].reduce((from, to) => connect.call(from, to), this);
        }
        return connect.call(this, target, ...which);
      };
      const { AudioContext } = window;
      window.AudioContext = class extends AudioContext {
        constructor(options) {
          super(options);
          into = this.createMediaStreamDestination();
        }
      };
      navigator.mediaDevices.getUserMedia = async () => into.stream;
    }"""
    sooner = {"SETTLING": 5, "ENOUGH": 20}
    agent = rehearsal(words_per_second=5.0)
    async with (
        serving(a_relay(agent)) as port,
        visit(browser, port, script=loop, constants=sooner) as tab,
    ):
        page = tab.page

        def loud() -> list[bool]:
            return [any(frame) for frame in tab.sent if isinstance(frame, bytes)]

        await tab.call()
        await tab.say("a b c d e f g h i j k l m n o p q r s t u v w x y z")
        told = page.locator("#notice [data-kind=echo]")
        await expect(told).to_contain_text("The microphone hears the agent")
        assert any(loud())
        before = len(loud())
        await until(lambda: tab.page.evaluate("() => 0"), lambda _: len(loud()) > before + 20)
        assert not any(loud()[before + 3 :])  # some were on their way
        await expect(page.locator("#call")).to_have_attribute("data-speaker", "agent")

        await told.get_by_role("button", name="Keep it on").click()
        before = len(loud())
        await until(lambda: tab.page.evaluate("() => 0"), lambda _: any(loud()[before + 3 :]))
        await page.get_by_role("button", name="Settings").click()
        await page.get_by_label("The microphone in a call").select_option("Off while the agent speaks")
        await page.keyboard.press("Escape")
        before = len(loud())
        await until(lambda: tab.page.evaluate("() => 0"), lambda _: len(loud()) > before + 20)
        assert not any(loud()[before + 3 :])
