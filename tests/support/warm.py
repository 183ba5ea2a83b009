"""Relays that start at once, as copies of a process that has imported ADK already.

To import it takes two seconds of a processor, and several tests start relays only to kill them. Tests of the
start itself begin with a new interpreter: `support.process.relay_process`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from support.server import ROOT


@cache
def _program() -> socket.socket:
    """The socket of the process that forks; it ends when this process does."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("warm_program.py"))],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdin=there.fileno(),
        start_new_session=True,
    ).returncode = 0  # nobody waits for it
    there.close()
    return here


class Warm:
    """A process that was forked. It has what `asyncio.subprocess.Process` has, as far as tests use it."""

    def __init__(self, pid: int, stdout: asyncio.StreamReader | None, ended: asyncio.StreamReader) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._waiting = asyncio.create_task(self._wait(ended))

    async def _wait(self, ended: asyncio.StreamReader) -> int:
        self.returncode = int(await ended.read() or b"-9")
        return self.returncode

    async def wait(self) -> int:
        return await asyncio.shield(self._waiting)

    def send_signal(self, how: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self.pid, how)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def _reader(descriptor: int, limit: int = 2**16) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit, loop=loop)
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop), os.fdopen(descriptor, "rb", 0)
    )
    return reader


async def warm(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], *, is_heard: bool = True
) -> Warm:
    """Starts `python …` (a script, `-m module` or `-c program`) in a folder, with this environment alone.

    What it writes goes to `stdout`; nowhere, if it is not to be heard.
    """
    python, *arguments = map(str, command)
    assert python == sys.executable
    order = {"arguments": arguments, "folder": str(folder), "environment": dict(environment)}
    output, its_output = os.pipe() if is_heard else (-1, os.open(os.devnull, os.O_WRONLY))
    ended, told = os.pipe()
    try:
        pid = await asyncio.to_thread(_ordered, json.dumps(order).encode(), [its_output, told])
    finally:
        os.close(its_output)
        os.close(told)
    return Warm(pid, await _reader(output, 2**20) if is_heard else None, await _reader(ended))


_one_at_a_time = threading.Lock()


def _ordered(order: bytes, descriptors: list[int]) -> int:
    with _one_at_a_time:
        program = _program()
        socket.send_fds(program, [order], descriptors)
        return int(program.recv(100))
