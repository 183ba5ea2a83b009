"""The guard: who is let in, and that nobody reaches the conversations of somebody else."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from adk_relay.core.hide_tokens import without_tokens
from adk_relay.core.visitor import Visitor
from adk_relay.wire import guard
from adk_relay.wire.asgi import Scope
from support.api import STATIC, rehearsal
from support.chat import chat, http, stored
from support.client import Json, client
from support.server import a_relay, serving
from support.tokens import SECRET, as_subprotocols, bearer, token, web, with_token

pytestmark = pytest.mark.usefixtures("no_errors")


@asynccontextmanager
async def guarded(**settings: Any) -> AsyncIterator[int]:
    async with serving(a_relay(rehearsal(), **({"secret": SECRET} | settings))) as port:
        yield port


@asynccontextmanager
async def opened(port: int, path: str, **options: Any) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, open_timeout=60, **options) as socket:
        yield socket


async def status_of(port: int, path: str, **options: Any) -> int:
    """The HTTP status of an upgrade; 101: it was accepted."""
    try:
        async with opened(port, path, **options):
            return 101
    except InvalidStatus as refusal:
        return refusal.response.status_code


# ---- who is let in ---------------------------------------------------------------------------

SOCKETS = ["/ws/alice", "/ws", "/api/v1/chat/stream", "/ws/alice?session_id=kitchen", "/nothing"]
REQUESTS = [
    ("GET", "/sessions"),
    ("HEAD", "/sessions"),
    ("POST", "/sessions/new"),
    ("GET", "/sessions/kitchen"),
    ("DELETE", "/sessions/kitchen"),
    ("POST", "/sessions/kitchen/clear"),
    ("POST", "/sessions/kitchen/tool_result"),
    ("POST", "/sessions/kitchen/invite"),
    ("POST", "/api/v1/chat"),
    ("GET", "/stats"),
    ("GET", "/metrics"),
]


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_socket_without_a_token_is_refused(path: str) -> None:
    async with guarded() as port:
        with pytest.raises(InvalidStatus) as refusal:
            async with opened(port, path):
                pass
        response = refusal.value.response
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Bearer realm="relay"'
        async with opened(port, path, subprotocols=["relay.v1"]) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 4401


@pytest.mark.parametrize(("method", "path"), REQUESTS)
async def test_a_request_without_a_token_is_refused(method: str, path: str) -> None:
    async with guarded() as port:
        async with web(port, None) as nobody:
            response = await nobody.request(method, path)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Bearer realm="relay"'
        async with web(port, token(secret="another secret of 32 bytes or more")) as forger:
            response = await forger.request(method, path)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Bearer realm="relay", error="invalid_token"'
        async with web(port, token()) as alice:
            assert (await alice.request(method, path)).status_code != 401


async def test_what_needs_no_token() -> None:
    files = [f"/static/{path.relative_to(STATIC).as_posix()}" for path in STATIC.rglob("*") if path.is_file()]
    async with guarded() as port, web(port, None) as nobody:
        for path in ("/", "/demo", "/docs", "/openapi.json", "/health", "/ready", *files):
            assert (await nobody.get(path)).status_code == 200


async def test_where_a_token_may_be() -> None:
    alices = token("ann@example.com")
    async with guarded() as port:
        for options, query in (
            (with_token(alices), ""),
            ({"subprotocols": as_subprotocols(alices)}, ""),
            ({}, f"&token={alices}"),
            # A header of another kind is for a proxy in front.
            ({"additional_headers": {"Authorization": "Basic YTpi"}}, f"&token={alices}"),
        ):
            async with opened(port, f"/ws/x?is_audio=false{query}", **options) as socket:
                hello = json.loads(await socket.recv())
                assert hello["user_id"] == "ann~40example.com"
                # The token is never sent back.
                assert socket.subprotocol in (None, "relay.v1")
                assert socket.response
                assert alices not in str(socket.response.headers)
            assert await status_of(port, f"/ws?a=b{query}", **options) == 101
        async with web(port, None) as nobody:
            assert (await nobody.get("/sessions", params={"token": alices})).status_code == 200


async def test_a_bad_token_is_not_made_good_by_another_one() -> None:
    bad = token(secret="another secret of 32 bytes or more")
    async with guarded() as port:
        assert await status_of(port, f"/ws/alice?token={token()}", **with_token(bad)) == 401
        assert await status_of(port, f"/ws/alice?token={bad}&token=") == 401


async def test_all_is_open_where_there_is_no_secret() -> None:
    async with guarded(secret=None) as port, web(port, None) as nobody:
        assert (await nobody.get("/sessions")).status_code == 200
        async with client(port, "alice") as alice:
            assert alice.hello["user_id"] == "alice"


# ---- nobody reaches the conversations of somebody else ----------------------------------------

WORD = "marzipan"
"""What alice has said in both of her conversations."""

Way = Callable[[int, str, str], Awaitable[str]]
"""Tries to reach a conversation with a token, and returns all that it was told."""


def ways(session_id: str) -> dict[str, Way]:
    """All ways to reach a conversation by its id."""

    async def live(port: int, of: str, query: str) -> str:
        try:
            async with opened(port, f"/ws/alice?is_audio=false{query}", **with_token(of)) as socket:
                heard = [str(await socket.recv())]
                await socket.send('{"type": "ping"}')
                while "pong" not in heard[-1]:
                    heard.append(str(await socket.recv()))
                return "\n".join(heard)
        except InvalidStatus as refusal:
            return str(refusal)

    async def by_name(port: int, of: str, session: str) -> str:
        return await live(port, of, f"&session_id={session}&after=0.0")

    async def by_number(port: int, of: str, session: str) -> str:
        return await live(port, of, f"&session_id={session}&after=1")

    async def in_chat(port: int, of: str, frame: Json) -> str:
        async with opened(port, "/ws", **with_token(of)) as socket:
            heard = [str(await socket.recv())]
            await socket.send(json.dumps(frame))
            await socket.send('{"type": "ping"}')
            while '"pong"' not in heard[-1]:
                heard.append(str(await socket.recv()))
            if "session_joined" in heard[-2]:
                async with web(port, of) as browser:
                    heard.append((await browser.get(f"/sessions/{session_id}")).text)
            return "\n".join(heard)

    async def join(port: int, of: str, session: str) -> str:
        return await in_chat(port, of, {"type": "join_session", "session_id": session})

    async def write(port: int, of: str, session: str) -> str:
        return await in_chat(port, of, {"type": "chat", "message": WORD, "session_id": session})

    async def turn(port: int, of: str, session: str) -> str:
        heard = []
        async with opened(port, "/api/v1/chat/stream", **with_token(of)) as socket:
            await socket.send(json.dumps({"session_id": session, "message": WORD}))
            try:
                while True:
                    heard.append(str(await socket.recv()))
            except ConnectionClosed:
                return "\n".join(heard)

    def request(method: str, path: str = "", **options: Any) -> Way:
        async def make(port: int, of: str, session: str) -> str:
            async with web(port, of) as browser:
                response = await browser.request(method, f"/sessions/{session}{path}", **options)
                return f"{response.status_code} {response.text}"

        return make

    async def ask(port: int, of: str, session: str) -> str:
        async with web(port, of) as browser:
            body = {"session_id": session, "message": WORD}
            response = await browser.post("/api/v1/chat", json=body)
            return f"{response.status_code} {response.text}"

    async def ask_for_a_stream(port: int, of: str, session: str) -> str:
        async with web(port, of) as browser:
            body, accept = {"session_id": session, "message": WORD}, {"Accept": "text/event-stream"}
            response = await browser.post("/api/v1/chat", json=body, headers=accept)
            return f"{response.status_code} {response.text}"

    return {
        "live": by_name,
        "live, the rest": by_number,
        "join": join,
        "write": write,
        "turn": turn,
        "read": request("GET"),
        "read before": request("GET", "?before=2"),
        "answer a tool": request("POST", "/tool_result", json={"tool_id": "call-1", "result": 1}),
        "ask": ask,
        "ask for a stream": ask_for_a_stream,
        "invite": request("POST", "/invite", json={"ttl": 60, "role": "write"}),
        "clear": request("POST", "/clear"),
        "delete": request("DELETE"),
    }


REFUSALS = re.compile(r"HTTP 404|^404 |unknown_session|There is no conversation|^403 |^401 ", re.MULTILINE)


async def said_by_alice(port: int) -> str:
    """Makes alice's conversations, her default one and one with a name; returns the name."""
    async with client(port, "alice", **with_token(token("alice"))) as alice:
        assert WORD in await alice.ask(WORD)
    async with web(port, token("alice")) as browser:
        session_id: str = (await browser.post("/sessions/new")).json()["session_id"]
        body = {"session_id": session_id, "message": WORD}
        assert WORD in (await browser.post("/api/v1/chat", json=body)).text
    return session_id


@pytest.mark.parametrize("way", ways(""))
@pytest.mark.parametrize("present", [True, False], ids=["in memory", "stored"])
@pytest.mark.parametrize("default", [True, False], ids=["default", "named"])
async def test_nobody_reaches_the_conversation_of_somebody_else(
    way: str, present: bool, default: bool, sessions: str
) -> None:
    relay = a_relay(rehearsal(), secret=SECRET, sessions=sessions)
    async with serving(relay) as port:
        named = await said_by_alice(port)
        session_id = "live-alice" if default else named
        before = await stored(relay, session_id, "alice")
        reach = ways(session_id)[way]

        async def attempts() -> None:
            invited = token("alice", invitation={"session_id": "another", "role": "write"})
            for of in (token("bob"), token("guest"), token("alice~"), token("Alice"), invited):
                heard = await reach(port, of, session_id)
                assert REFUSALS.search(heard), heard
                assert WORD not in heard.replace(f'"message": "{WORD}"', "")
            assert await stored(relay, session_id, "alice") == before
            assert await stored(relay, session_id, "bob") is None

        if present:
            async with client(port, "alice", query=f"&session_id={session_id}", **with_token(token())):
                assert relay.conversations.active
                await attempts()
        else:
            async with asyncio.timeout(60):
                while relay.conversations.active:
                    await asyncio.sleep(0.01)
            await attempts()
        # Alice herself reaches it.
        heard = await reach(port, token("alice"), session_id)
        if way == "answer a tool":
            assert "No call with this tool_id" in heard
        elif way != "invite":
            assert not REFUSALS.search(heard), heard


async def test_the_user_in_the_path_is_not_looked_at() -> None:
    async with guarded() as port:
        await said_by_alice(port)
        async with client(port, "alice", query="&after=0.0", **with_token(token("bob"))) as bob:
            assert (bob.hello["user_id"], bob.hello["session_id"]) == ("bob", "live-bob")
            assert bob.hello["connections"] == 1
            await bob.send(type="ping")
            assert [
                said.get("type") for said in await bob.until(lambda said: said.get("type") == "pong")
            ] == [
                "gap",
                "pong",
            ]
            assert bob.frames[0]["messages"] == 0


async def test_a_list_has_only_the_conversations_of_the_user() -> None:
    async with guarded() as port:
        session_id = await said_by_alice(port)
        for user, expected in (("alice", {session_id, "live-alice"}), ("bob", set()), ("guest", set())):
            async with web(port, token(user)) as browser:
                listed = (await browser.get("/sessions")).json()["sessions"]
            assert {summary["session_id"] for summary in listed} == expected
            assert all(summary["message_count"] == 2 for summary in listed)


async def test_two_users_do_not_share_the_id_of_a_conversation() -> None:
    async with guarded() as port:
        async with client(port, "x", query="&session_id=same", **with_token(token("alice"))) as alice:
            await alice.ask("one")
            assert await status_of(port, "/ws/x?session_id=same", **with_token(token("bob"))) == 404
        assert await status_of(port, "/ws/x?session_id=live-alice", **with_token(token("bob"))) == 404


async def test_a_chat_user_has_rooms_of_its_own() -> None:
    async with guarded() as port, chat(port, **with_token(token("alice"))) as alice:
        await alice.chat("one")
        session_id = (await alice.get("session_created"))["session_id"]
        await alice.get("response_complete")
        async with (
            client(port, "x", query=f"&session_id={session_id}", **with_token(token("alice"))) as live,
            chat(port, session_id, **with_token(token("alice"))) as second,
        ):
            await live.say("two")
            assert (await second.get("message_added"))["message"] == "two"


# ---- one use ---------------------------------------------------------------------------------


async def test_a_token_opens_one_socket() -> None:
    async with guarded(one_use="true") as port:
        once, no_id = token(jti="1"), token()
        assert await status_of(port, "/ws/alice", **with_token(no_id)) == 401
        found = await asyncio.gather(*(status_of(port, "/ws/alice", **with_token(once)) for _ in range(8)))
        assert sorted(found) == [101] + 7 * [401]
        assert await status_of(port, f"/ws?token={once}") == 401
        async with web(port, once) as browser:  # it still makes requests
            assert (await browser.get("/sessions")).status_code == 200
        assert await status_of(port, "/ws/alice", **with_token(token(jti="2"))) == 101
        assert await status_of(port, "/ws/alice", **with_token(token(jti="1", iss="other"))) == 101


async def test_used_tokens_are_remembered_until_they_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_MAX_USED", 2)
    async with guarded(one_use="true") as port:
        short = time.time() - 2  # it holds for three seconds more, by the leeway
        assert await status_of(port, "/ws/alice", **with_token(token(jti="1", exp=short))) == 101
        assert await status_of(port, "/ws/alice", **with_token(token(jti="2"))) == 101
        assert await status_of(port, "/ws/alice", **with_token(token(jti="3"))) == 503
        async with asyncio.timeout(30):
            while await status_of(port, "/ws/alice", **with_token(token(jti="3"))) != 101:
                await asyncio.sleep(0.1)
        assert await status_of(port, "/ws/alice", **with_token(token(jti="2"))) == 401


# ---- a host's own function -------------------------------------------------------------------


def by_cookie(scope: Scope) -> str | None:
    cookie = dict(scope["headers"]).get(b"cookie", b"").decode()
    return cookie.removeprefix("user=") or None


async def by_cookie_later(scope: Scope) -> Visitor | None:
    await asyncio.sleep(0)
    user = by_cookie(scope)
    return Visitor(user, "Ann") if user else None


@pytest.mark.parametrize("authenticate", [by_cookie, by_cookie_later])
async def test_a_host_says_who_somebody_is(authenticate: Any) -> None:
    async with serving(a_relay(rehearsal(), authenticate=authenticate)) as port:
        assert await status_of(port, "/ws/alice") == 401
        assert await status_of(port, "/ws/alice", **with_token(token())) == 401
        cookie = {"Cookie": "user=bob smith"}
        async with client(port, "alice", additional_headers=cookie) as bob:
            assert bob.hello["user_id"] == "bob~20smith"
        async with http(port) as browser:
            assert (await browser.get("/sessions")).status_code == 401
            assert (await browser.get("/sessions", headers=cookie)).status_code == 200


@pytest.mark.parametrize("answer", [7, Visitor(), Visitor(name="Ann"), "", "a" * 129, ZeroDivisionError()])
async def test_a_host_that_fails_lets_nobody_in(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    def authenticate(scope: Scope) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with serving(a_relay(rehearsal(), authenticate=authenticate)) as port:
        assert await status_of(port, "/ws/alice") == 500
        async with http(port) as browser:
            assert (await browser.get("/sessions")).status_code == 500
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 2
    assert all(line.startswith("authenticate failed: ") for line in errors)
    caplog.clear()


def test_settings_that_contradict_each_other() -> None:
    for settings in ({"one_use": "true"}, {"secret": SECRET, "authenticate": by_cookie}, {"secret": "short"}):
        with pytest.raises(ValueError, match=r"one_use|authenticate|RELAY_SECRET"):
            a_relay(rehearsal(), **settings)


# ---- logs ------------------------------------------------------------------------------------


def test_tokens_are_taken_out_of_a_line() -> None:
    secret = token()
    for line in (
        f"GET /ws/alice?token={secret}",
        f"GET /ws/alice?is_audio=true&token={secret}&after=1 HTTP/1.1",
        f"GET /ws/alice?%74oken={secret}",
        f"GET /ws/alice?%74%6f%6B%65n={secret}",
        f"GET /ws/alice%3Ftoken%3D{secret}",
        f"GET /ws/alice%3Fx={secret}",
        f"GET /ws/alice?TOKEN={secret.replace('.', '%2E')}",
        f"GET /ws/alice?x={secret.replace('.', '%2e')}",
        f"> Authorization: Bearer {secret}",
        f"> Sec-WebSocket-Protocol: relay.v1, bearer.{secret}",
        f"'subprotocols': ['relay.v1', 'bearer.{secret}']",
        f'{{"type": "token", "token": "{secret}"}}',
        f"b'token={secret}'",
    ):
        shown = without_tokens(line)
        assert "…" in shown
        assert not any(part in shown for part in secret.split("."))
    opaque = "GET /ws/alice?is_audio=true&token=s3cret&after=1"
    assert without_tokens(opaque) == "GET /ws/alice?is_audio=true&token=…&after=1"
    for line in ("GET /ws/alice?is_audio=true&after=ab.1 HTTP/1.1", "the token has expired", "12 tokens"):
        assert without_tokens(line) == line


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG, 5], ids=["info", "debug", "trace"])
async def test_no_token_is_in_the_logs_of_the_server(level: int, caplog: pytest.LogCaptureFixture) -> None:
    """With uvicorn's own loggers, formatters and middleware, up to what --log-level trace shows."""
    secret, opaque = token(), "s3cret-and-opaque"
    renewal = token(more=1)
    for name in ("relay", "uvicorn", "uvicorn.access", "uvicorn.error", "uvicorn.asgi"):
        caplog.set_level(level, name)
    async with serving(a_relay(rehearsal(), secret=SECRET), log_level=level) as port:
        for given in (secret, opaque):
            percent = given.replace(".", "%2E")
            await status_of(port, f"/ws/alice?token={given}")
            await status_of(port, f"/ws/alice?%74oken={percent}")
            await status_of(port, f"/ws?a=b&token={given}")
            await status_of(port, "/ws/alice", **with_token(given))
            await status_of(port, "/ws/alice", subprotocols=as_subprotocols(given))
            async with http(port) as browser:
                await browser.get(f"/sessions?token={given}")
                await browser.get("/sessions", headers=bearer(given))
                await browser.get(f"/sessions%3Ftoken={given}")
        async with client(port, **with_token(secret)) as alice:
            await alice.send(type="token", token=renewal)
            await alice.send(type="token", token=opaque)
            await alice.until(lambda said: said.get("code") == "bad_token")
    lines = [
        f"{record.getMessage()} {record.args} {record.exc_text}"
        for record in caplog.records
        if not record.name.startswith(("httpx", "httpcore", "websockets.client"))
    ]
    assert any("token=…" in line for line in lines)
    for part in (*secret.split(".")[1:], renewal.split(".")[2], opaque):
        assert [line for line in lines if part in line] == []


def test_no_secret_is_in_the_repr_of_a_relay() -> None:
    relay = a_relay(rehearsal(), secret=SECRET)
    seen: set[int] = set()

    def shown(value: object) -> None:
        if id(value) in seen or type(value).__module__.split(".")[0] not in ("relay", "adk_relay"):
            return
        seen.add(id(value))
        assert SECRET not in repr(value)
        for part in getattr(value, "__dict__", {}).values():
            shown(part)

    shown(relay)
    assert len(seen) > 3
