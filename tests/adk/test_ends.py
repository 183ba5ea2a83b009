"""However it ends, nothing stays behind: no connection to the model, no task."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.sessions import InMemorySessionService, Session
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from adk_relay.adk.rehearsal import Rehearsal
from support.chat import http
from support.client import Client, client
from support.gemini import Connection, GeminiLive, Plan, UserTurn, speech
from support.raw import Peer, frame, upgrade
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.voice]


Task = asyncio.Task[Any]


def tasks() -> set[Task]:
    """The tasks of this loop but the test's own."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def only(before: set[Task], timeout: float = 10) -> None:
    """Until there are no more tasks than there were."""
    try:
        async with asyncio.timeout(timeout):
            while more := tasks() - before:
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"still there: {more}") from None


async def slowly(connection: Connection, turn: UserTurn) -> None:
    await connection.say("la " * 200, delay=0.005)


# ---- ugly ways to come and go ----------------------------------------------------------------------


async def abort(port: int, user: str) -> None:
    async with Peer.upgraded(port, user, audio=True) as peer:
        await peer.send(mime_type="text/plain", data="hello")


async def in_mid_answer(port: int, user: str) -> None:
    async with client(port, user) as alice:
        await alice.say("hello")
        await alice.next()


async def killed_in_mid_sound(port: int, user: str) -> None:
    async with Peer.upgraded(port, user, audio=True) as peer:
        await peer.send_raw(frame(speech(100), 2))
        await peer.send(mime_type="text/plain", data="hello")
        await peer.next()


async def half_a_handshake(port: int, user: str) -> None:
    async with Peer.connected(port) as peer:
        await peer.send_raw(upgrade(f"/ws/{user}")[:60])


async def gone_before_the_answer(port: int, user: str) -> None:
    async with Peer.connected(port) as peer:
        await peer.send_raw(upgrade(f"/ws/{user}?is_audio=true"))


async def refused_and_gone(port: int, user: str) -> None:
    async with Peer.connected(port) as peer:
        await peer.send_raw(upgrade("/nothing", subprotocol=user[-1] in "02468"))


async def garbage(port: int, user: str) -> None:
    async with Peer.upgraded(port, user, audio=True) as peer:
        await peer.send_raw(b"\xff" * 50)
        await peer.ended()


async def nonsense(port: int, user: str) -> None:
    async with Peer.upgraded(port, user) as peer:
        await peer.send(mime_type="text/plain", data="hello")
        await peer.send_raw(frame(b"nonsense") * 30)
        assert (await peer.rest())[-1]["code"] == 1008


async def half_a_frame(port: int, user: str) -> None:
    async with Peer.upgraded(port, user, audio=True) as peer:
        await peer.send_raw(frame(bytes(1_000), 2)[:500])


async def nothing_at_all(port: int, user: str) -> None:
    async with Peer.connected(port):
        pass


async def taken_over(port: int, user: str) -> None:
    async with Peer.upgraded(port, user) as peer:
        await peer.send(mime_type="text/plain", data="hello")
        async with client(port, user, audio=True) as alice:
            await alice.next()


WAYS: list[Callable[[int, str], Awaitable[None]]] = [
    abort,
    in_mid_answer,
    killed_in_mid_sound,
    half_a_handshake,
    gone_before_the_answer,
    refused_and_gone,
    garbage,
    nonsense,
    half_a_frame,
    nothing_at_all,
    taken_over,
]


async def test_a_hundred_clients_come_and_go(gemini: GeminiLive) -> None:
    gemini.answer = slowly
    async with serving(a_relay()) as port:
        before = tasks()
        clients = [(way, f"user{n}") for n in range(10) for way in WAYS]
        random.Random(1).shuffle(clients)
        for start in range(0, len(clients), 22):
            await asyncio.gather(*(way(port, user) for way, user in clients[start : start + 22]))
        await gemini.wait_for(lambda: gemini.open_connections == 0, timeout=20)
        await only(before)
        async with client(port) as alice:
            await alice.ask("still there?")
    assert gemini.connects > 10


async def test_the_sound_that_a_conversation_keeps_goes_with_it(gemini: GeminiLive) -> None:
    """And not when the garbage collector comes, which counts objects: these are few, and have megabytes."""
    relay = a_relay()
    async with serving(relay) as port:
        async with client(port, audio=True) as alice:
            await alice.ask("hello")
            conversation = await relay.conversations.open("alice")
            assert conversation.room.journal._bytes > len(alice.audio) > 0
        async with asyncio.timeout(30):
            while relay.conversations.active:
                await asyncio.sleep(0.01)
    assert conversation.room.journal._bytes == 0


# ---- the relay ends -----------------------------------------------------------------------------------


async def ending(who: Client) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await who.next()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def test_closed_in_mid_answer(gemini: GeminiLive) -> None:
    """As a host does that runs no lifespan."""
    gemini.answer = slowly
    relay = a_relay(grace=60)
    async with serving(relay, lifespan="off") as port:
        before = tasks()
        async with client(port) as alice, client(port, "bob", audio=True) as bob:
            await alice.say("hello")
            await alice.next()
            await gemini.wait_for(lambda: gemini.open_connections == 2)
            async with asyncio.timeout(3):
                await relay.aclose()
            assert gemini.open_connections == 0
            assert await ending(alice) == (1001, "the server is stopping")
            assert await ending(bob) == (1001, "the server is stopping")
        await only(before)


async def test_closed_while_nobody_is_there(gemini: GeminiLive) -> None:
    relay = a_relay(grace=60)
    async with serving(relay, lifespan="off") as port:
        before = tasks()
        async with client(port) as alice:
            await alice.ask("hello")
        assert gemini.open_connections == 1
    await relay.aclose()
    assert gemini.open_connections == 0
    await only(before)


async def test_a_socket_that_comes_after_the_end_leaves_nothing_behind(gemini: GeminiLive) -> None:
    relay = a_relay(grace=60)
    async with serving(relay, lifespan="off") as port:
        before = tasks()
        await relay.aclose()
        with pytest.raises(ConnectionClosed, match=r"1001 .* the server is stopping"):
            async with client(port, audio=True):
                pass
        with pytest.raises(InvalidStatus, match="503"):
            async with client(port, subprotocol=False):
                pass
        await only(before)
        assert gemini.open_connections == 0


async def test_the_server_is_told_to_stop_in_mid_answer(gemini: GeminiLive) -> None:
    gemini.answer = slowly
    async with serving(a_relay(grace=60)) as port:
        started = asyncio.get_running_loop().time()
        alice_is_over = asyncio.create_task(_stays(port))
        await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].said)
    assert asyncio.get_running_loop().time() - started < 3
    assert await alice_is_over == 1012  # uvicorn says so before the application hears of it
    assert gemini.open_connections == 0


async def _stays(port: int) -> int:
    async with client(port) as alice:
        await alice.say("hello")
        return (await ending(alice))[0]


async def test_closed_while_a_tool_runs(gemini: GeminiLive) -> None:
    called, released = threading.Event(), threading.Event()

    def endless() -> str:
        """Ends when the test does: a thread can't be canceled."""
        called.set()
        released.wait(30)
        return ""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.call_tool("endless", {})

    gemini.answer = answer
    relay = a_relay(LlmAgent(name="tester", model="gemini-3.8-live", tools=[endless]))
    async with serving(relay, lifespan="off") as port:
        before = tasks()
        async with client(port) as alice:
            await alice.say("go")
            assert await asyncio.to_thread(called.wait, 5)
            async with asyncio.timeout(6):
                await relay.aclose()
            assert (await ending(alice))[0] == 1001
            released.set()
        await only(before)
    assert gemini.open_connections == 0


async def test_closed_while_the_model_is_being_reached(gemini: GeminiLive) -> None:
    gemini.on_connect = lambda _: Plan(hang="setup")
    relay = a_relay()
    async with serving(relay, lifespan="off") as port:
        before = tasks()
        async with client(port) as alice:
            await alice.say("hello")
            await gemini.wait_for(lambda: gemini.open_connections == 1)
            async with asyncio.timeout(6):
                await relay.aclose()
            assert (await ending(alice))[0] == 1001
        await gemini.wait_for(lambda: gemini.open_connections == 0)
        await only(before)


class Unread(InMemorySessionService):
    """A store in which nobody comes to the end of reading a session while it hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = False
        self.readers = 0

    async def get_session(self, **which: Any) -> Session | None:
        if self.hangs and which["config"].num_recent_events > 1:  # not only whether it is there
            self.readers += 1
            await asyncio.Event().wait()
        return await super().get_session(**which)

    async def read_by(self, readers: int) -> None:
        """Until so many read."""
        async with asyncio.timeout(5):
            while self.readers < readers:
                await asyncio.sleep(0.01)


async def test_closed_while_a_session_is_being_read() -> None:
    store = Unread()
    relay = a_relay(sessions=store)
    async with serving(relay, lifespan="off") as port, http(port) as web:
        before = tasks()
        store.hangs = True
        url = f"ws://127.0.0.1:{port}/ws/alice"
        async with connect(url, subprotocols=[Subprotocol("relay.v1")], proxy=None) as live:
            body = {"session_id": "mine", "message": "hello"}
            posting = asyncio.create_task(web.post("/api/v1/chat", json=body))
            await store.read_by(2)
            async with asyncio.timeout(3):
                await relay.aclose()
            with pytest.raises(ConnectionClosed) as closed:
                await live.recv()
            assert closed.value.rcvd
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "the server is stopping")
            assert (await posting).status_code == 503
        await only(before)


async def test_closed_while_it_tries_again(gemini: GeminiLive) -> None:
    gemini.on_connect = lambda number: Plan(http_status=503) if number > 1 else None
    relay = a_relay()
    async with serving(relay, lifespan="off") as port:
        before = tasks()
        async with client(port) as alice:
            await alice.ask("hello")
            gemini.connections[0].abort()
            await alice.until(lambda said: said.get("state") == "reconnecting")
            async with asyncio.timeout(3):
                await relay.aclose()
            assert (await ending(alice))[0] == 1001
        await only(before)


async def test_a_host_whose_application_is_canceled(gemini: GeminiLive) -> None:
    """A server may cancel what does not end by itself; the seat is freed all the same."""
    relay = a_relay()
    events: asyncio.Queue[Any] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    scope = {
        "type": "websocket",
        "path": "/ws/alice",
        "query_string": b"is_audio=true",
        "subprotocols": [],
        "headers": [],
    }
    before = tasks()
    await events.put({"type": "websocket.connect"})
    socket = asyncio.create_task(relay(scope, events.get, sent.put))
    while (await sent.get())["type"] != "websocket.send":
        pass
    await gemini.connection()
    socket.cancel()
    with pytest.raises(asyncio.CancelledError):
        await socket
    await gemini.wait_for(lambda: gemini.open_connections == 0)
    await only(before)
    await relay.aclose()


async def test_a_client_forges_no_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="relay")
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.socket.send("nonsense\nERROR: forged")
        await alice.next()
        await alice.socket.close(4999, "x\nERROR: forged\x1b[31m")
    told = [record.getMessage() for record in caplog.records if record.name == "relay"]
    assert any("forged" in line for line in told)
    assert all(line.isprintable() for line in told)


async def test_a_flood_of_frames_leaves_others_a_turn() -> None:
    relay = a_relay(LlmAgent(name="tester", model=Rehearsal()))
    frames = 3200
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    events: list[dict[str, Any]] = [{"type": "websocket.connect"}]
    events += [{"type": "websocket.receive", "bytes": b"\0\0"}] * frames
    events += [{"type": "websocket.disconnect", "code": 1000}]
    reading = iter(events)

    async def receive() -> dict[str, Any]:
        return next(reading)  # as a server's queue does while it is not empty: without waiting

    async def send(event: Any) -> None:
        pass

    waiting = asyncio.create_task(others())
    await relay({"type": "websocket", "path": "/ws/alice", "headers": []}, receive, send)
    waiting.cancel()
    await relay.aclose()
    assert turns >= frames / 32


async def test_many_users_at_once_can_all_be_kept(tmp_path: Path) -> None:
    agent = LlmAgent(name="tester", model=Rehearsal(words_per_second=1000))
    relay = a_relay(agent, sessions=f"sqlite:///{tmp_path}/sessions.db")

    async def speak(port: int, number: int) -> None:
        async with client(port, f"user{number}", open_timeout=60) as user:
            await user.say("hello")
            frames = await user.turn(60)
            assert frames[-1].get("turn_complete"), frames

    async with serving(relay) as port:
        await asyncio.gather(*(speak(port, number) for number in range(150)))
