"""The guard: who is let in, and as whom."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from adk_relay.core.visitor import Visitor
from adk_relay.wire import used_tokens
from adk_relay.wire.asgi import Scope
from support.api import STATIC, rehearsal
from support.chat import http
from support.client import client
from support.guarded import guarded, opened, status_of
from support.server import a_relay, serving
from support.tokens import SECRET, as_subprotocols, token, web, with_token

pytestmark = pytest.mark.usefixtures("no_errors")


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
    folders = [STATIC, STATIC.parent / "clients" / "js" / "src"]
    named = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files = [f"/{path.relative_to(STATIC.parent).as_posix()}" for path in named]
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


async def test_a_client_that_is_to_try_again_can_use_its_token_then() -> None:
    async with guarded(one_use="true", user_sockets=1) as port:
        later = token(jti="2")
        async with opened(port, "/ws/alice", **with_token(token(jti="1"))):
            assert await status_of(port, "/ws/alice", **with_token(later)) == 429
        async with asyncio.timeout(30):  # the server notices that the socket is closed
            while (status := await status_of(port, "/ws/alice", **with_token(later))) == 429:
                pass
        assert status == 101


async def test_used_tokens_are_remembered_until_they_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used_tokens, "_MAX_USED", 2)
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
