"""Roles: what a worker serves, and what is said of settings that contradict each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from adk_relay.from_environment import STARTUP_FAILURE
from support.process import UVICORN, relay_process, serving_process
from support.redis_server import redis_server
from support.server import ROOT

WORKER = [sys.executable, "-m", "adk_relay", "worker", "--port", "0"]


async def test_a_worker_serves_what_watches_it(tmp_path: Path) -> None:
    """Without a token, and nothing else."""
    async with (
        redis_server() as redis,
        serving_process(WORKER, tmp_path, RELAY_BUS=redis.url, RELAY_SECRET="x" * 32) as worker,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{worker.port}") as http,
    ):
        assert (await http.get("/health")).json()["status"] == "ok"
        assert (await http.get("/ready")).json() == {"status": "ready"}
        assert "relay_conversations{" in (await http.get("/metrics")).text
        for path in ("/", "/sessions", "/stats", "/static/app.js"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["detail"]) == (
                404,
                "A worker has /health, /ready, /metrics.",
            )
        upgrade = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}
        key = {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
        assert (await http.get("/ws/alice", headers=upgrade | key)).status_code == 404
        assert await worker.stop() == 0
        assert [line for line in worker.problems() if "rehearsal" not in line] == []


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"RELAY_ROLE": "web"}, "role is 'web', but without a bus a process does both: set RELAY_BUS"),
        ({"RELAY_ROLE": "worker"}, "role is 'worker', but without a bus"),
        ({"RELAY_ROLE": "all"}, "role is 'all', but must be both or web or worker"),
        ({"RELAY_BUS": "http://:secret@x"}, "bus must be a URL that begins with redis://, rediss://, "),
        ({"RELAY_BUS": "redis+sentinel://x"}, "bus can't be used: a bus with sentinels is redis"),
        ({"RELAY_BUS": "redis://x:port"}, "bus can't be used: "),
        ({"RELAY_BUS": "redis://x", "RELAY_SESSIONS": "memory://"}, "sessions is 'memory://', which other"),
    ],
)
async def test_settings_that_cannot_work(tmp_path: Path, variables: dict[str, str], complaint: str) -> None:
    async with relay_process(UVICORN, tmp_path, **variables) as relay:
        assert await relay.ended() == STARTUP_FAILURE
        [line] = [line for line in relay.log if line.startswith("ERROR") and " relay: " in line]
        assert f"relay: {complaint}" in line
        assert "secret" not in line


def test_a_bus_without_its_client(tmp_path: Path) -> None:
    """The extra `redis` is not installed: one sentence says how to install it."""
    (tmp_path / "redis.py").write_text("raise ModuleNotFoundError(name='redis')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "relay:app", "--port", "0"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "RELAY_BUS": "redis://x"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == STARTUP_FAILURE
    assert "bus is set, but redis is not installed: pip install 'adk-relay[redis]'" in done.stderr
    assert "Traceback" not in done.stderr
