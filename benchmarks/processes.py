"""The processes: the model's, and those that serve the applications."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import socket
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any

import psutil  # type: ignore[import-untyped]

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
"""The first is the server's, the last that of all others. Empty: this system can't choose."""

SEND_BUFFER = 64 * 1024
"""For `run_server`, where a client does not read: what a slow network takes. Without it the kernel takes
anything from 64 KiB to megabytes, depending on what it remembers of the address from earlier connections."""

_spawn = multiprocessing.get_context("spawn")


@dataclass
class Server:
    """A process that serves `Apps`, seen from outside."""

    pid: int
    port: int

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

    def get(self, path: str) -> Any:
        """The JSON of an HTTP response. It blocks."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
            return json.load(response)


@contextmanager
def run_model() -> Iterator[dict[str, str]]:
    """The model's process; yields the environment that leads google-genai to it."""
    ours, its = _spawn.Pipe()
    process = _spawn.Process(target=_model_process, args=(its,), daemon=True)
    process.start()
    its.close()  # or `recv` would wait for a process that has ended
    try:
        yield ours.recv()
        ours.send("stop")
        process.join(10)
    finally:
        process.terminate()


@contextmanager
def run_server(env: dict[str, str], *, send_buffer: int = 0, **settings: Any) -> Iterator[Server]:
    """A process that serves `Apps`.

    Args:
        env: what `run_model` yields.
        send_buffer: bytes that the kernel takes for a client that does not read; 0: as the kernel likes.
        settings: those of `Relay`.
    """
    ours, its = _spawn.Pipe()
    process = _spawn.Process(target=_server_process, args=(its, env, send_buffer, settings), daemon=True)
    process.start()
    its.close()
    try:
        port = ours.recv()
        assert process.pid
        yield Server(process.pid, port)
    finally:
        process.terminate()
        process.join(15)


# What only one of the processes needs is imported there: the memory that is measured is a server's own.


def _model_process(pipe: Pipe) -> None:
    from benchmarks import model

    model.serve(pipe)


def _server_process(pipe: Pipe, env: dict[str, str], send_buffer: int, settings: dict[str, Any]) -> None:
    if CORES:
        os.sched_setaffinity(0, {CORES[0]})
    os.environ.update(env)
    warnings.simplefilter("ignore")  # ADK's, about what is experimental
    import uvicorn

    from benchmarks.apps import Apps

    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    if send_buffer:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    app = Apps(**({"sessions": "memory://", "grace": 0} | settings))
    # A full collection walks over all objects of ADK, for 50 to 200 ms, and only chance decides in whose
    # measurement. So those that are there from the start are exempt.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(app, ws_per_message_deflate=False, timeout_graceful_shutdown=3, log_level="error")
    pipe.send(listening.getsockname()[1])
    uvicorn.Server(config).run(sockets=[listening])
