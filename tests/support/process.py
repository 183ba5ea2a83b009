"""A program as a process of its own: what it says, line by line, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from support.server import ROOT
from support.warm import Warm, warm

HANGS = 60
"""Seconds after which something that was waited for does not come any more, even on a loaded machine."""

PYTHON = [sys.executable, str(ROOT / "relay.py"), "--port", "0"]
SERVE = [sys.executable, "-m", "adk_relay", "serve", "--port", "0"]
UVICORN = [
    *(sys.executable, "-m", "uvicorn", "relay:app", "--port", "0"),
    *("--timeout-graceful-shutdown", "3", "--ws-per-message-deflate", "false"),
]


class Process:
    """A process, and the lines that it writes to stdout and stderr, together.

    Attributes:
        log: its lines so far.
        port: where it serves, once `started` has returned.
    """

    def __init__(self, process: asyncio.subprocess.Process | Warm) -> None:
        self.log: list[str] = []
        self.port = 0
        self._process = process
        self._news = asyncio.Condition()
        self._is_silent = False
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            async with self._news:
                self.log.append(line.decode().rstrip("\n"))
                self._news.notify_all()
        async with self._news:
            self._is_silent = True
            self._news.notify_all()

    async def says(self, pattern: str) -> re.Match[str]:
        """Waits for a line in which the pattern is found."""
        found: re.Match[str] | None = None

        def is_said() -> bool:
            nonlocal found
            found = next((match for line in self.log if (match := re.search(pattern, line))), None)
            return bool(found) or self._is_silent

        async with asyncio.timeout(HANGS), self._news:
            await self._news.wait_for(is_said)
        assert found, self.log
        return found

    async def started(self) -> None:
        """Returns when it serves."""
        self.port = int((await self.says(r"running on http://127.0.0.1:(\d+)"))[1])

    async def ended(self, timeout: float = HANGS) -> int:
        """Waits for its end and returns the exit code."""
        try:
            code = await asyncio.wait_for(self._process.wait(), timeout)
        except TimeoutError:
            raise AssertionError(f"it still runs after {timeout} s: {self.log}") from None
        await self._reading
        return code

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to end and returns the exit code. It may not wait for what takes 30 s."""
        self._process.send_signal(how)
        return await self.ended(20)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    def pause(self) -> None:
        """It stands still until `go_on`."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kills it, and what it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def problems(self) -> list[str]:
        """What the log has above INFO. Every line of the log has a level, so a traceback has no place."""
        assert [line for line in self.log if not re.match(r"(INFO|WARNING|ERROR): +\S", line)] == []
        return [re.sub(r": +", ": ", line, count=1) for line in self.log if not line.startswith("INFO")]


@asynccontextmanager
async def process(
    command: Sequence[str | Path], folder: Path, environment: dict[str, str]
) -> AsyncIterator[Process]:
    """Starts a program in a folder, with this environment alone; it is killed at the end if it still runs."""
    started = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={"PYTHONUNBUFFERED": "1", **environment},  # uvicorn writes to both streams, and the order counts
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        limit=2**20,
    )
    program = Process(started)
    try:
        yield program
    finally:
        program.kill()
        await program.ended()


@asynccontextmanager
async def relay_process(command: list[str], folder: Path, **environment: str) -> AsyncIterator[Process]:
    """Starts a relay in a folder, with an environment that has nothing but what is given."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment}
    async with process(command, folder, environment) as relay:
        yield relay


@asynccontextmanager
async def serving_process(command: list[str], folder: Path, **environment: str) -> AsyncIterator[Process]:
    async with relay_process(command, folder, **environment) as relay:
        await relay.started()
        yield relay


@asynccontextmanager
async def warm_relay(command: list[str], folder: Path, **environment: str) -> AsyncIterator[Process]:
    """Like `relay_process`, for tests of what comes after the start: it does not import ADK again."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment}
    relay = Process(await warm(command, folder, environment))
    try:
        yield relay
    finally:
        relay.kill()
        await relay.ended()


@asynccontextmanager
async def serving_warm(command: list[str], folder: Path, **environment: str) -> AsyncIterator[Process]:
    async with warm_relay(command, folder, **environment) as relay:
        await relay.started()
        yield relay
