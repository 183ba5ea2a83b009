"""Real Redis servers, each with a folder of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import redis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from support.ports import free_port
from support.server import need

HANGS = 30
"""Seconds after which something that was waited for does not come any more, even on a loaded machine."""


class RedisServer:
    """A Redis that can be killed, paused, and started again, with its data or without."""

    def __init__(self, folder: Path, *options: str, password: str = "") -> None:
        self.port = free_port()
        self._folder = folder
        self._password = password or None
        secret = ("--requirepass", password, "--masterauth", password) if password else ()
        self._options = (*options, *secret)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self, *first: str, with_data: bool = True) -> None:
        """Starts it, and waits until it works.

        Args:
            first: the arguments before its options.
        """
        if not with_data:
            shutil.rmtree(self._folder / "appendonlydir", ignore_errors=True)
        self._process = await asyncio.create_subprocess_exec(
            os.environ.get("RELAY_TEST_REDIS_SERVER") or need("redis-server", "redis-server"),
            *first,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always", *self._options),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

        async def works() -> bool:
            assert self._process and self._process.returncode is None, "redis-server did not start"
            with suppress(RedisError):
                await self.ask("PING")
                return True
            return False

        await until(works)

    async def kill(self) -> None:
        """Kills it without a word."""
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def pause(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    async def ask(self, *command: str | int | bytes) -> object:
        """What it answers to a command."""
        async with Redis(port=self.port, password=self._password, socket_timeout=HANGS) as client:
            return await cast(Any, client).execute_command(*command)

    async def stays(self) -> list[str]:
        """The keys that have no expiry."""
        async with Redis(port=self.port, password=self._password, socket_timeout=HANGS) as client:
            return [key.decode() async for key in client.scan_iter() if await client.pttl(key) == -1]


@asynccontextmanager
async def redis_server(*options: str, password: str = "") -> AsyncIterator[RedisServer]:
    """A running Redis without any data."""
    folder = Path(tempfile.mkdtemp(prefix="relay-"))
    server = RedisServer(folder, *options, password=password)
    try:
        await server.start()
        yield server
    finally:
        await server.kill()
        shutil.rmtree(folder, ignore_errors=True)


class SharedRedis:
    """A Redis that many tests use, one after the other."""

    def __init__(self, port: int) -> None:
        self.url = f"redis://127.0.0.1:{port}"
        self._client = redis.Redis(port=port, socket_timeout=HANGS)

    def works(self) -> bool:
        with suppress(RedisError):
            return bool(self._client.ping())
        return False

    def empty(self) -> None:
        self._client.flushall()

    def stays(self) -> list[str]:
        """The keys that have no expiry."""
        return [key.decode() for key in self._client.scan_iter() if self._client.pttl(key) < 0]

    def close(self) -> None:
        self._client.close()


@contextmanager
def shared_redis() -> Iterator[SharedRedis]:
    """A running Redis without any data, which writes no files."""
    port = free_port()
    command = (need("redis-server", "redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    server = SharedRedis(port)
    try:
        deadline = time.monotonic() + HANGS
        while not server.works():
            assert process.poll() is None and time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.01)
        yield server
    finally:
        server.close()
        process.kill()
        process.wait()


async def until(is_true: Callable[[], Awaitable[bool] | bool]) -> None:
    """Waits until something is true."""
    async with asyncio.timeout(HANGS):
        while True:
            found = is_true()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(*coroutines: Awaitable[None]) -> AsyncIterator[None]:
    """Runs these until the end of the block. One that fails fails the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_wait_for(each)) for each in coroutines]
        yield
        for task in tasks:
            task.cancel()


async def _wait_for(awaitable: Awaitable[None]) -> None:
    await awaitable
