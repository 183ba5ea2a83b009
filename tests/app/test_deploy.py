"""What stands around relay: nginx as it is shipped, another server, another application around it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shlex
import shutil
import socket
from collections.abc import AsyncIterator
from configparser import RawConfigParser
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urljoin
from zipfile import ZipFile

import httpx
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.routing import Mount
from uvicorn.main import main as uvicorn_command
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from relay import Relay
from support.client import client, words
from support.gemini import GeminiLive, silence, speech
from support.ports import free_port
from support.server import ROOT, a_relay, need, serving
from support.wheel import build_wheel

DEPLOY = ROOT / "deploy"


@asynccontextmanager
async def nginx(port: int, folder: Path) -> AsyncIterator[int]:
    """The shipped configuration before a relay on `port`, with other ports and paths; yields its own port."""
    program = need("nginx", "nginx-light")
    outside = free_port()
    shipped = (DEPLOY / "nginx.conf").read_text()
    scratch = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    for old, new in {
        "listen 80;": f"listen 127.0.0.1:{outside};",
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{port};",
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "/var/log/nginx/": f"{folder}/",
        "\nhttp {\n": f"\nhttp {{ {scratch}\n",
    }.items():
        assert old in shipped
        shipped = shipped.replace(old, new)
    (folder / "nginx.conf").write_text(shipped)
    process = await asyncio.create_subprocess_exec(
        program, "-c", str(folder / "nginx.conf"), "-e", f"{folder}/error.log", "-g", "daemon off;"
    )
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", outside)
                    break
                except ConnectionRefusedError:
                    assert process.returncode is None, (folder / "error.log").read_text()
                    await asyncio.sleep(0.01)
            writer.close()
            await writer.wait_closed()
        yield outside
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    complaints = (folder / "error.log").read_text().splitlines()
    # Said to everybody who is not root, and right.
    assert [line for line in complaints if '"user" directive' not in line] == []


@pytest.mark.parametrize("prefix", ["", "/relay"])
async def test_turns_through_nginx(
    gemini: GeminiLive, tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str
) -> None:
    caplog.set_level(logging.INFO, "relay")
    async with serving(a_relay()) as port, nginx(port, tmp_path) as outside:
        async with client(outside, path=prefix) as alice:
            assert await alice.ask("hello") == "You said: hello."
        # From another of the loopback's addresses, so that it can be told from nginx's own.
        from_afar: dict[str, Any] = {
            "local_addr": ("127.0.0.2", 0),
            "additional_headers": {"X-Forwarded-For": "192.0.2.66"},
        }
        async with client(outside, "bob", audio=True, path=prefix, **from_afar) as bob:
            await bob.socket.send(speech(300) + silence(400))
            frames = await bob.turn()
            assert words(frames) == "I heard you."
            assert [said["text"] for said in frames if said.get("type") == "transcript"][-1] == "Hello there."
            assert bob.audio == gemini.connections[1].sound != b""
    lines = [record.getMessage() for record in caplog.records]
    assert [re.sub(r" \S+ in", " … in", line.split(":")[0]) for line in lines] == [
        "alice text … in live-alice from 127.0.0.1",
        "bob audio … in live-bob from 127.0.0.2",
    ]


@pytest.mark.parametrize("prefix", ["", "/relay"])
async def test_page_through_nginx(tmp_path: Path, prefix: str) -> None:
    """Whatever the page asks for, and what that asks for, is there, with the headers that relay gave it."""
    async with serving(a_relay()) as port, nginx(port, tmp_path) as outside, browsing(outside) as http:
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
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, follow_redirects=True)


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
    async with serving(a_relay()) as port, nginx(port, tmp_path) as outside, browsing(outside) as http:
        first = await http.get("/relay")
        assert [redirect.headers["location"] for redirect in first.history] == ["/relay/"]
        assert first.headers["content-encoding"] == "gzip"
        again = await http.get("/relay/", headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304


@pytest.mark.parametrize("prefix", ["", "/relay"])
async def test_refusals_through_nginx(tmp_path: Path, prefix: str) -> None:
    async with serving(a_relay()) as port, nginx(port, tmp_path) as outside:
        await _is_refused(f"ws://127.0.0.1:{outside}{prefix}")


async def _is_refused(url: str) -> None:
    """A client of relay's own sees a close code with a reason, any other an HTTP response with one."""
    async with connect(f"{url}/ws/no%20body", subprotocols=[Subprotocol("relay.v1")], proxy=None) as socket_:
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket_.recv(), 5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4404
    assert closed.value.rcvd.reason.startswith("user_id is 1 to 128")
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{url}/ws/alice?is_audio=perhaps", proxy=None)
    assert refused.value.response.status_code == 404
    assert b"is_audio is true or false" in refused.value.response.body


def test_service_and_container_start_uvicorn_as_documented() -> None:
    unit = RawConfigParser(strict=False)
    unit.read(DEPLOY / "relay.service")
    program, *service = shlex.split(unit["Service"]["ExecStart"])
    assert program.endswith("/uvicorn")
    last = (DEPLOY / "Dockerfile").read_text().strip().splitlines()[-1]
    program, *container = json.loads(last.removeprefix("CMD "))
    assert program == "uvicorn"
    [line] = re.findall(
        r"^ +uvicorn (relay:app --.*)$", (ROOT / "docs" / "production.md").read_text(), re.MULTILINE
    )
    for arguments in (service, container, shlex.split(line)):
        options = cast(Any, uvicorn_command).make_context("uvicorn", arguments).params
        assert options["app"] == "relay:app"
        assert options["timeout_graceful_shutdown"] == 3
        assert options["ws_per_message_deflate"] is False


def test_the_container_builds_the_same_wheel(tmp_path: Path) -> None:
    """From the files alone that the Dockerfile copies."""
    source = tmp_path / "src"
    source.mkdir()
    for line in re.findall(r"^COPY (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        *names, target = line.split()
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (source / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, source / target)
    wheels = []
    for folder in (ROOT, source):
        with ZipFile(build_wheel(folder, tmp_path / f"of {folder.name}")) as archive:
            wheels.append({*archive.namelist()})
    assert wheels[0] == wheels[1]


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
