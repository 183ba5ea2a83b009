"""Pings, idle conversations, and when a run begins and ends. The timeouts are short to save time."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator

import pytest
from google.adk.agents import LlmAgent
from websockets.exceptions import ConnectionClosed

from support.chat import chat
from support.client import Client, Json, client, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving


@pytest.fixture(autouse=True)
def _no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    errors = [r for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    assert [(r.name, r.getMessage(), r.exc_text) for r in errors] == []


async def raw(who: Client) -> Json:
    """The next frame, pings included; nothing is answered."""
    said: Json = json.loads(await asyncio.wait_for(who.socket.recv(), 60))
    return said


async def close_of(who: Client, *, answer_pings: bool) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await (who.next() if answer_pings else raw(who))
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


# ---- pings -----------------------------------------------------------------------------------


async def test_a_quiet_client_is_pinged(gemini: GeminiLive) -> None:
    async with serving(a_relay(ping_interval=0.3)) as port, client(port) as alice:
        began = time.monotonic()
        assert await raw(alice) == {"type": "ping"}
        assert 0.25 < time.monotonic() - began < 10
        assert await raw(alice) == {"type": "ping"}
        assert 0.5 < time.monotonic() - began < 10


async def test_a_client_that_talks_is_not_pinged(gemini: GeminiLive) -> None:
    async with serving(a_relay(ping_interval=0.4)) as port, client(port) as alice:
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            await asyncio.sleep(0.02)
            await alice.send(type="ping")
            assert await raw(alice) == {"type": "pong"}
        quiet = time.monotonic()
        assert await raw(alice) == {"type": "ping"}
        assert time.monotonic() - quiet > 0.3


@pytest.mark.parametrize(("interval", "timeout"), [(0.4, 0.1), (0.1, 0.4)])
async def test_a_client_that_answered_once_and_no_more_is_given_up(
    gemini: GeminiLive, interval: float, timeout: float
) -> None:
    relay = a_relay(ping_interval=interval, pong_timeout=timeout)
    async with serving(relay) as port, client(port, audio=True) as alice:
        await gemini.connection()
        assert await raw(alice) == {"type": "ping"}
        await alice.send(type="pong")
        began = time.monotonic()
        assert await close_of(alice, answer_pings=False) == (4410, "no pong")
        assert interval + timeout - 0.05 < time.monotonic() - began < interval + timeout + 10
        await gemini.wait_for(lambda: gemini.open_connections == 0)


async def test_any_frame_is_a_sign_of_life(gemini: GeminiLive) -> None:
    async with serving(a_relay(ping_interval=0.1, pong_timeout=0.3)) as port, client(port) as alice:
        await alice.send(type="pong")
        for _ in range(8):
            assert await raw(alice) == {"type": "ping"}
            await alice.send(type="interrupt")
        assert await alice.ask("hello") == "You said: hello."


async def test_a_client_that_never_answers_pings_is_left_alone(gemini: GeminiLive) -> None:
    relay = a_relay(ping_interval=0.05, pong_timeout=0.05)
    async with serving(relay) as port, client(port, subprotocol=False) as alice:
        for _ in range(10):
            assert await raw(alice) == {"type": "ping"}
        await alice.say("hello")
        said = await raw(alice)
        while not said.get("turn_complete"):
            said = await raw(alice)


async def test_a_chat_client_that_has_sent_a_pong_is_found_dead(gemini: GeminiLive) -> None:
    """One that has sent none is left alone: it may not know pings."""
    relay = a_relay(ping_interval=0.1, pong_timeout=0.3)
    async with serving(relay) as port, chat(port) as knows, chat(port) as ignores:
        await knows.send(type="pong")  # unasked
        assert await close_of(knows, answer_pings=False) == (4410, "no pong")
        for _ in range(3):
            ping = await raw(ignores)
            assert ping["type"] == "ping" and ping["timestamp"]
        assert await ignores.ask("hello") == "You said: hello."


async def test_a_client_that_answers_stays(gemini: GeminiLive) -> None:
    async with serving(a_relay(ping_interval=0.05, pong_timeout=0.2)) as port, client(port) as alice:
        for _ in range(10):
            assert await raw(alice) == {"type": "ping"}
            await alice.send(type="pong")
        assert await alice.ask("hello") == "You said: hello."


async def test_a_tool_that_blocks_delays_nobodys_pong(gemini: GeminiLive) -> None:
    def slow() -> str:
        """Blocks the thread that it runs in."""
        time.sleep(1.5)
        return "done"

    async def answer(connection: Connection, turn: UserTurn) -> None:
        result = await connection.call_tool("slow", {})
        await connection.say(str(result["result"]))

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[slow])
    async with serving(a_relay(agent)) as port, client(port) as alice, client(port, "bob") as bob:
        await alice.say("go")
        assert (await alice.next())["type"] == "tool_start"
        began, slowest = time.monotonic(), 0.0
        turn = asyncio.create_task(alice.turn())
        while not turn.done():
            asked = time.monotonic()
            await bob.send(type="ping")
            assert await bob.next() == {"type": "pong"}
            slowest = max(slowest, time.monotonic() - asked)
            await asyncio.sleep(0.01)
        assert time.monotonic() - began > 1.0
        assert slowest < 1.0
        assert words(await turn) == "done"


# ---- idleness --------------------------------------------------------------------------------


@pytest.mark.parametrize("audio", [False, True])
async def test_an_idle_conversation_ends_and_pings_are_no_content(gemini: GeminiLive, audio: bool) -> None:
    relay = a_relay(ping_interval=0.05, pong_timeout=5, idle_timeout=0.5, grace=60)
    async with serving(relay) as port:
        async with client(port, audio=audio) as alice:
            await alice.ask("hello")
            began = time.monotonic()
            chatter = asyncio.create_task(_ping_on(alice))
            assert await close_of(alice, answer_pings=True) == (4408, "idle")
            assert 0.4 < time.monotonic() - began < 10
            await chatter
            await gemini.wait_for(lambda: gemini.open_connections == 0)
        async with client(port) as alice:
            assert await alice.ask("hello again") == "You said: hello again."
    known = [said for who, said in gemini.connections[-1].context if who == "user"]
    assert known == ["hello", "hello again"]


async def _ping_on(who: Client) -> None:
    try:
        while True:
            await who.send(type="ping")
            await asyncio.sleep(0.02)
    except ConnectionClosed:
        pass


async def test_a_long_answer_is_not_idle(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("one two three four five six seven eight nine ten", delay=0.12)

    gemini.answer = answer
    async with serving(a_relay(idle_timeout=0.5)) as port, client(port) as alice:
        assert (await alice.ask("count")).endswith("ten")


async def test_nobody_is_idle_where_that_is_turned_off(gemini: GeminiLive) -> None:
    async with serving(a_relay(idle_timeout=0, ping_interval=0.05)) as port, client(port) as alice:
        for _ in range(5):
            assert await raw(alice) == {"type": "ping"}
        assert await alice.ask("hello") == "You said: hello."


async def test_a_superseded_socket_is_not_idle_while_its_successor_talks(gemini: GeminiLive) -> None:
    async with (
        serving(a_relay(idle_timeout=2)) as port,
        client(port, subprotocol=False) as older,
        client(port, subprotocol=False) as newer,
    ):
        assert await older.next() == {"type": "status", "state": "elsewhere"}
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert await newer.ask("on") == "You said: on."
            await asyncio.sleep(0.02)
        await older.send(type="ping")
        assert await older.next() == {"type": "pong"}
        # Then both are silent.
        assert await close_of(newer, answer_pings=True) == (4408, "idle")
        assert await close_of(older, answer_pings=True) == (4408, "idle")


# ---- what a run costs, and when it ends --------------------------------------------------------


async def test_an_open_page_costs_no_connection_and_a_microphone_gets_one_at_once(gemini: GeminiLive) -> None:
    async with serving(a_relay(ping_interval=0.05)) as port:
        async with client(port) as alice:
            for _ in range(4):
                assert await raw(alice) == {"type": "ping"}
            await alice.send(type="interrupt")
            await alice.send(type="ping")
            while await raw(alice) != {"type": "pong"}:
                pass
            assert gemini.connects == 0
        async with client(port, audio=True):
            await gemini.connection()
        await gemini.wait_for(lambda: gemini.open_connections == 0)
    assert gemini.connects == 1


async def test_without_grace_a_run_ends_with_its_last_socket(gemini: GeminiLive) -> None:
    async with serving(a_relay(grace=0)) as port:
        async with client(port) as older, client(port) as newer:
            await newer.ask("hello")
            await newer.socket.close()
            await older.send(type="ping")
            await older.until(lambda said: said == {"type": "pong"})
            assert gemini.open_connections == 1
        began = time.monotonic()
        await gemini.wait_for(lambda: gemini.open_connections == 0)
        assert time.monotonic() - began < 10
    assert gemini.connects == 1


async def test_a_run_outlives_its_last_socket_by_the_grace(gemini: GeminiLive) -> None:
    async with serving(a_relay(grace=0.6)) as port:
        for text in ("one", "two", "three"):
            async with client(port) as alice:
                assert await alice.ask(text) == f"You said: {text}."
            await asyncio.sleep(0.3)
        left = time.monotonic() - 0.3
        assert gemini.open_connections == 1
        await gemini.wait_for(lambda: gemini.open_connections == 0)
        assert 0.5 < time.monotonic() - left < 10
    assert [connection.texts for connection in gemini.connections] == [["one", "two", "three"]]


async def test_an_answer_goes_on_in_the_grace(gemini: GeminiLive) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One", complete=False)
        await go_on.wait()
        await connection.say(" two.")

    gemini.answer = answer
    async with serving(a_relay(grace=60)) as port:
        async with client(port) as alice:
            await alice.say("count")
            await alice.until(lambda said: said.get("data") == "One")
            epoch = alice.hello["epoch"]
        async with client(port) as alice:
            assert alice.hello["epoch"] == epoch
            go_on.set()
            assert words(await alice.turn()) == " two."
    assert gemini.connects == 1


async def test_a_microphone_that_comes_while_the_run_before_still_ends_gets_a_connection(
    gemini: GeminiLive,
) -> None:
    async with serving(a_relay()) as port:
        async with client(port, audio=True) as alice:
            await alice.ask("one")
            gemini.connections[0].deafen()
        async with client(port, audio=True):
            await gemini.connection(1)
