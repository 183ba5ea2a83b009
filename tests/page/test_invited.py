"""Invitations in the pages: who makes them, what those who come by them can use, and the names of all."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from support.browser import Tab, violations, violations_in_both_schemes, visit
from support.rooms import window
from support.server import serving
from support.terminal import talkative
from support.tokens import SECRET, token, web

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = re.compile("You said: ")


@asynccontextmanager
async def a_room(words_per_second: float = 60) -> AsyncIterator[tuple[int, str, dict[str, str]]]:
    """A server, a room of Alice's, and invitations to it, by their role."""
    async with serving(talkative(words_per_second, secret=SECRET)) as port, web(port, token()) as alice:
        room = (await alice.post("/sessions/new")).json()["session_id"]
        invitations = {}
        for role, name in (("write", "Bob"), ("listen", "Eve"), ("manage", "Max")):
            response = await alice.post(f"/sessions/{room}/invite", json={"role": role, "name": name})
            invitations[role] = response.json()["token"]
        yield port, room, invitations


async def disabled(tab: Tab, *ids: str) -> dict[str, str]:
    """Why each of these controls is disabled, as a screen reader says it."""
    return {id: await why(tab, id) for id in ids}


async def why(tab: Tab, id: str) -> str:
    control = tab.page.locator(f"#{id}")
    await expect(control).to_be_disabled()
    await expect(control).to_have_attribute("aria-describedby", re.compile("."))
    reason = tab.page.locator(f"#{await control.get_attribute('aria-describedby')}")
    await expect(reason).not_to_be_empty()
    return await reason.text_content() or ""


@pytest.mark.parametrize("width", [1280, 390])
async def test_the_rooms_of_those_who_were_invited(browser: Browser, width: int) -> None:
    options: Any = {"viewport": {"width": width, "height": 760}}
    async with (
        a_room() as (port, room, invitations),
        window(browser, port, f"{room}&token={token(name='Ann')}", **options) as ann,
    ):
        async with (
            window(browser, port, f"{room}&token={invitations['write']}", **options) as bob,
            window(browser, port, f"{room}&token={invitations['listen']}", **options) as eve,
        ):
            await expect(eve.page.locator("#role")).to_contain_text("listen only")
            owners = ("new", "join-id", "join-button", "clear", "delete", "invite")
            for reason in (await disabled(eve, *owners, "text", "send")).values():
                assert "listen only" in reason
            for reason in (await disabled(bob, *owners)).values():
                assert "Only whose room it is" in reason
            assert "in your token" in await why(bob, "name")
            await bob.say("hello")
            for tab in (ann, bob, eve):
                await tab.answered(WORDS)
            for tab in (ann, eve):
                await expect(tab.page.locator(".other .who")).to_have_text(["Bob"])
            await expect(ann.page.locator("#clear")).to_be_enabled()
            for tab in (ann, bob, eve):
                assert await violations(tab.page) == []
                assert await tab.page.evaluate("() => document.documentElement.scrollWidth") == width
            async with window(browser, port, f"{room}&token={invitations['manage']}") as manager:
                assert "Only whose room it is" in await why(manager, "invite")
                await expect(manager.page.locator("#delete")).to_be_enabled()
        # The history has the names, too; what Ann wrote herself is hers, although the page has forgotten it.
        await ann.say("and I")
        await expect(ann.page.locator(".message.agent")).to_have_count(2)
        await ann.answered(WORDS)
        async with window(browser, port, f"{room}&token={token(name='Ann')}") as again:
            await expect(again.page.locator(".user .text")).to_have_text(["hello", "and I"])
            await expect(again.page.locator(".other .who")).to_have_text(["Bob"])


async def test_an_invitation_is_made_in_the_rooms_and_opened_by_somebody_else(browser: Browser) -> None:
    async with (
        a_room() as (port, room, _),
        window(browser, port, f"{room}&token={token()}", permissions=["clipboard-write"]) as alice,
    ):
        page = alice.page
        await page.get_by_role("button", name="Invite").click()
        await page.get_by_label("They may").select_option("listen")
        await page.get_by_label("Their name, if you like").fill("Eve")
        assert await violations(page) == []
        await page.get_by_role("button", name="Make a link").click()
        link = page.get_by_label("Whoever opens this link may only listen here, until")
        await expect(link).to_be_focused()
        address = await link.input_value()
        assert address.startswith(f"http://127.0.0.1:{port}/demo#{room}&token=")
        await page.get_by_role("button", name="Copy", exact=True).click()
        await expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert await violations(page) == []
        async with visit(browser, port, address.removeprefix(f"http://127.0.0.1:{port}")) as eve:
            await expect(page.locator(".system").last).to_have_text("Eve came in.")
            await expect(eve.page.locator("#text")).to_be_disabled()
            # The same conversation in the main page; the token goes along, and stays in no address.
            async with eve.page.context.expect_page() as opening:
                await eve.page.get_by_role("link", name="Speak here").click()
            talk = await opening.value
            await expect(talk.locator("#listening")).to_be_visible()
            await expect(talk.get_by_role("button", name="Add a picture")).to_be_disabled()
            assert talk.url == f"http://127.0.0.1:{port}/?user=guest&session={room}&name=Eve"
            assert "token" not in str(await eve.page.locator("#speak").get_attribute("href"))
        await page.keyboard.press("Escape")
        await expect(page.locator("#invite-form")).to_be_hidden()
        await expect(page.get_by_role("button", name="Invite")).to_be_focused()


async def test_where_no_invitation_can_be_signed_the_button_says_so(browser: Browser) -> None:
    async with serving(talkative()) as port, window(browser, port) as tab:
        await tab.say("hello")
        await tab.answered(WORDS)
        assert "RELAY_SECRET" in await why(tab, "invite")
    async with (
        a_room() as (port, room, _),
        window(browser, port, f"{room}&token={token()}", noise="409") as tab,
    ):

        async def refuse(route: Any) -> None:
            await route.fulfill(status=409, json={"detail": "There is no secret."})

        await tab.page.route("**/invite", refuse)  # with RELAY_JWKS only
        await tab.page.get_by_role("button", name="Invite").click()
        await tab.page.get_by_role("button", name="Make a link").click()
        assert "RELAY_SECRET" in await why(tab, "invite")
        await expect(tab.page.locator("#problem")).to_contain_text("RELAY_SECRET")


async def test_the_page_of_somebody_who_only_listens(browser: Browser) -> None:
    async with (
        a_room(10) as (port, room, invitations),
        visit(browser, port, f"/?session={room}#token={token(name='Ann')}") as ann,
        visit(browser, port, f"/#token={invitations['listen']}") as eve,
    ):
        for reason in (await disabled(eve, "text", "send", "audio")).values():
            assert "listen only" in reason
        await expect(eve.page.get_by_role("button", name="What time is it in Tokyo?")).to_be_disabled()
        await expect(eve.page.locator("#announcer")).to_contain_text("listen only")
        await expect(ann.page.locator("#here")).to_contain_text("2 here: Eve")
        await expect(eve.page.locator("#here")).to_contain_text("2 here: Ann")
        assert await violations_in_both_schemes(eve.page) == []
        await ann.page.get_by_label("Message", exact=True).press_sequentially("one ")
        await expect(eve.page.locator("#writing")).to_have_text("Ann is typing…")
        await ann.say("word " * 30)
        await expect(ann.page.locator("#stop")).to_be_visible()
        await expect(eve.page.locator(".message.agent.open")).to_be_visible()
        await expect(eve.page.locator("#stop")).to_be_hidden()
        await eve.answered(WORDS)
        await expect(eve.page.locator(".other .who")).to_contain_text("Ann")
        await eve.page.goto("/docs")
        await eve.page.goto(f"/#token={invitations['listen']}")
        await expect(eve.page.locator(".other .who")).to_contain_text("Ann")
        # An invitation to write, instead of the one before.
        await eve.page.evaluate("(token) => void (location.hash = `token=${token}`)", invitations["write"])
        await expect(eve.page.locator("#text")).to_be_enabled()
        await expect(eve.page.locator("#listening")).to_be_hidden()
        await eve.say("me too")
        await expect(ann.page.locator(".other .who")).to_contain_text("Bob")
        assert not [line for line in eve.console if "error" in line]


async def test_a_name_is_chosen_where_nobody_signs_in(browser: Browser) -> None:
    async with serving(talkative()) as port, window(browser, port) as ann:
        await ann.page.get_by_label("Your name").fill("Ann")
        await ann.page.keyboard.press("Tab")
        async with asyncio.timeout(30):
            while len(ann.sockets) < 2:  # it comes anew, under that name
                await asyncio.sleep(0.01)
        await ann.shows("connected")
        await ann.say("hello")
        await ann.answered(WORDS)
        room = ann.page.url.partition("#")[2]
        async with visit(browser, port, f"/?user=guest&session={room}&name=Bob") as bob:
            await expect(bob.page.locator(".other .who")).to_contain_text("Ann")
            await bob.say("hi")
            await expect(ann.page.locator(".other .who")).to_have_text(["Bob"])
            await ann.page.get_by_label("Your name").fill("Anna")
            await ann.page.keyboard.press("Tab")
            await expect(bob.page.locator("#here")).to_contain_text("2 here: Anna")
        await ann.page.reload()
        await expect(ann.page.get_by_label("Your name")).to_have_value("Anna")
