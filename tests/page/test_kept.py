"""What is still there after a page was loaded again: tools, times, marks, and what was not sent yet."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import pytest
from google.adk.agents import LlmAgent
from playwright.async_api import Browser, expect

from support.browser import NO_SERVER, Tab, until, visit
from support.gemini import Connection, GeminiLive, UserTurn
from support.killable import a_process
from support.ports import free_port
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


def clock(zone: str) -> dict[str, str]:
    """Tells the time."""
    return {"zone": zone, "time": "noon", "more": "x" * 10_000 if zone == "long" else ""}


async def shown(tab: Tab) -> list[str]:
    """All messages: their words, tools, times and marks."""
    texts = await tab.page.locator(".message").all_inner_texts()
    # How long a tool took is not kept.
    return [re.sub(r"\d\.\d s|done", "done", re.sub(r"\s+", " ", text)) for text in texts]


async def test_tools_times_and_marks_are_there_after_a_reload(gemini: GeminiLive, browser: Browser) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        match turn.text:
            case "time":
                await connection.call_tool("clock", {"zone": "Tokyo"})
                await connection.say("It is noon.")
            case "count":
                await connection.say("One two", complete=False)
                await asyncio.Event().wait()
            case "later":
                await connection.call_tool("clock", {"zone": "long"})
                await connection.say("It is", complete=False)
                await go_on.wait()
                await connection.say(" late.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[clock])
    async with serving(a_relay(agent, grace=30)) as port, visit(browser, port) as tab:
        page = tab.page
        await tab.say("time")
        await tab.answered("It is noon.")
        await tab.say("count")
        await expect(page.locator(".message.open .text")).to_have_text("One two")
        await tab.say("later")
        await expect(page.locator(".message .text").last).to_have_text("It is")
        await expect(page.locator(".message.open")).to_have_count(1)
        before = await shown(tab)
        assert len(before) == 6
        await page.get_by_label("Message", exact=True).fill("a draft\nof two lines")
        await page.reload()
        await expect(page.locator(".message")).to_have_count(6)
        await until(lambda: shown(tab), before.__eq__)
        times = await page.locator("time").evaluate_all(
            "times => times.map(({ dateTime }) => Date.parse(dateTime))"
        )
        assert times == sorted(times) and len(times) == 6
        await expect(page.locator(".message.agent .mark")).to_have_text(["", "Interrupted", ""])
        cards = page.locator(".tool.done")
        await expect(cards).to_have_count(2)
        await cards.last.locator("summary").click()
        await expect(cards.last.locator("pre").last).to_have_text(re.compile("^\\{.*x$"))
        await expect(cards.last).to_contain_text("Result (the beginning of it)")
        await expect(page.get_by_label("Message", exact=True)).to_have_value("a draft\nof two lines")
        go_on.set()
        await tab.answered("It is late.")
        await page.keyboard.press("Tab")
        await page.get_by_label("Message", exact=True).press("Enter")
        await expect(page.get_by_label("Message", exact=True)).to_have_value("")
        await page.reload()
        await expect(page.locator(".message.user")).to_have_count(4)
        await expect(page.get_by_label("Message", exact=True)).to_have_value("")


async def test_a_room_keeps_the_draft_and_what_was_read(tmp_path: Path, browser: Browser) -> None:
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        async with a_process(port, tmp_path, speed=4):
            tab = await stack.enter_async_context(visit(browser, port, "/demo", noise=NO_SERVER))
            page = tab.page
            box = page.locator("#text")
            await tab.say("hello " * 200)
            await expect(page.locator(".message.agent .text")).to_have_text(re.compile("hello"))
            await box.fill("a draft")
            await page.reload()
            await expect(box).to_have_value("a draft")
            await expect(page.locator(".message.agent .text")).to_have_text(re.compile("hello"))
        await tab.shows("waiting")
        (read,) = await tab.texts("agent")
        async with a_process(port, tmp_path):
            await tab.online()
            for _ in range(2):
                await expect(page.locator(".message .mark")).to_have_text(["Not answered", "Cut off"])
                assert (await tab.texts("agent"))[0].startswith(read.strip())
                await page.reload()
            await expect(box).to_have_value("a draft")
            await box.press("Enter")
            await expect(page.locator(".message.agent")).to_have_count(2)
            await expect(box).to_have_value("")
            await page.reload()
            await expect(page.locator(".message .mark")).to_have_text(["Not answered", "Cut off", "", ""])
            await expect(box).to_have_value("")
            await stack.aclose()
