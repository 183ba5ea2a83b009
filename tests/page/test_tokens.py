"""The pages with a token in the fragment of their address."""

from __future__ import annotations

import re
import time

import pytest
from playwright.async_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from support.browser import Tab, until, visit
from support.server import serving
from support.terminal import piped, talkative
from support.tokens import SECRET, token, web

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def kept(page: Page) -> str:
    """All that the browser has kept for the page, and its address."""
    return str(
        await page.evaluate(
            "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        )
    )


async def test_the_page_takes_its_token_from_the_fragment(browser: Browser) -> None:
    alices = token()
    async with serving(talkative(secret=SECRET)) as port:
        async with visit(browser, port, f"/#token={alices}") as page:
            await page.say("hello")
            await page.answered(re.compile("You said: hello$"))
            assert page.page.url == f"http://127.0.0.1:{port}/"
            assert alices not in await kept(page.page)
            # A new token comes on the same connection, and the page does not go on without one.
            renewed = token(exp=time.time() + 900)
            opened = len(page.sockets)
            await page.page.evaluate(f"location.hash = 'token={renewed}'")
            await expect(page.page).to_have_url(f"http://127.0.0.1:{port}/")
            await page.say("again")
            await page.answered(re.compile("You said: again$"))
            assert len(page.sockets) == opened
        async with web(port, alices) as browser_of_alice:
            said = (await browser_of_alice.get("/sessions/live-alice")).json()["history"]
            assert [line["text"] for line in said if line["role"] == "user"] == ["hello", "again"]


async def test_a_token_that_has_expired_is_replaced_by_a_new_one(browser: Browser) -> None:
    async with serving(talkative(secret=SECRET)) as port:
        expired = token(exp=time.time() - 60)
        async with visit(browser, port, f"/#token={expired}", state="ended") as page:
            told = page.page.locator("#banner-text")
            await expect(told).to_have_text(re.compile("^The token has expired. Open the link again"))
            await page.page.evaluate(f"location.hash = 'token={token()}'")
            await page.say("hello")
            await page.answered(re.compile("You said: hello$"))


async def test_who_gets_no_new_token_is_told_before_the_end(browser: Browser) -> None:
    async with serving(talkative(secret=SECRET)) as port:
        for path, told in (("/", '#notice [data-kind="token"]'), ("/demo", "#problem")):
            soon = token(exp=time.time() + 20)  # in less than 30 s
            async with visit(browser, port, f"{path}#token={soon}", constants={"WAIT": 0}) as page:
                await expect(page.page.locator(told)).to_contain_text(
                    re.compile(r"Your access ends in \d+ seconds")
                )
                opened = len(page.sockets)
                # One of another user is for another socket.
                await page.page.evaluate("(token) => void (location.hash = `token=${token}`)", token("bob"))
                await expect(page.page.locator(told, has_text="Your access ends")).to_have_count(0)
                await until(lambda: opened_of(page), lambda sockets: sockets == opened + 1)  # noqa: B023
                await page.shows("connected")


async def opened_of(page: Tab) -> int:
    return len(page.sockets)


HOST = """<!doctype html><iframe id="relay" src="/talk/#token=%s" style="width: 60em; height: 40em"></iframe>
<script>
  addEventListener("message", ({ data, source, origin }) => {
    if (origin !== location.origin || data.type !== "relay.token_expiring") return;
    window.asked = data.expires_in;
    source.location.hash = "token=%s";
  });
</script>"""


async def test_a_page_around_it_is_asked_for_another_token(browser: Browser) -> None:
    html = HOST % (token(exp=time.time() + 20), token(exp=time.time() + 600))
    relay = talkative(secret=SECRET)
    host = Starlette(routes=[Route("/", lambda _: HTMLResponse(html)), Mount("/talk", relay)])
    async with serving(host) as port, await browser.new_page() as page:
        await page.goto(f"http://127.0.0.1:{port}/")
        frame = page.frame_locator("#relay")
        await expect(frame.locator("#state")).to_have_attribute("data-state", "connected")
        await page.wait_for_function("() => window.asked > 0")
        await frame.get_by_label("Message", exact=True).fill("hello")
        await frame.get_by_label("Message", exact=True).press("Enter")
        await expect(frame.locator(".message.agent .text")).to_have_text(re.compile("You said: hello$"))
        await relay.aclose()


async def test_the_rooms_with_a_token(browser: Browser) -> None:
    async with serving(talkative(secret=SECRET)) as port, web(port, token()) as alice:
        room = (await alice.post("/sessions/new")).json()["session_id"]
        response = await alice.post(f"/sessions/{room}/invite", json={"role": "write", "name": "Bob"})
        async with (
            visit(browser, port, f"/demo#{room}&token={token(name='Ann')}") as ann,
            visit(browser, port, f"/demo#{room}&token={response.json()['token']}") as bob,
        ):
            assert ann.page.url == f"http://127.0.0.1:{port}/demo#{room}"
            await expect(ann.page.locator(".system")).to_have_text("Bob came in.")
            await bob.page.get_by_label("Message", exact=True).press_sequentially("hello")
            await expect(ann.page.locator("#typing")).to_have_text("Bob is typing…")
            await bob.page.keyboard.press("Enter")
            await ann.answered(re.compile("You said: hello$"))
            await expect(ann.page.locator(".other .who")).to_have_text("Bob")


async def test_the_terminal_client_with_a_token() -> None:
    async with serving(talkative(secret=SECRET)) as port:
        url = f"http://127.0.0.1:{port}"
        code, out, err = await piped("--url", url, "--token", token(), text="hello")
        assert (code, err) == (0, "")
        assert "You said: hello" in out
        code, out, err = await piped("--url", url, text="hello")
        assert (code, out) == (1, "")
        assert "Sign in first: this needs a token." in err
        secret = token(exp=time.time() - 60)
        code, out, err = await piped("--url", url, "--token", secret, text="hello")
        assert (code, out) == (1, "")
        assert "The token has expired." in err
        assert secret not in err
        code, _, err = await piped("--url", url, "--token", "a\nb", text="hello")
        assert code == 1
        assert "The token is not valid" in err
        async with web(port, token()) as alice:
            assert len((await alice.get("/sessions")).json()["sessions"]) == 1
