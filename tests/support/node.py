"""The client for JavaScript, in Node and from npm."""

from __future__ import annotations

import asyncio
import fcntl
import json
import re
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from support.client import Json
from support.process import HANGS
from support.server import ROOT, need

PACKAGE = ROOT / "clients" / "js"


@cache
def installed() -> Path:
    """The `node_modules` with what the package's tests need."""
    return installed_in(PACKAGE)


@cache
def installed_in(folder: Path) -> Path:
    """The `node_modules` of a folder with a package.json; one of all processes installs it."""
    npm = need("npm", "npm")
    modules = folder / "node_modules"
    with (folder / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not modules.is_dir():
            quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run([npm, "install", *quiet], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    return modules


@cache
def node() -> list[str]:
    """The command for Node with a WebSocket of its own: since 22, and behind an option since 20.10."""
    path = need("node", "nodejs")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = (int(part) for part in re.findall(r"\d+", version)[:2])
    assert (major, minor) >= (20, 10), f"relay-live needs Node 20.10: {version}"
    return [path] if major >= 22 else [path, "--experimental-websocket", "--no-warnings"]


class Talk:
    """A conversation in a process of its own (see talk.mjs).

    Attributes:
        told: all that it has told.
        state: the newest.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.told: list[Json] = []
        self.state: Json = {}
        self._process = process
        self._news = asyncio.Condition()

    async def do(self, method: str, *values: Any) -> Any:
        """Calls a method of the conversation, and returns what it returns."""
        assert self._process.stdin
        count = len(self.calls(method))
        self._process.stdin.write(json.dumps([method, *values]).encode() + b"\n")
        await self.until(lambda: len(self.calls(method)) > count)
        return self.calls(method)[-1]

    def calls(self, method: str) -> list[Any]:
        return [told["returned"] for told in self.told if told.get("called") == method]

    def messages(self, kind: str) -> list[Json]:
        """All messages of a type."""
        return [told["message"] for told in self.told if told.get("message", {}).get("type") == kind]

    def heard(self) -> list[tuple[str, Any]]:
        """What the handlers of a stream were given."""
        return [(told["on"], told["value"]) for told in self.told if "on" in told]

    @property
    def lines(self) -> list[str]:
        return [line["text"] for line in self.state["messages"]]

    async def until(self, holds: Callable[[], Any]) -> None:
        try:
            async with asyncio.timeout(HANGS), self._news:
                await self._news.wait_for(holds)
        except TimeoutError:
            raise AssertionError(f"the last was {self.told[-3:]}") from None

    async def reads(self, *lines: str) -> None:
        """Its conversation has these lines, and none is being added to."""
        await self.until(
            lambda: (
                self.lines == [*lines]
                and not self.state["expecting"]
                and not any(line["open"] for line in self.state["messages"])
            )
        )

    async def read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            async with self._news:
                self.told.append(json.loads(line))
                self.state = self.told[-1].get("state", self.state)
                self._news.notify_all()

    async def end(self) -> None:
        """Closes the conversation: then the process ends by itself."""
        await self.do("close")
        assert await asyncio.wait_for(self._process.wait(), HANGS) == 0
        assert self.told[-1] == {"over": True}


@asynccontextmanager
async def talking(port: int, **options: Any) -> AsyncIterator[Talk]:
    """A conversation that has begun, and ends well."""
    source = (PACKAGE / "src" / "index.js").as_uri()
    given = json.dumps({"url": f"http://127.0.0.1:{port}"} | options)
    command: list[str | Path] = [*node(), ROOT / "tests" / "support" / "talk.mjs", source, given]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    talk = Talk(process)
    reading = asyncio.create_task(talk.read())
    try:
        await talk.until(lambda: talk.state)
        yield talk
        await talk.end()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


def modules(folder: Path) -> Path:
    """A `node_modules` that has the package as npm would install it, and what its examples need."""
    from_npm = installed()
    pack = [need("npm", "npm"), "pack", "--silent", f"--pack-destination={folder}"]
    done = subprocess.run(pack, cwd=PACKAGE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [packed] = folder.glob("relay-live-*.tgz")
    into = folder / "node_modules"
    into.mkdir()
    for each in from_npm.iterdir():
        (into / each.name).symlink_to(each)
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    (folder / "package").rename(into / "relay-live")
    return into


def run(program: str, *arguments: str | Path, cwd: Path) -> None:
    """Runs a program from npm, which must succeed."""
    command = [installed() / ".bin" / program, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
