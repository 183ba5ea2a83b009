"""No text of anybody becomes markup, a script or a link that runs one: the pages show all as text."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from fastapi.openapi.models import OAuth2, OAuthFlowAuthorizationCode, OAuthFlows
from google.adk.agents import LlmAgent
from google.adk.auth.auth_credential import AuthCredential, AuthCredentialTypes, OAuth2Auth
from google.adk.auth.auth_tool import AuthConfig
from google.adk.tools.function_tool import FunctionTool
from google.adk.tools.long_running_tool import LongRunningFunctionTool
from google.adk.tools.tool_context import ToolContext
from playwright.async_api import Browser, expect

from support.browser import NO_SERVER, Tab, rehearsal, visit
from support.chat import created, guest, http
from support.gemini import Connection, GeminiLive, UserTurn
from support.rooms import window
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

XSS = "<img data-xss src=x onerror=xss()>"
SCRIPT = f'"></textarea></script><script data-xss>xss()</script><svg data-xss onload=xss()>{XSS}'
URLS = [
    "javascript:xss()",
    " JaVaScRiPt:xss()",
    "java\nscript:xss()",
    "data:text/html,<script>xss()</script>",
]
URLS += ["vbscript:xss()", "//evil.example/", "file:///etc/passwd", "blob:x", f'https://one.example/"{XSS}']

WATCH = """() => {
  window.caught = [];
  window.xss = () => window.caught.push("script");
  addEventListener("securitypolicyviolation", (event) => window.caught.push(event.violatedDirective));
  for (const name of ["alert", "open", "print"]) window[name] = () => window.caught.push(name);
}"""
"""Keeps what should not happen."""


async def unharmed(tab: Tab) -> None:
    """Nothing has run, nothing was forbidden, and there is no node and no link that a text has made.

    `visit` sees to the console, and that nothing was asked of another server.
    """
    found = await tab.page.evaluate(
        """() => ({
          caught: window.caught,
          nodes: document.querySelectorAll("[data-xss], [onerror], [onload], iframe, base").length,
          links: [...document.links].map((link) => link.protocol).filter((name) => !/^https?:$/.test(name)),
          others: [...document.links].filter(({ origin }) => origin !== location.origin)
            .map(({ target, rel }) => `${target} ${rel}`)
            .filter((how) => how !== "_blank noopener noreferrer"),
        })"""
    )
    assert found == {"caught": [], "nodes": 0, "links": [], "others": []}


def tell(**arguments: str) -> dict[str, Any]:
    return {XSS: [SCRIPT, arguments]}


def ask(tool_context: ToolContext) -> dict[str, Any]:
    """Asks first."""
    if tool_context.tool_confirmation is None:
        tool_context.request_confirmation(hint=SCRIPT, payload={XSS: SCRIPT})
        return {"status": XSS}
    return {}


def wait(text: str) -> dict[str, Any]:
    """Asks somebody."""
    return {"status": "pending", "text": SCRIPT}


SIGN_IN = AuthConfig(
    auth_scheme=OAuth2(
        flows=OAuthFlows(
            authorizationCode=OAuthFlowAuthorizationCode(
                authorizationUrl="javascript:xss()//", tokenUrl="https://one.example/", scopes={XSS: XSS}
            )
        )
    ),
    credential_key="the-key",
    raw_auth_credential=AuthCredential(
        auth_type=AuthCredentialTypes.OAUTH2, oauth2=OAuth2Auth(client_id=XSS, client_secret="x")
    ),
)


def sign_in(tool_context: ToolContext) -> None:
    """Reads the mail."""
    tool_context.request_credential(SIGN_IN)


def renamed(tool: Any, name: str) -> Any:
    """A tool with a name that is markup."""
    tool.name = name
    tool.func.__name__ = name
    return tool


TOLD, ASKED, WAITED, SIGNED = (f"<b data-xss>{name}</b>{XSS}" for name in ("tell", "ask", "wait", "sign"))


def agent() -> LlmAgent:
    tools = [
        renamed(FunctionTool(tell), TOLD),
        renamed(FunctionTool(ask), ASKED),
        renamed(LongRunningFunctionTool(wait), WAITED),
        renamed(FunctionTool(sign_in), SIGNED),
    ]
    return LlmAgent(name="tester", model="gemini-3.8-live", tools=tools)


async def answer(connection: Connection, turn: UserTurn) -> None:
    """Calls the tool that the user names, and says it all."""
    calls = {"tell": (TOLD, {"text": SCRIPT}), "ask": (ASKED, {}), "wait": (WAITED, {"text": SCRIPT})}
    calls["sign"] = (SIGNED, {})
    word = turn.text.partition(" ")[0]
    if word in calls:
        await connection.call_tool(*calls[word])
    await connection.say(f"{word} {SCRIPT}", complete=False)
    await connection.ground(*((f"{XSS}{url}", url) for url in URLS), searches=(SCRIPT,), html=SCRIPT)
    await connection.turn_complete()


async def hear_all(tab: Tab, port: int, room: str) -> None:
    """A page shows all that others, the agent and its tools say, now and when it is loaded again."""
    async with guest(port, room, query=f"&name={quote(XSS + ' 2')}") as mallory:
        await mallory.send(type="typing_start")
        for text in (SCRIPT, f"[x](javascript:xss()) `{XSS}`"):
            await mallory.ask(text)
        for word in ("tell", "wait", "ask", "sign"):
            await tab.say(f"{word} {SCRIPT}")
            await expect(tab.page.locator(".message.agent .text").last).to_have_text(f"{word} {SCRIPT}")
        await expect(tab.page.locator(".message.agent .sources").last).to_contain_text(URLS[0])
        await expect(tab.page.locator(".message.agent .sources").last.get_by_role("link")).to_have_count(1)
        await expect(tab.page.locator(".other .who").first).to_contain_text(XSS)
        cards = tab.page.locator(".waiting-card:not(.done)")
        await expect(cards).to_have_count(3)
        await unharmed(tab)
        await cards.filter(has_text="waits for your answer").get_by_role("textbox").fill(f"x{SCRIPT}")
        await cards.filter(has_text="waits for your answer").get_by_role("button", name="Answer").click()
        await expect(cards).to_have_count(2)
        await unharmed(tab)
        await tab.page.reload()
        await expect(cards).to_have_count(2)
        await expect(tab.page.locator(".message .text", has_text=SCRIPT)).not_to_have_count(0)
        await unharmed(tab)


async def test_the_main_page_shows_all_as_text(gemini: GeminiLive, browser: Browser) -> None:
    gemini.answer = answer
    async with serving(a_relay(agent(), grace=60)) as port:
        room = await created(port)
        path = f"/?user=guest&session={room}&name={quote(XSS)}"
        async with visit(browser, port, path, script=WATCH) as tab:
            await hear_all(tab, port, room)


async def test_the_rooms_show_all_as_text(gemini: GeminiLive, browser: Browser) -> None:
    gemini.answer = answer
    async with serving(a_relay(agent(), grace=60)) as port:
        room = await created(port)
        async with window(browser, port, room, script=WATCH) as tab:
            await hear_all(tab, port, room)


# ---- addresses ----------------------------------------------------------------------------------

IDS = [
    SCRIPT,
    XSS,
    "javascript:xss()",
    "..",
    "../..",
    "../static/app.js",
    "a/b",
    "%",
    "%2e%2e%2f",
    "a&token=%",
    "'",
]


@pytest.mark.parametrize(
    "path", ["/demo#", "/docs#", "/?debug&session=", "/?session=kitchen&user=", "/#token="]
)
async def test_no_address_makes_a_page_do_anything_else(path: str, browser: Browser) -> None:
    noise = NO_SERVER + "|the server responded with a status of|^debug"
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        async with visit(browser, port, "/demo", script=WATCH, noise=noise, state="connected") as tab:
            for each in IDS:
                await tab.page.goto("about:blank")
                await tab.page.goto(path + (each if "#" in path else quote(each, safe="")))
                if not path.startswith("/docs"):
                    await expect(tab.page.locator("#state")).not_to_have_attribute("data-state", "connecting")
                await unharmed(tab)
            tab.requests = [url for url in tab.requests if url != "about:blank"]
        assert (await web.get("/sessions")).json()["sessions"] == []
