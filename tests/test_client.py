"""The terminal client, in a pipe and in a pseudo-terminal: what a person sees, and what a script gets."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyte
import pytest
from app.test_process import PYTHON, process
from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm
from websockets.asyncio.server import ServerConnection, serve

import client as terminal_client
from adk_relay.adk.rehearsal import Rehearsal
from agent.agent import get_current_time
from relay import Relay
from support.client import client
from support.proxy import Cut, Network, Proxy, network
from support.server import ROOT, a_relay, serving

QUICK = """
from google.adk.agents import LlmAgent
from adk_relay.adk.rehearsal import Rehearsal

root_agent = LlmAgent(name="quick", model=Rehearsal(words_per_second=12))
"""

CLIENT = [sys.executable, str(ROOT / "client.py")]
WIDTH, HEIGHT = 90, 48


def talkative(words_per_second: float = 60, **settings: Any) -> Relay:
    """A relay whose agent needs no service, and is as slow as a test needs it."""
    model = Rehearsal(words_per_second=words_per_second, pace=100 if words_per_second > 50 else 1)
    agent = LlmAgent(name="tester", model=model, tools=[get_current_time])
    return a_relay(agent, **{"grace": 30} | settings)


def environment(**more: str) -> dict[str, str]:
    plain = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**plain, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "TERM": "xterm-256color", **more}


# ---- a person -------------------------------------------------------------------------------


class Person:
    """Somebody at a terminal: a child on a pty, and a screen that shows what it writes."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int) -> None:
        self.process = process
        self.terminal = terminal
        self.raw = b""
        self._screen = pyte.HistoryScreen(WIDTH, HEIGHT, history=2000, ratio=1)
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
            "".join(line[column].data for column in range(WIDTH)).rstrip()
            for line in self._screen.history.top
        ]
        return "\n".join([*above, *(line.rstrip() for line in self._screen.display)])

    async def sees(self, pattern: str, timeout: float = 15) -> re.Match[str]:
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
        for _ in range(10):
            await self.says("/stats")
            with suppress(AssertionError):
                await self.sees(pattern, timeout=1)
                return
        await self.sees(pattern, timeout=1)

    async def leaves(self, keys: str = "/quit\r") -> int:
        if keys:
            self.types(keys)
        code = await asyncio.wait_for(self.process.wait(), 10)
        assert b"Traceback" not in self.raw, self.sight
        return code


@asynccontextmanager
async def at_terminal(port: int, home: Path, *arguments: str, **more: str) -> AsyncIterator[Person]:
    """Somebody who has started the client."""
    terminal, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    started = await asyncio.create_subprocess_exec(
        *(*CLIENT, "--url", f"http://127.0.0.1:{port}", *arguments),
        env=environment(XDG_STATE_HOME=str(home), **more),
        preexec_fn=partial(os.login_tty, child),
    )
    person = Person(started, terminal)
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
async def connected(port: int, home: Path, *arguments: str, **more: str) -> AsyncIterator[Person]:
    async with at_terminal(port, home, *arguments, **more) as person:
        await person.sees(r"connected · \S+ · ")
        yield person


# ---- a pipe ----------------------------------------------------------------------------------


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
    out, err = await asyncio.wait_for(started.communicate(text.encode()), 30)
    assert started.returncode is not None
    return started.returncode, out.decode(), err.decode()


async def test_a_pipe_gets_the_answer_and_nothing_else() -> None:
    async with serving(talkative()) as port:
        code, out, err = await piped("--url", f"http://127.0.0.1:{port}/", text="What time is it?\n")
        assert (code, err) == (0, "")
        assert re.fullmatch(r"This is a rehearsal: .* it is \d\d:\d\d on \w+ in UTC\.\n", out)
        # All of the input is one message, and characters that could steer a terminal stay out.
        code, out, err = await piped("--url", f"127.0.0.1:{port}", text="one\ntwo \x1b[31mthree\n")
        assert (code, err) == (0, "")
        assert out.endswith("You said: one\ntwo [31mthree\n")


async def test_a_pipe_in_a_room_gets_its_own_answer() -> None:
    async with (
        serving(talkative(words_per_second=20)) as port,
        client(port, "guest", query="&session_id=room") as other,
    ):
        await other.say("first")
        await other.until(lambda said: said.get("mime_type"))
        code, out, _ = await piped("--url", f"http://127.0.0.1:{port}", "--session", "room", text="second")
        assert code == 0
        assert "You said: second" in out
        assert "first" not in out
        for _ in range(2):  # or its socket, which nobody reads, could not be closed
            await other.turn()


class Broken(BaseLlm):
    """A model that can't be had."""

    model: str = "broken"

    def connect(self, llm_request: Any) -> Any:
        raise RuntimeError("out of order")

    def generate_content_async(self, llm_request: Any, stream: bool = False) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("arguments", "text", "said"),
    [
        ([], " \n", "There is nothing to ask: the input is empty."),
        ([], "x" * 40_000, "The text has 40000 bytes; 32768 are taken."),
        (["--session", "nowhere"], "hello", "There is no conversation 'nowhere'."),
        (["--url", "http://127.0.0.1:{port}/elsewhere"], "hello", "There is no relay at .*: it answers 404."),
        (["--url", "http://127.0.0.1:{closed}"], "hello", "http://127.0.0.1:{closed} can't be reached: .*"),
        (["--url", "ftp://example"], "hello", "'ftp://example' is no http:// or https:// URL."),
    ],
    ids=["empty", "too-much", "unknown", "no-relay", "no-server", "no-url"],
)
async def test_a_pipe_that_gets_no_answer_says_why(arguments: list[str], text: str, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ports = {"closed": listener.getsockname()[1]}
    async with serving(talkative()) as port:
        ports["port"] = port
        options = [argument.format_map(ports) for argument in arguments]
        code, out, err = await piped("--url", f"http://127.0.0.1:{port}", *options, text=text)
    assert (code, out) == (1, "")
    assert re.fullmatch(f"relay-client: {said.format_map(ports)}\n", err), err


async def test_a_pipe_tells_of_an_agent_that_fails() -> None:
    async with serving(a_relay(LlmAgent(name="tester", model=Broken()))) as port:
        code, out, err = await piped("--url", f"http://127.0.0.1:{port}")
    assert (code, out, err) == (1, "", "relay-client: The agent failed. The server's log says why.\n")


@asynccontextmanager
async def asking(port: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """A pipe that is in the middle of a long answer."""
    started = await asyncio.create_subprocess_exec(
        *(*CLIENT, "--url", f"http://127.0.0.1:{port}"),
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert started.stdin and started.stdout
    started.stdin.write(b"hello " * 500)
    started.stdin.close()
    await asyncio.wait_for(started.stdout.readuntil(b"rehearsal"), 20)
    yield started, started.stdout
    assert started.returncode is not None


async def test_a_pipe_tells_of_a_connection_that_breaks() -> None:
    async with (
        serving(talkative(words_per_second=10)) as port,
        network(port) as (between, there),
        asking(there) as (started, out),
    ):
        between.cut()
        assert await asyncio.wait_for(started.wait(), 10) == 1
        assert (await out.read()).endswith(b"\n")
        assert started.stderr
        assert await started.stderr.read() == b"relay-client: The connection was lost (1006).\n"


async def test_a_pipe_is_interrupted_quietly() -> None:
    async with serving(talkative(words_per_second=10)) as port, asking(port) as (started, _):
        started.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(started.wait(), 10) == 130
        assert started.stderr
        assert await started.stderr.read() == b""


async def test_a_pipe_whose_reader_leaves_ends_quietly() -> None:
    async with serving(talkative(words_per_second=20)) as port:
        reading, writing = os.pipe()
        started = await asyncio.create_subprocess_exec(
            *(*CLIENT, "--url", f"http://127.0.0.1:{port}"),
            env=environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=writing,
            stderr=asyncio.subprocess.PIPE,
        )
        os.close(writing)
        os.close(reading)
        _, err = await asyncio.wait_for(started.communicate(b"hello"), 20)
    assert (started.returncode, err) == (1, b"")


def without_websockets(app: Any) -> Any:
    """A host that answers what it does not know, as a proxy does that passes on no upgrades."""

    async def host(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await app(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close"})  # which uvicorn makes a 403 of

    return host


async def test_a_pipe_goes_over_http_where_no_websocket_gets_through() -> None:
    async with serving(without_websockets(talkative())) as port:
        code, out, err = await piped("--url", f"http://127.0.0.1:{port}")
        assert code == 0
        assert out == "This is a rehearsal: no model is connected. You said: hello\n"
        assert re.fullmatch("relay-client: No WebSocket gets through .*403.* over plain HTTP: .*\n", err)
        code, out, err = await piped("--url", f"http://127.0.0.1:{port}", text="x" * 40_000)
        assert (code, out) == (1, "")
        assert err.endswith("relay-client: The text has 40000 bytes; 32768 are taken.\n")


async def test_without_its_libraries_a_terminal_is_told_and_a_pipe_works(tmp_path: Path) -> None:
    for name in ("rich", "prompt_toolkit"):
        (tmp_path / f"{name}.py").write_text(f'raise ModuleNotFoundError("No module named {name}")\n')
    lacking = f"{tmp_path}:{ROOT}"
    async with serving(talkative()) as port:
        env = environment() | {"PYTHONPATH": lacking}
        code, out, err = await piped("--url", f"http://127.0.0.1:{port}", env=env)
        assert (code, err) == (0, "")
        assert "You said: hello" in out
        async with at_terminal(port, tmp_path, PYTHONPATH=lacking) as person:
            assert await person.leaves("") == 1
            await person.sees(r"\A\s*relay-client: A terminal needs: pip install 'adk-relay\[client\]'")


# ---- a terminal ------------------------------------------------------------------------------


async def test_an_answer_is_seen_as_it_comes(tmp_path: Path) -> None:
    relay = talkative(words_per_second=15)
    async with serving(relay) as port, connected(port, tmp_path) as person:
        await person.says("good evening to all of you who are listening")
        await person.sees(r"(?m)^you +good evening to all of you")
        found = await person.sees(r"(?m)^agent +This is a rehearsal")
        assert "listening" not in person.sight[found.end() :]  # not at once
        person.types("typed meanwh")  # while it comes
        await person.sees(r"(?m)^you +> typed meanwh$")
        await person.sees(r"(?m)^agent +This is a rehearsal: .* You said: good evening to all of you who")
        await person.sees(r"(?m)listening\n+you +> typed meanwh$")
        person.types("ile\r")
        await person.sees(r"You said: typed meanwhile\n")
        assert len(re.findall("(?m)^agent", person.sight)) == 2
        assert await person.leaves() == 0


async def test_every_command(tmp_path: Path) -> None:
    relay = talkative()
    async with serving(relay) as port, connected(port, tmp_path, BROWSER="true") as person:
        await person.says("/help")
        for name in (
            *("help", "stats", "server", "health", "docs", "demo", "clear", "quit"),
            *("connect", "disconnect", "ping", "new", "join ID", "info", "sessions"),
        ):
            await person.sees(rf"(?m)^/{name} +\w")
        await person.says("/info")
        await person.sees("There is no conversation yet")
        await person.says("hello")
        await person.sees("You said: hello")
        [first] = relay.conversations._open
        await person.sees(f"connected · rehearsal · {first}")
        await person.says("/info")
        await person.sees(rf"session_id +{first}\n")
        await person.sees(r"message_count +2\n")
        await person.says("/stats")
        for line in (
            *(r"duration +\d+ s", "messages sent +1", "streams +1 succeeded, 0 failed"),
            *(r"chunks +\d+, \d+\.0 a stream", "connection attempts +1", "reconnections +0"),
            *("sessions created +1", r"response time +\d\.\d\d s", r"first-token time +\d\.\d\d s"),
            *("status +connected", f"session +{first}"),
        ):
            await person.sees(rf"(?m)^{line}")
        await person.says("/server")
        await person.sees(r"total_sessions_created +1\n")
        await person.says("/health")
        await person.sees(r"status +ok\n")
        await person.says("/ping")
        await person.sees(r"\d\.\d ms\n")
        await person.says("/docs")
        await person.sees(rf"http://127\.0\.0\.1:{port}/docs\n")
        await person.says("/demo")
        await person.sees(rf"http://127\.0\.0\.1:{port}/demo\n")
        await person.says("/new")
        second = (await person.sees(r"In the new conversation (\w+)\."))[1]
        assert second != first
        await person.says("here now")
        await person.sees("You said: here now")
        await person.says("/sessions")
        await person.sees(rf"(?s)session +messages +clients.*{second} +2 +1 .*{first} +2 +0 ")
        await person.says(f"/join {first}")
        await person.sees(r"(?s)/join.*\nuser +hello\nagent +This is a rehearsal: .* You said: hello\n")
        await person.says("/join nowhere")
        await person.sees("There is no conversation 'nowhere'")
        await person.says("/clear")
        await person.sees(r"The conversation was cleared\.")
        await person.says("/nonsense")
        await person.sees("There is no /nonsense")
        await person.says("/disconnect")
        await person.sees("Disconnected.")
        await person.says("said meanwhile")
        await person.sees("It is sent as soon as")
        await person.says("/connect")
        await person.sees(r"You said: said meanwhile\n")
        assert person.sight.count("said meanwhile") == 2
        # What was typed is there again the next time, for nobody else to read.
        assert await person.leaves() == 0
        history = tmp_path / "relay" / "history"
        assert history.stat().st_mode & 0o777 == 0o600
    async with serving(talkative()) as port, connected(port, tmp_path) as person:
        person.types("\x1b[A\x1b[A\x1b[A")  # up
        await person.sees(r"(?m)^you +> said meanwhile$")
        person.types("\x03")  # takes it back
        await person.sees(r"(?m)^you +>$")
        assert await person.leaves("\x04") == 0


async def test_two_in_a_room(tmp_path: Path) -> None:
    relay = talkative(words_per_second=30)
    async with serving(relay) as port, connected(port, tmp_path) as anna:
        await anna.says("/new")
        room = (await anna.sees(r"In the new conversation (\w+)\."))[1]
        async with connected(port, tmp_path, "--session", room) as bert:
            guest = (await anna.sees(r"(Guest \S{4}) came\."))[1]
            bert.types("let us")
            await anna.sees(f"{guest} is typing…")
            bert.types(" go\r")
            for one in (anna, bert):
                await one.sees(r"(?m)^agent +This is a rehearsal: .* You said: let us go")
            await anna.sees(f"(?m)^{guest} +let us go$")
            bert.types("and")
            await anna.sees(f"{guest} is typing…")
            bert.types("\x03")
            await anna.says("all right")
            await bert.sees(r"(?m)^Guest \S{4} +all right$")
            for one in (anna, bert):
                await one.sees(r"You said: all right")
                assert "is typing" not in one.sight
            assert await bert.leaves() == 0
        await anna.sees(f"{guest} left")
        assert "reconnect" not in anna.sight


async def test_nothing_that_others_say_steers_the_terminal(tmp_path: Path) -> None:
    async with (
        serving(talkative()) as port,
        client(port, "guest", query="&session_id=room") as other,
    ):
        await other.ask("before")
        async with connected(port, tmp_path, "--session", "room") as person:
            await person.sees("user +before")
            await other.ask("\x1b]0;owned\x07\x1b[2J\x9b31m[red]bold[/red]\u202e :smile: \ud83d\ude00 after")
            seen = r"\]0;owned\[2J31m\[red\]bold\[/red\] :smile: \S+ +after"
            await person.sees(rf"Guest \S{{4}} +{seen}")
            await person.sees(rf"You said:\s+{seen}")
            assert b"\x1b]0;" not in person.raw
            assert b"\x1b[2J" not in person.raw
            assert "\x9b".encode() not in person.raw
            assert "\u202e".encode() not in person.raw


@pytest.mark.parametrize("away_for", ["a moment", "the rest of the answer"])
async def test_a_cut_answer_is_whole_in_the_end(away_for: str, tmp_path: Path) -> None:
    relay = talkative(words_per_second=10)
    text = " ".join(f"w{n}" for n in range(25))
    async with (
        serving(relay) as port,
        network(port) as (between, there),
        connected(there, tmp_path) as person,
    ):
        await person.says(text)
        await person.sees(r"You said: w0")
        between.cut()
        await person.sees(r"The connection was lost \(1006\)\. Trying again…")
        if away_for != "a moment":
            [conversation] = relay.conversations._open.values()
            async with asyncio.timeout(20):
                while conversation.room.history.is_answering:
                    await asyncio.sleep(0.01)
        between.mend()
        await person.sees("Connected again")
        await person.sees("w24(?s:.*)w24")
        await person.tallies("streams +1 succeeded, 0 failed")
        await person.sees("reconnections +1")
        said = re.sub(r"(?m)^(agent|you)? +|The connection was lost.*|Connected again.*", "", person.sight)
        said = " ".join(said.split())
        assert said.count("This is a rehearsal") == 1
        for n in range(25):
            assert len(re.findall(rf"\bw{n}\b", said)) == 2, (n, person.sight)  # the question, and the answer


async def test_it_goes_on_with_a_server_that_was_killed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [*PYTHON[:-1], str(port)]
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "quick.py").write_text(QUICK)
    agent = {"RELAY_AGENT": "quick:root_agent"}
    async with process(command, folder, **agent) as relay:
        await relay.started()
        async with connected(port, tmp_path) as person:
            await person.says("my name is Anna")
            await person.sees("You said: my name is Anna")
            session = (await person.sees(r"rehearsal · (\w+)"))[1]
            await person.says("and I like tea")
            await person.sees("(?m)^agent(?s:.*)^agent")
            relay.kill()
            await relay.ended()
            await person.sees("The connection was lost")
            await person.says("do you remember me?")
            await person.sees("It is sent as soon as")
            async with process(command, folder, **agent) as again:
                await again.started()
                await person.sees("Connected again", timeout=30)
                await person.sees(r"You said: do you\s+remember me\?", timeout=30)
                await person.sees(f"connected · rehearsal · {session}")
                await person.sees(r"I\s+remember")
                assert await person.leaves() == 0


async def test_a_terminal_goes_over_http_where_no_websocket_gets_through(tmp_path: Path) -> None:
    async with (
        serving(without_websockets(talkative())) as port,
        at_terminal(port, tmp_path) as person,
    ):
        await person.sees("No WebSocket gets through")
        await person.says("hello")
        await person.sees("(?m)^agent +This is a rehearsal: .* You said: hello$")
        session = (await person.sees(r"http · (\w{32})"))[1]
        await person.says("/info")
        await person.sees(rf"session_id +{session}\n")
        await person.says("/new")
        await person.sees("In the new conversation")
        await person.says("again")
        await person.sees("You said: again")
        await person.says(f"/join {session}")
        await person.sees(r"(?s)/join.*user +hello\nagent +This is")
        await person.says("/ping")
        await person.sees("There is no WebSocket")
        assert await person.leaves() == 0


@pytest.mark.parametrize(
    ("how", "code"), [("Ctrl-C", 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)], ids=str
)
async def test_it_leaves_in_mid_answer(how: str | signal.Signals, code: int, tmp_path: Path) -> None:
    async with (
        serving(talkative(words_per_second=5)) as port,
        connected(port, tmp_path, NO_COLOR="1") as person,
    ):
        await person.says("hello")
        await person.sees("agent +This is")
        if isinstance(how, str):
            person.types("\x03")
        else:
            person.process.send_signal(how)
        assert await person.leaves("") == code
        await person.sees("agent +This is")  # what was seen of the answer stays
        # The terminal is as it was: it echoes, and knows lines. And no color was asked for.
        usual = termios.ECHO | termios.ICANON
        assert termios.tcgetattr(person.terminal)[3] & usual == usual
        assert not re.search(rb"\x1b\[[0-9;]*(3[0-7]|4[0-7]|9[0-7])m", person.raw)


async def test_a_server_that_comes_later_is_found(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()[1]
    async with at_terminal(nobody, tmp_path) as person:
        await person.sees(r"can't be reached: .*\. Trying again…")
        await person.says("hello?")
        await person.sees("It is sent as soon as")
        async with serving(talkative()) as port:
            between = Network(port)
            async with await asyncio.start_server(between.carry, "127.0.0.1", nobody):
                await person.sees(r"You said: hello\?", timeout=30)
                assert await person.leaves() == 0


async def test_what_is_no_frame_is_passed_over_and_nobody_is_hammered(tmp_path: Path) -> None:
    sockets = 0

    async def odd(socket: ServerConnection) -> None:
        nonlocal sockets
        sockets += 1
        for frame in (
            *("no json", "[]", "{}", '{"type": "chunk", "text": 1}', '{"type": "session_update"}'),
            '{"type": "session_update", "update_type": "user_disconnected", "connection_id": []}',
            '{"type": "response_start", "connection_id": {}, "id": []}',
        ):
            await socket.send(frame)
        await socket.close(1012, "\x1b[31mrestarting")

    async with serve(odd, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with at_terminal(port, tmp_path) as person:
            await person.sees(r"The connection was lost \(1012 \[31mrestarting\)\. Trying again…")
            while sockets < 3:
                await person.sees("waiting")
                await asyncio.sleep(0.01)
            assert person.sight.count("Trying again") == 1  # it is said once
            await person.says("/stats")
            attempts = await person.sees(r"(?s)duration +(\d+) s.*attempts +(\d+)")
            assert int(attempts[2]) < 8 + 4 * int(attempts[1])
            assert await person.leaves() == 0


async def test_a_quiet_connection_that_was_closed_is_opened_by_the_next_message(tmp_path: Path) -> None:
    async with serving(talkative(idle_timeout=0.7)) as port, connected(port, tmp_path) as person:
        await person.sees(r"\(4408 idle\)\. Your next message opens another\.")
        await person.says("hello")
        await person.sees("You said: hello")
        await person.says("/stats")
        await person.sees("connection attempts +2")
        assert await person.leaves() == 0


# ---- what could be said twice, or not at all -------------------------------------------------


def said_in(relay: Relay) -> list[list[str]]:
    """What users have said, in each conversation in which they have said something."""
    rooms = [conversation.room.history.lines() for conversation in relay.conversations._open.values()]
    texts = [[line.text for line in lines if line.role == "user"] for lines in rooms]
    return [said for said in texts if said]


async def test_what_waits_on_a_line_that_dies_in_silence_is_said_once(tmp_path: Path) -> None:
    relay = talkative(words_per_second=20)
    async with serving(relay) as port, Proxy(port) as between:
        between.cuts.append(Cut(silent=True))  # the server is not told
        async with connected(between.port, tmp_path) as person:
            await person.says(" ".join(f"w{n}" for n in range(40)))
            await person.sees("You said: w0")
            await person.says("second")
            await person.sees("waits for 1")
            between.lines[0].cut()
            await person.sees("Connected again", timeout=20)
            await person.sees(r"You said: second\n")
            await person.says("third")
            await person.sees(r"You said: third\n")
            assert [said[1:] for said in said_in(relay)] == [["second", "third"]]
            assert "cut off" not in person.sight
            await person.tallies("streams +3 succeeded, 0 failed")
            assert await person.leaves() == 0


async def test_a_first_message_that_is_cut_makes_one_conversation(tmp_path: Path) -> None:
    relay = talkative()
    async with serving(relay) as port, Proxy(port) as between, connected(between.port, tmp_path) as person:
        between.lines[-1].hold()
        await person.says("hello there")
        async with asyncio.timeout(10):
            while relay.conversations.active == 0:  # it is made, and the client is not told
                await asyncio.sleep(0.01)
        between.lines[-1].cut()
        await person.sees("You said: hello there", timeout=20)
        assert said_in(relay) == [["hello there"]]
        assert await person.leaves() == 0


async def test_a_history_that_can_not_be_read_makes_nobody_say_anything_again(tmp_path: Path) -> None:
    relay = talkative(words_per_second=20)
    fails = False

    async def host(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if fails and scope["type"] == "http" and scope["path"].startswith("/sessions/"):
            await send({"type": "http.response.start", "status": 502})
            await send({"type": "http.response.body", "body": b"no"})
        else:
            await relay(scope, receive, send)

    text = " ".join(f"w{n}" for n in range(40))
    async with (
        serving(host) as port,
        network(port) as (between, there),
        connected(there, tmp_path) as person,
    ):
        await person.says(text)
        await person.sees("You said: w0")
        fails = True
        between.cut()
        await person.sees("The connection was lost")
        between.mend()
        await person.sees("What was said before can't be shown")
        await person.sees(r"w39(?s:.*)w39\n")
        fails = False
        await person.says("and now")
        await person.sees(r"You said: and now\n")
        assert said_in(relay) == [[text, "and now"]]
        assert await person.leaves() == 0


async def test_a_message_that_is_refused_in_mid_answer_is_given_up_and_no_other(tmp_path: Path) -> None:
    relay = talkative(words_per_second=20)
    long = "\x1b[200~" + "語" * 11_000 + "\x1b[201~"  # pasted
    async with (
        serving(relay) as port,
        network(port) as (between, there),
        connected(there, tmp_path) as person,
    ):
        await person.says(" ".join(f"w{n}" for n in range(30)))
        await person.sees("You said: w0")
        person.types(f"{long}\r")
        await person.sees("The text has 33000 bytes; 32768 are taken.", timeout=30)
        await person.says("after it")
        await person.sees("You said: after it")
        between.cut()
        await person.sees("The connection was lost")
        between.mend()
        await person.sees("Connected again")
        await person.says("at last")
        await person.sees("You said: at last\n")
        await person.tallies("streams +3 succeeded, 1 failed")
        assert [said[1:] for said in said_in(relay)] == [["after it", "at last"]]


async def test_what_is_said_in_a_conversation_that_one_joins_is_not_cut_off(tmp_path: Path) -> None:
    async with serving(talkative()) as port, client(port, "guest", query="&session_id=room") as other:
        await other.ask("before")
        async with connected(port, tmp_path, "--session", "room") as person:
            await person.sees(r"(?m)^agent +This is .* You said: before$")
            await person.says("after")
            await person.sees(r"You said: after\n")
            assert "cut off" not in person.sight


async def test_who_joins_in_mid_answer_sees_each_word_once(tmp_path: Path) -> None:
    relay = talkative(words_per_second=20)
    async with serving(relay) as port, client(port, "guest", query="&session_id=room") as other:
        await other.say(" ".join(f"w{n}" for n in range(60)))
        await other.until(lambda said: "w9" in said.get("data", ""))
        async with connected(port, tmp_path, "--session", "room") as person:
            await person.sees(r"(?m)^agent +This is a rehearsal(?s:.*)w59\n")
            answer = person.sight.partition("agent")[2]
            assert [len(re.findall(rf"\bw{n}\b", answer)) for n in range(60)] == [1] * 60


async def test_a_session_service_that_fails_for_a_moment_throws_nobody_out(tmp_path: Path) -> None:
    relay = talkative(grace=0)
    service, fails = relay.conversations.service, False
    get_session = service.get_session

    async def failing(**named: Any) -> Any:
        if fails:
            raise OSError("the disk is busy")
        return await get_session(**named)

    service.get_session = failing  # type: ignore[method-assign]
    async with (
        serving(relay) as port,
        network(port) as (between, there),
        connected(there, tmp_path) as person,
    ):
        await person.says("hello")
        await person.sees("You said: hello")
        room = (await person.sees(r"rehearsal · (\w+)"))[1]
        fails = True
        between.cut()
        await person.sees("The connection was lost")
        async with asyncio.timeout(10):
            while relay.conversations.active:
                await asyncio.sleep(0.01)
        between.mend()
        await person.sees("The conversations can't be reached")
        await person.sees(r"\(1011 the agent failed\)\. Your next message opens another")
        fails = False
        await person.says("again")
        await person.sees(r"(?m)^agent +.*You said: again\b")
        await person.sees(f"connected · rehearsal · {room}")
        assert "is gone" not in person.sight


# ---- small things ----------------------------------------------------------------------------


async def test_what_is_wider_than_the_terminal_is_folded(tmp_path: Path) -> None:
    address = "https://example.org/" + "/".join(f"path{n}" for n in range(30))
    words = "日本語" * 40
    async with serving(talkative()) as port, connected(port, tmp_path) as person:
        for text in (address, words):
            await person.says(text)
            await person.sees("(?m)^agent +.*You said")
            async with asyncio.timeout(10):
                while re.sub(r"\s", "", person.sight).count(text) < 2:
                    await asyncio.sleep(0.01)
        assert "…" not in person.sight.partition("there is.")[2]


async def test_a_server_that_does_not_greet_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client._GREETING", 0.2)

    async def silent(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with serve(silent, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(terminal_client.Problem, match="does not greet"):
            await terminal_client.pipe(f"http://127.0.0.1:{port}", None, "hello")


async def test_a_proxy_that_needs_more_than_there_is_is_told() -> None:
    env = environment(ALL_PROXY="socks5://127.0.0.1:1")
    code, out, err = await piped("--url", "http://192.0.2.1", env=env)
    assert (code, out) == (1, "")
    assert re.fullmatch("relay-client: .*(socks|SOCKS).*\n", err), err


async def test_a_command_that_takes_too_long_is_given_up_with_ctrl_c(tmp_path: Path) -> None:
    async with (
        serving(talkative()) as port,
        Proxy(port) as between,
        connected(between.port, tmp_path) as person,
    ):
        between.lines[-1].hold()
        await person.says("/ping")
        await person.sees("(?m)^ +/ping$")
        person.types("\x03")  # there is no prompt now: it is a signal
        await person.sees("Given up")
        await person.sees(r"(?m)^you +>")
        assert person.process.returncode is None
