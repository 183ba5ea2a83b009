"""The link to the server, without a terminal: its states, and how it decides."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from adk_relay.client.command import main
from adk_relay.client.connection import comes_back
from adk_relay.client.link import Link
from adk_relay.client.state import TRANSITIONS, State, StateError
from support.chat import created, guest
from support.killable import GATED, GatedStore, a_process
from support.linked import Linked, Reports
from support.ports import free_port
from support.process import HANGS
from support.proxy import network
from support.server import ROOT, serving
from support.terminal import environment, talkative

Frame = dict[str, Any]


@asynccontextmanager
async def linked(port: int, session_id: str | None = None) -> AsyncIterator[Linked]:
    seen = Reports()
    async with Link(f"http://127.0.0.1:{port}", seen, session_id) as link:
        link.check()
        yield Linked(link, seen)
        link.check()
    link.check()
    assert link.state is State.DISCONNECTED


class Server:
    """One end of a WebSocket that speaks the chat dialect as a test tells it to."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def get(self, kind: str) -> Frame:
        """The next frame of that type."""
        while True:
            frame: Frame = json.loads(await self.socket.recv())
            if frame["type"] == kind:
                return frame

    async def greet(self) -> None:
        await self.send("connected", connection_id="me", server_info={"model": "scripted"})


@asynccontextmanager
async def scripted(script: Callable[[Server], Awaitable[None]]) -> AsyncIterator[int]:
    """A server that greets, does what the script says, and waits for the socket's end."""

    async def attend(socket: ServerConnection) -> None:
        server = Server(socket)
        await server.greet()
        await script(server)
        await socket.wait_closed()

    async with serve(attend, "127.0.0.1", 0) as server:
        yield next(iter(server.sockets)).getsockname()[1]


# ---- what it decides by ----------------------------------------------------------------------


async def test_how_many_wait_is_a_number_and_no_prose() -> None:
    async def script(server: Server) -> None:
        await server.get("create_session")
        await server.send("session_created", session_id="room")
        asked = await server.get("chat")
        await server.send("status", message="Two are first.", ahead=2)
        await server.send("status", message="Your message waits for nobody.", ahead=0)
        await server.send("status", message="Your message waits for 1 before it.")  # of an older server
        await server.send("response_complete", full_response="Hi.", message_count=2, id=asked["id"])

    async with scripted(script) as port, linked(port) as client:
        client.link.ask("hello")
        await client.until(lambda: client.seen.answers)
        assert client.seen.answers == ["Hi."]
        assert client.seen.notices == ["Two are first."]


@pytest.mark.parametrize("code", [1008, 1011, 4400, 4404, 4408, 4409, 4411])
async def test_after_a_close_for_good_the_next_message_opens_a_connection(code: int) -> None:
    sockets = 0

    async def script(server: Server) -> None:
        nonlocal sockets
        sockets += 1
        if sockets == 1:
            if code in (1011, 4411):
                await server.send("error", code="agent_failed", message="The agent failed.")
            await server.socket.close(code, "come back")  # the reason counts for nothing
        else:
            await server.get("create_session")

    async with scripted(script) as port, linked(port) as client:
        await client.becomes(State.ASLEEP)
        assert client.seen.notices == [
            f"The connection was lost ({code} come back). Your next message opens another."
        ]
        client.link.ask("hello")
        await client.becomes(State.CREATING)
        assert sockets == 2


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4410, 4411, 4499])
async def test_after_a_passing_close_it_comes_back_by_itself(code: int) -> None:
    sockets = 0

    async def script(server: Server) -> None:
        nonlocal sockets
        sockets += 1
        if sockets == 1:
            await server.send("error", code="busy", message="Somebody else is speaking.")
            await server.socket.close(code, "idle")  # the reason counts for nothing

    async with scripted(script) as port, linked(port) as client:
        await client.until(lambda: "Connected again." in client.seen.notices)
        assert client.seen.notices[0] == f"The connection was lost ({code} idle). Trying again…"
        await client.becomes(State.CONNECTED)


def test_close_codes() -> None:
    assert [code for code in range(4400, 4500) if not comes_back(code)] == [*range(4400, 4410)]
    standard = [code for code in range(1000, 1016) if comes_back(code)]
    assert standard == [1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015]


# ---- states ----------------------------------------------------------------------------------


def test_a_state_that_can_not_follow_is_an_error() -> None:
    assert set(TRANSITIONS) == set(State)
    for state in State:
        assert state.to(state) is state
    assert State.DISCONNECTED.to(State.CONNECTING) is State.CONNECTING
    with pytest.raises(StateError, match="A link that is asleep can't become connected"):
        State.ASLEEP.to(State.CONNECTED)


async def test_the_check_sees_what_is_wrong() -> None:
    async with serving(talkative()) as port, linked(port) as client:
        await client.becomes(State.CONNECTED)
        connection = client.link._connection
        for wrong in set(State) - {State.CONNECTED, State.CONNECTING, State.WAITING, State.HTTP}:
            connection.state = wrong
            if wrong is State.CREATING:
                client.link.session_id = "room"
            with pytest.raises(AssertionError):
                client.link.check()
            client.link.session_id, connection.state = None, State.CONNECTED
            client.link.check()


async def test_the_states_of_a_connection_that_is_wanted_and_not_wanted() -> None:
    async with serving(talkative()) as port, linked(port) as client:
        client.stands(State.CONNECTING)
        await client.becomes(State.CONNECTED)
        await client.link.disconnect()
        client.stands(State.DISCONNECTED)
        client.link.ask("hello")
        client.stands(State.DISCONNECTED)  # the user wants no connection
        client.link.connect()
        client.stands(State.CONNECTING)
        await client.until(lambda: client.seen.answers)
        client.stands(State.CONNECTED)
        client.link.connect()
        client.stands(State.CONNECTED)
        await client.link.disconnect()
        client.link.connect()
        await client.link.disconnect()  # before its task has begun
        client.link.check()


# ---- conversations ---------------------------------------------------------------------------


async def test_a_conversation_that_is_made_too_late_is_not_gone_to() -> None:
    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            body = json.dumps({"message_count": 0, "history": []}).encode()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": body})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})

            async def tell(kind: str, **fields: Any) -> None:
                await send({"type": "websocket.send", "text": json.dumps({"type": kind, **fields})})

            await tell("connected", connection_id="me", server_info={"model": "scripted"})
            while (event := await receive())["type"] == "websocket.receive":
                frame = json.loads(event["text"])
                frames.append(frame)
                if frame["type"] == "join_session":
                    await tell("session_created", session_id="late")
                    await tell("session_joined", session_id="room", message_count=0)
                elif frame["type"] == "chat":
                    await tell("response_complete", full_response="Hi.", message_count=2, id=frame["id"])

    frames: list[Frame] = []
    async with serving(app, lifespan="off") as port, linked(port) as client:
        await client.becomes(State.CONNECTED)
        client.link.ask("hello")
        client.stands(State.CREATING)
        await client.link.join("room")
        client.stands(State.JOINING)
        await client.until(lambda: client.seen.answers)
        assert client.link.session_id == "room"
        assert [(frame["type"], frame.get("session_id")) for frame in frames] == [
            ("create_session", None),
            ("join_session", "room"),
            ("chat", "room"),
        ]


async def test_a_history_that_comes_too_late_is_not_shown() -> None:
    relay = talkative()
    held, goes_on = asyncio.Event(), asyncio.Event()
    requests = 0

    async def host(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        nonlocal requests
        if scope["type"] == "http" and scope["path"] == "/sessions/first":
            requests += 1
            if requests == 2:  # the first one is for `join`, before it goes there
                held.set()
                await goes_on.wait()
        await relay(scope, receive, send)

    async with serving(host) as port:
        for session_id in ("first", "second"):
            async with linked(port) as guest:
                await guest.link.http.chat(session_id, f"in the {session_id}")
        async with linked(port) as client:
            await client.becomes(State.CONNECTED)
            await client.link.join("first")
            await asyncio.wait_for(held.wait(), HANGS)
            await client.link.join("second")
            client.link.check()
            goes_on.set()
            await client.until(lambda: client.seen.lines and client.link.state is State.CONNECTED)
            assert client.seen.lines == [("user", "in the second")]
            assert client.link.session_id == "second"


# ---- the command and the package -------------------------------------------------------------


def test_it_imports_nothing_of_the_server() -> None:
    program = """
import importlib, pkgutil, sys
import adk_relay.client
for module in pkgutil.iter_modules(adk_relay.client.__path__, "adk_relay.client."):
    importlib.import_module(module.name)
loaded = [name.split(".") for name in sys.modules]
print(sorted({".".join(name[:2]) for name in loaded if name[0] in ("google", "relay", "agent", "adk_relay")}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr == ""
    loaded = done.stdout.strip()
    assert loaded == "['adk_relay', 'adk_relay.client']"


def test_the_command_has_the_name_it_is_called_by(capsys: pytest.CaptureFixture[str]) -> None:
    for prog in ("relay-client", "relay chat"):
        with pytest.raises(SystemExit) as end:
            main(["--help"], prog)
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: {prog} [-h] [--url URL]")
        assert main(["--url", "ftp://example"], prog) == 1
        said = capsys.readouterr()
        assert (said.out, said.err) == ("", f"{prog}: 'ftp://example' is not an http:// or https:// URL.\n")


# ---- a server that is killed -----------------------------------------------------------------


@pytest.mark.parametrize("is_stored", [False, True], ids=["never stored", "stored, but not acked"])
async def test_an_unstored_text_was_seen_in_a_history_before_the_server_was_killed(
    is_stored: bool, tmp_path: Path
) -> None:
    port = free_port()
    store = GatedStore(tmp_path)
    async with AsyncExitStack() as stack:
        async with a_process(port, tmp_path, settings=GATED):
            room = await created(port)
            between, there = await stack.enter_async_context(network(port))
            client = await stack.enter_async_context(linked(there, room))
            await client.becomes(State.CONNECTED)
            async with guest(port, room) as other:
                client.link.ask("before")
                await other.turn()
                await store.has("You said: before")
                store.close()
                client.link.ask("precious")
                await other.until(lambda said: said.get("text") == "precious")
            between.cut()
            await client.becomes(State.WAITING)
            between.mend()
            client.link.connect()
            await client.becomes(State.CONNECTED)  # it has read the history
            if is_stored:
                between.down.clear()  # so there is no ack
                store.open()
                await store.has("precious")
        between.cut()
        await client.becomes(State.WAITING)
        if not is_stored:
            store.open()
        async with a_process(port, tmp_path, settings=GATED):
            between.mend()
            client.link.connect()
            await client.becomes(State.CONNECTED)
            client.link.ask("after")
            await client.until(lambda: any("You said: after" in answer for answer in client.seen.answers))
            assert store.texts() == ["before", "precious", "after"]
            said = [answer.partition("You said: ")[2].split()[0] for answer in client.seen.answers]
            assert said == (["before", "after"] if is_stored else ["before", "precious", "after"])
            assert client.seen.lines == []  # all of it was written here
            await stack.aclose()  # before the server goes
