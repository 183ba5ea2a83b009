"""The terminal client as a process: in a pipe, and at a terminal that shows what a person sees."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyte
from google.adk.agents import LlmAgent

from adk_relay.adk.rehearsal import Rehearsal
from agent.agent import get_current_time
from relay import Relay
from support.process import HANGS
from support.server import ROOT, a_relay

CLIENT = [sys.executable, str(Path(__file__).with_name("checked_client.py"))]
WIDTH, HEIGHT = 90, 48


def talkative(words_per_second: float = 60, **settings: Any) -> Relay:
    """A relay whose agent needs no service, and is as slow as a test needs it."""
    model = Rehearsal(words_per_second=words_per_second, pace=100 if words_per_second > 50 else 1)
    agent = LlmAgent(name="tester", model=model, tools=[get_current_time])
    return a_relay(agent, **{"grace": 30} | settings)


def environment(**more: str) -> dict[str, str]:
    plain = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**plain, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "TERM": "xterm-256color", **more}


class Person:
    """Somebody at a terminal: a child on a pty, and a screen that shows what it writes."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int, width: int) -> None:
        self.process = process
        self.terminal = terminal
        self.raw = b""
        self._width = width
        self._screen = pyte.HistoryScreen(width, HEIGHT, history=2000, ratio=1)
        self._screen.write_process_input = self._answer  # type: ignore[method-assign]
        self._stream = pyte.ByteStream(self._screen)
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(terminal, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self.terminal, 65536)
        except OSError:  # Linux's end of file: nobody has the other side any more
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self.terminal)
        self.raw += data
        self._stream.feed(data)
        self._news.set()

    def _answer(self, data: str) -> None:
        """What a terminal itself replies, such as where the cursor is."""
        with suppress(OSError):
            os.write(self.terminal, data.encode())

    def types(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    @property
    def sight(self) -> str:
        """All that stands there, also what has scrolled away."""
        above = [
            "".join(line[column].data for column in range(self._width)).rstrip()
            for line in self._screen.history.top
        ]
        return "\n".join([*above, *(line.rstrip() for line in self._screen.display)])

    async def sees(self, pattern: str, timeout: float = HANGS) -> re.Match[str]:
        """Waits until something stands there, wherever its lines are broken."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    sight = self.sight
                    for seen in (sight, re.sub(r"(?<=\S)\n {11}(?=\S)", " ", sight)):
                        if found := re.search(pattern, seen):
                            return found
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            seen = re.sub("\n\n+", "\n\n", self.sight)
            raise AssertionError(f"no {pattern!r} within {timeout} s:\n{seen}") from None

    async def says(self, text: str) -> None:
        """Types a line when there is a prompt for it."""
        await self.sees(r"(?m)^you +> *\n\s*\w+ · [^\n]*\s*\Z")
        self.types(f"{text}\r")

    async def tallies(self, pattern: str) -> None:
        """Asks for the statistics until they say so: an answer's end is not to be seen."""
        last_row = r"^session +\S"
        async with asyncio.timeout(HANGS):
            while True:
                tables = len(re.findall(last_row, self.sight, re.MULTILINE))
                await self.says("/stats")
                await self.sees(rf"(?ms)(?:{last_row}.*?){{{tables + 1}}}")
                if re.search(pattern, self.sight):
                    return

    async def leaves(self, keys: str = "/quit\r") -> int:
        if keys:
            self.types(keys)
        code = await asyncio.wait_for(self.process.wait(), HANGS)
        assert b"Traceback" not in self.raw, self.sight
        return code


@asynccontextmanager
async def at_terminal(
    port: int, home: Path, *arguments: str, width: int = WIDTH, **more: str
) -> AsyncIterator[Person]:
    """Somebody who has started the client."""
    terminal, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, width, 0, 0))
    started = await asyncio.create_subprocess_exec(
        *(*CLIENT, "--url", f"http://127.0.0.1:{port}", *arguments),
        env=environment(XDG_STATE_HOME=str(home), **more),
        preexec_fn=partial(os.login_tty, child),
    )
    person = Person(started, terminal, width)
    try:
        yield person
    finally:
        os.close(child)
        if started.returncode is None:
            started.kill()
            await started.wait()
        asyncio.get_running_loop().remove_reader(terminal)
        os.close(terminal)


@asynccontextmanager
async def connected(
    port: int, home: Path, *arguments: str, width: int = WIDTH, **more: str
) -> AsyncIterator[Person]:
    async with at_terminal(port, home, *arguments, width=width, **more) as person:
        await person.sees(r"connected · \S+ · ")
        yield person


async def piped(
    *arguments: str, text: str = "hello", env: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """What the client makes of an input: exit code, stdout, stderr."""
    started = await asyncio.create_subprocess_exec(
        *(*CLIENT, *arguments),
        env=env or environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(started.communicate(text.encode()), HANGS)
    assert started.returncode is not None
    return started.returncode, out.decode(), err.decode()


def said_in(relay: Relay) -> list[list[str]]:
    """What users have said, in each conversation in which they have said something."""
    rooms = [conversation.room.history.lines() for conversation in relay.conversations._open.values()]
    texts = [[line.text for line in lines if line.role == "user"] for lines in rooms]
    return [said for said in texts if said]


def without_websockets(app: Any) -> Any:
    """A host that answers what it does not know, as a proxy does that passes on no upgrades."""

    async def host(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await app(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close"})  # which uvicorn makes a 403 of

    return host
