"""The page in a real browser, against the real relay: what one sees, what one hears, what is on the wire."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import os
import re
import socket
import sys
import threading
import wave
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from google.adk.agents import LlmAgent
from google.adk.events import Event
from google.genai import types
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    Route,
    WebSocket,
    async_playwright,
    expect,
)

from adk_relay.adk.rehearsal import Rehearsal
from agent.agent import get_current_time
from support.client import Json, client
from support.gemini import Connection, GeminiLive, Plan, UserTurn
from support.proxy import network
from support.server import ROOT, a_relay, need, serving, stand_in

T = TypeVar("T")

# One browser for all tests, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

RATE = 16_000  # Hz of what the microphone gives
FRAME = 1280  # bytes of 40 ms
LONG = 250  # chunks of the stand-in's sound: 10 s, more than any test waits

NO_SERVER = r"^error: (WebSocket connection to 'ws://[^']*' failed|Failed to load resource: net::ERR_)"
"""What Chromium says in the console where the page can't reach its server."""

RECORD = """() => {
  window.recorded = [];
  const post = MessagePort.prototype.postMessage;
  MessagePort.prototype.postMessage = function (data, ...more) {
    if (data instanceof Int16Array) window.recorded.push(...data);
    return post.call(this, data, ...more);
  };
}"""
"""Writes down what the loudspeaker is given."""

COUNT_LAYOUTS = """() => {
  window.layouts = 0;
  const { get } = Object.getOwnPropertyDescriptor(Element.prototype, "scrollHeight");
  Object.defineProperty(Element.prototype, "scrollHeight", {
    get() {
      window.layouts++;
      return get.call(this);
    },
  });
}"""
"""Counts how often the page may have to be laid out before it is painted."""

expect.set_options(timeout=15_000)


# ---- the browser ---------------------------------------------------------------------------


FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--autoplay-policy=no-user-gesture-required",
    "--host-resolver-rules=MAP relay.test 127.0.0.1",  # a name that is not localhost
]


@asynccontextmanager
async def chromium(*flags: str, **options: Any) -> AsyncIterator[Browser]:
    path = need("chromium", "chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=[*FLAGS, *flags], **options)
        try:
            yield browser
        finally:
            await browser.close()


class Microphone:
    """What the browser hears: a WAV file, which is read when the page asks for the microphone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hears(quiet(1000))

    def hears(self, *sounds: bytes) -> None:
        with wave.open(str(self.path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(b"".join(sounds))


def voice(ms: int) -> bytes:
    """Speech, for all that a noise suppressor can tell: a voice that moves, in four syllables a second."""
    samples = array("h")
    phase = 0.0
    for n in range(RATE * ms // 1000):
        seconds = n / RATE
        phase += 2 * math.pi * (140 + 25 * math.sin(2 * math.pi * 0.9 * seconds)) / RATE
        loud = 0.2 + 0.8 * abs(math.sin(4 * math.pi * seconds))
        samples.append(int(9000 * loud * sum(math.sin(k * phase) / k for k in range(1, 8))))
    return samples.tobytes()


def quiet(ms: int) -> bytes:
    return bytes(2 * (RATE * ms // 1000))


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("microphone") / "heard.wav"


@pytest.fixture(autouse=True)
def microphone(wav: Path) -> Microphone:
    return Microphone(wav)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(wav: Path) -> AsyncIterator[Browser]:
    """Chromium with that microphone. It is given to whoever may have it, and to others refused."""
    source = f"--use-file-for-fake-audio-capture={wav}%noloop"  # after the file, silence
    async with chromium("--use-fake-device-for-media-stream", source) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def gemini(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GeminiLive]:
    """The stand-in that all tests have, in the browser's event loop."""
    async with stand_in(monkeypatch) as service:
        yield service


@dataclass
class Tab:
    """A page that is open, and what it did."""

    page: Page
    sockets: list[WebSocket] = field(default_factory=list)
    sent: list[str | bytes] = field(default_factory=list)
    got: list[str | bytes] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("websocket", self._opened)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.console.append(f"uncaught: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _opened(self, opened: WebSocket) -> None:
        self.sockets.append(opened)
        opened.on("framesent", lambda frame: self.sent.append(frame))  # playwright takes no builtins
        opened.on("framereceived", lambda frame: self.got.append(frame))

    def _said(self, message: ConsoleMessage) -> None:
        self.console.append(f"{message.type}: {message.text}")

    # ---- what one does

    async def say(self, text: str) -> None:
        await self.page.get_by_label("Message", exact=True).fill(text)
        await self.page.keyboard.press("Enter")

    async def call(self) -> None:
        """Starts a call, and returns when it stands."""
        await self.page.get_by_role("button", name="Start audio").click()
        await expect(self.page.locator("#mute")).to_be_enabled()
        await self.shows("connected")
        await until(lambda: self.stats(), lambda stats: stats["sentFrames"] > 0)

    # ---- what one sees

    async def shows(self, state: str) -> None:
        await expect(self.page.locator("#state")).to_have_attribute("data-state", state)

    async def texts(self, whose: str = "") -> list[str]:
        """What was said, from the first to the last; `whose`: user, agent or other."""
        return await self.page.locator(f".message{whose and '.'}{whose} .text").all_text_contents()

    async def answered(self, text: str | re.Pattern[str]) -> None:
        """The last thing that the agent said, when it has said it."""
        await expect(self.page.locator(".message.agent .text").last).to_have_text(text)
        await expect(self.page.locator(".open, .expected")).to_have_count(0)

    async def online(self) -> None:
        """As a browser tells that the network is back."""
        await self.page.evaluate("() => void dispatchEvent(new Event('online'))")
        await self.shows("connected")

    # ---- what one hears

    async def recorded(self) -> bytes:
        """The samples that the loudspeaker was given (see RECORD)."""
        encoded: str = await self.page.evaluate(
            """() => {
              const bytes = new Uint8Array(new Int16Array(window.recorded).buffer);
              return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
            }"""
        )
        return base64.b64decode(encoded)

    async def stats(self) -> dict[str, int]:
        counters: dict[str, int] = await self.page.evaluate("() => ({ ...window.relayStats })")
        return counters

    async def heard_out(self) -> dict[str, int]:
        """The counters, when all the sound that came has been played or flushed."""
        return await until(
            self.stats,
            lambda stats: (
                stats["receivedAudioBytes"] > 0
                and stats["playedSamples"] + stats["flushedSamples"] == stats["receivedAudioBytes"] // 2
            ),
        )


async def until(ask: Callable[[], Awaitable[T]], done: Callable[[T], Any], timeout: float = 15) -> T:
    """The first answer that is `done`. Asked from here: the page's policy forbids polling there."""
    answer = await ask()
    try:
        async with asyncio.timeout(timeout):
            while not done(answer):
                await asyncio.sleep(0.02)
                answer = await ask()
    except TimeoutError:
        raise AssertionError(f"not within {timeout} s; the last was {answer!r}") from None
    return answer


@asynccontextmanager
async def visit(
    browser: Browser,
    port: int,
    path: str = "/",
    *,
    host: str = "127.0.0.1",
    noise: str = "$.",
    state: str = "connected",
    script: str = "",
    constants: dict[str, int] | None = None,
    **options: Any,
) -> AsyncIterator[Tab]:
    """Opens the page in a browser of its own, as far as it knows, and waits for its `state`.

    Where a test would have to wait for it, the page is served with other `constants` than it has.

    In the end nothing may have gone anywhere else, and nothing may be in the console (where Chromium
    also tells what the Content-Security-Policy has forbidden) but what matches `noise`.
    """
    settings: dict[str, Any] = {"permissions": ["microphone"], "reduced_motion": "reduce"} | options
    context = await browser.new_context(base_url=f"http://{host}:{port}", **settings)
    if script:
        await context.add_init_script(f"({script})()")
    if constants:
        await context.route("**/static/*.js", partial(_serve_with, constants))
    try:
        tab = Tab(await context.new_page())
        try:
            await tab.page.goto(path)
            await tab.shows(state)
            yield tab
            await tab.page.evaluate("() => 0")  # what is in the console already has been told by then
        except BaseException as error:
            error.add_note(f"console: {tab.console}")
            raise
        assert [line for line in tab.console if not re.search(noise, line)] == []
        urls = [
            re.sub("^ws", "http", url) for url in [*tab.requests, *(opened.url for opened in tab.sockets)]
        ]
        assert [url for url in urls if not url.startswith(f"http://{host}:{port}/")] == []
    finally:
        await context.close()


async def _serve_with(constants: dict[str, int], route: Route) -> None:
    response = await route.fetch()
    text = await response.text()
    for name, value in constants.items():
        text = re.sub(rf"^const {name} = \d+;", f"const {name} = {value};", text, flags=re.MULTILINE)
    await route.fulfill(response=response, body=text)


async def violations(page: Page) -> list[str]:
    """What axe-core finds wrong."""
    results = await Axe().run(page)
    return [
        f"{found['id']}: {node['target']} {node['failureSummary']}"
        for found in results.response["violations"]
        for node in found["nodes"]
    ]


def rehearsal(**options: Any) -> LlmAgent:
    """The offline agent, in a hurry."""
    model = Rehearsal(**{"words_per_second": 40.0} | options)
    return LlmAgent(name="tester", model=model, tools=[get_current_time])


def control(frames: list[str | bytes], kind: str) -> list[Json]:
    """The frames of one `type`."""
    said = [json.loads(frame) for frame in frames if isinstance(frame, str)]
    return [frame for frame in said if frame.get("type") == kind]


# ---- writing -------------------------------------------------------------------------------


async def test_a_text_turn_streams_and_ends(gemini: GeminiLive, browser: Browser) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("<b>One</b>", complete=False)
        await go_on.wait()
        await connection.say(" two.")

    gemini.answer = answer
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        page = tab.page
        await expect(page.locator("#model")).to_have_text("gemini-3.8-live")
        await expect(page.get_by_label("Message", exact=True)).to_be_focused()
        await expect(page.locator("#send")).to_be_disabled()
        await page.keyboard.type("Count <i>for")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("me</i>")
        await page.keyboard.press("Enter")
        await expect(page.locator(".message.user .text")).to_have_text("Count <i>for\nme</i>")
        await expect(page.locator(".message.agent.open .text")).to_have_text("<b>One</b>")
        await expect(page.locator("#stop")).to_be_visible()
        await expect(page.locator("#announcer")).to_have_text("")  # not word by word
        go_on.set()
        await tab.answered("<b>One</b> two.")
        await expect(page.locator("#announcer")).to_have_text("Agent: <b>One</b> two.")
        await expect(page.locator("#stop")).to_be_hidden()
        await expect(page.locator("#welcome")).to_have_count(0)
        await expect(page.locator("#text")).to_have_value("")
        assert await page.evaluate("() => document.querySelectorAll('.message :is(b, i)').length") == 0
        assert (await tab.stats())["receivedFrames"] == 0
    assert gemini.connections[0].texts == ["Count <i>for\nme</i>"]


async def test_a_tool_is_shown_while_it_runs_and_when_it_has_answered(browser: Browser) -> None:
    go_on = threading.Event()

    def get_current_time(timezone: str) -> dict[str, str]:
        """The time."""
        go_on.wait(30)
        return {"timezone": timezone, "local_time": "2030-05-06T07:08:00+09:00"}

    agent = LlmAgent(name="tester", model=Rehearsal(words_per_second=40), tools=[get_current_time])
    async with serving(a_relay(agent)) as port, visit(browser, port) as tab:
        page = tab.page
        await expect(page.locator("#model")).to_have_text("Rehearsal agent")
        await expect(page.locator("#notice [data-kind=rehearsal]")).to_contain_text("GOOGLE_API_KEY")
        await page.get_by_role("button", name="What time is it in Tokyo?").click()
        card = page.locator(".message.agent details.tool")
        await expect(card.locator(".tool-name")).to_have_text("get_current_time")
        await expect(card.locator(".tool-state")).to_have_text("running")
        go_on.set()
        await expect(card).to_have_class("tool done")
        await tab.answered(re.compile(r"it is 07:08 on Monday in Asia/Tokyo\.$"))
        await card.locator("summary").click()
        await expect(card.locator("pre").first).to_contain_text('"timezone": "Asia/Tokyo"')
        await expect(card.locator("pre").last).to_contain_text('"local_time": "2030-05-06T07:08:00+09:00"')
        # What has been read once and put away stays away.
        await page.get_by_role("button", name="Dismiss").click()
        await page.reload()
        await tab.shows("connected")
        await expect(page.locator("#notice .card")).to_have_count(0)


async def test_stop_ends_an_answer_in_writing(gemini: GeminiLive, browser: Browser) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "count":
            await connection.say("One two", complete=False)
            await go_on.wait()
            await connection.say(" three.")
        else:
            await connection.say("Yes.")

    gemini.answer = answer
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        await tab.say("count")
        await expect(tab.page.locator(".message.agent.open .text")).to_have_text("One two")
        await tab.page.keyboard.press("Escape")
        stopped = tab.page.locator(".message.agent.interrupted")
        await expect(stopped.locator(".mark")).to_have_text("Interrupted")
        await expect(tab.page.locator("#stop")).to_be_hidden()
        assert len(control(tab.sent, "interrupt")) == 1
        go_on.set()
        await gemini.wait_for(lambda: not gemini.connections[0].turn_open)
        await tab.say("again")
        await tab.answered("Yes.")
        await expect(stopped.locator(".text")).to_have_text("One two")


# ---- speaking ------------------------------------------------------------------------------


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
            await connection.say("Once upon a time", audio=False, complete=False)
            await connection.send_audio(LONG)
            await asyncio.Event().wait()
        await connection.heard("Stop.")
        await connection.turn_complete()

    gemini.answer = answer
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        await tab.call()
        stopped = tab.page.locator(".message.agent.interrupted")
        await expect(stopped.locator(".text")).to_have_text("Once upon a time")
        await expect(tab.page.locator(".message.user.heard .text").last).to_have_text("Stop.")
        stats = await tab.heard_out()
        assert stats["flushedSamples"] > 24_000
        assert 0 < stats["playedSamples"] < 24_000 * 6
        await expect(tab.page.locator("#stop")).to_be_hidden()
        cut = next(n for n, frame in enumerate(tab.got) if '"interrupted":true' in str(frame))
        assert not any(isinstance(frame, bytes) for frame in tab.got[cut:])
    assert gemini.connections[0].rates == {RATE}
    assert len(gemini.connections[0].audio) % FRAME == 0


async def test_stop_ends_an_answer_aloud(gemini: GeminiLive, browser: Browser) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "tell":
            await connection.say("Once upon a time", audio=False, complete=False)
            await connection.send_audio(LONG)
            await go_on.wait()
            await connection.say(" there was more.")
        else:
            await connection.say("Yes.")

    gemini.answer = answer
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        await tab.call()
        await tab.say("tell")
        await expect(tab.page.locator("#call")).to_have_attribute("data-speaker", "agent")
        await until(tab.stats, lambda stats: stats["playedSamples"] > 0)
        await tab.page.get_by_role("button", name="Stop").click()
        await expect(tab.page.locator(".message.agent.interrupted .text")).to_have_text("Once upon a time")
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


async def test_a_refused_microphone_is_told_and_writing_goes_on(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, visit(browser, port, permissions=[]) as tab:
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
        serving(a_relay(rehearsal())) as port,
        visit(browser, port, host="relay.test", permissions=[]) as tab,
    ):
        await tab.page.get_by_role("button", name="Start audio").click()
        notice = tab.page.locator("#notice [data-kind=microphone]")
        await expect(notice).to_contain_text("only to pages that came over https")
        await tab.say("then in writing")
        await tab.answered(re.compile("You said: then in writing$"))


# ---- the connection ------------------------------------------------------------------------


OWN_AGENT = """
from google.adk.agents import LlmAgent
from adk_relay.adk.rehearsal import Rehearsal

root_agent = LlmAgent(name="parrot", model=Rehearsal(words_per_second=40))
"""


@asynccontextmanager
async def a_process(port: int, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A relay that can be killed without a word."""
    (folder / "parrot.py").write_text(OWN_AGENT)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "relay.py"), "--port", str(port)),
        cwd=folder,
        env=os.environ | {"RELAY_AGENT": "parrot:root_agent"},
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def answers() -> bool:
        assert process.returncode is None
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await until(answers, bool, timeout=30)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_it_comes_back_after_the_server_was_killed(tmp_path: Path, browser: Browser) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
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
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
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


async def test_what_a_killed_server_has_not_answered_is_marked(tmp_path: Path, browser: Browser) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with contextlib.AsyncExitStack() as stack:
        async with a_process(port, tmp_path):
            tab = await stack.enter_async_context(visit(browser, port, "/?user=alice", noise=NO_SERVER))
            await tab.say("hello " * 200)
            await expect(tab.page.locator(".message.open")).to_have_count(1)
        await tab.shows("waiting")
        async with a_process(port, tmp_path):
            await tab.online()
            await expect(tab.page.locator(".message.user .mark")).to_have_text("Not answered")
            await expect(tab.page.locator(".message.agent")).to_have_count(0)
            await tab.say("hello?")
            await tab.answered(re.compile(r"You said: hello\?"))
            await stack.aclose()


async def test_credentials_that_are_refused_are_told_once(gemini: GeminiLive, browser: Browser) -> None:
    gemini.on_connect = lambda number: Plan(http_status=403)
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        await tab.say("hello")
        await tab.shows("ended")
        await expect(tab.page.locator(".system.error")).to_contain_text("The server has no credentials")
        assert len(tab.sockets) == 1


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
    monkeypatch.setattr("adk_relay.core.inbox._WORDS_MAX_BYTES", 1000)
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


async def test_stop_is_heard_when_the_network_is_back(gemini: GeminiLive, browser: Browser) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("Once upon a time", audio=False, complete=False)
        await connection.send_audio(LONG)
        await asyncio.Event().wait()

    gemini.answer = answer
    async with (
        serving(a_relay(grace=30)) as port,
        network(port) as (between, there),
        visit(browser, there, noise=NO_SERVER) as tab,
    ):
        await tab.call()
        await tab.say("tell")
        await until(tab.stats, lambda stats: stats["playedSamples"] > 0)
        between.cut()
        await tab.shows("waiting")
        await tab.page.get_by_role("button", name="Stop").click()
        await tab.heard_out()
        between.mend()
        await tab.online()
        stopped = tab.page.locator(".message.agent.interrupted")
        await expect(stopped.locator(".text")).to_have_text("Once upon a time")
        await expect(tab.page.locator("#stop")).to_be_hidden()


async def test_a_reload_shows_the_conversation(gemini: GeminiLive, browser: Browser) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await connection.say("First.")
        else:
            await connection.say("<b>Second", complete=False)
            await go_on.wait()
            await connection.say("</b> answer.")

    gemini.answer = answer
    async with serving(a_relay(grace=30)) as port, visit(browser, port) as tab:
        await tab.say("one")
        await tab.answered("First.")
        await tab.say("two")
        opened = tab.page.locator(".message.agent.open .text")
        await expect(opened).to_have_text("<b>Second")
        await tab.page.reload()
        await expect(opened).to_have_text("<b>Second")
        await expect(tab.page.locator("#welcome")).to_have_count(0)
        await expect(tab.page.locator("#stop")).to_be_visible()
        go_on.set()
        await tab.answered("<b>Second</b> answer.")
        assert await tab.texts() == ["one", "First.", "two", "<b>Second</b> answer."]
    assert gemini.connections[0].texts == ["one", "two"]


async def test_a_long_history_is_laid_out_once(browser: Browser) -> None:
    relay = a_relay(rehearsal())
    service = relay.conversations.service
    session = await service.create_session(app_name="relay", user_id="alice", session_id="live-alice")
    for number in range(500):
        content = types.Content(role="user", parts=[types.Part(text=f"line {number}")])
        await service.append_event(session, Event(author="user", content=content))
    async with (
        serving(relay) as port,
        visit(browser, port, "/?user=alice", script=COUNT_LAYOUTS) as tab,
    ):
        await expect(tab.page.locator(".message .text")).to_have_text([f"line {n}" for n in range(500)])
        await expect(tab.page.locator(".message").last).to_be_in_viewport()
        assert await tab.page.evaluate("() => window.layouts") < 50


async def test_going_over_to_audio_and_back_loses_no_word(gemini: GeminiLive, browser: Browser) -> None:
    words = " ".join(f"word-{n}" for n in range(400))

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(words, delay=0.01)

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
        await tab.answered(words)
        assert await tab.texts() == ["tell", words]
        assert [opened.is_closed() for opened in tab.sockets] == [True, True, False]
    assert gemini.connects == 1


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


async def test_it_sleeps_when_idle_until_something_is_written(browser: Browser) -> None:
    async with serving(a_relay(rehearsal(), idle_timeout=2)) as port, visit(browser, port) as tab:
        await tab.say("What time is it in Tokyo?")
        await tab.answered(re.compile(r"in Asia/Tokyo\.$"))
        said = await tab.texts()
        await tab.shows("asleep")
        assert len(tab.sockets) == 1
        await tab.say("good morning")
        await tab.answered(re.compile(r"You said: good morning I remember \d+ turns before this\.$"))
        assert len(tab.sockets) == 2
        # It is told the conversation anew, and shows more than it is told.
        assert len(control(tab.got, "gap")) == 2
        assert await tab.texts() == [*said, "good morning", (await tab.texts())[-1]]
        await expect(tab.page.locator("details.tool.done")).to_have_count(1)
        await expect(tab.page.locator(".message time")).to_have_count(4)


async def test_a_refusal_is_told_and_not_tried_again(browser: Browser) -> None:
    async with (
        serving(a_relay(rehearsal())) as port,
        visit(browser, port, "/?user=a%20b", state="ended") as tab,
    ):
        await expect(tab.page.locator("#banner-text")).to_have_text(re.compile("^user_id is 1 to 128 of"))
        assert len(tab.sockets) == 1
        await tab.page.clock.install()
        await tab.page.reload()
        await tab.shows("ended")
        await tab.page.clock.fast_forward("05:00")
        await tab.shows("ended")
        assert len(tab.sockets) == 2
        await tab.page.get_by_role("button", name="Try again").click()
        await until(lambda: asyncio.sleep(0, len(tab.sockets)), lambda opened: opened == 3)
        await tab.shows("ended")


async def test_it_works_mounted_under_a_prefix(microphone: Microphone, browser: Browser) -> None:
    relay = a_relay(rehearsal())
    prefix = "/deep/voice"

    async def host(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await relay(scope, receive, send)
        elif scope["path"].startswith(prefix):
            await relay({**scope, "root_path": prefix}, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    microphone.hears(quiet(300), voice(600), quiet(1000))
    async with serving(host) as port, visit(browser, port, prefix) as tab:  # without the last slash
        assert tab.page.url == f"http://127.0.0.1:{port}{prefix}/"
        assert all(f":{port}{prefix}" in url for url in tab.requests)
        await tab.say("hello")
        await tab.answered(re.compile("You said: hello$"))
        await tab.call()
        await tab.answered(re.compile("^You said this"))
        assert (await tab.heard_out())["playedNonSilent"] > 0


async def test_frames_are_logged_when_one_asks_for_it(browser: Browser) -> None:
    # That nothing is logged otherwise, every other test sees.
    noise = r"^log: \[(CLIENT TO AGENT|AGENT TO CLIENT)\] "
    async with (
        serving(a_relay(rehearsal())) as port,
        visit(browser, port, "/?debug", noise=noise) as tab,
    ):
        await tab.say("hello")
        await tab.answered(re.compile("You said: hello$"))
        await tab.call()
        lines = await until(lambda: asyncio.sleep(0, list(tab.console)), lambda lines: "sound" in lines[-1])
    assert any(
        re.fullmatch(r'log: \[CLIENT TO AGENT\] {"mime_type":"text/plain","data":"hello","id":"\w+"}', line)
        for line in lines
    )
    assert any(line.startswith('log: [AGENT TO CLIENT] {"type":"hello"') for line in lines)
    assert any(re.match(r'log: \[AGENT TO CLIENT\] {"turn_complete":true', line) for line in lines)
    assert f"log: [CLIENT TO AGENT] sound, {FRAME} bytes" in lines


# ---- with others ---------------------------------------------------------------------------


async def test_two_share_a_conversation(gemini: GeminiLive, browser: Browser) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("You said:", complete=False)
        if turn.text == "from here":
            await go_on.wait()
        await connection.say(f" {turn.text}.")

    gemini.answer = answer
    path = "/?user=alice&session=kitchen"
    async with serving(a_relay()) as port, visit(browser, port, path) as here:
        await expect(here.page.locator("#here")).to_be_hidden()
        async with visit(browser, port, path) as there:
            for tab in (here, there):
                await expect(tab.page.locator("#here")).to_have_text("2 here, connected to this conversation")
                await expect(tab.page.locator("#announcer")).to_contain_text(
                    "2 are connected to this conversation now."
                )
            writing = there.page.locator("#writing")
            await here.page.keyboard.type("from ")
            await expect(writing).to_have_text("Somebody is typing…")
            await here.page.keyboard.type("here")
            await here.page.keyboard.press("Enter")
            await expect(writing).to_be_hidden()
            await expect(there.page.locator(".message.other .who")).to_have_text("Somebody else: ")
            await expect(there.page.locator(".message.open .text")).to_have_text("You said:")
            go_on.set()
            for tab in (here, there):
                await tab.answered("You said: from here.")
            await there.say("from there")
            for tab in (here, there):
                await tab.answered("You said: from there.")
            said = ["from here", "You said: from here.", "from there", "You said: from there."]
            assert await here.texts() == await there.texts() == said
            assert (await here.texts("other"), await there.texts("other")) == (["from there"], ["from here"])
            # Who goes on typing and says nothing more is told of once, and until they pause.
            await there.page.keyboard.type("well")
            await expect(here.page.locator("#writing")).to_have_text("Somebody is typing…")
            await expect(here.page.locator("#writing")).to_be_hidden()
            assert len(control(there.sent, "typing_start")) == len(control(there.sent, "typing_stop")) == 2
            # What is read of before: whose it was is known of this page only.
            await there.page.reload()
            await expect(there.page.locator(".message .text")).to_have_text(said)
            assert await there.texts("other") == ["from here", "from there"]
            await expect(there.page.locator(".message.other .who").first).to_have_text("Somebody: ")
        await expect(here.page.locator("#here")).to_be_hidden()
        await expect(here.page.locator("#announcer")).to_contain_text("Nobody else is here now.")
        async with visit(browser, port, "/?user=bob&session=kitchen", state="ended") as stranger:
            assert len(stranger.sockets) == 1
            assert await stranger.texts() == []
    assert gemini.connections[0].texts == ["from here", "from there"]


async def test_two_windows_share_a_conversation(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, visit(browser, port) as here:
        await here.say("from here")
        await here.answered(re.compile("You said: from here$"))
        there = Tab(await here.page.context.new_page())
        await there.page.goto("/")
        await there.answered(re.compile("You said: from here$"))
        await there.say("from there")
        for tab in (here, there):
            await tab.answered(re.compile("You said: from there$"))
        assert await here.texts() == await there.texts()
        await expect(here.page.locator(".message.other .who")).to_have_text("You, in another window: ")
        assert there.console == []


async def test_one_is_heard_at_a_time(gemini: GeminiLive, microphone: Microphone, browser: Browser) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.heard("Good evening.")
        await connection.say("Good evening to you.")

    gemini.answer = answer
    path = "/?user=alice"
    async with (
        serving(a_relay()) as port,
        visit(browser, port, path) as here,
        visit(browser, port, path) as there,
    ):
        microphone.hears(voice(6000), quiet(1000))
        await here.call()
        microphone.hears(quiet(300), voice(3500), quiet(1000))
        await there.call()
        busy = there.page.locator("#notice [data-kind=busy]")
        await expect(busy).to_contain_text("Somebody else is speaking")
        await until(lambda: asyncio.sleep(0, control(there.got, "error")), lambda errors: len(errors) > 1)
        await expect(busy).to_have_count(1)
        told = there.page.locator("#announcer p", has_text="Somebody else is speaking")
        assert await told.count() == 1
        await here.answered("Good evening to you.")
        await expect(here.page.locator(".message.heard .text").last).to_have_text("Good evening.")
        await expect(here.page.locator(".message.other")).to_have_count(0)
        await expect(there.page.locator(".message.heard.other .text").last).to_have_text("Good evening.")
        await expect(busy).to_have_count(0)  # when it is over


@pytest.mark.parametrize("how", ["cleared", "deleted"])
async def test_it_begins_anew_when_it_was_emptied(how: str, gemini: GeminiLive, browser: Browser) -> None:
    path = "/?user=guest&session=kitchen"
    async with serving(a_relay(grace=30)) as port, visit(browser, port, path) as tab:
        await tab.say("one")
        await tab.answered("You said: one.")
        request = tab.page.request
        if how == "cleared":
            response = await request.post("/sessions/kitchen/clear")
        else:
            response = await request.delete("/sessions/kitchen")
        assert response.ok
        await expect(tab.page.locator(".system")).to_have_text(f"This conversation was {how}.")
        await expect(tab.page.locator("#announcer")).to_contain_text(f"This conversation was {how}.")
        await expect(tab.page.locator("#welcome")).to_be_visible()
        await expect(tab.page.locator(".message")).to_have_count(0)
        await tab.say("two")
        await tab.answered("You said: two.")
        assert await tab.texts() == ["two", "You said: two."]
        await tab.page.reload()
        await expect(tab.page.locator(".message")).to_have_count(2)
        assert await tab.texts() == ["two", "You said: two."]
        assert len(tab.sockets) == 2
    assert gemini.connections[-1].context == [("user", "two"), ("model", "You said: two.")]


# ---- without a WebSocket -------------------------------------------------------------------


async def test_it_goes_on_in_writing_where_no_websocket_gets_through(browser: Browser) -> None:
    async with (
        serving(a_relay(rehearsal(), grace=30)) as port,
        network(port) as (between, there),
    ):
        between.takes_upgrades = False
        async with visit(browser, there, state="blocked", noise=NO_SERVER) as tab:
            page = tab.page
            audio = page.get_by_role("button", name="Start audio")
            await expect(audio).to_be_disabled()
            await expect(audio).to_have_accessible_description(re.compile("^Audio needs a WebSocket"))
            notice = page.locator("#notice [data-kind=without]")
            await expect(notice).to_contain_text("No WebSocket gets through")
            await page.get_by_role("button", name="What time is it in Tokyo?").click()
            await expect(page.locator("details.tool.done")).to_have_count(1)
            await tab.answered(re.compile(r"in Asia/Tokyo\.$"))
            await tab.say("and now?")
            await tab.answered(re.compile(r"You said: and now\?$"))
            said = await tab.texts()
            assert len(said) == 4
            assert await violations(page) == []

            # A refusal is told, and nothing is lost of what one sees.
            between.cut()
            await tab.say("hello?")
            await expect(page.locator(".system.error")).to_contain_text("could not be reached")
            await expect(page.locator(".message.user .mark").last).to_have_text("Not answered")

            # A WebSocket was tried again: it is the server that is gone.
            await tab.shows("waiting")
            between.mend()
            between.takes_upgrades = True
            await tab.online()
            await expect(notice).to_have_count(0)
            await expect(audio).to_be_enabled()
            await expect(page.locator(".system.beside")).to_contain_text("a conversation of its own")
            await tab.say("here again")
            await tab.answered(re.compile("You said: here again$"))
            assert (await tab.texts())[:4] == said
            await tab.page.reload()
            await tab.answered(re.compile("You said: here again$"))
            assert (await tab.texts("user")) == ["here again"]


async def test_a_server_that_falls_silent_without_a_websocket_is_given_up(
    gemini: GeminiLive, browser: Browser
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "anybody?":
            await asyncio.Event().wait()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with (
        serving(a_relay(grace=30)) as port,  # which says something each 25 s
        network(port) as (between, there),
    ):
        between.takes_upgrades = False
        async with visit(
            browser, there, state="blocked", noise=NO_SERVER, constants={"SILENCE": 1000}
        ) as tab:
            await tab.say("anybody?")
            await expect(tab.page.locator(".system.error")).to_contain_text("has fallen silent")
            await expect(tab.page.locator(".message.user .mark").last).to_have_text("Not answered")
            await tab.say("hello")
            await tab.answered("You said: hello.")


async def test_what_was_written_before_it_was_known_stays_beside(browser: Browser) -> None:
    async with (
        serving(a_relay(rehearsal(), grace=30)) as port,
        network(port) as (between, there),
    ):
        between.takes_upgrades = False
        async with visit(browser, there, state="waiting", noise=NO_SERVER) as tab:
            await tab.say("early")
            await tab.shows("blocked")
            await tab.answered(re.compile("You said: early$"))
            said = await tab.texts()
            assert len(said) == 2
            between.takes_upgrades = True
            await tab.online()
            await expect(tab.page.locator(".system.beside")).to_have_count(1)
            await tab.say("late")
            await tab.answered(re.compile("You said: late$"))
            assert (await tab.texts())[:3] == [*said, "late"]


async def test_an_answer_that_comes_beside_is_awaited_before_a_websocket_is_taken(
    gemini: GeminiLive, browser: Browser
) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "beside":
            await go_on.wait()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with (
        serving(a_relay(grace=30)) as port,
        network(port) as (between, there),
    ):
        between.takes_upgrades = False
        async with visit(browser, there, state="blocked", noise=NO_SERVER) as tab:
            await tab.say("beside")
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts)
            between.takes_upgrades = True
            opened = len(tab.sockets)
            await tab.page.evaluate("() => void dispatchEvent(new Event('online'))")
            await tab.say("beside, too")
            assert len(tab.sockets) == opened
            go_on.set()
            await tab.shows("connected")
            await tab.say("to the socket")
            await tab.answered("You said: to the socket.")
            assert await tab.page.locator(".message .text, .system").all_text_contents() == [
                "beside",
                "beside, too",
                "You said: beside.",
                "You said: beside, too.",
                "What was written above stays in a conversation of its own: the agent does not know it here.",
                "to the socket",
                "You said: to the socket.",
            ]


async def test_an_answer_without_a_websocket_can_be_stopped(gemini: GeminiLive, browser: Browser) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "count":
            await connection.say("One", complete=False)
            await asyncio.Event().wait()
        await connection.say("Yes.")

    gemini.answer = answer
    async with (
        serving(a_relay()) as port,
        network(port) as (between, there),
    ):
        between.takes_upgrades = False
        async with visit(browser, there, state="blocked", noise=NO_SERVER) as tab:
            await tab.say("count")
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].said)
            await tab.page.get_by_role("button", name="Stop").click()
            await expect(tab.page.locator(".expected")).to_have_count(0)
            await expect(tab.page.locator("#stop")).to_be_hidden()
            await expect(tab.page.locator(".message.user .mark")).to_have_text("Not answered")
            await tab.say("again")
            await tab.answered("Yes.")


# ---- for everybody -------------------------------------------------------------------------


async def test_it_fits_a_phone(microphone: Microphone, browser: Browser) -> None:
    phone: Json = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    async with serving(a_relay(rehearsal())) as port, visit(browser, port, **phone) as tab:

        async def fits() -> None:
            layout: Json = await tab.page.evaluate(
                """() => {
                  const shown = [...document.querySelectorAll("button")].filter((e) => e.checkVisibility());
                  const box = (element) => element.getBoundingClientRect();
                  return {
                    page: document.documentElement.scrollWidth,
                    messages: messages.scrollWidth - messages.clientWidth,
                    small: shown.filter((e) => box(e).width < 44 || box(e).height < 44).map((e) => e.id),
                    outside: ["state", "call", "composer", "audio", "text", "send"]
                      .filter((id) => document.getElementById(id).checkVisibility())
                      .map((id) => [id, box(document.getElementById(id))])
                      .filter(([, { left, right }]) => left < 0 || right > 360)
                      .concat(box(composer).bottom > 740 ? ["composer"] : []),
                  };
                }"""
            )
            assert layout == {"page": 360, "messages": 0, "small": [], "outside": []}

        await fits()
        await tab.say("What time is it in Tokyo?")
        await tab.answered(re.compile(r"in Asia/Tokyo\.$"))
        await tab.page.locator("details.tool summary").tap()
        await tab.say("x" * 250)
        await tab.answered(re.compile("x{250}"))
        await fits()
        await tab.call()
        await fits()
        await expect(tab.page.locator(".message.agent").last).to_be_in_viewport()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_shuts_anybody_out(scheme: Literal["light", "dark"], browser: Browser) -> None:
    async with (
        serving(a_relay(rehearsal())) as port,
        visit(browser, port, "/?user=alice", color_scheme=scheme) as tab,
    ):
        assert await violations(tab.page) == []
        await tab.page.get_by_role("button", name="What time is it in Tokyo?").click()
        await tab.answered(re.compile(r"in Asia/Tokyo\.$"))
        await tab.page.locator("details.tool summary").click()
        await tab.call()
        await tab.page.get_by_role("button", name="Mute").click()
        assert await violations(tab.page) == []
        async with visit(browser, port, "/?user=alice") as other:
            await other.say("hello")
            await tab.answered(re.compile("You said: hello$"))
            await other.page.keyboard.type("and")
            await expect(tab.page.locator("#writing")).to_be_visible()
            await expect(tab.page.locator("#here")).to_be_visible()
            assert await violations(tab.page) == []
