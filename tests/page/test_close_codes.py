"""What the pages do when the server closes their socket: the close code decides."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Browser, expect
from starlette.types import Message, Receive, Scope, Send

from relay import Relay
from support.browser import Tab, control, rehearsal, until, visit
from support.gemini import GeminiLive, Plan
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


class Closer:
    """A relay whose WebSockets can be closed from here, with any code and reason."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._closes: list[Callable[[int, str], Awaitable[None]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_closed = False

        async def pass_on(message: Message) -> None:
            if not is_closed:  # the server takes nothing after a close
                await send(message)

        async def close(code: int, reason: str) -> None:
            nonlocal is_closed
            is_closed = True
            await send({"type": "websocket.close", "code": code, "reason": reason})

        if scope["type"] == "websocket":
            self._closes.append(close)
        await self._relay(scope, receive, pass_on)

    async def close(self, code: int, reason: str) -> None:
        """Closes the newest one."""
        await self._closes[-1](code, reason)


PASSING = [(4410, "no pong"), (4410, "idle"), (4499, ""), (1001, "idle"), (1012, ""), (4412, "")]


@pytest.mark.parametrize("path", ["/", "/demo"])
async def test_after_a_passing_close_it_comes_back_by_itself(browser: Browser, path: str) -> None:
    closer = Closer(a_relay(rehearsal()))
    constants = {"FIRST_DELAY": 1}  # which grows with each close that soon follows
    async with serving(closer) as port, visit(browser, port, path, constants=constants) as tab:
        for number, (code, reason) in enumerate(PASSING, 2):
            await closer.close(code, reason)
            await opened(tab, number)
            await tab.shows("connected")


async def opened(tab: Tab, number: int) -> None:
    """Returns when the page has opened so many sockets."""
    await until(lambda: asyncio.sleep(0, len(tab.sockets)), lambda sockets: sockets == number)


@pytest.mark.parametrize("path", ["/", "/demo"])
@pytest.mark.parametrize("code", [1011, 4411])
async def test_a_failure_counts_only_after_an_error_that_said_so(
    browser: Browser, path: str, code: int
) -> None:
    """uvicorn closes with 1011 when a laptop has slept: the page always comes back from that."""
    closer = Closer(a_relay(rehearsal()))
    constants = {"FIRST_DELAY": 1, "MAX_FAILURES": 2}
    async with serving(closer) as port, visit(browser, port, path, constants=constants) as tab:
        for number in range(2, 6):
            await closer.close(code, "keepalive ping timeout")
            await opened(tab, number)
            await tab.shows("connected")


@pytest.mark.parametrize("path", ["/", "/demo"])
async def test_after_an_idle_close_it_waits_for_input(browser: Browser, path: str) -> None:
    closer = Closer(a_relay(rehearsal()))
    async with serving(closer) as port, visit(browser, port, path) as tab:
        await tab.page.clock.install()
        for reason in ("idle", "no pong", ""):
            before = await stays_away(tab, closer, 4408, reason, "asleep")
            await tab.say("hello")
            await tab.shows("connected")
            assert len(tab.sockets) == before + 1


REFUSALS = [(4401, ""), (4403, "no pong"), (4404, "idle"), (4409, ""), (1008, "")]


@pytest.mark.parametrize("path", ["/", "/demo"])
async def test_after_a_refusal_it_stays_away(browser: Browser, path: str) -> None:
    closer = Closer(a_relay(rehearsal()))
    async with serving(closer) as port, visit(browser, port, path) as tab:
        await tab.page.clock.install()
        for code, reason in REFUSALS:
            await stays_away(tab, closer, code, reason, "ended")
            shown = tab.page.locator("#banner-text" if path == "/" else "#problem")
            await expect(shown).to_have_text(reason or re.compile("^The server "))


async def stays_away(tab: Tab, closer: Closer, code: int, reason: str, state: str) -> int:
    """Closes the socket of a page that was just loaded, and gives the page five minutes to open another.

    Returns:
        How many sockets the tab has had.
    """
    await tab.page.reload()
    await tab.shows("connected")
    before = len(tab.sockets)
    await closer.close(code, reason)
    await tab.shows(state)
    await tab.page.clock.fast_forward("05:00")
    await tab.shows(state)
    assert len(tab.sockets) == before
    return before


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
        await opened(tab, 3)
        await tab.shows("ended")


async def test_credentials_that_are_refused_are_told_once(gemini: GeminiLive, browser: Browser) -> None:
    gemini.on_connect = lambda number: Plan(http_status=403)
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        await tab.say("hello")
        await tab.shows("ended")
        await expect(tab.page.locator(".system.error")).to_contain_text("The server has no credentials")
        assert len(tab.sockets) == 1
