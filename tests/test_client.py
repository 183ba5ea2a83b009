"""The terminal client: in a pipe, and in a terminal that is looked at as a person does."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]
import pyte
import pytest
from conftest import a_relay, client, need, serving, words
from google.adk.agents import LlmAgent
from playwright.async_api import async_playwright

from agent.rehearsal import Rehearsal
from relay import HERE, Relay

CLIENT = str(HERE / "client.py")


def rehearsing(words_per_second: float = 50, pace: float = 50, **settings: Any) -> Relay:
    model = Rehearsal(pace=pace, words_per_second=words_per_second)
    return a_relay(LlmAgent(name="rehearsal", model=model), **{"grace": 30, **settings})


# ---- a pipe ----------------------------------------------------------------------------------


async def piped(text: str, *arguments: str) -> tuple[int | None, str, str]:
    """Pipes a text in; the exit code, and what came out."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, CLIENT, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(text.encode()), 30)
    return process.returncode, out.decode(), err.decode()


async def test_a_pipe_gets_the_answer_and_nothing_else() -> None:
    async with serving(rehearsing()) as port:
        code, out, err = await piped("What is\nthis?\n", f"--url=http://127.0.0.1:{port}/")
    assert (code, err) == (0, "")
    assert out == "This is a rehearsal: no model is connected. You said: What is\nthis?\n"


async def test_a_pipe_can_go_on_with_a_conversation() -> None:
    async with serving(rehearsing()) as port, client(port, "guest", query="&session_id=mine") as alice:
        assert "hello" in await alice.ask("hello")
        code, _, err = await piped("me too", f"--url=http://127.0.0.1:{port}", "--session=mine")
        assert (code, err) == (0, "")
        asked, *told = await alice.turn()
        assert asked["text"] == "me too"
        assert "me too" in words(told)


@pytest.mark.parametrize(
    ("text", "arguments", "why"),
    [
        ("hi", ["--url=http://127.0.0.1:1"], "can't be reached"),
        ("hi", ["--url=ftp://127.0.0.1"], "http://"),
        ("  \n", [], "empty"),
        ("hi", ["--session=nope"], "nope"),
    ],
)
async def test_a_pipe_that_gets_no_answer_says_why(text: str, arguments: list[str], why: str) -> None:
    async with serving(rehearsing()) as port:
        code, out, err = await piped(text, f"--url=http://127.0.0.1:{port}", *arguments)
    assert (code, out) == (1, "")
    assert why in err
    assert err.startswith("relay-client: ")
    assert err.count("\n") == 1


async def test_a_pipe_whose_server_goes_says_so() -> None:
    relay = rehearsing(words_per_second=1)
    async with serving(relay) as port:
        asking = asyncio.create_task(piped("hi", f"--url=http://127.0.0.1:{port}"))
        while not relay.conversations.stats.requests:
            await asyncio.sleep(0.01)
    code, _, err = await asking
    assert code == 1
    assert "lost" in err


def without_sockets(relay: Relay) -> Callable[..., Any]:
    """What a proxy that knows no WebSockets makes of relay."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})  # before it is accepted: 403
        else:
            await relay(scope, receive, send)

    return app


async def test_without_websockets_a_pipe_goes_over_http() -> None:
    async with serving(without_sockets(rehearsing())) as port:
        code, out, err = await piped("hi", f"--url=http://127.0.0.1:{port}")
    assert code == 0
    assert out == "This is a rehearsal: no model is connected. You said: hi\n"
    assert "over plain HTTP" in err


# ---- a terminal ------------------------------------------------------------------------------


class Terminal:
    """The client in a pseudo-terminal, and the screen that a person would see."""

    def __init__(self, *arguments: str, home: Path) -> None:
        environment = {**os.environ, "TERM": "xterm-256color", "XDG_STATE_HOME": str(home)}
        environment.pop("NO_COLOR", None)
        self.raw = ""
        self._screen = pyte.HistoryScreen(100, 40, history=1000)
        self._stream = pyte.Stream(self._screen)
        self._child = pexpect.spawn(
            sys.executable,
            [CLIENT, *arguments],
            env=environment,
            dimensions=(40, 100),
            encoding="utf-8",
            timeout=0,
        )
        self._child.delaybeforesend = None

    @property
    def text(self) -> str:
        """What stands on the screen."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    async def sees(self, wanted: str, timeout: float = 15) -> str:
        """Looks until it is there; what stands there then."""
        try:
            async with asyncio.timeout(timeout):
                while not re.search(wanted, self.text):
                    self.read()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"no {wanted!r} in:\n{self.text}") from None
        return self.text

    def read(self) -> None:
        """Takes what the client has written, and answers as a terminal does."""
        with suppress(pexpect.TIMEOUT, pexpect.EOF):
            while True:
                new = self._child.read_nonblocking(65536, timeout=0)
                self.raw += new
                self._stream.feed(new)
                if "\x1b[6n" in new:  # where is the cursor?
                    self._child.send(f"\x1b[{self._screen.cursor.y + 1};{self._screen.cursor.x + 1}R")

    async def types(self, line: str) -> None:
        """Types a line, and Return."""
        self._child.send(line)
        self._child.send("\r")

    def keys(self, keys: str) -> None:
        self._child.send(keys)

    async def ends(self) -> int | None:
        """Waits until the client has ended; its exit code."""
        async with asyncio.timeout(10):
            while self._child.isalive():
                self.read()
                await asyncio.sleep(0.01)
        status: int | None = self._child.exitstatus
        return status

    def close(self) -> None:
        self._child.close(force=True)


@asynccontextmanager
async def terminal(port: int, home: Path, *arguments: str) -> AsyncIterator[Terminal]:
    one = Terminal(f"--url=http://127.0.0.1:{port}", *arguments, home=home)
    try:
        await one.sees(r"(^|\n)(> |http> )?.*\n*> ?")
        yield one
    finally:
        one.close()


async def test_a_person_at_a_terminal_talks(tmp_path: Path) -> None:
    async with serving(rehearsing(words_per_second=10, pace=1)) as port, terminal(port, tmp_path) as screen:
        await screen.types("hello there")
        await screen.sees("You hello there")
        partly = await screen.sees("Agent This is a .*…")
        assert "You said" not in partly  # it is shown as it comes
        whole = await screen.sees("Agent This is a rehearsal: no model is connected. You said: hello there\n")
        assert "…" not in whole
        await screen.types("/info")
        info = await screen.sees(r"message_count +2\n")
        [session_id] = set(re.findall(r"Conversation ([0-9a-f]{32})", info))
        await screen.types("/stats")
        stats = await screen.sees(rf"session +{session_id}")
        for name, value in {
            "messages sent": "1",
            "streams succeeded": "1",
            "streams failed": "0",
            "connection attempts": "1",
            "reconnections": "0",
            "sessions created": "1",
            "status": "connected",
            "response time": r"\d+\.\d\d s",
            "first-token time": r"\d+\.\d\d s",
        }.items():
            assert re.search(rf"{name} +{value}\b", stats), (name, stats)
        await screen.types("/server")
        await screen.sees(r"total_sessions_created +1\n")
        await screen.types("/ping")
        await screen.sees(r"\d+\.\d ms")
        await screen.types("/health")
        await screen.sees(r"status +ok\n")
        await screen.types("/sessions")
        await screen.sees(f"{session_id}  2 messages, 1 here now")
        await screen.types("/help")
        await screen.sees("/disconnect")
        await screen.types("/docs")
        await screen.sees(f"http://127.0.0.1:{port}/docs")
        await screen.types("/nonsense")
        await screen.sees("/help tells")
        await screen.types("/clear")
        await screen.sees("was cleared")
        await screen.types("/new")
        await screen.sees(rf"Conversation (?!{session_id})[0-9a-f]{{32}}")
        await screen.types(f"/join {session_id}")
        await screen.sees(f"In conversation {session_id}")
        await screen.types("/join nowhere")
        await screen.sees("There is no conversation 'nowhere'")
        screen.keys("\x1b[A\r")  # the line before is there again
        await screen.sees(r"(?s)nowhere.*nowhere")
        screen.keys("half a line\x03")  # taken back
        await screen.types("/disconnect")
        await screen.sees("Disconnected")
        await screen.types("said meanwhile")
        await screen.types("/connect")
        await screen.sees("You said: said meanwhile\n")
        await screen.types("/quit")
        assert await screen.ends() == 0
        assert "Traceback" not in screen.raw


async def test_the_end_of_input_is_the_end(tmp_path: Path) -> None:
    async with serving(rehearsing()) as port, terminal(port, tmp_path) as screen:
        screen.keys("\x04")
        assert await screen.ends() == 0


async def test_a_lost_connection_is_made_again(tmp_path: Path) -> None:
    relay = rehearsing()
    async with serving(relay) as port, terminal(port, tmp_path) as screen:
        await screen.types("one")
        await screen.sees("You said: one\n")
        [session_id] = set(re.findall(r"Conversation ([0-9a-f]{32})", screen.text))
        async with client(port, "guest", query=f"&session_id={session_id}") as other:
            for socket in [*relay._sockets]:
                if socket.connection_id != other.hello["connection_id"]:
                    socket.stop()
            await other.ask("said while it was away")
            await screen.sees("connection was lost")
            await screen.sees("You said: said while it was away")
            await screen.types("two")
            await screen.sees("You said: two\n")
        assert screen.text.count("You said: one") == 1
        await screen.types("/stats")
        stats = await screen.sees(f"session +{session_id}")
        assert re.search(r"reconnections +1\n", stats)


async def test_without_websockets_a_terminal_goes_over_http(tmp_path: Path) -> None:
    async with serving(without_sockets(rehearsing())) as port, terminal(port, tmp_path) as screen:
        await screen.sees("No WebSocket can be had here")
        await screen.types("hi")
        await screen.sees("You said: hi\n")
        await screen.types("/stats")
        await screen.sees(r"status +http\n")


async def test_what_others_say_cannot_steer_the_terminal(tmp_path: Path) -> None:
    async with (
        serving(rehearsing()) as port,
        client(port, "guest", query="&session_id=room") as other,
        terminal(port, tmp_path, "--session=room") as screen,
    ):
        await other.say("before")
        await screen.sees("You said: before")
        await other.say("\x1b]0;owned\x07\x1b[2J[red]gone[/red] after")
        await screen.sees(r"\[red\]gone\[/red\] after")
        assert "\x1b]0;owned" not in screen.raw
        assert "\x1b[2J\x1b[0m[red]" not in screen.raw
        assert "before" in screen.text


async def test_a_terminal_without_its_libraries_says_what_to_install(tmp_path: Path) -> None:
    for name in ("rich", "prompt_toolkit"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('hidden')")
    child: Any = pexpect.spawn(
        sys.executable,
        [CLIENT],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        encoding="utf-8",
    )
    async with asyncio.timeout(20):
        while child.isalive():
            await asyncio.sleep(0.01)
    said = child.read()
    assert "pip install 'adk-relay[client]'" in said
    assert "Traceback" not in said
    assert child.exitstatus == 1


# ---- all kinds of clients in one conversation ------------------------------------------------


async def test_two_browsers_and_a_terminal_see_the_same(tmp_path: Path) -> None:
    chromium = need("chromium", "chromium")
    async with (
        serving(rehearsing(words_per_second=20)) as port,
        terminal(port, tmp_path, "--session=room") as screen,
        async_playwright() as playwright,
    ):
        await screen.types("from the terminal")
        await screen.sees("no conversation 'room'")  # nobody has begun it yet
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        pages = []
        for _ in range(2):
            page = await (await browser.new_context()).new_page()
            await page.goto(f"http://127.0.0.1:{port}/?user=guest&session=room")
            await page.locator('#state[data-state="connected"]').wait_for()
            pages.append(page)
        await pages[0].fill("#text", "from a browser")
        await pages[0].press("#text", "Enter")
        await pages[1].locator("#messages").get_by_text("You said: from a browser").wait_for()
        await screen.types("/join room")
        await screen.sees("You said: from a browser")
        await screen.types("and from the terminal")
        for page in pages:
            await page.locator("#messages").get_by_text("and from the terminal", exact=True).wait_for()
            await page.locator("#messages").get_by_text("You said: and from the terminal").wait_for()
        await screen.sees("You said: and from the terminal\n")
        await pages[1].locator("#text").press_sequentially("once")
        await screen.sees("Somebody is typing")
        await pages[1].press("#text", "Enter")
        await screen.sees("Somebody once")
        await screen.sees("You said: once\n")
        await pages[0].locator("#messages").get_by_text("You said: once").wait_for()
        await pages[0].close()
        await screen.sees("Somebody left")
        screen.keys("thinking")
        await pages[1].get_by_text(re.compile("is typing")).first.wait_for()
        await browser.close()
