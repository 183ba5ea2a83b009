"""relay as a process of its own: how it starts, what it says in the log, how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from support.client import client, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.process import (
    PYTHON,
    SERVE,
    UVICORN,
    relay_process,
    serving_process,
    serving_warm,
    warm_relay,
)

OWN_AGENT = """
import asyncio
import time

from google.adk.agents import LlmAgent

async def ponder() -> None:
    await asyncio.sleep(30)

def block() -> None:
    time.sleep(30)

def fail() -> None:
    raise RuntimeError("out of order")

root_agent = LlmAgent(
    name="parrot",
    model="gemini-3.8-live",
    instruction="You are a parrot.",
    tools=[ponder, block, fail],
)
"""

RELAY_AGENT = {"RELAY_AGENT": "my_pkg.my_agent:root_agent"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with an agent of somebody's own."""
    package = tmp_path / "my_pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "my_agent.py").write_text(OWN_AGENT)
    (package / "broken.py").write_text("raise RuntimeError('out of order')\n")
    return tmp_path


# ---- how it ends -----------------------------------------------------------------------------

UVICORNS_CODES = {signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 0}
"""What uvicorn makes of a signal once it has shut down: it dies of SIGTERM, and takes Ctrl-C for a wish."""


def exit_code(command: list[str], how: signal.Signals) -> int:
    return UVICORNS_CODES[how] if command is UVICORN else 0


async def endless(connection: Connection, turn: UserTurn) -> None:
    await connection.say("word " * 10_000, delay=0.01)


@pytest.mark.parametrize(
    ("command", "how"),
    [(PYTHON, signal.SIGINT), (UVICORN, signal.SIGTERM)],
    ids=["python-SIGINT", "uvicorn-SIGTERM"],
)
async def test_stops_in_mid_answer(
    gemini: GeminiLive, folder: Path, command: list[str], how: signal.Signals
) -> None:
    gemini.answer = endless
    async with serving_process(command, folder, **gemini.env, **RELAY_AGENT) as relay:
        async with client(relay.port) as alice, client(relay.port, "bob", audio=True) as bob:
            await alice.say("hello")
            await bob.say("hello")
            await alice.until(lambda said: said.get("mime_type"))
            await bob.until(lambda said: said.get("type") == "binary")
            code = await relay.stop(how)
            for one in (alice, bob):
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        await one.next()
                assert closed.value.rcvd and closed.value.rcvd.code in (1001, 1012)
        assert code == exit_code(command, how)
        assert relay.problems() == []
    # The connections to the model were closed, not dropped.
    await gemini.wait_for(lambda: not gemini.open_connections)
    assert [connection.closed for connection in gemini.connections] == [1000, 1000]


@pytest.mark.parametrize(
    ("command", "how"),
    [(PYTHON, signal.SIGTERM), (UVICORN, signal.SIGINT)],
    ids=["python-SIGTERM", "uvicorn-SIGINT"],
)
async def test_stops_with_a_stalled_peer(
    gemini: GeminiLive, folder: Path, command: list[str], how: signal.Signals
) -> None:
    """And in mid answer, and with somebody else in another, or in a tool call."""
    flooded = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "flood":
            await connection.send_audio(2000)
            flooded.set()
        if turn.text == "ponder":
            await connection.call_tool("ponder", {})
        await endless(connection, turn)

    gemini.answer = answer
    async with serving_warm(command, folder, **gemini.env, **RELAY_AGENT) as relay:
        with stalled_peer(relay.port) as peer:
            await asyncio.wait_for(flooded.wait(), 20)
            async with client(relay.port) as alice:
                # On Ctrl-C Python itself waits for the threads that ADK's tools run in.
                await alice.say("ponder" if how == signal.SIGTERM else "hello")
                await alice.until(lambda said: said.get("type") == "tool_start" or said.get("mime_type"))
                code = await relay.stop(how)
            assert code == exit_code(command, how)
            # It did stall: most of the flood had not even been written.
            assert bytes_left(peer) < len(gemini.connections[0].sound) / 2
        # relay had no task left on the connection. `relay serve` drops it, uvicorn alone gives it up.
        given_up = ["ERROR: Cancel 0 running task(s), timeout graceful shutdown exceeded"]
        assert relay.problems() == ([] if command == PYTHON else given_up)
    await gemini.wait_for(lambda: not gemini.open_connections)
    assert [connection.closed for connection in gemini.connections] == [1000, 1000]


def stalled_peer(port: int) -> socket.socket:
    """A voice client that asks for a flood and reads no more than the answer to its upgrade."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    # As over Ethernet. With the loopback's segments the kernel would buffer megabytes for the server.
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
    peer.settimeout(5)
    peer.connect(("127.0.0.1", port))
    upgrade = (
        "GET /ws/mallory?is_audio=true HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: relay.v1\r\n\r\n"
    )
    peer.sendall(upgrade.encode())
    assert peer.recv(12) == b"HTTP/1.1 101"
    said = b'{"mime_type": "text/plain", "data": "flood"}'
    peer.sendall(bytes([0x81, 0x80 | len(said)]) + bytes(4) + said)  # masked with zeros: as it is
    return peer


def bytes_left(peer: socket.socket) -> int:
    count = 0
    try:
        while got := peer.recv(65536):
            count += len(got)
    except ConnectionResetError:
        pass
    return count


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_stops_at_rest_at_once(gemini: GeminiLive, folder: Path, how: signal.Signals) -> None:
    """Also with a run that would outlive its socket by the grace."""
    async with serving_warm(PYTHON, folder, **gemini.env, **RELAY_AGENT) as relay:
        async with client(relay.port) as alice:
            assert await alice.ask("hello") == "You said: hello."
        began = time.monotonic()
        assert await relay.stop(how) == 0
        assert time.monotonic() - began < 2
        assert relay.problems() == []
        assert sum("in live-alice from 127.0.0.1" in line for line in relay.log) == 1
    assert gemini.connections[0].closed == 1000


@pytest.mark.parametrize("tool", ["ponder", "block"])
async def test_stops_in_mid_tool_call(gemini: GeminiLive, folder: Path, tool: str) -> None:
    """Also of one that blocks its thread. That it is cut short is no failure, and no line of the log."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.call_tool(tool, {})

    gemini.answer = answer
    async with serving_warm(PYTHON, folder, **gemini.env, **RELAY_AGENT) as relay:
        async with client(relay.port) as alice:
            await alice.say("hello")
            await alice.until(lambda said: said.get("type") == "tool_start")
            assert await relay.stop() == 0
        assert relay.problems() == []


# ---- what it says when something fails -------------------------------------------------------


async def test_own_agent_whose_model_dies_in_mid_answer(gemini: GeminiLive, folder: Path) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("One two", complete=False)
            await connection.die(1011, "Internal error encountered.")
        else:
            await connection.say(" three four.")

    gemini.answer = answer
    async with serving_warm(UVICORN, folder, **gemini.env, **RELAY_AGENT) as relay:
        async with client(relay.port) as alice:
            assert alice.hello["model"] == "gemini-3.8-live"
            assert alice.hello["rehearsal"] is False
            await alice.say("count")
            assert words(await alice.turn()) == "One two"
            assert words(await alice.turn()) == " three four."
        await relay.stop()
        [line] = relay.problems()
    lost = "WARNING: relay: alice: the model's connection: 1011 Internal error encountered.; try 2 of 5 in "
    assert line.startswith(lost)
    assert "You are a parrot." in str(gemini.connections[0].setup["systemInstruction"])
    assert (folder / ".adk" / "session.db").exists()


async def test_bad_key_is_one_line_without_the_key(gemini: GeminiLive, folder: Path) -> None:
    environment = gemini.env | RELAY_AGENT | {"GOOGLE_API_KEY": "AIza-not-a-good-one"}
    async with serving_warm(PYTHON, folder, **environment) as relay:
        async with client(relay.port) as alice:
            await alice.say("hello")
            frames = await alice.until(lambda said: said.get("type") == "error")
            assert "credentials" in frames[-1]["message"]
            with pytest.raises(ConnectionClosed) as closed:
                await alice.next()
            assert closed.value.rcvd and closed.value.rcvd.code == 1011
        await relay.stop()
        [line] = relay.problems()
        assert line.startswith("ERROR: relay: alice: the model's connection: 403")
        assert "AIza" not in "\n".join(relay.log)


async def test_tool_that_raises_is_one_line(gemini: GeminiLive, folder: Path) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.call_tool("fail", {})
        await connection.say("It is broken.")

    gemini.answer = answer
    async with serving_warm(PYTHON, folder, **gemini.env, **RELAY_AGENT) as relay:
        async with client(relay.port) as alice:
            assert await alice.ask("try") == "It is broken."
        await relay.stop()
        [line] = relay.problems()
        assert "out of order" in line


# ---- how it starts ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", [PYTHON, SERVE, UVICORN], ids=["python", "serve", "uvicorn"])
async def test_without_credentials_it_is_a_rehearsal_and_says_so_once(
    tmp_path: Path, command: list[str]
) -> None:
    async with serving_process(command, tmp_path) as relay:
        for user in ("alice", "bob"):
            async with client(relay.port, user) as one:
                assert one.hello["rehearsal"] is True
                await one.say("hello")
                await one.until(lambda said: said.get("mime_type"))
        await relay.stop()
        [line] = relay.problems()
    assert line.startswith("WARNING: relay: This is the rehearsal agent")
    assert "GOOGLE_API_KEY" in line


@pytest.mark.parametrize("command", [SERVE, UVICORN], ids=["serve", "uvicorn"])
async def test_the_log_level_and_the_proxies_are_relays_too(tmp_path: Path, command: list[str]) -> None:
    options = ["--log-level", "debug", "--forwarded-allow-ips", "192.0.2.1"]
    forged = {"X-Forwarded-For": "203.0.113.1"}
    async with serving_warm([*command, *options], tmp_path) as relay:
        async with client(relay.port, additional_headers=forged) as alice:
            await alice.say("hello")
            await alice.next()
        await relay.stop()
        assert any("[CLIENT TO AGENT]" in line for line in relay.log)
        assert any("[AGENT TO CLIENT]" in line for line in relay.log)
        assert any("opened from 127.0.0.1" in line for line in relay.log)
        assert not any("from 203.0.113.1" in line for line in relay.log)


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        (RELAY_AGENT, r".*RELAY_AGENT.*GOOGLE_API_KEY"),
        ({"RELAY_AGENT": "my_pkg.nothing:root_agent"}, r".*RELAY_AGENT.*my_pkg\.nothing"),
        ({"RELAY_AGENT": "my_pkg.my_agent:no_agent"}, r".*RELAY_AGENT.*no_agent"),
        ({"RELAY_AGENT": "my_agent.py"}, r".*RELAY_AGENT.*my_agent\.py.*module:attribute"),
        ({"RELAY_GRACE": "a while"}, r"RELAY_GRACE is 'a while', but must be a number"),
        ({"RELAY_GRACE": "-1"}, r".*grace.* must not be negative"),
        ({"RELAY_AGENT": "my_pkg.broken:root_agent"}, r".*RELAY_AGENT.*my_pkg\.broken.*out of order"),
        ({"RELAY_GRACE": "nan"}, r".*grace"),
        ({"RELAY_SESSIONS": "mongo://somewhere"}, r".*ADK knows no session service 'mongo'"),
        ({"RELAY_SESSIONS": "sqlite:///my_pkg/broken.py/session.db"}, r".*broken\.py"),
    ],
    ids=[
        *("no-key", "no-module", "no-attribute", "no-reference", "no-number", "negative"),
        *("broken-module", "not-a-number", "no-service", "no-folder"),
    ],
)
async def test_wrong_settings_are_one_plain_error(
    folder: Path, environment: dict[str, str], complaint: str
) -> None:
    start = relay_process if environment is RELAY_AGENT else warm_relay  # one with a new interpreter
    if "my_pkg" in environment.get("RELAY_AGENT", "") and environment is not RELAY_AGENT:
        environment = environment | {"GOOGLE_API_KEY": "a-key-that-is-not-tried"}
    async with start(PYTHON, folder, **environment) as relay:
        assert await relay.ended() == 3  # uvicorn's word for "could not start"
        first, last = relay.problems()
    assert re.match("ERROR: relay: " + complaint, first), first
    assert last == "ERROR: Application startup failed. Exiting."


async def test_key_in_the_env_file_makes_it_a_gemini_agent(gemini: GeminiLive, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in gemini.env.items()))
    async with serving_warm(UVICORN, tmp_path) as relay:
        async with client(relay.port) as alice:
            assert (alice.hello["model"], alice.hello["rehearsal"]) == ("gemini-3.8-live", False)
            assert await alice.ask("hello") == "You said: hello."
        await relay.stop()
        assert relay.problems() == []


async def test_an_option_beats_the_environment_and_that_beats_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RELAY_PING_INTERVAL=1\nRELAY_GRACE=wrong\nRELAY_QUEUE_BYTES=wrong\n")
    options = ["--ping-interval", "3", "--grace", "0"]
    environment = {"RELAY_PING_INTERVAL": "2", "RELAY_QUEUE_BYTES": "4096"}
    async with serving_warm([*SERVE, *options], tmp_path, **environment) as relay:
        async with client(relay.port) as alice:
            assert alice.hello["ping_interval"] == 3
        assert await relay.stop() == 0


async def test_env_file_is_read_by_the_app_and_by_nothing_else(folder: Path) -> None:
    (folder / ".env").write_text("RELAY_GRACE=from the file\nRELAY_AGENT=my_pkg.my_agent:root_agent\n")
    async with warm_relay(UVICORN, folder) as relay:
        assert await relay.ended() == 3
        assert "RELAY_GRACE is 'from the file'" in relay.problems()[0]
    embedding = """
import os, sys
before = dict(os.environ)
from relay import Relay
from my_pkg.my_agent import root_agent
Relay(root_agent, sessions="memory://")
assert os.environ == before, os.environ.keys() ^ before.keys()
assert "agent.agent" not in sys.modules
"""
    # What would be a mistake of `app` is none of an embedding application's business.
    async with relay_process(
        [sys.executable, "-c", embedding], folder, RELAY_AGENT="nothing", RELAY_MODEL="?"
    ) as host:
        assert await host.ended() == 0, host.log
        assert host.log == []
