"""Pages of other sites, in a real browser, reach nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from support.browser import rehearsal
from support.chat import guest, http, taken
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

ATTEMPTS = """async (relay) => {
  const ws = relay.replace("http", "ws");
  const open = (path, protocols) => new Promise((done) => {
    const socket = new WebSocket(ws + path, protocols);
    socket.onopen = () => done("open");
    socket.onclose = ({ code, reason }) => done(`${code} ${reason}`);
  });
  const fetched = (path, options) =>
    fetch(relay + path, options).then(async (answer) => answer.type + (await answer.text()), () => "refused");
  const json = JSON.stringify({ session_id: "theirs", message: "hello" });
  const asJson = { "content-type": "application/json" };
  const plain = { method: "POST", body: json, mode: "no-cors", credentials: "include" };
  const loaded = (name, attributes) => new Promise((done) => {
    const node = Object.assign(document.createElement(name), attributes);
    node.onload = () => done("loaded");
    node.onerror = () => done("refused");
    document.body.append(node);
  });
  const submitted = (path) => new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.name = "target";
    const field = document.createElement("input");
    Object.assign(field, { name: json.slice(0, -1) + ',"x":"', value: '"}' });
    const form = document.createElement("form");
    Object.assign(form, { action: relay + path, method: "post", enctype: "text/plain", target: "target" });
    form.append(field);
    document.body.append(frame, form);
    form.submit();
    frame.onload = () => done("sent");
  });
  return {
    live: await open("/ws/alice", ["relay.v1"]),
    plain: await open("/ws/alice"),
    chat: await open("/ws"),
    turn: await open("/api/v1/chat/stream", ["relay.v1", "bearer.x"]),
    read: await fetched("/sessions"),
    readCookies: await fetched("/sessions/kitchen", { credentials: "include" }),
    ask: await fetched("/api/v1/chat", { method: "POST", body: json, headers: asJson }),
    askPlain: await fetched("/api/v1/chat", plain),
    createPlain: await fetched("/sessions/new", { ...plain, body: "" }),
    clearPlain: await fetched("/sessions/kitchen/clear", { ...plain, body: "" }),
    delete: await fetched("/sessions/kitchen", { method: "DELETE" }),
    keepalive: await fetched("/sessions/new", { ...plain, body: "", keepalive: true }),
    beacon: String(navigator.sendBeacon(relay + "/sessions/new")),
    script: await loaded("script", { src: relay + "/sessions" }),
    form: await submitted("/api/v1/chat"),
    none: await new Promise((done) => {
      onmessage = ({ data }) => done(data);
      const script = `const s = new WebSocket("${ws}/ws/alice", ["relay.v1"]);
        s.onopen = () => parent.postMessage("open", "*");
        s.onclose = ({ code }) => parent.postMessage(String(code), "*");`;
      const source = `<script>${script}</` + "script>";
      const frame = document.createElement("iframe");
      document.body.append(Object.assign(frame, { sandbox: "allow-scripts", srcdoc: source }));
    }),
  };
}"""


@asynccontextmanager
async def another_site() -> AsyncIterator[int]:
    """A server of somebody else's, with one empty page."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"<!doctype html><title>another site</title>"})

    async with serving(app, lifespan="off") as port:
        yield port


@asynccontextmanager
async def page_at(browser: Browser, url: str) -> AsyncIterator[Page]:
    context = await browser.new_context()
    try:
        page = await context.new_page()
        await page.goto(url)
        yield page
    finally:
        await context.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "relay.test"], ids=["another port", "another name"])
async def test_a_page_of_another_site_reaches_nothing(host: str, browser: Browser) -> None:
    relay = a_relay(rehearsal())
    async with (
        serving(relay) as port,
        another_site() as other,
        http(port) as web,
        guest(port, "kitchen") as us,
    ):
        await us.ask("hello")
        before = (await web.get("/sessions")).json()["sessions"]
        async with page_at(browser, f"http://{host}:{other}/") as page:
            told = await page.evaluate(ATTEMPTS, f"http://127.0.0.1:{port}")
        assert {told.pop(way) for way in ("live", "plain", "chat", "turn")} == {"1006 "}
        assert told.pop("none") == "1006"
        assert told.pop("beacon") == "true"  # it was sent
        assert told.pop("form") == "sent"
        assert all(re.fullmatch("refused|opaque", answer) for answer in told.values()), told
        await taken(us)
        after = (await web.get("/sessions")).json()
        assert [each["session_id"] for each in after["sessions"]] == [each["session_id"] for each in before]
        assert after["sessions"][0]["message_count"] == 2
        assert (after["active_sessions"], len(relay.sockets)) == (1, 1)
        assert relay.conversations.stats.refused["foreign page or host"] == 5
        relay._guard.quotas.check()


async def test_a_name_that_another_site_gives_this_machine_reaches_nothing(browser: Browser) -> None:
    """DNS rebinding: for the browser, the page and the server are one site."""
    relay = a_relay(rehearsal())
    async with serving(relay) as port, http(port) as web:
        url = f"http://relay.test:{port}"
        async with page_at(browser, f"{url}/docs") as page:
            told = await page.evaluate(
                """async (ws) => [
                  await new Promise((done) => {
                    const socket = new WebSocket(ws + "/ws/alice", ["relay.v1"]);
                    socket.onopen = () => done(101);
                    socket.onclose = () => done(403);
                  }),
                  (await fetch("/sessions")).status,
                  (await fetch("/sessions/new", { method: "POST" })).status,
                ]""",
                url.replace("http", "ws"),
            )
        assert told == [403, 403, 403]
        assert (await web.get("/sessions")).json()["sessions"] == []


async def test_no_page_of_another_site_shows_this_one(browser: Browser) -> None:
    """In a frame, another site could make a user press its buttons."""
    async with (
        serving(a_relay(rehearsal())) as port,
        another_site() as other,
        page_at(browser, f"http://127.0.0.1:{other}/") as page,
    ):
        for path in ("/", "/demo", "/docs", "/sessions", "/nothing"):
            await page.evaluate(
                """(url) => new Promise((done) => {
                  const frame = document.createElement("iframe");
                  document.body.replaceChildren(Object.assign(frame, { src: url, onload: done }));
                })""",
                f"http://127.0.0.1:{port}{path}",
            )
            [frame] = page.main_frame.child_frames
            assert frame.url == "chrome-error://chromewebdata/", path
