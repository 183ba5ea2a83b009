"""The processes: the model's, and those that serve the applications."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import socket
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil  # type: ignore[import-untyped]

from benchmarks.builds import HAS_LONG, ROOT
from benchmarks.profiles import profile

if TYPE_CHECKING:
    import uvicorn

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
"""In the first process: the first is the servers', the last that of all others. A process that is started
inherits only the last. Empty: this system can't choose."""

SEND_BUFFER = 64 * 1024
"""For a server whose client does not read: what a slow network takes. Without it the kernel takes anything
from 64 KiB to megabytes, depending on what it remembers of the address from earlier connections."""

Build = Literal["relay", "long", "today", "plain"]
"""What a server runs; see bench.py. All but "today" can serve what relay is compared with; "plain" serves
nothing else."""

_spawn = multiprocessing.get_context("spawn")


@dataclass
class Process:
    """A process, seen from outside."""

    pid: int

    def cpu(self) -> float:
        """Seconds of CPU time that the process has used."""
        if sys.platform == "linux":
            # What clock_getcpuclockid(3) returns; /proc and psutil count in steps of 10 ms.
            return time.clock_gettime((~self.pid << 3) | 2)
        else:
            times = psutil.Process(self.pid).cpu_times()
            return float(times.user + times.system)

    def rss(self) -> int:
        """Bytes of memory that the process has, shared ones included."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def uss(self) -> int:
        """Bytes that would be free if the process ended. Slow, and the process waits meanwhile."""
        return int(psutil.Process(self.pid).memory_full_info().uss)


@dataclass
class Server(Process):
    """A process that serves `Apps`."""

    port: int
    build: Build

    def cpu_by_part(self) -> dict[str, float]:
        """Seconds of CPU time that each of its processes has used."""
        return {self.build: self.cpu()}

    def processes(self) -> Sequence[Process]:
        """Those whose profile shows where it spends its time."""
        return [self]

    def get(self, path: str) -> Any:
        """The JSON of an HTTP response. It blocks."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
            return json.load(response)


@dataclass
class Model(Process):
    """The process of the model."""

    env: dict[str, str]  # leads google-genai to it
    _setups: Synchronized[int]

    def setups(self) -> int:
        """How many connections have sent their setup."""
        return self._setups.value


@dataclass
class Lab:
    """Where measurements are made: with one model, and with servers that they share."""

    model: Model
    quick: bool
    earlier: Path | None = None  # the folder of the build `today`
    profiled: str = ""  # the measurement whose profiles are written
    doubts: set[str] = field(default_factory=set)  # about what was measured
    _stack: ExitStack = field(default_factory=ExitStack)
    _spied: set[int] = field(default_factory=set)
    _shared: dict[Build, Server] = field(default_factory=dict)

    def builds(self, *wanted: Build) -> list[Build]:
        """Those of the wanted builds that there are."""
        there = {"relay": True, "plain": True, "long": HAS_LONG, "today": self.earlier is not None}
        return [build for build in wanted if there[build]]

    def server(self, build: Build) -> Server:
        """A server that runs until the end, and that all measurements share which only count CPU time."""
        if build not in self._shared:
            self._shared[build] = self._stack.enter_context(self.new_server(build))
        return self._shared[build]

    def profile(self, server: Server) -> None:
        """Called when a server is warm: from now on its profile is taken, if the user wants one."""
        for process in server.processes() if self.profiled else ():
            if process.pid not in self._spied:
                self._spied.add(process.pid)
                name = f"{self.profiled}-{server.build}-{len(self._spied)}"
                self._stack.enter_context(profile(process.pid, name))

    async def set_up(self, setups: int) -> None:
        """Waits until so many connections have sent their setup to the model."""
        async with asyncio.timeout(60):
            while self.model.setups() < setups:
                await asyncio.sleep(0.001)

    @contextmanager
    def new_server(self, build: Build, *, send_buffer: int = 0, **settings: Any) -> Iterator[Server]:
        """A server for one measurement.

        Args:
            build: what it runs.
            send_buffer: bytes that the kernel takes for a client that does not read; 0: as the kernel likes.
            settings: those of `Relay`; `bounded`: with the bounds of `relay serve`; and `watched`: with the
                log in JSON, and a provider that takes traces.
        """
        tree = str(self.earlier if build == "today" else ROOT)
        settings = {"sessions": "memory://", "grace": 0} | settings
        if build == "long":
            settings["sound"] = "long"
        ours, its = _spawn.Pipe()
        arguments = (its, self.model.env, build, tree, CORES, send_buffer, settings)
        process = _spawn.Process(target=_server_process, args=arguments, daemon=True)
        process.start()
        its.close()  # or `recv` would wait for a process that has ended
        try:
            port = ours.recv()
            assert process.pid
            yield Server(process.pid, port, build)
        finally:
            process.terminate()
            process.join(15)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@contextmanager
def run_model() -> Iterator[Model]:
    """The model's process."""
    ours, its = _spawn.Pipe()
    setups: Synchronized[int] = _spawn.Value("i", 0)
    process = _spawn.Process(target=_model_process, args=(its, setups), daemon=True)
    process.start()
    its.close()
    try:
        env = ours.recv()
        assert process.pid
        yield Model(process.pid, env, setups)
        ours.send("stop")
        process.join(10)
    finally:
        process.terminate()


# What only one of the processes needs is imported there: the memory that is measured is a server's own.


def _model_process(pipe: Pipe, setups: Synchronized[int]) -> None:
    from benchmarks import model

    model.serve(pipe, setups)


def _server_process(
    pipe: Pipe,
    env: dict[str, str],
    build: Build,
    tree: str,
    cores: list[int],
    send_buffer: int,
    settings: dict[str, Any],
) -> None:
    if cores:
        os.sched_setaffinity(0, cores[:1])
    sys.path.insert(0, tree)  # `import relay` finds this build's
    os.environ.update(env)
    warnings.simplefilter("ignore")  # ADK's, about what is experimental
    import uvicorn

    from benchmarks.apps import Apps

    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    if send_buffer:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    is_bounded, is_watched = settings.pop("bounded", False), settings.pop("watched", False)
    app = Apps(**settings)
    # A full collection walks over all objects of ADK, for 50 to 200 ms, and only chance decides in whose
    # measurement. So those that are there from the start are exempt.
    gc.collect()
    gc.freeze()
    if build in ("relay", "long"):
        from adk_relay import memory

        memory.settle()  # as `relay:app` does
    config = uvicorn.Config(app, ws_per_message_deflate=False, timeout_graceful_shutdown=3, log_level="error")
    if is_bounded:
        from adk_relay.server import bounded_protocols

        if protocols := bounded_protocols(5000):
            config.http, config.ws = protocols
    if is_watched:
        _watch(config)
    pipe.send(listening.getsockname()[1])
    uvicorn.Server(config).run(sockets=[listening])


def _watch(config: uvicorn.Config) -> None:
    """As an operator does. The lines of the log are written, but nobody reads them."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from uvicorn.config import LOGGING_CONFIG

    from adk_relay.show_logs import log_config, show_logs

    trace.set_tracer_provider(TracerProvider())
    os.environ["RELAY_LOG"] = "json"
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(null, stream.fileno())
    config.log_level, config.log_config = "info", log_config(LOGGING_CONFIG)
    config.configure_logging()
    show_logs()
