"""Forks relays: a process that has imported what a relay imports, which takes longer than most tests.

It reads orders from the socket that is its stdin: JSON, with the descriptors of the new process's output and
of a pipe on which its exit code is told. It answers each with the new process's id. When the socket is
closed, it kills what still runs and ends. See `support.warm`.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from typing import Any

_BEFORE = [*sys.path[1:]]  # without the folder of this file


def _load() -> None:
    import aiosqlite  # noqa: F401
    import uvicorn
    import uvicorn.protocols.websockets.websockets_sansio_impl  # noqa: F401

    import adk_relay.adk.conversations
    import adk_relay.bus.server
    import adk_relay.wire.http  # noqa: F401

    gc.collect()
    gc.freeze()


def _run(order: dict[str, Any], output: int) -> None:
    """What the interpreter does with `script …`, `-m module …` or `-c program …`."""
    os.setsid()
    os.chdir(order["folder"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, 256)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.stdout = os.fdopen(1, "w", 1, closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, closefd=False)
    first, *arguments = order["arguments"]
    paths = [path for path in order["environment"].get("PYTHONPATH", "").split(":") if path]
    if first == "-m":
        first, *arguments = arguments
        sys.path[:] = [order["folder"], *paths, *_BEFORE]
        sys.argv[:] = [first, *arguments]
        runpy.run_module(first, run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path[:] = [order["folder"], *paths, *_BEFORE]
        program, *arguments = arguments
        sys.argv[:] = ["-c", *arguments]
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path[:] = [os.path.dirname(first), *paths, *_BEFORE]  # noqa: PTH120
        sys.argv[:] = [first, *arguments]
        runpy.run_path(first, run_name="__main__")


def _child(order: dict[str, Any], output: int) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _run(order, output)  # SystemExit and every other exception end this process as they end any program


def main() -> None:
    _load()
    orders = socket.socket(fileno=0)
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([orders.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            for process, told in [*running.items()]:
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    del running[process]
                    os.write(told, str(os.waitstatus_to_exitcode(status)).encode())
                    os.close(told)
        if orders.fileno() in ready:
            data, descriptors, _, _ = socket.recv_fds(orders, 1 << 20, 2)
            if not data:
                for process in running:
                    os.kill(process, signal.SIGKILL)
                return
            output, told = descriptors
            process = os.fork()
            if not process:
                _child(json.loads(data), output)
                return
            os.close(output)
            running[process] = told
            orders.send(str(process).encode())


if __name__ == "__main__":
    main()
