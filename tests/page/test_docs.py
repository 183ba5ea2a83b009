"""The documentation in a real browser, held against the code: what it tells is all there is, and is true."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from playwright.async_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.routing import Mount

from adk_relay.core.messages import Message
from adk_relay.wire.dialects.live import PING
from support.browser import rehearsal, violations
from support.client import Json
from support.server import a_relay, serving
from support.wire import (
    DIALECTS,
    OTHERS_CLOSE_CODES,
    SAMPLES,
    by_kind,
    close_codes,
    emitted,
    error_codes,
    kind,
    taken,
)

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

HERE = Path(__file__).parent.parent.parent
API: Json = json.loads((HERE / "static" / "openapi.json").read_text())
PAGE = (HERE / "static" / "docs.html").read_text()
OPERATIONS = [
    (path, method) for path, methods in API["paths"].items() for method in methods if method != "parameters"
]


@asynccontextmanager
async def reading(browser: Browser, port: int, path: str = "/docs", **options: Any) -> AsyncIterator[Page]:
    """The page, drawn; nothing may be in the console in the end, and nothing have gone anywhere else."""
    origin = f"http://127.0.0.1:{port}"
    context = await browser.new_context(base_url=origin, **{"reduced_motion": "reduce"} | options)
    complaints: list[str] = []
    try:
        page = await context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
        page.on(
            "request",
            lambda request: None if request.url.startswith(f"{origin}/") else complaints.append(request.url),
        )
        await page.goto(path)
        if options.get("java_script_enabled", True):
            await expect(page.locator(".operation")).to_have_count(len(OPERATIONS))
        yield page
        await page.evaluate("() => 0")  # what is in the console already has been told by then
        assert complaints == []
    finally:
        await context.close()


async def frames(page: Page, dialect: str, whose: str) -> list[Json]:
    """The frames that the page tells of."""
    rows = page.locator(f"#{dialect} .frames[data-from={whose}] td:first-child code")
    return [json.loads(text) for text in await rows.all_text_contents()]


# ---- what one sees ---------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
async def test_everybody_can_read_it(browser: Browser, scheme: Any, width: int) -> None:
    viewport: Any = {"width": width, "height": 800}
    async with (
        serving(a_relay(rehearsal())) as port,
        reading(browser, port, color_scheme=scheme, viewport=viewport) as page,
    ):
        assert await violations(page) == []
        assert await page.evaluate("() => document.documentElement.scrollWidth") == width


async def test_the_contents_name_all_there_is_and_lead_there(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, reading(browser, port) as page:
        links = await page.locator(".contents a").evaluate_all(
            "links => links.map(({ hash }) => hash.slice(1))"
        )
        parts = await page.locator("main > section, main h2[id], main h3[id]").evaluate_all(
            "parts => parts.map(({ id }) => id)"
        )
        assert links == parts
        assert len(links) == len(set(links))
        await page.locator(".contents a", has_text="DELETE").click()
        await expect(page.locator("#deleteSession-delete")).to_be_in_viewport()
        assert page.url.endswith("/docs#deleteSession-delete")
        await page.reload()  # what the address names is drawn only later
        await expect(page.locator("#deleteSession-delete")).to_be_in_viewport()


async def test_the_keyboard_leads_past_the_contents(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, reading(browser, port) as page:
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the text")).to_be_focused()


async def test_without_scripts_the_rest_can_be_read(browser: Browser) -> None:
    async with (
        serving(a_relay(rehearsal())) as port,
        reading(browser, port, java_script_enabled=False) as page,
    ):
        await expect(page.locator("#http a", has_text="openapi.json")).to_be_visible()
        assert len(await frames(page, "chat", "server")) > 10


async def test_it_works_under_a_prefix(browser: Browser) -> None:
    app = Starlette(routes=[Mount("/talk", a_relay(rehearsal()))])
    async with serving(app, lifespan="off") as port, reading(browser, port, "/talk/docs") as page:
        for example in await page.locator("pre").all_text_contents():
            assert f"//127.0.0.1:{port}/talk/" in example
        for name in ("Talk", "Rooms", "OpenAPI"):
            link = page.locator("nav.links a", has_text=name)
            url = await link.evaluate("link => link.href")
            assert (await page.request.get(url)).ok, url
        await page.locator("nav.links a", has_text="Rooms").click()
        await expect(page.locator("#state")).to_have_attribute("data-state", "connected")


async def test_it_needs_nothing_that_its_policy_forbids() -> None:
    for found in ("<style", " style=", " onclick=", "<script>", "https://", 'href="/', 'src="/'):
        assert found not in PAGE, found


# ---- HTTP ------------------------------------------------------------------------------------


def resolved(node: Json) -> Json:
    while "$ref" in node:
        reference, node = node["$ref"], API
        for key in reference.removeprefix("#/").split("/"):
            node = node[key]
    return node


def fields(schema: Json) -> set[str]:
    """The names of all fields of an object, and of the objects in its lists."""
    schema = resolved(schema)
    found = set(schema.get("properties", {}))
    for field in schema.get("properties", {}).values():
        if "items" in field:
            found |= fields(field["items"])
    return found


async def test_the_whole_http_interface_is_told(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, reading(browser, port) as page:
        for path, method in OPERATIONS:
            operation = API["paths"][path][method]
            article = page.locator(f".operation:has(#{operation['operationId']}-{method})")
            text = await article.inner_text()
            title = await article.locator("h3 > *").all_text_contents()
            assert title == [method.upper(), path, operation["summary"]]
            for paragraph in operation["description"].replace("`", "").split("\n\n"):
                assert paragraph in text
            codes = await article.locator("table").last.locator("th[scope=row]").all_text_contents()
            assert codes == list(operation["responses"])
            names: set[str] = set()
            bodies = operation.get("requestBody", {}).get("content", {}).values()  # JSON, or a form
            for schema in (
                *(body["schema"] for body in bodies),
                operation["responses"]["200"]["content"].get("application/json", {}).get("schema"),
            ):
                names |= fields(schema) if schema else set()
            for parameter in API["paths"][path].get("parameters", []) + operation.get("parameters", []):
                names.add(resolved(parameter)["name"])
            told = await article.locator("th[scope=row] code").all_text_contents()
            assert {name.rpartition(".")[2] for name in told} == names, path


async def test_the_curl_examples_do_what_they_say(browser: Browser) -> None:
    async with (
        serving(a_relay(rehearsal(pace=50))) as port,
        reading(browser, port) as page,
        httpx.AsyncClient(trust_env=False, verify=False, timeout=15) as web,
    ):
        examples = await page.locator("pre.curl").all_text_contents()
        assert len(examples) == len(OPERATIONS) + 1
        session_id = ""
        for example in sorted(
            examples, key=lambda example: ("-X DELETE" in example, "sessions/new" not in example)
        ):
            command, *words = shlex.split(example.replace("\\\n", ""))
            assert command == "curl"
            method, url, headers, content = "", "", {}, None
            while words:
                match words.pop(0):
                    case "-X":
                        method = words.pop(0)
                    case "-H":
                        name, _, value = words.pop(0).partition(": ")
                        headers[name] = value
                    case "-d":
                        method, content = method or "POST", words.pop(0)
                    case "-s" | "-sN":
                        pass
                    case url:
                        assert url.startswith(f"http://127.0.0.1:{port}/")
            response = await web.request(
                method or "GET", url.replace("{session_id}", session_id), headers=headers, content=content
            )
            # Nothing waits, and there is no secret: nothing signs an invitation, or guards the metrics.
            expected = {"tool_result": 404, "invite": 409, "metrics": 404}.get(url.rpartition("/")[2], 200)
            assert response.status_code == expected, example
            if url.endswith("/sessions/new"):
                session_id = response.json()["session_id"]
            if "accept" in headers:
                assert "event: done" in response.text


# ---- the dialects ----------------------------------------------------------------------------


async def test_the_samples_are_all_there_is() -> None:
    assert {type(sample) for sample in SAMPLES} == set(get_args(Message))


@pytest.mark.parametrize("name", DIALECTS)
async def test_the_frames_are_those_of_the_dialect(browser: Browser, name: str) -> None:
    dialect = DIALECTS[name]
    async with serving(a_relay(rehearsal())) as port, reading(browser, port) as page:
        told, asked = await frames(page, name, "server"), await frames(page, name, "client")
    assert by_kind(told) == emitted(name)
    for frame in asked:
        dialect.decode(json.dumps(frame))
    types = {
        "live": "activity_start|activity_end|audio_end|configure|heard|history|interrupt|rewind|tool_result"
        "|typing_start|typing_stop"
        "|token|ping|pong|text/plain|audio/pcm|image/jpeg",
        "chat": "create_session|join_session|chat|rewind|tool_result|typing_start|typing_stop"
        "|token|ping|pong",
        "turn": "turn",
    }[name]
    assert {kind(frame) for frame in asked} == set(types.split("|"))


@pytest.mark.parametrize("name", ["live", "chat"])
async def test_the_frames_that_a_client_sends_are_all_that_are_taken(browser: Browser, name: str) -> None:
    """A dialect says in its refusal what it takes."""
    async with serving(a_relay(rehearsal())) as port, reading(browser, port) as page:
        told = {kind(frame) for frame in await frames(page, name, "client")}
    assert taken(name) - {"image/png"} == told
    assert "image/png" in PAGE


async def test_all_errors_are_told(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, reading(browser, port) as page:
        rows = page.locator("h2#live-errors + table th[scope=row]")
        assert set(await rows.all_text_contents()) == error_codes()


async def test_all_close_codes_are_told(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, reading(browser, port) as page:
        told = set(await page.locator("#closes th[scope=row]").all_text_contents())
    assert told == close_codes().keys() | OTHERS_CLOSE_CODES


@pytest.mark.parametrize("name", DIALECTS)
async def test_the_examples_run(browser: Browser, name: str) -> None:
    """Pasted into a console, each writes the agent's answer there."""
    heard: list[str] = []
    async with serving(a_relay(rehearsal(pace=50))) as port, reading(browser, port) as page:
        page.on("console", lambda said: heard.append(said.text))
        example = page.locator(f"#{name} pre", has_text="new WebSocket")
        is_answer: Callable[[Any], bool] = lambda said: "This is a rehearsal" in said.text  # noqa: E731
        async with page.expect_console_message(is_answer):
            await page.evaluate(f"() => {{ {await example.text_content()} }}")
    assert PING not in heard
