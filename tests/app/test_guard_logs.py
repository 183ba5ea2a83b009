"""No token and no secret is in a log or in a repr."""

from __future__ import annotations

import logging

import pytest

from adk_relay.core.hide_tokens import without_tokens
from support.api import rehearsal
from support.chat import http
from support.client import client
from support.guarded import status_of
from support.server import a_relay, serving
from support.tokens import SECRET, as_subprotocols, bearer, token, with_token

pytestmark = pytest.mark.usefixtures("no_errors")


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
