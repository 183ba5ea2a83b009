"""The HTTP side without a model: files, headers, prefixes, refusals."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import pytest
import uvicorn
from websockets.asyncio.client import connect

import relay as relay_module
from relay import Relay
from support.client import Json
from support.gemini import GeminiLive
from support.plain_http import Response, ask
from support.raw import Peer
from support.server import a_relay, serving

pytestmark = pytest.mark.usefixtures("no_errors")
STATIC = Path(__file__).parent.parent.parent / "static"

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}


# ---- what is served ----------------------------------------------------------------------------


async def test_the_page_and_its_files_are_served() -> None:
    async with serving(a_relay()) as port:
        page = await ask(port, "/")
        assert page.status == 200
        assert page.body == (STATIC / "index.html").read_bytes()
        assert page.headers["content-type"] == TYPES[".html"]
        folders = (STATIC, STATIC.parent / "clients" / "js" / "src")
        files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
        assert len(files) > 50
        for file in files:
            got = await ask(port, f"/{file.relative_to(STATIC.parent).as_posix()}")
            assert got.status == 200
            assert got.body == file.read_bytes()
            assert got.headers["content-type"] == TYPES[file.suffix]
            assert got.headers["content-length"] == str(len(got.body))


async def test_the_icon_where_browsers_look_for_it() -> None:
    async with serving(a_relay()) as port:
        icon = await ask(port, "/favicon.ico")
    assert icon.status == 200
    assert icon.headers["content-type"] == "image/svg+xml"


async def test_a_query_changes_nothing() -> None:
    async with serving(a_relay()) as port:
        assert (await ask(port, "/?debug")).body == (STATIC / "index.html").read_bytes()


@pytest.mark.parametrize("target", ["/", "/static/app.js", "/favicon.ico", "/health", "/nothing"])
async def test_head_is_get_without_the_body(target: str) -> None:
    async with serving(a_relay()) as port:
        get, head = await ask(port, target), await ask(port, target, "HEAD")
    assert head.status == get.status
    assert head.body == b""
    assert get.body
    changing = {"date", "content-length"} if target == "/health" else {"date"}
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in get.headers.items() if k not in changing
    }
    assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
@pytest.mark.parametrize("target", ["/", "/static/app.js", "/health"])
async def test_nothing_but_get_and_head_is_allowed(method: str, target: str) -> None:
    async with serving(a_relay()) as port:
        response = await ask(port, target, method, Content_Length="0")
    assert response.status == 405
    assert {one.strip() for one in response.headers["allow"].split(",")} == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "target", ["/nothing", "/static", "/static/", "/ws/alice", "/health/", "/index.html"]
)
async def test_an_unknown_path_is_not_found(target: str) -> None:
    async with serving(a_relay()) as port:
        assert (await ask(port, target)).status == 404


# ---- kept by browsers, and refreshed -------------------------------------------------------------


async def test_a_known_file_is_not_sent_again() -> None:
    async with serving(a_relay()) as port:
        first = await ask(port, "/static/app.js")
        etag = first.headers["etag"]
        assert etag.startswith('"')  # a strong one
        assert first.headers["cache-control"] == "no-cache"
        assert (await ask(port, "/static/app.js")).headers["etag"] == etag
        assert (await ask(port, "/static/style.css")).headers["etag"] != etag
        for known in (
            etag,
            f"W/{etag}",
            "*",
            f'"other", {etag}',
            f'W/"other" ,W/{etag} , "more"',
            f'"with, a comma", {etag}',
        ):
            again = await ask(port, "/static/app.js", If_None_Match=known)
            assert (again.status, again.body) == (304, b""), known
            assert again.headers["etag"] == etag
            assert again.headers["cache-control"] == "no-cache"
        for other in ('"other"', etag.strip('"'), "", f'W/"x{etag[1:]}', f"w/{etag}"):
            assert (await ask(port, "/static/app.js", If_None_Match=other)).status == 200, other
        head = await ask(port, "/static/app.js", "HEAD", If_None_Match=etag)
        assert head.status == 304


async def test_a_file_is_packed_for_a_client_that_takes_that() -> None:
    async with serving(a_relay()) as port:
        plain = await ask(port, "/static/app.js")
        assert "content-encoding" not in plain.headers
        for accepted in ("gzip", "br, GZIP;q=0.5, *;q=0", "deflate,gzip ; q=1.0"):
            packed = await ask(port, "/static/app.js", Accept_Encoding=accepted)
            assert packed.headers["content-encoding"] == "gzip", accepted
            assert gzip.decompress(packed.body) == plain.body
            assert packed.headers["content-length"] == str(len(packed.body))
            assert len(packed.body) < len(plain.body) / 2
        etag = packed.headers["etag"]
        assert etag != plain.headers["etag"]
        known = await ask(port, "/static/app.js", Accept_Encoding="gzip", If_None_Match=etag)
        assert (known.status, known.body) == (304, b"")
        for each in (plain, packed, known):
            assert each.headers["vary"] == "accept-encoding"
        for refused in ("gzip;q=0", "gzip; q=0.000, br", "br", "identity", "x-gzipped"):
            got = await ask(port, "/static/app.js", Accept_Encoding=refused)
            assert got.body == plain.body, refused
        head = await ask(port, "/static/app.js", "HEAD", Accept_Encoding="gzip")
        assert (head.body, head.headers["content-length"]) == (b"", str(len(packed.body)))


async def test_every_answer_is_guarded() -> None:
    async with serving(a_relay()) as port:
        for target in ("/", "/static/app.js", "/favicon.ico", "/nothing", "/health"):
            headers = (await ask(port, target)).headers
            assert headers["x-content-type-options"] == "nosniff", target
            policy = {
                name: set(sources)
                for name, *sources in (part.split() for part in headers["content-security-policy"].split(";"))
            }
            assert policy["default-src"] == {"'none'"}
            assert policy["script-src"] == {"'self'"}
            assert policy["require-trusted-types-for"] == {"'script'"}
            assert policy["trusted-types"] == {"'none'"}
            assert "unsafe" not in headers["content-security-policy"]
            for device in ("microphone", "camera", "display-capture"):
                assert f"{device}=(self)" in headers["permissions-policy"], device


def test_the_page_needs_nothing_that_its_policy_forbids() -> None:
    page = (STATIC / "index.html").read_text()
    assert " style=" not in page
    assert " onclick=" not in page
    assert "<style" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert 'src="/' not in page  # paths must be relative to work under a prefix
    assert 'href="/' not in page


@pytest.mark.parametrize(("page", "entry"), [("index.html", "app.js"), ("demo.html", "demo.js")])
def test_a_page_names_all_its_modules(page: str, entry: str) -> None:
    """Otherwise the browser finds a module only when it has read the one that imports it."""
    found: set[Path] = set()
    wanted = [STATIC / entry]
    while wanted:
        if (path := wanted.pop().resolve()) not in found:
            found.add(path)
            imported = re.findall(r'^(?:import|export|\}).*?"(\.[^"]+)";$', path.read_text(), re.MULTILINE)
            wanted += [path.parent / each for each in imported]
    named = re.findall(r'rel="modulepreload".*? href="([^"]+)"', (STATIC / page).read_text())
    assert {STATIC.parent / each for each in named} | {STATIC / entry} == found
    assert len(found) > 20


# ---- nothing outside -------------------------------------------------------------------------------


OUTSIDE = [
    "/static/../relay.py",
    "/static/%2e%2e/relay.py",
    "/static/%2E%2E%2Frelay.py",
    "/static/..%2frelay.py",
    "/static%2f..%2frelay.py",
    "/static/%252e%252e%252frelay.py",
    "/static/..%255crelay.py",
    "/static/..\\relay.py",
    "/static/..%5crelay.py",
    "/static/%c0%ae%c0%ae/relay.py",
    "/static/%ef%bc%8e%ef%bc%8e/relay.py",
    "/static/..;/relay.py",
    "/static/....//relay.py",
    "/static/./../relay.py",
    "/static/app.js/../../relay.py",
    "/static/app.js%00.css",
    "/static/%00/../relay.py",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/" + "../" * 20 + "etc/passwd",
    "/static/" + "%2e%2e/" * 20 + "etc/passwd",
    "/../relay.py",
    "//etc/passwd",
    "/etc/passwd",
    "/%2e%2e/relay.py",
    "/relay.py",
    "/.env",
    "/static/../static/../.env",
    "/static/file:///etc/passwd",
    "/static/C:/windows/win.ini",
    "/static/~root/.profile",
    "/static/.",
    "/clients/js/package.json",
    "/clients/js/src/../package.json",
    "/clients/js/src/%2e%2e/package.json",
    "/static/..",
]


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_no_request_names_a_file_outside(http: str) -> None:
    async with serving(a_relay(), http=http) as port:
        for target in OUTSIDE:
            for method in ("GET", "HEAD"):
                response = await ask(port, target, method)
                assert response.status in (400, 404), (method, target, response.status)
                assert b"import" not in response.body
                assert b"root:" not in response.body


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1/static/../relay.py", "*", "static/app.js", "/\x00", "/\xff"]
)
async def test_odd_targets_do_no_harm(target: str) -> None:
    async with serving(a_relay()) as port:
        async with Peer.connected(port) as peer:
            await peer.send_raw(
                f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode("latin-1")
            )
            raw = await peer.ended()
        if raw:
            response = Response(raw)
            assert response.status in (400, 404)
            assert b"import" not in response.body
        assert (await ask(port, "/health")).status == 200


# ---- below a prefix, in another application -----------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    ["/talk", "/deep/talk", "/deep/talk/", "/a b", "/zoë", "/https:evil.example", "/a\r\nb"],
)
async def test_the_page_without_its_slash_is_redirected(prefix: str) -> None:
    path = quote(prefix.rstrip("/"), safe="/:")
    async with serving(_Below(a_relay(), prefix)) as port:
        response = await ask(port, path)
    assert response.status == 307
    assert urljoin(f"http://host{path}", response.headers["location"]) in (
        f"http://host{path}/",
        f"http://host{quote(prefix.rstrip('/'))}/",
    )


class _Below:
    """Calls an application as a host does that has mounted it at `prefix`."""

    def __init__(self, app: Any, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app({**scope, "root_path": self.prefix}, receive, send)


@pytest.mark.parametrize("root_path", ["/talk", "/talk/", "talk", "/stat", "/static", "/w"])
async def test_a_path_that_does_not_begin_with_root_path_is_taken_as_it_is(root_path: str) -> None:
    async with serving(_Below(a_relay(), root_path)) as port:
        if root_path != "/static":
            assert (await ask(port, "/static/app.js")).status == 200
        assert (await ask(port, "/health")).status == 200
        async with connect(f"ws://127.0.0.1:{port}/ws/alice", proxy=None) as socket:
            assert json.loads(await socket.recv())["type"] == "hello"


# ---- ASGI --------------------------------------------------------------------------------------------


async def test_an_unknown_type_of_scope_is_an_error() -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError("nothing is received or sent")

    with pytest.raises(ValueError, match="http, websocket and lifespan, not 'telepathy'"):
        await a_relay()({"type": "telepathy"}, never, never)


async def test_the_lifespan_starts_and_ends() -> None:
    events: asyncio.Queue[Any] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    serving = asyncio.create_task(a_relay()({"type": "lifespan"}, events.get, sent.put))
    await events.put({"type": "lifespan.startup"})
    assert await sent.get() == {"type": "lifespan.startup.complete"}
    assert not serving.done()
    await events.put({"type": "lifespan.shutdown"})
    assert await sent.get() == {"type": "lifespan.shutdown.complete"}
    await serving


BAD_SETTINGS = {
    ("RELAY_QUEUE_BYTES", "much"): "RELAY_QUEUE_BYTES",
    ("RELAY_QUEUE_BYTES", "0"): "queue_bytes",
    ("RELAY_PING_INTERVAL", "-1"): "ping_interval",
    ("RELAY_SLOW_TIMEOUT", "nan"): "slow_timeout",
    ("RELAY_GRACE", "-1"): "grace",
    ("RELAY_SESSIONS", "nosuch://x"): "nosuch",
    ("RELAY_AGENT", "no_such_module:agent"): "no_such_module",
    ("RELAY_AGENT", "json:dumps"): "ADK agent",
    ("RELAY_AGENT", "nonsense"): "RELAY_AGENT",
}


@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS)
async def test_a_bad_setting_is_told_at_the_start(
    name: str, value: str, gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_SESSIONS", "memory://")
    monkeypatch.setenv(name, value)
    relay_module._default.cache_clear()
    sent: list[Any] = []

    events = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> Any:
        return {"type": next(events)}

    async def send(event: Any) -> None:
        sent.append(event)

    await relay_module.app({"type": "lifespan"}, receive, send)
    failed = sent[0]
    assert failed["type"] == "lifespan.startup.failed"
    assert BAD_SETTINGS[name, value] in failed["message"]
    assert "Traceback" not in failed["message"]


async def test_a_server_with_a_bad_setting_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_GRACE", "soon")
    relay_module._default.cache_clear()
    server = uvicorn.Server(uvicorn.Config("relay:app", port=0, log_config=None))
    with pytest.raises(SystemExit):
        await server._serve()
    lines = [r for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    assert any("RELAY_GRACE is 'soon', but must be a number" in r.getMessage() for r in lines)
    assert not any(r.exc_info for r in lines)
    caplog.clear()


@pytest.mark.parametrize(
    "wrong",
    [
        {"queue_bytes": 0},
        {"slow_timeout": 0},
        {"ping_interval": -1},
        {"pong_timeout": float("nan")},
        {"idle_timeout": -1},
        {"mic_ms": -1},
        {"grace": float("nan")},
        {"sessions": "nosuch://x"},
    ],
)
def test_an_argument_out_of_range_is_an_error(wrong: Json) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)) if "sessions" not in wrong else "nosuch"):
        a_relay(**wrong)


def test_an_object_that_is_no_agent_is_an_error() -> None:
    with pytest.raises(TypeError, match="ADK agent"):
        Relay("not an agent", sessions="memory://")  # type: ignore[arg-type]
