"""The client at a terminal when the connection breaks, or can not be made."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from support.ports import free_port
from support.process import HANGS, PYTHON, warm_relay
from support.proxy import Network, network
from support.server import serving
from support.terminal import at_terminal, connected, talkative, without_websockets

QUICK = """
from google.adk.agents import LlmAgent
from adk_relay.adk.rehearsal import Rehearsal

root_agent = LlmAgent(name="quick", model=Rehearsal(words_per_second=12))
"""


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
            async with asyncio.timeout(HANGS):
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
    port = free_port()
    command = [*PYTHON[:-1], str(port)]
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "quick.py").write_text(QUICK)
    agent = {"RELAY_AGENT": "quick:root_agent"}
    async with warm_relay(command, folder, **agent) as relay:
        await relay.started()
        async with connected(port, tmp_path) as person:
            await person.says("my name is Anna")
            await person.sees("You said: my name is Anna")
            session = (await person.sees(r"rehearsal · ([\w-]+)"))[1]
            await person.says("and I like tea")
            await person.sees("(?m)^agent(?s:.*)^agent")
            relay.kill()
            await relay.ended(HANGS)
            await person.sees("The connection was lost")
            await person.says("do you remember me?")
            await person.sees("It is sent as soon as")
            async with warm_relay(command, folder, **agent) as again:
                await again.started()
                await person.sees("Connected again")
                await person.sees(r"You said: do you\s+remember me\?")
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


async def test_a_server_that_comes_later_is_found(tmp_path: Path) -> None:
    nobody = free_port()
    async with at_terminal(nobody, tmp_path) as person:
        await person.sees(r"can't be reached: .*\. Trying again…")
        await person.says("hello?")
        await person.sees("It is sent as soon as")
        async with serving(talkative()) as port:
            between = Network(port)
            async with await asyncio.start_server(between.carry, "127.0.0.1", nobody):
                await person.sees(r"You said: hello\?")
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
