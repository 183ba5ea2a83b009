"""How long it takes to start: the server, the command, the import."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import CORES
from benchmarks.report import Row

ROOT = Path(__file__).resolve().parent.parent


async def start(env: dict[str, str], quick: bool) -> list[Row]:
    """From the command line to the first 200, without credentials; and the command and the import alone."""
    commands = {
        "nothing": ["-c", "pass"],
        "import": ["-c", "import relay"],
        "help": ["-m", "adk_relay", "--help"],
        "adk": ["-c", "import google.adk.runners"],
    }
    took: dict[str, list[float]] = {command: [] for command in [*commands, "serve"]}  # milliseconds
    with tempfile.TemporaryDirectory() as folder:  # here is no .env
        for number in range(1 + (3 if quick else 9)):
            for command, arguments in commands.items():
                began = time.monotonic()
                if code := await asyncio.to_thread(_run(folder, *arguments).wait):
                    raise AssertionError(f"python {' '.join(arguments)} ended with {code}")
                took[command].append((time.monotonic() - began) * 1000)
            took["serve"].append(await _serve(folder))
            if not number:  # the first round fills the disk's cache and compiles what is imported
                for times in took.values():
                    times.clear()
    nothing = "`python -c pass`", took["nothing"], "{:.0f} ms"
    return [
        Row(
            "start, to the first 200", took["serve"], "`import google.adk.runners`", took["adk"], "{:.0f} ms"
        ),
        Row("`import relay`", took["import"], *nothing),
        Row("`relay --help`", took["help"], *nothing),
    ]


async def _serve(folder: str) -> float:
    """Milliseconds until a server that is started answers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    began = time.monotonic()
    server = _run(folder, "-m", "uvicorn", "relay:app", "--port", str(port))
    try:
        while not _answers(port):
            if server.poll() is not None:
                raise AssertionError(f"uvicorn relay:app ended with {server.returncode}")
            await asyncio.sleep(0.01)
        return (time.monotonic() - began) * 1000
    finally:
        server.terminate()
        server.wait(10)


def _run(folder: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Python, on the server's core, without the settings of the environment."""
    settings = ("GEMINI_", "GOOGLE_", "RELAY_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=env | {"RELAY_SESSIONS": "memory://", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if CORES:
        os.sched_setaffinity(process.pid, {CORES[0]})
    return process


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
