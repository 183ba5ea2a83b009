"""What stands around relay: proxies as they are shipped, another server, another application."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import ssl
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from relay import Relay
from support.client import client, words
from support.gemini import GeminiLive, silence, speech
from support.proxies import PROXIES, Front, haproxy, nginx
from support.server import a_relay, serving
from support.tokens import SECRET, as_subprotocols, bearer, token

# ---- nginx before one relay ----------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/relay"])
async def test_turns_through_nginx(
    gemini: GeminiLive, tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str
) -> None:
    caplog.set_level(logging.INFO, "relay")
    async with serving(a_relay()) as port, nginx(tmp_path, port) as front:
        async with client(front.port, path=prefix, ssl=front.tls) as alice:
            assert await alice.ask("hello") == "You said: hello."
        # From another of the loopback's addresses, so that it can be told from nginx's own.
        from_afar: dict[str, Any] = {
            "local_addr": ("127.0.0.2", 0),
            "additional_headers": {"X-Forwarded-For": "192.0.2.66"},
        }
        async with client(front.port, "bob", audio=True, path=prefix, ssl=front.tls, **from_afar) as bob:
            await bob.socket.send(speech(300) + silence(400))
            frames = await bob.turn()
            assert words(frames) == "I heard you."
            assert [said["text"] for said in frames if said.get("type") == "transcript"][-1] == "Hello there."
            assert bob.audio == gemini.connections[1].sound != b""
    lines = [record.getMessage() for record in caplog.records if ", closed " in record.getMessage()]
    assert [re.sub(r" \S+ in", " … in", line.split(":")[0]) for line in lines] == [
        "alice text … in live-alice from 127.0.0.1",
        "bob audio … in live-bob from 127.0.0.2",
    ]


@pytest.mark.parametrize("prefix", ["", "/relay"])
async def test_page_through_nginx(tmp_path: Path, prefix: str) -> None:
    """Whatever the page asks for, and what that asks for, is there, with the headers that relay gave it."""
    async with serving(a_relay()) as port, nginx(tmp_path, port) as front, front.browsing() as http:
        found = await _crawl(http, prefix or "/")
        health = (await http.get(f"{prefix}/health")).json()
    assert health["status"] == "ok"
    assert all(path.startswith(f"{prefix}/") for path in found)
    assert {f"{prefix}/static/style.css", f"{prefix}/static/icon.svg"} <= found.keys()
    assert any(path.endswith("worklet.js") for path in found)
    for path, response in found.items():
        assert response.status_code == 200, path
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["etag"]


def browsing(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", verify=False, trust_env=False, follow_redirects=True
    )


async def _crawl(http: httpx.AsyncClient, start: str) -> dict[str, httpx.Response]:
    """The page and all that it, its scripts and its styles name, by path."""
    found: dict[str, httpx.Response] = {}
    wanted = [start]
    while wanted:
        response = await http.get(wanted.pop())
        path = response.url.path
        found[path] = response
        kind = response.headers["content-type"].split(";")[0]
        named = {
            "text/html": r'(?:src|href)="([^"#:]+)"',
            "text/javascript": r'["\']([\w./-]+\.js)["\']',
            "application/manifest+json": r'"src":\s*"([^"]+)"',
        }.get(kind, r"(?!)")
        links = (urljoin(path, link) for link in re.findall(named, response.text))
        wanted += [link for link in links if link not in found]
    return found


async def test_page_through_nginx_is_asked_for_again_and_not_sent_again(tmp_path: Path) -> None:
    async with serving(a_relay()) as port, nginx(tmp_path, port) as front, front.browsing() as http:
        first = await http.get("/relay")
        assert [redirect.headers["location"] for redirect in first.history] == ["/relay/"]
        assert first.headers["content-encoding"] == "gzip"
        again = await http.get("/relay/", headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304


async def test_the_name_of_the_server_through_nginx(tmp_path: Path) -> None:
    """nginx passes the Host on, and relay listens on the loopback only: so RELAY_HOSTS has to name it."""
    page = {"host": "relay.example.com", "origin": "https://relay.example.com"}
    for hosts, status in ((None, 403), ("relay.example.com", 200)):
        folder = tmp_path / str(status)
        folder.mkdir()
        async with (
            serving(a_relay(hosts=hosts)) as port,
            nginx(folder, port) as front,
            front.browsing() as web,
        ):
            assert (await web.get("/sessions", headers=page)).status_code == status
            foreign = page | {"origin": "https://evil.example"}
            assert (await web.get("/sessions", headers=foreign)).status_code == 403


@pytest.mark.parametrize("prefix", ["", "/relay"])
async def test_refusals_through_nginx(tmp_path: Path, prefix: str) -> None:
    async with serving(a_relay()) as port, nginx(tmp_path, port) as front:
        await _is_refused(f"wss://127.0.0.1:{front.port}{prefix}", front.tls)


async def _is_refused(url: str, tls: ssl.SSLContext | None = None) -> None:
    """A client of relay's own sees a close code with a reason, any other an HTTP response with one."""
    protocols = [Subprotocol("relay.v1")]
    async with connect(f"{url}/ws/no%20body", subprotocols=protocols, proxy=None, ssl=tls) as socket_:
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket_.recv(), 5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4404
    assert closed.value.rcvd.reason.startswith("user_id is 1 to 128")
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{url}/ws/alice?is_audio=perhaps", proxy=None, ssl=tls)
    assert refused.value.response.status_code == 404
    assert b"is_audio is true or false" in refused.value.response.body


async def test_nginx_keeps_static_files_for_a_moment(tmp_path: Path) -> None:
    """Browsers ask each time; nginx answers them, in gzip or not, also when the relay is gone."""
    asked: list[str] = []
    relay = a_relay()

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope.get("path", ""))
        await relay(scope, receive, send)

    async with serving(counted) as port, nginx(tmp_path, port) as front, front.browsing() as http:
        first, second = [await http.get("/static/app.js") for _ in range(2)]
        known = {"If-None-Match": first.headers["etag"].removeprefix("W/")}
        assert (await http.get("/static/app.js", headers=known)).status_code == 304
        plain, _ = [
            await http.get("/static/app.js", headers={"Accept-Encoding": "identity"}) for _ in range(2)
        ]
        assert first.text == second.text == plain.text != ""
        assert "content-encoding" not in plain.headers
        assert second.headers["cache-control"] == "no-cache"
        assert second.headers["x-content-type-options"] == "nosniff"
        assert asked.count("/static/app.js") == 2  # once for each encoding
        for _ in range(2):
            await http.get("/health")
        assert asked.count("/health") == 2


# ---- every proxy before one relay ----------------------------------------------------------------


@pytest.mark.parametrize("proxy", sorted(PROXIES))
async def test_no_log_of_a_proxy_has_a_token(tmp_path: Path, proxy: str) -> None:
    """Wherever it comes from, and also when no relay answers, which nginx and Caddy log with the request."""
    query = "?token=tok.e.n"
    headers = {"Authorization": "Bearer tok.e.n"}
    protocols = [Subprotocol("relay.v1"), Subprotocol("bearer.tok.e.n")]
    async with serving(a_relay()) as port:
        front = await (running := PROXIES[proxy](tmp_path, port)).__aenter__()
        async with front.browsing() as http:
            assert (await http.get(f"/health{query}", headers=headers)).status_code == 200
        url = f"wss://127.0.0.1:{front.port}/ws/alice{query}"
        async with connect(url, subprotocols=protocols, proxy=None, ssl=front.tls) as socket_:
            assert json.loads(await socket_.recv())["type"] == "hello"
    try:
        refused = connect(url, subprotocols=protocols, proxy=None, ssl=front.tls, open_timeout=60)
        async with front.browsing() as http:
            # Caddy looks for a relay for five seconds, so both at once.
            answer, error = await asyncio.gather(
                http.get(f"/health{query}", headers=headers), refused, return_exceptions=True
            )
        assert isinstance(answer, httpx.Response)
        assert answer.status_code in (502, 503, 504)
        assert isinstance(error, InvalidStatus)
    finally:
        await running.__aexit__(None, None, None)
    log = front.log()
    assert "/health" in log and "/ws/alice" in log  # so the requests are logged
    assert "tok.e.n" not in log


@pytest.mark.parametrize("proxy", sorted(PROXIES))
async def test_metrics_are_closed_and_http_leads_to_https(tmp_path: Path, proxy: str) -> None:
    asked: list[str] = []

    async def everything(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(scope["client"]).encode()})

    async with (
        serving(everything, lifespan="off") as port,
        PROXIES[proxy](tmp_path, port) as front,
        front.browsing() as http,
    ):
        for path in ("/metrics", "/%6detrics", "//metrics", "/./metrics", "/x/../metrics", "/metrics?a=b"):
            await asyncio.to_thread(_get_as_it_is, front, path)
        assert "/metrics" not in asked, proxy
        assert (await http.get("/")).status_code == 200
        # What a client says of its address does not count. It is another one than the proxy's.
        afar = httpx.AsyncHTTPTransport(verify=front.tls, local_address="127.0.0.2")
        async with httpx.AsyncClient(transport=afar, base_url=http.base_url) as client_:
            said = await client_.get("/", headers={"X-Forwarded-For": "192.0.2.66"})
        assert said.json()[0] == "127.0.0.2"
        plain = f"http://127.0.0.1:{front.plain}/demo"
        async with httpx.AsyncClient(trust_env=False, verify=False) as old:
            moved = await old.get(plain)
        assert moved.status_code in (301, 308)
        assert re.fullmatch(r"https://127.0.0.1(:\d+)?/demo", moved.headers["location"])


def _get_as_it_is(front: Front, path: str) -> None:
    """httpx would change the path before it is sent."""
    connection = HTTPSConnection("127.0.0.1", front.port, context=front.tls)
    connection.putrequest("GET", path)
    connection.endheaders()
    connection.getresponse().read()
    connection.close()


async def test_haproxy_brings_all_requests_with_a_token_to_the_relay_of_its_user(tmp_path: Path) -> None:
    """However the token is sent, and whatever the path says."""
    asked: dict[str, set[int]] = {}

    def counted(number: int) -> Any:
        relay = a_relay(secret=SECRET)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            query = scope.get("query_string", b"").decode()
            if user := re.search("of=(\\w+)", query):
                asked.setdefault(user[1], set()).add(number)
            await relay(scope, receive, send)

        return app

    async with (
        serving(counted(1)) as one,
        serving(counted(2)) as two,
        haproxy(tmp_path, one, two) as front,
        front.browsing() as http,
    ):
        for number in range(8):
            of = token(user := f"user{number}")
            assert (await http.get(f"/sessions?of={user}", headers=bearer(of))).status_code == 200
            assert (await http.get(f"/sessions?of={user}&token={of}")).status_code == 200
            url = f"wss://127.0.0.1:{front.port}/ws/anybody?of={user}"
            for protocols, query in ((as_subprotocols(of), ""), ([Subprotocol("relay.v1")], f"&token={of}")):
                async with connect(url + query, subprotocols=protocols, proxy=None, ssl=front.tls) as socket_:
                    assert json.loads(await socket_.recv())["type"] == "hello"
    assert all(len(relays) == 1 for relays in asked.values()), asked
    assert set.union(*asked.values()) == {1, 2}


# ---- another server --------------------------------------------------------------------------


async def test_hypercorn(gemini: GeminiLive, caplog: pytest.LogCaptureFixture) -> None:
    tasks = asyncio.all_tasks()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    stop = asyncio.Event()
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = 0.2  # seconds it waits for an open socket to close by itself, then cancels it
    running = asyncio.create_task(serve(a_relay(), config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
    try:
        async with client(port) as alice:
            assert await alice.ask("hello") == "You said: hello."
            await _is_refused(f"ws://127.0.0.1:{port}")
            async with browsing(port) as http:
                assert (await http.get("/")).headers["content-type"] == "text/html; charset=utf-8"
                assert (await http.head("/static/app.js")).status_code == 200
            stop.set()
            with pytest.raises(ConnectionClosed):
                await alice.next(5)
        await asyncio.wait_for(running, 5)
    finally:
        running.cancel()
    await gemini.wait_for(lambda: not gemini.open_connections)
    assert gemini.connections[0].closed == 1000
    assert asyncio.all_tasks() == tasks
    # asyncio itself complains of what hypercorn cancels, on Python 3.11.
    complaints = [r for r in caplog.records if r.levelno >= logging.WARNING and r.name != "asyncio"]
    assert complaints == []


# ---- another application around it -----------------------------------------------------------


@pytest.mark.parametrize("root_path", ["", "/outer"])
async def test_mounted_in_starlette(gemini: GeminiLive, root_path: str) -> None:
    """Also where all of it is below a path. Starlette runs no lifespan of what it mounts."""
    relay: Relay = a_relay(grace=30)
    host = Starlette(routes=[Mount("/talk", app=relay)])
    async with serving(host, root_path=root_path) as port:
        # uvicorn itself puts root_path before what a proxy has left of the path.
        async with browsing(port) as http:
            page = await http.get("/talk/")
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert (await http.get("/talk/health")).json()["status"] == "ok"
            assert (await http.get("/health")).status_code == 404
            if not root_path:
                found = await _crawl(http, "/talk")
                assert "/talk/static/style.css" in found
                assert all(response.status_code == 200 for response in found.values())
        async with client(port, path="/talk") as alice:
            assert await alice.ask("hello") == "You said: hello."
        await _is_refused(f"ws://127.0.0.1:{port}/talk")
        assert gemini.open_connections == 1  # within the grace
        await relay.aclose()
        await gemini.wait_for(lambda: not gemini.open_connections)
        assert gemini.connections[0].closed == 1000
