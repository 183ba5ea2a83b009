"""Which pages may use relay, and under which names it is reached."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from websockets.typing import Origin, Subprotocol

from adk_relay.wire.origin import Origins
from support.api import rehearsal
from support.chat import http
from support.guarded import status_of
from support.plain_http import ask
from support.server import a_relay, serving
from support.tokens import SECRET, bearer, token

pytestmark = pytest.mark.usefixtures("no_errors")

EVIL = "https://evil.example"
SHOP = "https://shop.example"


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[int]:
    async with serving(a_relay(rehearsal(), **settings)) as port:
        yield port


# ---- Origin -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws/alice", "/ws", "/api/v1/chat/stream"])
@pytest.mark.parametrize("subprotocols", [None, [Subprotocol("relay.v1")]])
async def test_a_page_of_another_site_opens_no_socket(
    path: str, subprotocols: list[Subprotocol] | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay")
    async with served() as port:
        foreign = [EVIL, "null", f"http://127.0.0.1:{port + 1}", f"ws://127.0.0.1:{port}", "http://127.0.0.1"]
        for origin in foreign:
            caplog.clear()
            # Also a socket that offers relay.v1 is refused before the upgrade.
            options = {"origin": Origin(origin), "subprotocols": subprotocols}
            assert await status_of(port, path=path, **options) == 403, origin
            assert f"A page of {origin} may not use this server" in caplog.text
        for own in (f"http://127.0.0.1:{port}", f"https://127.0.0.1:{port}", None):
            assert await status_of(port, path=path, origin=own, subprotocols=subprotocols) == 101, own


async def test_the_log_says_why_a_request_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relay")
    async with served() as port, http(port) as web:
        answer = await web.get("/sessions", headers={"origin": EVIL})
        assert answer.status_code == 403
        assert answer.json()["detail"] in caplog.text
        assert (await web.get("/sessions", headers=[("origin", EVIL), ("origin", EVIL)])).status_code == 403
        # These are for everybody.
        for path in ("/", "/static/app.js", "/health", "/ready"):
            assert (await web.get(path, headers={"origin": EVIL})).status_code == 200


async def test_listed_origins() -> None:
    async with served(origins=f"{SHOP}, https://Other.Example:443") as port:
        for origin in (SHOP, "https://other.example"):
            assert await status_of(port, origin=Origin(origin)) == 101
        for origin in (f"{SHOP}:8443", f"{SHOP}.evil.example", "http://shop.example", EVIL):
            assert await status_of(port, origin=Origin(origin)) == 403, origin


@pytest.mark.parametrize("origins", ["*", "shop.example", "https://shop.example/", "null"])
def test_what_is_no_origin_is_an_error(origins: str) -> None:
    with pytest.raises(ValueError, match="RELAY_ORIGINS"):
        a_relay(origins=origins)


@pytest.mark.parametrize("hosts", ["relay.example:8000", "https://relay.example", "*.example"])
def test_what_is_no_host_is_an_error(hosts: str) -> None:
    with pytest.raises(ValueError, match="RELAY_HOSTS"):
        a_relay(hosts=hosts)


# ---- CORS -------------------------------------------------------------------------------------


async def test_a_page_of_a_listed_origin_may_read_the_answers() -> None:
    async with served(origins=SHOP, secret=SECRET) as port, http(port) as web:
        asked = {"access-control-request-method": "POST", "origin": SHOP}
        preflight = await web.options("/api/v1/chat", headers=asked)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == SHOP
        assert preflight.headers["access-control-allow-methods"] == "POST"
        assert preflight.headers["access-control-allow-headers"] == "authorization, content-type"
        own = {"origin": SHOP, **bearer(token())}
        body = {"session_id": "kitchen", "message": "Hello"}
        stream = {"accept": "text/event-stream"}
        for answer in (
            await web.post("/api/v1/chat", json=body, headers=own),
            await web.post("/api/v1/chat", json=body, headers=own | stream),
            await web.get("/sessions/none", headers=own),
            await web.get("/sessions", headers={"origin": SHOP}),  # 401
        ):
            assert answer.headers["access-control-allow-origin"] == SHOP
            assert answer.headers["vary"] == "origin"
        assert answer.status_code == 401


async def test_a_page_of_another_origin_may_read_nothing() -> None:
    async with served(origins=SHOP) as port, http(port) as web:
        asked = {"access-control-request-method": "POST", "origin": EVIL}
        for answer in (
            await web.options("/api/v1/chat", headers=asked),
            await web.get("/sessions", headers={"origin": EVIL}),
            await web.get("/health", headers={"origin": EVIL}),
        ):
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["vary"] == "origin"  # a cache must not give one origin's answer to another


# ---- Host -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "app.localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "[::1]:80"],
)
async def test_names_of_this_machine(host: str) -> None:
    async with served() as port:
        assert (await ask(port, "/sessions", Host=host)).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.1", "a b"]
)
async def test_on_the_loopback_no_other_name_will_do(host: str, caplog: pytest.LogCaptureFixture) -> None:
    """DNS rebinding: a page's own name means 127.0.0.1, so for its browser it is the server's own page."""
    caplog.set_level(logging.INFO, "relay")
    async with served() as port:
        answer = await ask(port, "/sessions", Host=host, Origin=f"http://{host}")
        assert answer.status == 403
        assert "RELAY_HOSTS" in caplog.text
        assert (await ask(port, "/sessions", Host=host)).status == 403
        # What a proxy writes into other headers does not count, because any page can write it.
        forged = {"X_Forwarded_Host": "localhost", "X_Forwarded_For": "203.0.113.9"}
        assert (await ask(port, "/sessions", Host=host, **forged)).status == 403


async def test_only_the_listed_hosts() -> None:
    async with served(hosts="relay.example, Other.Example") as port:
        for host in ("relay.example", "relay.example:8443", "other.example"):
            assert (await ask(port, "/sessions", Host=host)).status == 200
        for host in ("localhost", "127.0.0.1", "evil.example", "x.relay.example"):
            assert (await ask(port, "/sessions", Host=host)).status == 403
        # What watches a server may not know its name.
        assert (await ask(port, "/health", Host="10.0.0.1")).status == 200


def problem(server: Any, host: str, origin: str = "", scheme: str = "http", **settings: Any) -> str:
    headers = [(b"host", host.encode())] if host else []
    headers += [(b"origin", origin.encode())] if origin else []
    return Origins(**settings).problem(
        {"type": "http", "server": server, "scheme": scheme, "headers": headers}
    )


def test_how_a_server_is_reached() -> None:
    # On any other address than the loopback's, relay can't know its names.
    for server in (("10.0.0.7", 80), ["10.0.0.7", 80], ("/run/relay.sock", None), None, ("testserver", 80)):
        assert not problem(server, "relay.example")
        assert problem(server, "relay.example", hosts="other.example")
        assert problem(server, "relay.example", EVIL)
    for server in (("127.0.0.1", 80), ("::1", 80), ("::ffff:127.0.0.1", 80), ("localhost", 80)):
        assert problem(server, "relay.example")
        assert not problem(server, "")  # no browser leaves it out


def test_behind_tls() -> None:
    """A proxy ends TLS, and says so or not."""
    for scheme in ("http", "https"):
        assert not problem(None, "relay.example", "https://relay.example", scheme)
        assert problem(None, "relay.example", "https://relay.example:8443", scheme)
        assert not problem(None, "relay.example:8443", "https://relay.example:8443", scheme)
    assert problem(None, "relay.example", "http://relay.example", "https")


def test_the_clients_of_tests_are_let_in(tmp_path: Path) -> None:
    with TestClient(a_relay(rehearsal())) as web:
        assert web.get("/sessions").status_code == 200
        with web.websocket_connect("/ws/alice"):
            pass


@pytest.mark.parametrize(
    "url", ["http://testserver", "http://test", "http://localhost", "http://127.0.0.1:80"]
)
async def test_httpx_is_let_in(url: str) -> None:
    transport = httpx.ASGITransport(a_relay(rehearsal()))
    async with httpx.AsyncClient(transport=transport, base_url=url) as web:
        assert (await web.get("/sessions")).status_code == 200
