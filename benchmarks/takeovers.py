"""How long conversations stand still when their worker is killed, and how fast a web process starts."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

from websockets.asyncio.client import ClientConnection

from benchmarks.builds import ROOT
from benchmarks.load import RELAY, ask, crowd
from benchmarks.processes import CORES, Lab, Process
from benchmarks.report import Row, percentile
from benchmarks.spread import spread
from support.ports import free_port

COUNT = 200

P50, P99 = 5.0, 8.0
"""The aims, in seconds."""

START = 500.0
"""The aim: milliseconds of a web process until it answers."""


async def takeovers(lab: Lab) -> list[Row]:
    """A worker is killed; each of its clients writes at once, and waits for the answer.

    The conversations have connections to the model. Another worker waits for work.
    """
    p50: list[float] = []
    p99: list[float] = []
    for _ in range(1 if lab.quick else 3):
        with spread(lab, cores=CORES) as server:
            async with crowd(server, RELAY, COUNT) as clients:
                for client in clients:
                    await ask(client, chunks=1)
                first = next(part for part in server.parts if part.name.startswith("worker"))
                assert server.begin_worker
                second = server.begin_worker()
                await asyncio.to_thread(second.wait_until_ready)
                await asyncio.sleep(1)
                begin = time.monotonic()
                first.program.kill()
                took = await asyncio.gather(*(_go_on(client, begin) for client in clients))
        p50.append(percentile(took, 50))
        p99.append(percentile(took, 99))
    what = f"takeovers: a worker with {COUNT} conversations is killed, the next answer"
    return [
        Row(f"{what}, {name}", values, "limit", [aim] * len(values), "{:.1f} s", 1.0)
        for name, values, aim in (("p50", p50, P50), ("p99", p99, P99))
    ]


async def _go_on(client: ClientConnection, begin: float) -> float:
    await ask(client, chunks=1)
    return time.monotonic() - begin


async def web_start(lab: Lab) -> list[Row]:
    """From the command to the first answer: a web process, and one that does all."""
    cpu: dict[str, list[float]] = {"web": [], "both": []}
    wall: dict[str, list[float]] = {"web": [], "both": []}
    with spread(lab) as server:
        assert server.redis
        port = server.redis.connection_pool.connection_kwargs["port"]
        for number in range(1 + (4 if lab.quick else 10)):
            for role in cpu:
                bus = f"redis://127.0.0.1:{port}"
                used, took = await asyncio.to_thread(_start, RELAY_BUS=bus, RELAY_ROLE=role, **lab.model.env)
                if number:  # the first round fills the disk's cache
                    cpu[role].append(used)
                    wall[role].append(took)
    limit = [START] * len(cpu["web"])
    return [
        Row("web-start: a web process, CPU", cpu["web"], "limit", limit, "{:.0f} ms", 1.0),
        Row("web-start: the same, until it answers", wall["web"], "limit", limit, "{:.0f} ms", 1.0),
        Row("web-start: the same, CPU", cpu["web"], "one that does all", cpu["both"], "{:.0f} ms"),
    ]


def _start(**environment: str) -> tuple[float, float]:
    """Milliseconds: of CPU time, and until it answers."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        begin = time.monotonic()
        program = subprocess.Popen(
            (sys.executable, "-m", "adk_relay", "serve", "--port", str(port), "--log-level", "error"),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            if CORES:
                os.sched_setaffinity(program.pid, CORES[:1])
            while not _answers(port):
                assert program.poll() is None and time.monotonic() - begin < 60, "it does not start"
                time.sleep(0.002)
            took, used = time.monotonic() - begin, Process(program.pid).cpu()
        finally:
            program.kill()
            program.wait()
    return used * 1000, took * 1000


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False
