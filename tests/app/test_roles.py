"""Roles: what a worker serves, and what is said of settings that contradict each other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from adk_relay.from_environment import STARTUP_FAILURE
from adk_relay.roles import check
from adk_relay.settings import Options, complete
from adk_relay.wire.tokens import Tokens
from support.client import client
from support.ports import free_port
from support.process import SERVE, UVICORN, Process, relay_process, serving_warm, warm_relay
from support.redis_server import redis_server, until
from support.server import ROOT

WORKER = [sys.executable, "-m", "adk_relay", "worker", "--port", "0"]


START = """
import asyncio, os, sys, time
began = time.process_time()
from relay import Relay
async def start():
    async with Relay.from_env():
        print("google.adk" in sys.modules, time.process_time() - began)
asyncio.run(start())
"""
"""Starts a relay, and prints whether it has imported ADK, and how much CPU time it took."""


async def test_a_web_process_and_a_worker(tmp_path: Path) -> None:
    """A client talks through both. The web process is ready as soon as there is a worker."""
    settings = {"RELAY_SECRET": "x" * 32}
    async with redis_server() as redis, AsyncExitStack() as stack:
        settings["RELAY_BUS"] = redis.url
        web = await stack.enter_async_context(serving_warm(SERVE, tmp_path, RELAY_ROLE="web", **settings))
        on_web = await stack.enter_async_context(_http(web))
        assert (await on_web.get("/ready")).status_code == 503
        worker = await stack.enter_async_context(serving_warm(WORKER, tmp_path, **settings))
        http = await stack.enter_async_context(_http(worker))

        async def is_ready() -> bool:
            return (await on_web.get("/ready")).status_code == 200

        await until(is_ready)
        token = Tokens("x" * 32, None).issue("alice", 300)
        async with client(web.port, query=f"&token={token}") as alice:
            assert alice.hello["model"] == "rehearsal"
            assert "You said: hello" in await alice.ask("hello")
            asked = {"authorization": f"Bearer {token}"}

            async def is_told() -> bool:
                stats = (await on_web.get("/stats", headers=asked)).json()
                assert stats["process"]["active_sessions"] == 0
                of_all = (
                    stats["active_sessions"],
                    stats["websocket_connections"],
                    stats["total_sessions_created"],
                )
                return stats["processes"] == {"both": 0, "web": 1, "worker": 1} and of_all == (1, 1, 1)

            await until(is_told)
            assert (await on_web.get("/sessions", headers=asked)).json()["active_sessions"] == 1

        # What watches a worker needs no token, and there is nothing else.
        assert (await http.get("/health")).json()["status"] == "ok"
        assert (await http.get("/ready")).json() == {"status": "ready"}
        metrics = (await http.get("/metrics")).text
        assert "relay_conversations{" in metrics
        assert 'relay_bus_up{relay="assistant"} 1.0' in metrics
        for role in ("web", "worker"):
            assert f'relay_processes{{relay="assistant",role="{role}"}} 1.0' in metrics
        for path in ("/", "/sessions", "/stats", "/static/app.js"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["detail"]) == (
                404,
                "A worker has /health, /ready, /metrics.",
            )
        upgrade = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}
        key = {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
        assert (await http.get("/ws/alice", headers=upgrade | key)).status_code == 404
        for process in (web, worker):
            assert await process.stop() == 0
            assert [line for line in process.problems() if "rehearsal" not in line] == []


async def test_a_web_process_starts_without_adk(tmp_path: Path) -> None:
    """Redis need not be there. The times are compared, because machines differ."""

    async def start(role: str) -> tuple[str, float]:
        environment = {"RELAY_BUS": f"redis://127.0.0.1:{free_port()}", "RELAY_ROLE": role}
        async with relay_process([sys.executable, "-c", START], tmp_path, **environment) as process:
            found = await process.says(r"^(True|False) (\S+)$")
            assert await process.ended() == 0, process.log
            return found[1], float(found[2])

    web, both = min([await start("web") for _ in range(3)]), await start("both")
    assert (web[0], both[0]) == ("False", "True")
    assert web[1] < both[1] / 3


def _http(process: Process) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{process.port}", verify=False)


async def test_a_setting_that_cannot_work_is_one_line(tmp_path: Path) -> None:
    async with warm_relay(UVICORN, tmp_path, RELAY_ROLE="web") as relay:
        assert await relay.ended() == STARTUP_FAILURE
        [line] = [line for line in relay.log if line.startswith("ERROR") and " relay: " in line]
        assert "relay: role is 'web', but without a bus a process does both: set RELAY_BUS" in line


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"role": "worker"}, "role is 'worker', but without a bus"),
        ({"role": "all"}, "role is 'all', but must be both or web or worker"),
        ({"bus": "http://:secret@x"}, "bus must be a URL that begins with redis://, rediss://, "),
        ({"bus": "redis+sentinel://:secret@x"}, "bus can't be used: a bus with sentinels is redis"),
        ({"bus": "redis://:secret@x:port"}, "bus can't be used: "),
        ({"bus": "redis://:secret@x", "sessions": "memory://"}, "sessions is 'memory://', which other"),
    ],
)
def test_settings_that_cannot_work(options: Options, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(complaint)}") as refused:
        check(complete(options))
    assert "secret" not in str(refused.value)


def test_a_bus_without_its_client(tmp_path: Path) -> None:
    """The extra `redis` is not installed: one sentence says how to install it."""
    (tmp_path / "redis.py").write_text("raise ModuleNotFoundError(name='redis')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "relay:app", "--port", "0"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "RELAY_BUS": "redis://x", "RELAY_ROLE": "web"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == STARTUP_FAILURE
    assert "bus is set, but redis is not installed: pip install 'adk-relay[redis]'" in done.stderr
    assert "Traceback" not in done.stderr
