"""relay's own commands: one process that does all, or web processes, workers, and a Redis between them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from benchmarks.builds import ROOT
from benchmarks.processes import CORES, Lab, Process, Server
from support.ports import free_port

REDIS = shutil.which("redis-server")

_FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where sessions are stored: in memory, because a disk that others use would decide how long a text takes."""

_START_SECONDS = 90


@dataclass
class Part(Process):
    """One of the processes."""

    name: str
    port: int
    program: subprocess.Popen[bytes]

    def is_ready(self) -> bool:
        """Whether it takes clients, or conversations."""
        if self.program.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.program.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5):
                return True
        except OSError:
            return False


@dataclass
class Spread(Server):
    """Several processes. Clients come to the first one that has sockets; the CPU time is that of all."""

    parts: list[Part] = field(default_factory=list)
    redis: Redis | None = None

    def cpu(self) -> float:
        return sum(part.cpu() for part in self.parts)

    def cpu_by_part(self) -> dict[str, float]:
        """The same, of each."""
        return {part.name: part.cpu() for part in self.parts}

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)

    def processes(self) -> Sequence[Process]:
        return [part for part in self.parts if part.name != "redis"]

    def calls(self) -> dict[str, tuple[int, float]]:
        """How often each command of Redis was called, and the microseconds that it took in all."""
        found: Any = self.redis.info("commandstats") if self.redis else {}
        return {
            name.removeprefix("cmdstat_"): (about["calls"], about["usec"]) for name, about in found.items()
        }


@contextmanager
def spread(
    lab: Lab,
    *,
    webs: int = 1,
    workers: int = 1,
    cores: Sequence[int] = CORES[:1],
    wait: bool = True,
    **environment: str,
) -> Iterator[Spread]:
    """So many web processes and workers; without workers, one process that does all, and no Redis.

    Args:
        cores: on which they run.
        wait: until all are ready.
        environment: further variables for relay's processes.

    Raises:
        AssertionError: they do not start; or there is no Redis.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-", dir=_FOLDER)))
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RELAY_")},
            **lab.model.env,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",  # ADK's, about what is experimental
            "RELAY_SESSIONS": f"sqlite:///{folder}/sessions.db",
            "RELAY_GRACE": "0",
            **environment,
        }
        parts: list[Part] = []

        def begin(name: str, command: Sequence[str], port: int, **more: str) -> None:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            program = subprocess.Popen(
                command, cwd=folder, env=variables | more, stdout=log, stderr=subprocess.STDOUT
            )
            if cores:
                os.sched_setaffinity(program.pid, cores)
            stack.callback(_end, program)
            parts.append(Part(program.pid, name, port, program))

        redis = None
        if workers:
            assert REDIS, "there is no redis-server: apt-get install redis-server"
            port = free_port()
            bus = {"RELAY_BUS": f"redis://127.0.0.1:{port}"}
            command = (REDIS, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
            begin("redis", command, port)
            redis = stack.enter_context(Redis(port=port))
            for number in range(workers):
                port = free_port()
                begin(f"worker-{number}", _command("worker", port), port, **bus)
            roles = [(f"web-{number}", bus | {"RELAY_ROLE": "web"}) for number in range(webs)]
        else:
            roles = [("alone", {})]
        for name, more in roles:
            port = free_port()
            begin(name, _command("serve", port), port, **more)
        first = next(part for part in parts if part.name in ("alone", "web-0"))
        found = Spread(first.pid, first.port, "relay", parts, redis)
        if wait:
            wait_until_ready(found, folder)
        yield found


def wait_until_ready(found: Spread, folder: Path) -> None:
    """Waits until all processes serve."""
    end = time.monotonic() + _START_SECONDS
    for part in found.parts:
        while part.name != "redis" and not part.is_ready():
            if time.monotonic() > end:
                raise AssertionError(f"{part.name} is not ready: {(folder / f'{part.name}.log').read_text()}")
            time.sleep(0.05)


def _command(name: str, port: int) -> tuple[str, ...]:
    return (sys.executable, "-m", "adk_relay", name, "--port", str(port), "--log-level", "error")


def _end(program: subprocess.Popen[bytes]) -> None:
    program.terminate()
    try:
        program.wait(10)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
