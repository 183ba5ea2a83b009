"""deploy/, each file checked by its own tool, and what stands around relay: proxies, servers, a host."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path
from typing import Any, cast
from urllib.parse import urljoin
from zipfile import ZipFile

import httpx
import pytest
import yaml
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.routing import Mount
from uvicorn.main import main as uvicorn_command
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from adk_relay.settings import SETTINGS
from relay import Relay
from support.client import client, words
from support.gemini import GeminiLive, silence, speech
from support.process import relay_process
from support.proxies import DEPLOY, PROXIES, certificate, haproxy_cfg, nginx, nginx_conf
from support.server import ROOT, a_relay, need, need_module, serving
from support.servers import free_port
from support.wheel import build_wheel

STOP = 5
"""Seconds that a relay needs to stop, besides RELAY_DRAIN: see docs/production.md."""

COMPOSE: Any = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERNETES: Any = {
    (each["kind"], each["metadata"]["name"]): each
    for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")


def accepts(*command: str, **environment: str) -> str:
    """What a checker says; it must be content."""
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "relay.service")
    return parser


def in_image(instruction: str) -> list[str]:
    """The list that ends an instruction of the image's last stage."""
    [line] = re.findall(
        rf"^{instruction} (?:.* CMD )?(\[.*\])$", DOCKERFILE.rpartition("\nFROM ")[2], re.MULTILINE
    )
    return list(json.loads(line))


# ---- each file and its tool --------------------------------------------------------------------


def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    certificate(tmp_path)
    file = nginx_conf(tmp_path, free_port(), free_port(), (8000, 8001))
    accepts(need("nginx", "nginx-light"), "-t", "-c", str(file), "-e", f"{tmp_path}/error.log")


@pytest.mark.parametrize("environment", ["none", "kubernetes"])
def test_caddy_takes_its_configuration(tmp_path: Path, environment: str) -> None:
    """Also with what kubernetes.yaml puts into its environment."""
    [container] = KUBERNETES["Deployment", "relay-proxy"]["spec"]["template"]["spec"]["containers"]
    values = {each["name"]: each["value"] for each in container["env"]} if environment != "none" else {}
    assert set(values) <= {*re.findall(r"\{\$(\w+):", (DEPLOY / "Caddyfile").read_text())}
    caddy = need("caddy", "caddy")
    config = str(DEPLOY / "Caddyfile")
    accepts(caddy, "validate", "--config", config, "--adapter", "caddyfile", HOME=str(tmp_path), **values)


def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    certificate(tmp_path)
    (file := tmp_path / "haproxy.cfg").write_text(
        haproxy_cfg(tmp_path, free_port(), free_port(), (8000, 8001))
    )
    said = accepts(need("haproxy", "haproxy"), "-c", "-f", str(file))
    assert "WARNING" not in said


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """systemd-analyze only warns of a name that it does not know, so it must say nothing."""
    text = (DEPLOY / "relay.service").read_text()
    assert "/opt/relay/bin/relay serve" in text
    (file := tmp_path / "relay.service").write_text(text.replace("/opt/relay/bin/relay", "/bin/true"))
    assert accepts(need("systemd-analyze", "systemd"), "verify", str(file)) == ""


def test_the_manifest_has_the_schema_of_kubernetes() -> None:
    """No name is unknown, and each value has its type. Whether names refer to something is checked below."""
    need_module("kubernetes_validate")
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", str(DEPLOY / "kubernetes.yaml")]
    said = accepts(*command)
    assert said.count(" passed for ") == len(KUBERNETES)


def test_compose_has_its_schema() -> None:
    need_module("check_jsonschema")
    schema = ["--builtin-schema", "vendor.compose-spec"]
    accepts(sys.executable, "-m", "check_jsonschema", *schema, str(DEPLOY / "compose.yaml"))


def test_prometheus_takes_its_configuration() -> None:
    promtool = need("promtool", "prometheus")
    said = accepts(promtool, "check", "config", str(DEPLOY / "prometheus.yml"))
    assert "1 rule files found" in said


# ---- what the files say, and what relay does -----------------------------------------------------


def test_what_stops_a_relay_gives_it_time_to_drain() -> None:
    drain = SETTINGS["drain"].default
    assert int(unit()["Service"]["TimeoutStopSec"]) > drain + STOP  # type: ignore[operator]

    for name in ("relay1", "relay2"):
        service = COMPOSE["services"][name]
        grace = int(service["stop_grace_period"].removesuffix("s"))
        assert grace > int(service["environment"]["RELAY_DRAIN"]) + STOP

    pod = KUBERNETES["StatefulSet", "relay"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    drain = next(int(each["value"]) for each in container["env"] if each["name"] == "RELAY_DRAIN")
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > before + drain + STOP


def test_the_settings_in_the_files_are_settings() -> None:
    known = {setting.variable for setting in SETTINGS.values()}
    for file in sorted(DEPLOY.iterdir()):
        named = {*re.findall(r"\bRELAY_[A-Z_]+", file.read_text())} - {"RELAY_SERVICE"}
        assert named <= known, file.name


def test_names_in_the_manifest_refer_to_something() -> None:
    pods = KUBERNETES["StatefulSet", "relay"]["spec"]
    [container] = pods["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
        assert container[probe]["httpGet"]["path"] == ("/ready" if probe == "readinessProbe" else "/health")
    service = KUBERNETES["Service", pods["serviceName"]]["spec"]
    assert service["selector"] == pods["template"]["metadata"]["labels"]
    assert [port["port"] for port in service["ports"]] == [ports["http"]] == [8000]
    [proxy] = KUBERNETES["Deployment", "relay-proxy"]["spec"]["template"]["spec"]["containers"]
    relays = next(each["value"] for each in proxy["env"] if each["name"] == "RELAYS")
    names = [f"relay-{number}.{pods['serviceName']}:8000" for number in range(pods["replicas"])]
    assert relays.split() == names


def test_names_and_addresses_in_compose_refer_to_something(tmp_path: Path) -> None:
    services = COMPOSE["services"]
    relays = [name for name, service in services.items() if service.get("image") == "relay"]
    addresses = {name: services[name]["networks"]["default"]["ipv4_address"] for name in (*relays, "nginx")}
    prometheus = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    [targets] = prometheus["scrape_configs"][0]["static_configs"]
    for name in relays:
        environment = services[name]["environment"]
        assert environment["FORWARDED_ALLOW_IPS"] == addresses["nginx"]
        assert f"{name}:{environment['RELAY_METRICS_PORT']}" in targets["targets"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            is_there = source in COMPOSE["volumes"] or source == "./tls" or (DEPLOY / source).is_file()
            assert is_there, volume

    # The command that puts the relays' addresses into nginx.conf.
    script = services["nginx"]["command"][-1].replace("/relay.conf", str(DEPLOY / "nginx.conf"))
    changed = accepts("sh", "-c", script.partition(" >/etc")[0])
    upstreams = re.findall(r"^ +server ([\d.:]+) ", changed, re.MULTILINE)
    assert upstreams == [f"{addresses[name]}:8000" for name in relays]


@pytest.mark.parametrize("where", ["unit", "image"])
async def test_the_command_starts_a_relay_which_the_health_check_finds(tmp_path: Path, where: str) -> None:
    command = shlex.split(unit()["Service"]["ExecStart"]) if where == "unit" else in_image("CMD")
    check = in_image("HEALTHCHECK")
    assert command[0] == "/opt/relay/bin/relay"
    assert check[0] == "/opt/relay/bin/python"
    port = str(free_port())
    started = [sys.executable, "-m", "adk_relay", *(port if part == "8000" else part for part in command[1:])]
    asked = [sys.executable, *(part.replace("8000", port) for part in check[1:])]
    assert subprocess.run(asked, capture_output=True).returncode != 0
    async with relay_process(started, tmp_path) as relay:
        host = command[command.index("--host") + 1]
        await relay.says(f"running on http://{re.escape(host)}:{port}")
        accepts(*asked)


def test_nobody_in_the_image_is_root_and_nothing_builds() -> None:
    build, last = DOCKERFILE.split("\nFROM ")[1:]
    assert "pip" in build
    assert re.findall(r"^USER (\S+)$", last, re.MULTILINE) == ["999"]
    assert not re.search(r"apt-get|pip install", last)
    assert re.findall(r"^COPY (.*)$", last, re.MULTILINE) == ["--from=build /opt/relay /opt/relay"]


def test_the_command_for_uvicorn_is_one() -> None:
    [line] = re.findall(
        r"^ +uvicorn (relay:app --.*)$", (ROOT / "docs" / "production.md").read_text(), re.MULTILINE
    )
    options = cast(Any, uvicorn_command).make_context("uvicorn", shlex.split(line)).params
    assert options["app"] == "relay:app"
    assert options["timeout_graceful_shutdown"] == 3
    assert options["ws_per_message_deflate"] is False


def test_the_container_builds_the_same_wheel(tmp_path: Path) -> None:
    """From the files alone that the Dockerfile copies."""
    source = tmp_path / "src"
    source.mkdir()
    for line in re.findall(r"^COPY ([^-].*)$", DOCKERFILE, re.MULTILINE):
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
    async with serving(a_relay()) as port, nginx(tmp_path, port) as front, front.browsing() as http:
        first = await http.get("/relay")
        assert [redirect.headers["location"] for redirect in first.history] == ["/relay/"]
        assert first.headers["content-encoding"] == "gzip"
        again = await http.get("/relay/", headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304


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
        plain = await http.get("/static/app.js", headers={"Accept-Encoding": "identity"})
        assert first.text == second.text == plain.text != ""
        assert second.headers["cache-control"] == "no-cache"
        assert second.headers["x-content-type-options"] == "nosniff"
        assert asked.count("/static/app.js") == 1
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
        async with front.browsing() as http:
            assert (await http.get(f"/health{query}", headers=headers)).status_code in (502, 503, 504)
        with pytest.raises(InvalidStatus):
            await connect(url, subprotocols=protocols, proxy=None, ssl=front.tls, open_timeout=60)
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
        assert (await http.get("/metrics")).status_code == 404
        assert "/metrics" not in asked
        assert (await http.get("/")).status_code == 200
        # What a client says of its address does not count. It is another one than the proxy's.
        afar = httpx.AsyncHTTPTransport(verify=front.tls, local_address="127.0.0.2")
        async with httpx.AsyncClient(transport=afar, base_url=http.base_url) as client_:
            said = await client_.get("/", headers={"X-Forwarded-For": "192.0.2.66"})
        assert said.json()[0] == "127.0.0.2"
        plain = f"http://127.0.0.1:{front.plain}/demo"
        async with httpx.AsyncClient(trust_env=False) as old:
            moved = await old.get(plain)
        assert moved.status_code in (301, 308)
        assert re.fullmatch(r"https://127.0.0.1(:\d+)?/demo", moved.headers["location"])


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
