"""The developer's drawer of the main page."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import Browser, Locator, expect

from support.browser import NO_SERVER, rehearsal, until, violations, visit
from support.proxy import network
from support.server import a_relay, serving
from support.tokens import SECRET, token

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

NOISE = rf"^log: \[(CLIENT TO AGENT|AGENT TO CLIENT)\] |{NO_SERVER}"


def fact(drawer: Locator, name: str) -> Locator:
    return drawer.locator(f"dt:text-is('{name}') + dd")


async def test_what_goes_over_the_connection(browser: Browser) -> None:
    permissions = ["microphone", "clipboard-read", "clipboard-write"]
    async with (
        serving(a_relay(rehearsal(), grace=30)) as port,
        network(port) as (between, there),
        visit(browser, there, "/?debug", noise=NOISE, permissions=permissions) as tab,
    ):
        drawer = tab.page.get_by_role("complementary", name="Developer")
        frames = drawer.get_by_role("list", name="Frames")
        kinds = frames.locator(".kind")
        await expect(kinds.first).to_have_text("hello")
        await tab.say("hello")
        await tab.answered(re.compile("You said: hello$"))
        turns = drawer.get_by_role("list", name="Turns").locator("li")
        await expect(turns).to_have_text(re.compile(r"^1: first token \d+ ms, in all \d+ ms$"))
        await expect(kinds.last).to_have_text("turn_complete")
        sent = frames.locator("li", has=tab.page.get_by_role("img", name="sent"))
        await sent.locator("summary").last.click()
        await expect(sent.locator("pre")).to_contain_text('"data": "hello"')
        assert await violations(tab.page) == []

        await expect(fact(drawer, "Round trip")).to_have_text("\u2013")
        await drawer.get_by_role("button", name="Ping").click()
        await expect(fact(drawer, "Round trip")).to_have_text(re.compile(r"^\d+ ms$"))
        await expect(fact(drawer, "Run")).to_have_text("live, rehearsal")

        pause = drawer.get_by_role("button", name="Pause")
        await pause.click()
        shown = await kinds.count()
        await tab.say("again")
        await tab.answered(re.compile("You said: again$"))
        await expect(turns).to_have_count(2)
        assert await kinds.count() == shown
        await pause.click()
        await until(kinds.count, lambda count: count > shown)

        await drawer.get_by_role("button", name="Copy the frames").click()
        await expect(tab.page.locator("#announcer")).to_contain_text("Copied")
        copied = json.loads(await tab.page.evaluate("navigator.clipboard.readText()"))
        [text] = [each for each in copied if each["kind"] == "text/plain" and each["direction"] == "up"][:1]
        assert json.loads(text["text"])["data"] == "hello"
        await drawer.get_by_role("button", name="Clear").click()
        await expect(kinds).to_have_count(0)

        await tab.call()  # sound is counted, not listed
        await expect(fact(drawer, "Sent")).to_have_text(
            re.compile(r"^\d+ frames, [1-9]\d* of them sound, \d+ ")
        )
        assert "frame" not in await kinds.all_text_contents()
        between.cut()
        await tab.shows("waiting")
        losses = drawer.get_by_role("list", name="Losses of the connection").locator("li")
        await expect(losses).to_have_text(re.compile(r"^\d\d:\d\d:\d\d\.\d{3} 1006$"))
        between.mend()
        await tab.online()


async def test_of_many_frames_the_last_ones_are_kept(browser: Browser) -> None:
    async with (
        serving(a_relay(rehearsal(words_per_second=1000))) as port,
        visit(browser, port, "/?debug", noise=NOISE, constants={"KEPT": 20}) as tab,
    ):
        rows = tab.page.get_by_role("list", name="Frames").locator("li")
        await tab.say("many " * 40 + "words")
        await tab.answered(re.compile("words$"))
        await expect(rows.last).to_contain_text("turn_complete")
        await expect(rows).to_have_count(20)


async def test_no_token_is_shown(browser: Browser) -> None:
    first, second = token(), token(name="Ann")
    async with (
        serving(a_relay(rehearsal(), secret=SECRET)) as port,
        visit(browser, port, f"/?debug#token={first}", noise=NOISE) as tab,
    ):
        await tab.page.evaluate(f"location.hash = 'token={second}'")
        kinds = tab.page.get_by_role("list", name="Frames").locator(".kind")
        await until(kinds.all_text_contents, lambda texts: "token" in texts)
        for row in await tab.page.locator(".frames details").all():
            await row.locator("summary").click()
            await expect(row.locator("pre")).not_to_be_empty()  # it is made when the row has been opened
        aside = tab.page.locator("aside").last
        await expect(aside).to_contain_text('"type": "token"')
        shown = await aside.inner_text()
        for secret in (first, second):
            assert secret not in shown + "".join(tab.console)


@pytest.mark.parametrize("path", ["/", "/?debug"])
async def test_it_is_loaded_only_when_one_asks_for_it(path: str, browser: Browser) -> None:
    phone = {"width": 360, "height": 640}
    async with (
        serving(a_relay(rehearsal())) as port,
        visit(browser, port, path, noise=NOISE, viewport=phone) as tab,
    ):
        drawer = tab.page.locator("details.debug")

        async def loaded() -> list[str]:
            return [url for url in tab.requests if "/debug." in url]

        if path == "/":
            assert await loaded() == []
            await expect(drawer).to_have_count(0)
            return
        await until(loaded, lambda urls: len(urls) == 2)
        await expect(drawer).not_to_have_attribute("open", "")  # there is no room for it
        await drawer.get_by_text("Developer").click()
        await expect(tab.page.get_by_role("button", name="Ping")).to_be_visible()
        await tab.page.keyboard.press("Enter")
        await expect(drawer).not_to_have_attribute("open", "")
