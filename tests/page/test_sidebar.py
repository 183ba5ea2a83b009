"""The user's conversations in a side bar."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from playwright.async_api import Browser, Dialog, Locator, Route, expect

from support.browser import Tab, rehearsal, violations, visit
from support.server import a_relay, serving
from support.tokens import SECRET, token, web

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

TOGGLE = "#conversations"
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 640}, "is_mobile": True, "has_touch": True}


def names(tab: Tab) -> Locator:
    return tab.page.locator("#conversation-list .name")


def current(tab: Tab) -> Locator:
    return tab.page.locator("#conversation-list [aria-current=page] .name")


async def ask(tab: Tab, text: str) -> None:
    await tab.say(text)
    await tab.answered(re.compile(f"You said: {text}"))


async def begin(tab: Tab, text: str) -> None:
    """Begins a conversation, and says something in it."""
    before = tab.page.url
    await tab.page.locator("#new-conversation").click()
    await tab.page.wait_for_url(lambda url: url != before)
    await tab.shows("connected")
    await expect(tab.page.locator("#welcome")).to_be_visible()
    await ask(tab, text)


async def open_actions(tab: Tab, name: str) -> None:
    await tab.page.get_by_role("button", name=f"Rename or delete “{name}”").click()


async def test_conversations_are_begun_renamed_deleted_and_gone_back_to(browser: Browser) -> None:
    said: list[str] = []

    async def answer(dialog: Dialog) -> None:
        said.append(dialog.message)
        await dialog.accept()

    async with serving(a_relay(rehearsal())) as port, visit(browser, port) as tab:
        page = tab.page
        page.on("dialog", answer)
        await expect(page.locator("#sidebar")).to_be_hidden()
        await page.locator(TOGGLE).click()
        await expect(page.locator(TOGGLE)).to_have_attribute("aria-expanded", "true")
        await expect(page.locator("#no-conversations")).to_be_visible()
        await ask(tab, "one")
        await expect(names(tab)).to_have_text(["one"])  # without having been asked for again
        await expect(current(tab)).to_have_text("one")
        await begin(tab, "two")  # the side bar stays open
        await begin(tab, "three")
        await expect(names(tab)).to_have_text(["three", "two", "one"])
        await expect(current(tab)).to_have_text("three")

        # Each new tab is another one.
        urls = []
        for _ in range(2):
            async with page.context.expect_page() as opened:
                await page.locator("#new-conversation").click(modifiers=["Control"])
            other = await opened.value
            urls.append(other.url)
            await other.close()
        assert len({*urls, page.url}) == 3

        # Each is an address: the browser's history goes through them.
        await names(tab).nth(2).click()
        await expect(current(tab)).to_have_text("one")
        await expect(page.locator(".message.user .text")).to_have_text("one")
        assert "session=" not in page.url
        await page.go_back()
        await expect(current(tab)).to_have_text("three")
        await expect(page.locator(".message.user .text")).to_have_text("three")
        await tab.shows("connected")
        await page.reload()
        await expect(page.locator(".message.user .text")).to_have_text("three")
        await expect(page.locator(".message.other")).to_have_count(0)  # it is one's own
        await tab.shows("connected")
        await page.go_forward()
        await expect(current(tab)).to_have_text("one")
        await tab.shows("connected")
        await ask(tab, "more")
        await expect(names(tab)).to_have_text(["one", "three", "two"])

        await open_actions(tab, "three")
        await page.get_by_role("button", name="Rename", exact=True).click()
        await expect(page.get_by_label("Name of the conversation")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(names(tab)).to_have_text(["one", "three", "two"])
        await open_actions(tab, "three")
        await page.get_by_role("button", name="Rename", exact=True).click()
        await page.get_by_label("Name of the conversation").fill("  <b>Kyoto</b>  trip ")
        await page.keyboard.press("Enter")
        await expect(names(tab)).to_have_text(["one", "<b>Kyoto</b> trip", "two"])
        assert await violations(page) == []

        await open_actions(tab, "two")
        await page.get_by_role("button", name="Delete", exact=True).click()
        await expect(names(tab)).to_have_text(["one", "<b>Kyoto</b> trip"])
        other = await page.context.new_page()  # the same browser, and so the same user
        await other.goto("/")
        await other.locator("#conversation-list .name", has_text="Kyoto").click()
        await expect(other.locator("[aria-current=page] .name")).to_have_text("<b>Kyoto</b> trip")
        other.on("dialog", answer)
        await other.get_by_role("button", name="Rename or delete “<b>Kyoto</b> trip”").click()
        await other.get_by_role("button", name="Delete", exact=True).click()
        await expect(other.locator("#welcome")).to_be_visible()  # of another one
        await expect(other.locator("#conversation-list .name")).to_have_text(["one"])
        await other.close()
        await page.evaluate("() => void dispatchEvent(new Event('focus'))")
        await expect(names(tab)).to_have_text(["one"])
        assert said == [
            f"Delete “{name}”, and all that was said in it?" for name in ("two", "<b>Kyoto</b> trip")
        ]


async def test_it_is_a_drawer_on_a_phone(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, visit(browser, port, **PHONE) as tab:
        page = tab.page
        await ask(tab, "one")
        await page.locator(TOGGLE).tap()
        await expect(names(tab)).to_have_text(["one"])
        assert await violations(page) == []
        small = await page.evaluate(
            """() => [...document.querySelectorAll("#sidebar :is(a, button)")]
              .filter((each) => each.checkVisibility())
              .filter((each) => each.getBoundingClientRect().height < 44)
              .map((each) => each.id || each.className)"""
        )
        assert small == []
        for leave in ("Escape", "Enter"):  # of the button that closes it
            await page.locator("#sidebar-close").focus()
            await page.keyboard.press(leave)
            await expect(page.locator("#sidebar")).to_be_hidden()
            await expect(page.locator(TOGGLE)).to_be_focused()
            await page.keyboard.press("Enter")
            await expect(page.locator("#sidebar")).to_be_visible()
        await page.locator("#sidebar-close").tap()
        await page.reload()
        await tab.shows("connected")
        await expect(page.locator("#sidebar")).to_be_hidden()  # it does not cover the conversation


async def test_only_ones_own_are_listed(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port:
        for path, is_own in (("/?user=guest&session=kitchen", False), ("/?user=alice&session=kitchen", True)):
            async with visit(browser, port, path) as tab:
                await expect(tab.page.locator(TOGGLE)).to_be_visible(visible=is_own)
    async with serving(a_relay(rehearsal(), secret=SECRET)) as port, web(port, token()) as owner:
        async with visit(browser, port, f"/#token={token()}") as tab:
            await ask(tab, "one")
            await tab.page.locator(TOGGLE).click()
            await expect(current(tab)).to_have_text("one")
            await begin(tab, "two")  # the token goes along
            await expect(names(tab)).to_have_text(["two", "one"])
            await names(tab).nth(1).click()
            await expect(current(tab)).to_have_text("one")
            assert "token" not in tab.page.url
        made = (await owner.post("/sessions/live-alice/invite", json={"role": "manage"})).json()
        async with visit(browser, port, f"/#token={made['token']}") as tab:
            await expect(tab.page.locator(".message.user .text")).to_have_text("one")
            await expect(tab.page.locator(TOGGLE)).to_be_hidden()


async def test_a_late_answer_does_not_replace_a_newer_list(browser: Browser) -> None:
    go_on = asyncio.Event()

    async def late(route: Route) -> None:
        response = await route.fetch()
        await go_on.wait()
        await route.fulfill(response=response)

    async with serving(a_relay(rehearsal())) as port, visit(browser, port) as tab:
        page = tab.page
        await page.route("**/sessions?*", late, times=1)
        async with page.expect_request("**/sessions?*"):
            await page.locator(TOGGLE).click()
        await ask(tab, "one")
        await expect(names(tab)).to_have_text(["one"])
        async with page.expect_response("**/sessions?*"):
            go_on.set()
        await page.evaluate("() => new Promise((resolve) => setTimeout(resolve))")  # it has been read by then
        await expect(names(tab)).to_have_text(["one"])
