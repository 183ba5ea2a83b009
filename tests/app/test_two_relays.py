"""The proxies of deploy/ over TLS, before two relays that share a database."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.chat import chat
from support.client import Client, client, words
from support.databases import database
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.process import HANGS, SERVE, Process, serving_warm
from support.proxies import PROXIES, Front

# Databases, relays and proxies take seconds to start, so the tests share them.
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Relays:
    """Two relays that share a database and a model.

    Attributes:
        both: their processes. One that a test has ended is started again for the next.
    """

    def __init__(self, stack: AsyncExitStack, folder: Path, settings: dict[str, str]) -> None:
        self.both: list[Process] = []
        self._stack = stack
        self._folder = folder
        self._settings = settings

    async def start(self) -> None:
        self.both = [*await asyncio.gather(*(self._start(0) for _ in range(2)))]

    async def start_again(self) -> list[Process]:
        """Starts what has ended, where it was before; returns what it has started."""
        ended = [number for number, relay in enumerate(self.both) if not relay.is_running]
        for number in ended:
            self.both[number] = await self._start(self.both[number].port)
        return [self.both[number] for number in ended]

    async def _start(self, port: int) -> Process:
        command = [*SERVE[:-1], str(port)]
        return await self._stack.enter_async_context(serving_warm(command, self._folder, **self._settings))


@dataclass
class Pair:
    """A proxy, and the two relays behind it.

    Attributes:
        seen: how many lines each had in its log before the test, by its port.
    """

    proxy: str
    front: Front
    relays: Relays
    seen: dict[int, int]

    def user(self, name: str) -> str:
        """A user that no other proxy's test has."""
        return f"{name}-{self.proxy}"

    def log(self, relay: Process) -> list[str]:
        """What it has logged in this test."""
        return relay.log[self.seen[relay.port] :]

    def opened(self, relay: Process, user: str) -> bool:
        return any(": opened from " in line and f" {user} " in line for line in self.log(relay))

    def of(self, user: str) -> Process:
        """The one relay that has accepted sockets of this user."""
        [relay] = [relay for relay in self.relays.both if self.opened(relay, user)]
        return relay

    def other(self, relay: Process) -> Process:
        [other] = [each for each in self.relays.both if each is not relay]
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

    async def start_again(self, user: str) -> None:
        """Starts a relay that has ended, and returns when new sockets of its user reach it."""
        [started] = await self.relays.start_again()
        self.seen[started.port] = 0
        async with asyncio.timeout(HANGS):
            while not self.opened(started, user):
                async with client(self.front.port, user, ssl=self.front.tls):
                    pass
                await asyncio.sleep(0.1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gemini() -> AsyncIterator[GeminiLive]:
    async with GeminiLive() as service:
        yield service
        assert service.violations == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relays(gemini: GeminiLive, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Relays]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(database("postgresql"))
        shared = {"RELAY_SESSIONS": store.uri, "RELAY_SHARED_STORE": "true"}
        settings = {**gemini.env, **shared, "RELAY_DRAIN": "60"}
        relays = Relays(stack, tmp_path_factory.mktemp("relays"), settings)
        await relays.start()
        yield relays


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=sorted(PROXIES))
async def proxied(
    request: pytest.FixtureRequest, relays: Relays, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Front]]:
    await relays.start_again()
    proxy: str = request.param
    ports = [relay.port for relay in relays.both]
    async with PROXIES[proxy](tmp_path_factory.mktemp(proxy), *ports) as front:
        yield proxy, front


@pytest_asyncio.fixture(loop_scope="module")
async def pair(relays: Relays, proxied: tuple[str, Front]) -> Pair:
    await relays.start_again()
    return Pair(*proxied, relays, {relay.port: len(relay.log) for relay in relays.both})


@pytest.fixture
def gate(gemini: GeminiLive) -> Iterator[asyncio.Event]:
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
    yield gate
    gemini.answer = usual


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
    async with client(front.port, pair.user("alice"), ssl=front.tls) as alice:
        assert await alice.ask("hello") == "You said: hello."
    async with client(front.port, pair.user("bob"), audio=True, ssl=front.tls) as bob:
        await bob.socket.send(speech(300) + silence(400))
        assert words(await bob.turn()) == "I heard you."
        assert bob.audio
    async with client(front.port, name := pair.user("carol"), ssl=front.tls) as carol:
        await counting(carol)
        carol.socket.transport.abort()
    gate.set()
    async with pair.back(name, last(carol)) as carol:
        frames = await carol.turn()
        assert words(frames) == " two."
        assert not any(said.get("type") == "gap" for said in frames)


async def test_all_requests_of_a_user_reach_one_relay(pair: Pair) -> None:
    front = pair.front
    async with AsyncExitStack() as stack:
        names = [pair.user(f"user{number}") for number in range(12)]
        for name in names:
            escaped = f"%{ord(name[0]):x}{name[1:]}"  # the same user
            for way in (name, name, escaped):
                await stack.enter_async_context(client(front.port, way, ssl=front.tls))
        assert {pair.of(name).port for name in names} == {relay.port for relay in pair.relays.both}

        # All else is of `guest`.
        guest = await stack.enter_async_context(client(front.port, "guest", ssl=front.tls))
        assert guest.hello
        http = await stack.enter_async_context(front.browsing())
        body = {"session_id": pair.user("shared"), "message": "hello"}
        assert (await http.post("/api/v1/chat", json=body)).status_code == 200
        talking = await stack.enter_async_context(chat(front.port, body["session_id"], ssl=front.tls))
        assert (await http.post("/api/v1/chat", json=body)).status_code == 200
        assert (await talking.get("message_added"))["message"] == "hello"
        log = pair.log(pair.of("guest"))
        assert len([line for line in log if "POST /api/v1/chat" in line]) == 2


async def test_an_answer_is_streamed(pair: Pair, gate: asyncio.Event) -> None:
    """Its first event is there before the answer is complete: no proxy waits for the end."""
    body = {"session_id": pair.user("streamed"), "message": "count"}
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
    async with client(front.port, name := pair.user("dave"), ssl=front.tls) as dave:
        await counting(dave)
        stopped = pair.of(name)
        stopping = asyncio.create_task(stopped.stop())
        await dave.until(lambda said: said.get("type") == "going_away")
        gate.set()
        assert words(await dave.turn()) == " two."
        assert await closed(dave) == 1012
    async with pair.back(name, last(dave)) as dave:
        assert await whole_messages(dave) == [("user", "count"), ("agent", "One two.")]
        assert await dave.ask("go on") == "You said: go on."
    assert await stopping == 0
    assert pair.opened(pair.other(stopped), name)
    assert [relay.problems() for relay in pair.relays.both] == [[], []]
    await pair.start_again(name)


async def test_a_relay_is_killed_in_mid_answer_and_what_was_acked_is_there(
    pair: Pair, gate: asyncio.Event
) -> None:
    front = pair.front
    async with client(front.port, name := pair.user("erin"), ssl=front.tls) as erin:
        await counting(erin)
        killed = pair.of(name)
        await killed.stop(signal.SIGKILL)
        assert await closed(erin) in (None, 1006)
    async with pair.back(name, last(erin)) as erin:
        assert (await whole_messages(erin))[0] == ("user", "count")
        assert await erin.ask("go on") == "You said: go on."
    assert pair.opened(pair.other(killed), name)
    assert pair.other(killed).problems() == []
