"""The client in a pipe: what a script gets on stdout and stderr, and the exit code."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm
from websockets.asyncio.server import ServerConnection, serve

from adk_relay.client.pipe import pipe
from adk_relay.client.view import Problem
from support.client import client
from support.ports import free_port
from support.process import HANGS
from support.proxy import network
from support.server import a_relay, serving
from support.terminal import CLIENT, environment, piped, talkative, without_websockets


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
        ([], "x" * 40_000, "The text has 40000 bytes; at most 32768 are allowed."),
        (["--session", "nowhere"], "hello", "There is no conversation 'nowhere'."),
        (["--url", "http://127.0.0.1:{port}/elsewhere"], "hello", "There is no relay at .*: it answers 404."),
        (["--url", "http://127.0.0.1:{closed}"], "hello", "http://127.0.0.1:{closed} can't be reached: .*"),
        (["--url", "ftp://example"], "hello", "'ftp://example' is not an http:// or https:// URL."),
    ],
    ids=["empty", "too-much", "unknown", "no-relay", "no-server", "no-url"],
)
async def test_a_pipe_that_gets_no_answer_says_why(arguments: list[str], text: str, said: str) -> None:
    ports = {"closed": free_port()}
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
    await asyncio.wait_for(started.stdout.readuntil(b"rehearsal"), HANGS)
    yield started, started.stdout
    assert started.returncode is not None


async def test_a_pipe_tells_of_a_connection_that_breaks() -> None:
    async with (
        serving(talkative(words_per_second=10)) as port,
        network(port) as (between, there),
        asking(there) as (started, out),
    ):
        between.cut()
        assert await asyncio.wait_for(started.wait(), HANGS) == 1
        assert (await out.read()).endswith(b"\n")
        assert started.stderr
        assert await started.stderr.read() == b"relay-client: The connection was lost (1006).\n"


async def test_a_pipe_is_interrupted_quietly() -> None:
    async with serving(talkative(words_per_second=10)) as port, asking(port) as (started, _):
        started.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(started.wait(), HANGS) == 130
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
        _, err = await asyncio.wait_for(started.communicate(b"hello"), HANGS)
    assert (started.returncode, err) == (1, b"")


async def test_a_pipe_goes_over_http_where_no_websocket_gets_through() -> None:
    async with serving(without_websockets(talkative())) as port:
        code, out, err = await piped("--url", f"http://127.0.0.1:{port}")
        assert code == 0
        assert out == "This is a rehearsal: no model is connected. You said: hello\n"
        assert re.fullmatch("relay-client: No WebSocket gets through .*403.* over plain HTTP: .*\n", err)
        code, out, err = await piped("--url", f"http://127.0.0.1:{port}", text="x" * 40_000)
        assert (code, out) == (1, "")
        assert err.endswith("relay-client: The text has 40000 bytes; at most 32768 are allowed.\n")


async def test_a_server_that_does_not_greet_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adk_relay.client.connection._GREETING", 0.2)

    async def silent(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with serve(silent, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(Problem, match="does not answer as a relay does"):
            await pipe(f"http://127.0.0.1:{port}", None, "hello")


async def test_a_proxy_that_needs_more_than_there_is_is_told() -> None:
    env = environment(ALL_PROXY="socks5://127.0.0.1:1")
    code, out, err = await piped("--url", "http://192.0.2.1", env=env)
    assert (code, out) == (1, "")
    assert re.fullmatch("relay-client: .*(socks|SOCKS).*\n", err), err
