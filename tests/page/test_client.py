"""The client for JavaScript in a page that is not relay's: the example for React, bundled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from relay import Relay
from support.browser import NO_SERVER, rehearsal, until, visit
from support.microphone import Microphone, quiet, voice
from support.node import PACKAGE, run
from support.proxy import network
from support.server import a_relay, serving

# One browser for all tests, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = b"""<!doctype html><html lang="en"><title>An example</title><link rel="icon" href="data:,">
<body><div id="root"></div><script type="module" src="/example/react.js"></script></body></html>"""


class Host:
    """A site with a page of its own, and relay at the same address."""

    def __init__(self, relay: Relay, script: bytes) -> None:
        self._relay = relay
        self._files = {"/example/": (b"text/html", PAGE), "/example/react.js": (b"text/javascript", script)}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") not in self._files:
            return await self._relay(scope, receive, send)
        kind, body = self._files[scope["path"]]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": body})


@pytest.mark.timeout(300)
async def test_the_example_for_react(tmp_path: Path, microphone: Microphone, browser: Browser) -> None:
    microphone.hears(quiet(500), voice(1200), quiet(1000))
    script = tmp_path / "react.js"
    options = ["--bundle", "--format=esm", "--jsx=automatic", f"--outfile={script}"]
    run("esbuild", "examples/react.tsx", *options, cwd=PACKAGE)
    relay = a_relay(rehearsal(), grace=30)
    host = Host(relay, script.read_bytes())
    async with (
        serving(host) as port,
        network(port) as (between, there),
        visit(browser, there, "/example/", noise=f"{NO_SERVER}|React DevTools") as tab,
    ):
        page = tab.page
        await tab.say("What time is it in Tokyo?", "Enter")
        await tab.answered(re.compile(r"in Asia/Tokyo\.$"))
        await expect(page.locator(".tool")).to_have_text("get_current_time: done")

        between.cut()
        await tab.shows("waiting")
        await tab.say("meanwhile", "Enter")
        await expect(page.locator("small")).to_have_text("Waiting to be sent")
        between.mend()
        await tab.online()
        await tab.answered(re.compile(r"You said: meanwhile"))
        assert await tab.texts("user") == ["What time is it in Tokyo?", "meanwhile"]

        await page.get_by_role("button", name="Speak").click()
        await expect(page.locator(".user .text").last).to_have_text(re.compile(r"seconds of speech\)$"))
        await tab.answered(re.compile(r"^You said this, for \d\.\d seconds:$"))
        assert any(isinstance(frame, bytes) for frame in tab.got)  # the agent's sound
        await page.get_by_role("button", name="Hang up").click()
        await tab.shows("connected")

        async def sockets() -> int:
            return len(relay.sockets)

        assert await until(sockets, lambda count: count == 1) == 1  # also in React's strict mode
