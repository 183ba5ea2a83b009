"""The HTTP interface: what is refused, and how a failure is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from adk_relay.wire.asgi import Scope
from support.api import API, CHAT, events, get, refused, rehearsal, say, stats_when, untimed
from support.chat import created, http
from support.gemini import Connection, GeminiLive, Plan, UserTurn
from support.server import a_relay, serving
from support.tokens import SECRET, token
from support.tokens import web as signed_in

LONG = "ä" * (16 * 1024)  # 32 KiB

BAD_BODIES: dict[str, tuple[str, bytes]] = {
    "no JSON": (CHAT, b"hello"),
    "nothing": (CHAT, b""),
    "no UTF-8": (CHAT, b'{"session_id": "a", "message": "\xff"}'),
    "a list": (CHAT, b"[]"),
    "a string": (CHAT, b'"hello"'),
    "deep": (CHAT, b"[" * 60_000),
    "a number that no float holds": (
        CHAT,
        b'{"session_id": "a", "message": "a", "state_delta": {"a": ' + b"9" * 400 + b"}}",
    ),
    "no message": (CHAT, b'{"session_id": "a"}'),
    "no session": (CHAT, b'{"message": "hello"}'),
    "a number for a message": (CHAT, b'{"session_id": "a", "message": 1}'),
    "a blank message": (CHAT, b'{"session_id": "a", "message": " \\n\\u3000"}'),
    "half a character": (CHAT, b'{"session_id": "a", "message": "\\ud800"}'),
    "a long message": (
        CHAT,
        json.dumps({"session_id": "a", "message": LONG + "x"}, ensure_ascii=False).encode(),
    ),
    "a number for an id": (CHAT, b'{"session_id": 1, "message": "hello"}'),
    "a bad id": (CHAT, b'{"session_id": "a/b", "message": "hello"}'),
    "no id": (CHAT, b'{"session_id": "", "message": "hello"}'),
    "a long id": (CHAT, b'{"session_id": "' + b"a" * 129 + b'", "message": "hello"}'),
    "new: no JSON": ("/sessions/new", b"{"),
    "new: a list": ("/sessions/new", b"[]"),
    "new: a number for a model": ("/sessions/new", b'{"model_id": 1}'),
}


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("what", BAD_BODIES)
async def test_a_bad_body_is_told(what: str) -> None:
    path, body = BAD_BODIES[what]
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        refused(await web.post(path, content=body), 400)
        assert (await get(web, "/sessions"))["sessions"] == []


async def test_bodies_that_are_just_right() -> None:
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        for body in (b"", b" ", b"{}", b'{"model_id": "another"}', b'{"model_id": null}', b'{"more": 1}'):
            assert (await web.post("/sessions/new", content=body)).json()["model"] == "rehearsal"
        body = json.dumps({"session_id": "a" * 128, "message": LONG, "more": {}}, ensure_ascii=False).encode()
        assert (await web.post(CHAT, content=body)).status_code == 200
        assert (await get(web, f"/sessions/{'a' * 128}"))["history"][0]["text"] == LONG


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("path", [CHAT, "/sessions/new"])
async def test_a_body_over_64_kib_is_not_read(path: str) -> None:
    fitting = b'{"session_id": "a", "message": "hello"}'.ljust(64 * 1024)

    async def piecemeal() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 1024
        yield b"{}"

    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        assert (await web.post(path, content=fitting)).status_code == 200
        refused(await web.post(path, content=fitting + b" "), 413)
        refused(await web.post(path, content=piecemeal()), 413)  # without a Content-Length
        assert (await web.get("/health")).status_code == 200


UNKNOWN = ["nosuch", "live-alice", "live-", "a b", "%C3%A4", "x" * 129, "x" * 4000]


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("name", UNKNOWN)
async def test_a_session_that_there_is_not(name: str, sessions: str) -> None:
    async with serving(a_relay(rehearsal(), sessions=sessions)) as port, http(port) as web:
        refused(await web.get(f"/sessions/{name}"), 404)
        refused(await web.delete(f"/sessions/{name}"), 404)
        refused(await web.post(f"/sessions/{name}/clear"), 404)
        if name.startswith("live-"):
            refused(await web.post(CHAT, json={"session_id": name, "message": "hello"}), 404)
        assert await get(web, "/sessions") == {"active_sessions": 0, "sessions": []}


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


@pytest.mark.parametrize("path", API["paths"])
async def test_a_method_that_a_path_has_not(path: str) -> None:
    allowed = {method.upper() for method in API["paths"][path] if method != "parameters"}
    allowed |= {"HEAD"} if "GET" in allowed else set()
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        for method in METHODS:
            if method not in allowed:
                response = await web.request(method, path.replace("{session_id}", "a"))
                if method == "HEAD":
                    assert (response.status_code, response.content) == (405, b"")
                else:
                    refused(response, 405)
                assert {one.strip() for one in response.headers["allow"].split(",")} == allowed, method


async def test_head_is_get_without_the_body() -> None:
    """With tokens, because without them there are no metrics here."""
    async with serving(a_relay(rehearsal(), secret=SECRET)) as port, signed_in(port, token()) as web:
        name = (await web.post("/sessions/new")).json()["session_id"]
        for path in API["paths"]:
            if "get" in API["paths"][path]:
                path = path.replace("{session_id}", name)
                got, head = await web.get(path), await web.head(path)
                assert (head.status_code, head.content) == (200, b""), path
                assert head.headers.keys() == got.headers.keys(), path
                assert head.headers["content-type"] == got.headers["content-type"], path
        assert (await web.head("/sessions/nosuch")).status_code == 404


async def test_a_page_of_another_site_can_change_nothing() -> None:
    foreign = {"origin": "https://evil.example"}
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        name = await created(port)
        await say(web, name, "Hello")
        before = await get(web, f"/sessions/{name}")
        body = {"session_id": name, "message": "Hello"}
        refused(await web.post("/sessions/new", headers=foreign), 403)
        refused(await web.post(CHAT, json=body, headers=foreign), 403)
        refused(await web.post(f"/sessions/{name}/clear", headers=foreign), 403)
        refused(await web.delete(f"/sessions/{name}", headers=foreign), 403)
        refused(await web.get(f"/sessions/{name}", headers=foreign), 403)
        after = await get(web, f"/sessions/{name}")
        assert untimed(after.pop("history")) == untimed(before.pop("history"))
        assert after == before
        assert len((await get(web, "/sessions"))["sessions"]) == 1
        own = {"origin": f"http://127.0.0.1:{port}"}
        assert (await web.post("/sessions/new", headers=own)).status_code == 200


@pytest.mark.bus
async def test_too_many_that_wait_are_told_to_come_again(gemini: GeminiLive) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await go_on.wait()
        await connection.say("Yes.")

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web:
        asking = [asyncio.create_task(say(web, "full", str(number))) for number in range(17)]
        await stats_when(web, total_requests=17)
        late = await web.post(CHAT, json={"session_id": "full", "message": "late"})
        assert "16" in refused(late, 429)
        assert int(late.headers["retry-after"]) > 0
        body = {"session_id": "full", "message": "late"}
        # Before a stream has begun, the status can still say what is wrong.
        refused(await web.post(CHAT, json=body, headers={"accept": "text/event-stream"}), 429)
        go_on.set()
        assert {answer["content"] for answer in await asyncio.gather(*asking)} == {"Yes."}
        await stats_when(web, total_requests=19, successful_requests=17, failed_requests=2)


@pytest.mark.bus
@pytest.mark.usefixtures("quick_retries")
async def test_an_agent_that_fails_is_told(gemini: GeminiLive) -> None:
    gemini.on_connect = lambda number: Plan(http_status=403)
    async with serving(a_relay()) as port, http(port) as web:
        refused(await web.post(CHAT, json={"session_id": "a", "message": "hello"}), 502)
        async with events(web, "b", "hello") as stream:
            first, last = [event async for event in stream]
        assert (first["type"], last["type"]) == ("user_message", "error")
        assert last.keys() == {"type", "message"}
        assert last["message"]
        gemini.on_connect = lambda number: None
        assert (await say(web, "a", "hello again"))["content"] == "You said: hello again."


async def test_an_agent_that_says_nothing_for_too_long_is_told(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await asyncio.Event().wait()

    gemini.answer = answer
    async with serving(a_relay(idle_timeout=0.3)) as port, http(port) as web:
        refused(await web.post(CHAT, json={"session_id": "a", "message": "hello"}), 504)


async def test_a_server_that_is_going_says_so(gemini: GeminiLive) -> None:
    begun = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        begun.set()
        await asyncio.Event().wait()

    gemini.answer = answer
    relay = a_relay()
    async with serving(relay) as port, http(port) as web:
        name = await created(port)
        asking = asyncio.create_task(web.post(CHAT, json={"session_id": name, "message": "hello"}))
        await begun.wait()
        await relay.aclose()
        refused(await asking, 503)
        refused(await web.post(CHAT, json={"session_id": name, "message": "hello"}), 503)
        refused(await web.post(f"/sessions/{name}/clear"), 503)
        refused(await web.delete(f"/sessions/{name}"), 503)


def who(scope: Scope) -> str | None:
    """A host's function: the user is in a header, and one user makes it fail."""
    user = dict(scope["headers"]).get(b"x-user", b"").decode()
    if user == "trouble":
        raise RuntimeError("a failure of the host")
    return user or None


async def test_the_description_has_what_the_guard_answers_on_each_path() -> None:
    relay = a_relay(rehearsal(), authenticate=who, user_message_rate=0.001)
    async with serving(relay) as port, http(port) as web:
        while (await web.get("/stats", headers={"x-user": "busy"})).status_code == 200:
            pass
        for path, methods in API["paths"].items():
            url = path.replace("{session_id}", "kitchen")
            for method, operation in methods.items():
                if method == "parameters":
                    continue
                described = {}
                for status, headers in (
                    (401, {}),
                    (403, {"x-user": "alice", "origin": "https://www.example.com"}),
                    (429, {"x-user": "busy"}),
                    (500, {"x-user": "trouble"}),
                ):
                    response = await web.request(method, url, headers=headers)
                    described[status] = response.status_code == status
                    assert str(response.status_code) in operation["responses"], (method, path, status)
                is_open = operation.get("security") == []
                assert set(described.values()) == {not is_open}, (method, path, described)
