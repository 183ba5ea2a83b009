"""The proxies of deploy/ over TLS, before two relays that share a database."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.chat import chat
from support.client import Client, client, words
from support.databases import database
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.process import HANGS, SERVE, Process, serving_process
from support.proxies import PROXIES, Front


@dataclass
class Pair:
    """A proxy, and the two relays behind it."""

    front: Front
    relays: list[Process]

    def of(self, user: str) -> Process:
        """The one relay that has accepted sockets of this user."""
        [relay] = [relay for relay in self.relays if any(f" {user} " in line for line in _opened(relay))]
        return relay

    def other(self, relay: Process) -> Process:
        [other] = [each for each in self.relays if each is not relay]
        return other

    @asynccontextmanager
    async def back(self, user: str, after: str) -> AsyncIterator[Client]:
        """A user's client that comes back: it tries until it is served, as our own clients do."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(HANGS):
                while True:
                    with suppress(InvalidStatus):
                        coming = client(self.front.port, user, query=f"&after={after}", ssl=self.front.tls)
                        served = await stack.enter_async_context(coming)
                        break
                    await asyncio.sleep(0.1)
            yield served


def _opened(relay: Process) -> list[str]:
    return [line for line in relay.log if ": opened from " in line]


@pytest.fixture(params=sorted(PROXIES))
async def pair(request: pytest.FixtureRequest, gemini: GeminiLive, tmp_path: Path) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(database("postgresql"))
        shared = {"RELAY_SESSIONS": store.uri, "RELAY_SHARED_STORE": "true"}
        settings = {**gemini.env, **shared, "RELAY_DRAIN": "60"}
        relays = []
        for name in ("one", "two"):
            (folder := tmp_path / name).mkdir()
            relays.append(await stack.enter_async_context(serving_process(SERVE, folder, **settings)))
        (folder := tmp_path / "proxy").mkdir()
        before = PROXIES[request.param](folder, *(relay.port for relay in relays))
        yield Pair(await stack.enter_async_context(before), relays)


@pytest.fixture
def gate(gemini: GeminiLive) -> asyncio.Event:
    """Asked to count, the model says "One" and then waits for this before it goes on."""
    gate = asyncio.Event()
    usual = gemini.answer

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text != "count":
            await usual(connection, turn)
            return
        await connection.say("One", complete=False)
        await gate.wait()
        await connection.say(" two.")

    gemini.answer = answer
    return gate


async def counting(who: Client) -> None:
    """Asks for an answer that stays open, and returns when the text is stored and the answer has begun."""
    await who.send(mime_type="text/plain", data="count", id="t1")
    seen: set[str] = set()
    async with asyncio.timeout(HANGS):
        while not {"ack", "text/plain"} <= seen:
            said = await who.next()
            seen |= {str(said.get("type")), str(said.get("mime_type"))}


def last(who: Client) -> str:
    """The last message that a client has got, as it tells it when it comes back."""
    return f"{who.hello['epoch']}.{max((said.get('seq', 0) for said in who.frames), default=0)}"


async def whole_messages(who: Client) -> list[tuple[str, str]]:
    """The messages of a gap, which must be the next that comes."""
    gap = await who.next()
    assert gap["type"] == "gap", gap
    lines = [await who.next() for _ in range(gap["messages"])]
    return [(line["role"], line["text"]) for line in lines]


async def closed(who: Client) -> int | None:
    """The code that a socket is closed with; None: the connection broke."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await who.next()
    return closed.value.rcvd.code if closed.value.rcvd else None


async def test_text_voice_and_replay(pair: Pair, gate: asyncio.Event) -> None:
    front = pair.front
    async with client(front.port, ssl=front.tls) as alice:
        assert await alice.ask("hello") == "You said: hello."
    async with client(front.port, "bob", audio=True, ssl=front.tls) as bob:
        await bob.socket.send(speech(300) + silence(400))
        assert words(await bob.turn()) == "I heard you."
        assert bob.audio
    async with client(front.port, "carol", ssl=front.tls) as carol:
        await counting(carol)
        carol.socket.transport.abort()
    gate.set()
    async with pair.back("carol", last(carol)) as carol:
        frames = await carol.turn()
        assert words(frames) == " two."
        assert not any(said.get("type") == "gap" for said in frames)


async def test_all_requests_of_a_user_reach_one_relay(pair: Pair) -> None:
    front = pair.front
    async with AsyncExitStack() as stack:
        names = [f"user{number}" for number in range(12)]
        for name in names:
            for _ in range(3):
                await stack.enter_async_context(client(front.port, name, ssl=front.tls))
        assert {pair.of(name).port for name in names} == {relay.port for relay in pair.relays}

        # All else is of `guest`.
        guest = await stack.enter_async_context(client(front.port, "guest", ssl=front.tls))
        assert guest.hello
        http = await stack.enter_async_context(front.browsing())
        body = {"session_id": "shared", "message": "hello"}
        assert (await http.post("/api/v1/chat", json=body)).status_code == 200
        talking = await stack.enter_async_context(chat(front.port, "shared", ssl=front.tls))
        assert (await http.post("/api/v1/chat", json=body)).status_code == 200
        assert (await talking.get("message_added"))["message"] == "hello"
        log = pair.of("guest").log
        assert len([line for line in log if "POST /api/v1/chat" in line]) == 2


async def test_an_answer_is_streamed(pair: Pair, gate: asyncio.Event) -> None:
    """Its first event is there before the answer is complete: no proxy waits for the end."""
    body = {"session_id": "s", "message": "count"}
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
    async with (
        pair.front.browsing() as http,
        http.stream("POST", "/api/v1/chat", json=body, headers=headers) as response,
    ):
        text = ""
        async for piece in response.aiter_text():
            text += piece
            if "user_message" in text:
                gate.set()
    assert re.search(r"One.* two\.", text, re.DOTALL)


async def test_a_relay_is_stopped_in_mid_answer_and_not_a_word_is_lost(
    pair: Pair, gate: asyncio.Event
) -> None:
    front = pair.front
    async with client(front.port, ssl=front.tls) as alice:
        await counting(alice)
        stopped = pair.of("alice")
        stopping = asyncio.create_task(stopped.stop())
        await alice.until(lambda said: said.get("type") == "going_away")
        gate.set()
        assert words(await alice.turn()) == " two."
        assert await closed(alice) == 1012
    async with pair.back("alice", last(alice)) as alice:
        assert await whole_messages(alice) == [("user", "count"), ("agent", "One two.")]
        assert await alice.ask("go on") == "You said: go on."
    assert await stopping == 0
    assert any(" alice " in line for line in _opened(pair.other(stopped)))
    assert [relay.problems() for relay in pair.relays] == [[], []]


async def test_a_relay_is_killed_in_mid_answer_and_what_was_acked_is_there(
    pair: Pair, gate: asyncio.Event
) -> None:
    front = pair.front
    async with client(front.port, ssl=front.tls) as alice:
        await counting(alice)
        killed = pair.of("alice")
        await killed.stop(signal.SIGKILL)
        assert await closed(alice) in (None, 1006)
    async with pair.back("alice", last(alice)) as alice:
        assert (await whole_messages(alice))[0] == ("user", "count")
        assert await alice.ask("go on") == "You said: go on."
    assert any(" alice " in line for line in _opened(pair.other(killed)))
    assert pair.other(killed).problems() == []
