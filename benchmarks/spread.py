"""relay's own commands: one process that does all, or web processes, workers, and a Redis between them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

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
    log: Path

    def wait_until_ready(self) -> None:
        """Waits until it takes clients, or conversations."""
        end = time.monotonic() + _START_SECONDS
        while self.name != "redis" and not self._is_ready():
            if self.program.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{self.name} is not ready: {self.log.read_text()}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
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
    begin_worker: Callable[[], Part] | None = None
    """Starts one more, which is not ready yet."""

    def cpu(self) -> float:
        return sum(part.cpu() for part in self.parts)

    def cpu_by_part(self) -> dict[str, float]:
        return {part.name: part.cpu() for part in self.parts}

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)

    def processes(self) -> Sequence[Process]:
        return [part for part in self.parts if part.name != "redis"]


@contextmanager
def spread(
    lab: Lab,
    *,
    webs: int = 1,
    workers: int = 1,
    cores: Sequence[int] = CORES[:1],
    **environment: str,
) -> Iterator[Spread]:
    """So many web processes and workers; without workers, one process that does all, and no Redis.

    Args:
        cores: on which they run.
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

        def begin(name: str, command: Sequence[str], port: int, **more: str) -> Part:
            log = folder / f"{name}.log"
            output = stack.enter_context(log.open("wb"))
            program = subprocess.Popen(
                command, cwd=folder, env=variables | more, stdout=output, stderr=subprocess.STDOUT
            )
            if cores:
                os.sched_setaffinity(program.pid, cores)
            stack.callback(_end, program)
            parts.append(Part(program.pid, name, port, program, log))
            return parts[-1]

        def begin_worker() -> Part:
            port = free_port()
            number = sum(part.name.startswith("worker") for part in parts)
            return begin(f"worker-{number}", _command("worker", port), port, **bus)

        redis, bus = None, dict[str, str]()
        if workers:
            assert REDIS, "there is no redis-server: apt-get install redis-server"
            port = free_port()
            bus = {"RELAY_BUS": f"redis://127.0.0.1:{port}"}
            command = (REDIS, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
            begin("redis", command, port)
            redis = stack.enter_context(Redis(port=port))
            for _ in range(workers):
                begin_worker()
            roles = [(f"web-{number}", bus | {"RELAY_ROLE": "web"}) for number in range(webs)]
        else:
            roles = [("alone", {})]
        for name, more in roles:
            port = free_port()
            begin(name, _command("serve", port), port, **more)
        first = next(part for part in parts if part.name in ("alone", "web-0"))
        for part in parts:
            part.wait_until_ready()
        yield Spread(first.pid, first.port, "relay", parts, redis, begin_worker)


def _command(name: str, port: int) -> tuple[str, ...]:
    return (sys.executable, "-m", "adk_relay", name, "--port", str(port), "--log-level", "error")


def _end(program: subprocess.Popen[bytes]) -> None:
    program.terminate()
    try:
        program.wait(10)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
