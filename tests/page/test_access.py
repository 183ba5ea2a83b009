"""The main page on small screens, for screen readers, and under a prefix."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

import pytest
from playwright.async_api import Browser, expect
from starlette.applications import Starlette
from starlette.routing import Mount

from support.browser import rehearsal, violations_in_both_schemes, visit
from support.client import Json
from support.microphone import Microphone, quiet, voice
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


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


async def test_nothing_shuts_anybody_out(browser: Browser) -> None:
    async with (
        serving(a_relay(rehearsal())) as port,
        visit(browser, port, "/?user=alice") as tab,
    ):
        assert await violations_in_both_schemes(tab.page) == []
        await tab.page.get_by_role("button", name="What time is it in Tokyo?").click()
        await tab.answered(re.compile(r"in Asia/Tokyo\.$"))
        await tab.page.locator("details.tool summary").click()
        await tab.call()
        await tab.page.get_by_role("button", name="Mute").click()
        assert await violations_in_both_schemes(tab.page) == []
        async with visit(browser, port, "/?user=alice") as other:
            await other.say("hello")
            await tab.answered(re.compile("You said: hello$"))
            await other.page.keyboard.type("and")
            await expect(tab.page.locator("#writing")).to_be_visible()
            await expect(tab.page.locator("#here")).to_be_visible()
            assert await violations_in_both_schemes(tab.page) == []


async def test_each_path_of_an_origin_has_a_user_of_its_own(browser: Browser) -> None:
    shop, bank = a_relay(rehearsal()), a_relay(rehearsal())
    host = Starlette(routes=[Mount("/shop", shop), Mount("/bank", bank)])
    users: list[str] = []
    async with serving(host) as port, visit(browser, port, "/shop/") as tab:
        for path in ("/shop/", "/bank/", "/shop/"):
            await tab.page.goto(path)
            await tab.shows("connected")
            users.append(tab.sockets[-1].url.split("/ws/")[1].partition("?")[0])
        await tab.page.evaluate("() => (localStorage.clear(), localStorage.setItem('relay.user', 'me'))")
        await tab.page.goto("/bank/")  # as a page of an earlier version has kept it
        await tab.shows("connected")
        assert "/bank/ws/me?" in tab.sockets[-1].url
        await shop.aclose()
        await bank.aclose()
    assert users[0] == users[2] != users[1]


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
