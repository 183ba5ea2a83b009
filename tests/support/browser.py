"""A browser, and what a page in it shows, hears and sends."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from google.adk.agents import LlmAgent
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    Route,
    WebSocket,
    async_playwright,
    expect,
)
from playwright.async_api import Error as PlaywrightError

from adk_relay.adk.rehearsal import Rehearsal
from agent.agent import get_current_time
from support.client import Json
from support.server import need

T = TypeVar("T")

RATE = 16_000  # Hz of what the microphone gives
FRAME = 1280  # bytes of 40 ms
STORY = " ".join(f"word-{number:03}" for number in range(1, 126))
"""As the stand-in says it, it lasts 10 s, which is more than any test waits."""

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

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--autoplay-policy=no-user-gesture-required",
    "--host-resolver-rules=MAP relay.test 127.0.0.1",  # a name that is not localhost
]


def is_heard_out(stats: dict[str, int]) -> bool:
    """Whether sound has come, and all of it has been played or flushed."""
    received = stats["receivedAudioBytes"]
    return received > 0 and stats["playedSamples"] + stats["flushedSamples"] == received // 2


@asynccontextmanager
async def chromium(*flags: str, **options: Any) -> AsyncIterator[Browser]:
    # Chromium without a window at all: a page costs it a quarter of the time that it costs the browser.
    path = need("chromium-headless-shell", "chromium-headless-shell")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=[*FLAGS, *flags], **options)
        try:
            yield browser
        finally:
            await browser.close()


class Chromium:
    """A browser that is started when the first test asks for it, and anew if it has crashed or hangs."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self._browser: Browser | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Chromium:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def running(self) -> Browser:
        if not self._browser or not await is_alive(self._browser):
            await self._end()
            self._browser = await self._stack.enter_async_context(chromium(*self._flags))
        return self._browser

    async def _end(self) -> None:
        self._browser = None
        with suppress(PlaywrightError, TimeoutError):  # one that has crashed can't be asked to end
            async with asyncio.timeout(10):
                await self._stack.aclose()


async def is_alive(browser: Browser) -> bool:
    """Whether it still answers, and no test has left anything in it."""
    try:
        async with asyncio.timeout(10):
            session = await browser.new_browser_cdp_session()
            await session.send("Browser.getVersion")
            await session.detach()
    except (PlaywrightError, TimeoutError):
        return False
    return not browser.contexts


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

    # ---- what the user does

    async def say(self, text: str, key: str = "") -> None:
        """Writes a text and sends it: by Enter, where there is a keyboard."""
        await self.page.get_by_label("Message", exact=True).fill(text)
        touches = await self.page.evaluate("() => matchMedia('(hover: none)').matches")
        await self.page.keyboard.press(key or ("Control+Enter" if touches else "Enter"))

    async def call(self) -> None:
        """Starts a call, and returns when sound is being sent."""
        await self.page.get_by_role("button", name="Start audio").click()
        await expect(self.page.locator("#mute")).to_be_enabled()
        await self.shows("connected")
        await until(lambda: self.stats(), lambda stats: stats["sentFrames"] > 0)

    # ---- what the user sees

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

    # ---- what the user hears

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
        return await until(self.stats, is_heard_out)


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
    """Opens the page in a browser context of its own, and waits for its `state`.

    Where a test would have to wait for it, the page is served with other `constants` than it has.

    In the end nothing may have gone anywhere else, and nothing may be in the console (where Chromium
    also tells what the Content-Security-Policy has forbidden) but what matches `noise`.
    """
    settings: dict[str, Any] = {"permissions": ["microphone"], "reduced_motion": "reduce"} | options
    context = await browser.new_context(base_url=f"http://{host}:{port}", **settings)
    if script:
        await context.add_init_script(f"({script})()")
    if constants:
        await context.route("**/*.js", partial(_serve_with, constants))
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
        assert [line for line in tab.console if not re.search(noise, line)] == [], tab.console
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


async def violations_in_both_schemes(page: Page) -> list[str]:
    """The same, in light and in dark colors."""
    found = []
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        found += await violations(page)
    return found


def rehearsal(**options: Any) -> LlmAgent:
    """The offline agent, in a hurry."""
    model = Rehearsal(**{"words_per_second": 40.0} | options)
    return LlmAgent(name="tester", model=model, tools=[get_current_time])


def control(frames: list[str | bytes], kind: str) -> list[Json]:
    """The frames of one `type`."""
    said = [json.loads(frame) for frame in frames if isinstance(frame, str)]
    return [frame for frame in said if frame.get("type") == kind]
